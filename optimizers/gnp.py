"""Penalising the gradient's norm."""

from __future__ import annotations

from dataclasses import dataclass

from optimizers import checks
from optimizers.base import Objective, Rule
from optimizers.vector import TINY, Vector


@dataclass
class GNP(Rule):
    """Gradient norm penalty (Zhao et al. 2022, arXiv 2202.03599, algorithm 1).

    The gradient of L + lambda ||grad L|| by one finite difference: (1 - alpha) g + alpha grad L(theta + r g / ||g||), where
    alpha = lambda / r is the paper's balance coefficient. alpha = 1 is SAM. Two passes.

    Attributes:
        r: step of the finite difference, in the l2 norm over all weights together.
        alpha: balance coefficient, from 0 (the plain loss) to 1 (SAM).
    """

    r: float = 0.05
    alpha: float = 0.8

    def __post_init__(self) -> None:
        checks.number("r", self.r)
        checks.number("alpha", self.alpha, 0.0, 1.0)

    @property
    def radius(self) -> float:
        """The paper calls it r."""
        return self.r

    def gradient(self, objective: Objective) -> Vector:
        """Algorithm 1 of the paper."""
        g = objective.gradient()
        e = self.r / (g.norm() + TINY) * g
        pushed = objective.gradient(at=e.spent())
        return (1 - self.alpha) * g.spent() + self.alpha * pushed.spent()
