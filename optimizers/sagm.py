"""Sharpness-aware gradient matching."""

from __future__ import annotations

from dataclasses import dataclass

from optimizers import checks
from optimizers.base import Objective, Rule
from optimizers.vector import TINY, Vector


@dataclass
class SAGM(Rule):
    """SAGM (Wang et al. 2023, arXiv 2307.11108): the plain and the perturbed loss, pulled towards one direction.

    The objective is L(theta) + L(theta + (rho / ||g|| - alpha) g), with g held constant. Two passes.

    Attributes:
        rho: radius of the neighbourhood, in the l2 norm over all weights together.
        alpha: weight of the gradients' agreement.
        average: half the sum of the two gradients, as the authors' code takes it; False gives the sum of the paper's objective.
    """

    rho: float = 0.05
    alpha: float = 0.001
    average: bool = True

    def __post_init__(self) -> None:
        checks.number("rho", self.rho)
        checks.number("alpha", self.alpha)
        checks.flag("average", self.average)

    def gradient(self, objective: Objective) -> Vector:
        """The gradient of the objective above."""
        g = objective.gradient()
        e = (self.rho / (g.norm() + TINY) - self.alpha) * g
        matched = objective.gradient(at=e.spent())
        both = g.spent() + matched
        return both / 2 if self.average else both
