"""Sharpness-aware minimisation, and its scale-invariant form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from optimizers import checks
from optimizers.base import Objective, Rule
from optimizers.registry import RegistryError
from optimizers.vector import TINY, Vector


@dataclass
class SAM(Rule):
    """SAM (Foret et al. 2021, arXiv 2010.01412, eq. 2): the gradient at the top of the nearby slope.

    g_sam = grad L(theta + rho g / ||g||), with g = grad L(theta). Two passes.

    Attributes:
        rho: radius of the neighbourhood, in the l2 norm over all weights together.
    """

    rho: float = 0.05

    def __post_init__(self) -> None:
        checks.number("rho", self.rho)

    def gradient(self, objective: Objective) -> Vector:
        """Equation 2 of the paper."""
        g = objective.gradient()
        return objective.gradient(at=self.rho / (g.norm() + TINY) * g.spent())


@dataclass
class ASAM(Rule):
    """Adaptive SAM (Kwon et al. 2021, arXiv 2102.11600, algorithm 1): a neighbourhood that scales with the weights.

    g_asam = grad L(theta + rho T^2 g / ||T g||) with the diagonal T = |theta| + eta. Two passes.

    Two public definitions differ in T. The authors' code scales the parameters whose name contains "weight" (those of BatchNorm
    among them) and has T = 1 on the others; the popular implementation of davda54 scales every parameter and has no eta.

    Attributes:
        rho: radius of the neighbourhood, in the scaled norm.
        eta: added to |theta|; by default 0.01 under the authors' scaling and 0 under `scaling: all`.
        scaling: "authors" or "all".
    """

    rho: float = 0.5
    eta: float | None = None
    scaling: Literal["authors", "all"] = "authors"
    _scaled: set[Tensor] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checks.number("rho", self.rho)
        checks.choice("scaling", self.scaling, ("authors", "all"))
        if self.eta is None:
            self.eta = 0.01 if self.scaling == "authors" else 0.0
        checks.number("eta", self.eta)

    @property
    def radius(self) -> None:
        """None: rho is measured in the scaled norm, not in l2."""
        return None

    def attach(self, detector: nn.Module) -> None:
        """Note which parameters are scaled: the authors decide by name."""
        self._scaled = {p for name, p in detector.named_parameters() if self.scaling == "all" or "weight" in name}

    def gradient(self, objective: Objective) -> Vector:
        """Algorithm 1 of the paper."""
        g = objective.gradient()
        t = self.scale(objective.weights())
        return objective.gradient(at=self.rho / ((t * g).norm() + TINY) * (g.spent() * t * t))

    def scale(self, w: Vector) -> Vector:
        """T, elementwise: |w| + eta where a parameter is scaled, 1 elsewhere.

        Raises:
            RegistryError: before `attach`.
        """
        if self._scaled is None or self.eta is None:
            raise RegistryError("asam decides by the parameters' names: attach it to the detector first")
        ones = 0.0 * w.without(self._scaled) + 1.0
        return abs(w.only(self._scaled)) + self.eta + ones
