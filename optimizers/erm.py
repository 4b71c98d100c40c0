"""Empirical risk minimisation: the gradient of the mean loss, untouched. What differs is the base optimizer that spends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from optimizers.base import Objective, Rule
from optimizers.vector import Vector


@dataclass
class ERM(Rule):
    """g = grad L(theta)."""

    def gradient(self, objective: Objective) -> Vector:
        """One pass."""
        return objective.gradient()


@dataclass
class SGD(ERM):
    """Stochastic gradient descent; momentum and weight decay are settings of the base optimizer."""

    base: ClassVar[str] = "sgd"


@dataclass
class Adam(ERM):
    """Adam (Kingma & Ba 2015, arXiv 1412.6980); its settings are those of the base optimizer."""

    base: ClassVar[str] = "adam"
