"""Perturbing channel statistics of shallow features, alone or together with the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor, nn

from optimizers import checks
from optimizers.base import Objective, Rule
from optimizers.features import FeatureShift, check_named
from optimizers.kept import Kept
from optimizers.registry import RegistryError
from optimizers.vector import TINY, Vector, measure, weighted


@dataclass
class _Pushing(Rule):
    """What PIM and DualFlat share: the submodules of `detector.shallow`, and the first pass."""

    _features: FeatureShift | None = field(default=None, init=False, repr=False, compare=False)
    _weights: list[nn.Parameter] = field(default_factory=list, init=False, repr=False, compare=False)
    _slope: Vector = field(default_factory=lambda: Vector({}), init=False, repr=False, compare=False)

    def check(self, detector: nn.Module) -> None:
        """It must name shallow modules."""
        check_named(type(detector).__name__, getattr(detector, "shallow", ()))

    def attach(self, detector: nn.Module) -> None:
        """Find the submodules that `detector.shallow` names.

        Raises:
            RegistryError: it names none, or one that has no channel statistics.
        """
        self._features = FeatureShift(detector, getattr(detector, "shallow", ()))
        self._weights = [p for p in detector.parameters() if p.requires_grad]

    @property
    def features(self) -> FeatureShift:
        """Where the features are pushed.

        Raises:
            RegistryError: before `attach`.
        """
        if self._features is None:
            raise RegistryError("pim and dualflat push a detector's features: attach them to the detector first")
        return self._features

    def _first_pass(self, objective: Objective, weights: bool) -> tuple[Vector, Vector, Kept | None]:
        """g, the gradient with respect to every module's (mu, sigma), and what a second pass need not compute again.

        g is left out (zero) where no equation needs it. Where one does, nothing is kept: its backward pass frees the graph.
        """
        leaf = [self.features.leaf]
        kept = None if weights or not getattr(objective, "repeats", False) else self.features.kept()
        with self.features.pushed(kept=kept):
            both = objective.gradient(wrt=[*self._weights, *leaf] if weights else leaf)
        self._slope = both.only(leaf)
        return both.without(leaf), self._slope, kept

    def _of_delta(self, r: float) -> dict[str, Tensor]:
        """Computed when somebody asks, from the slope by the last step's features, so that a step pays nothing for it.

        Delta has the norm r unless the slope vanishes; how steep the loss is in the features and which module takes how much of
        Delta's squared norm is what moves.
        """
        if not self._slope.parts:
            return {}
        length = self._slope.norm()
        shares = {f"delta_share/{name}": share for name, share in self.features.shares(self._slope).items()}
        return {"slope_norm": length, "delta_norm": r * (length / (length + TINY)), **shares}


@dataclass
class PIM(_Pushing):
    """The perturbation injection module (Guan et al. 2024, IEEE TIFS, eq. 6-12, algorithm 1).

    (1 - alpha) g + alpha grad L(f'; theta), where f' = norm(f) (sigma + d_sigma) + mu + d_mu in each of the detector's shallow
    modules, and Delta = (d_mu, d_sigma) is r times the gradient of the mean loss with respect to all modules' (mu, sigma) divided
    by its one joint norm. Two passes; with alpha = 1 the first needs no gradient of the weights.

    Attributes:
        r: length of Delta, in the l2 norm over all modules together.
        alpha: share of the perturbed loss, from 0 to 1.
    """

    r: float = 0.1
    alpha: float = 1.0

    def __post_init__(self) -> None:
        checks.number("r", self.r)
        checks.number("alpha", self.alpha, 0.0, 1.0)

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """Norm of the loss's slope by the channel statistics, norm of Delta, and each module's share of its square."""
        return self._of_delta(self.r)

    def gradient(self, objective: Objective) -> Vector:
        """Algorithm 1 of the paper."""
        g, d, kept = self._first_pass(objective, weights=self.alpha != 1)
        with self.features.pushed(d, length=self.r, kept=kept):
            pushed = objective.gradient()
        return weighted((1 - self.alpha, g.spent()), (self.alpha, pushed.spent()))


@dataclass
class DualFlat(_Pushing):
    """DualFlat (Guan et al. 2024, IEEE TIFS, eq. 13-14): PIM and SAM in one objective, sharing the first pass.

    (1 - alpha - beta) g + alpha grad L(f'; theta) + beta grad L(theta + rho g / ||g||). Three passes.

    Attributes:
        r: length of the features' shift (see `PIM`).
        rho: radius in the weights, the paper's r'.
        alpha: share of the loss under pushed features.
        beta: share of the loss under moved weights; alpha + beta is at most 1.
    """

    r: float = 0.1
    rho: float = 0.05
    alpha: float = 0.5
    beta: float = 0.5

    def __post_init__(self) -> None:
        checks.number("r", self.r)
        checks.number("rho", self.rho)
        checks.number("alpha", self.alpha, 0.0, 1.0)
        checks.number("beta", self.beta, 0.0, 1.0)
        # The slack lets 0.7 + 0.3 and its like, which round to above 1, count as 1.
        checks.number("alpha + beta", self.alpha + self.beta, 0.0, 1.0 + 1e-9)

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """Norm of the loss's slope by the channel statistics, norm of Delta, and each module's share of its square."""
        return self._of_delta(self.r)

    def gradient(self, objective: Objective) -> Vector:
        """Equation 14 of the paper."""
        g, d, _ = self._first_pass(objective, weights=True)
        measure(g, d)
        with self.features.pushed(d, length=self.r):
            pushed = objective.gradient()
        e = (g if self._rest else g.spent()).of_length(self.rho)
        moved = objective.gradient(at=e.spent())
        return weighted((self._rest, g), (self.alpha, pushed.spent()), (self.beta, moved.spent()))

    @property
    def _rest(self) -> float:
        """1 - alpha - beta, the share of the plain loss; 0 where rounding alone keeps it from that."""
        return 0.0 if math.isclose(self.alpha + self.beta, 1) else 1 - self.alpha - self.beta
