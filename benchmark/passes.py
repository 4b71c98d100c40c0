"""What one step of an optimizer costs, counted while it takes real steps on a tiny detector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch

from benchmark.objective import BatchObjective
from detectors import DETECTORS
from detectors.base import Batch
from optimizers import OPTIMIZERS
from optimizers.base import Objective, Optimizer
from optimizers.bases import build_base
from optimizers.vector import Vector

STEPS = 4
"""The count is a mean over so many steps, for rules that do not do the same in every one."""

FORWARD, BACKWARD, BY_FEATURES, HESSIAN = 1.0, 2.0, 1.0, 6.0
"""Work in units of a forward pass: a backward pass computes two products where a forward one has one (by the features and by the
weights); without the weights one of them is left out; a product with the Hessian differentiates forward and backward once more."""

PLAIN = FORWARD + BACKWARD
UNITS = {"gradients": PLAIN, "by_features": FORWARD + BY_FEATURES, "hessian": FORWARD + HESSIAN}
"""Of each kind of pass, forward included."""


@dataclass
class Passes:
    """Work of one step, in passes over the whole of its faces.

    Attributes:
        gradients: forward-backward passes by the weights.
        by_features: forward-backward passes that need no gradient of the weights.
        hessian: products with the Hessian (a forward pass and a double backward each).
        shifted: of `work`, what is done at a shift of the weights, which may be computed in another precision.
    """

    gradients: float = 0.0
    by_features: float = 0.0
    hessian: float = 0.0
    shifted: float = 0.0

    @property
    def count(self) -> float:
        """Forward passes over the step's faces."""
        return self.gradients + self.by_features + self.hessian

    @property
    def work(self) -> float:
        """The step's work as a multiple of a plain step's (one forward and one backward pass)."""
        units = self.gradients * UNITS["gradients"] + self.by_features * UNITS["by_features"]
        return (units + self.hessian * UNITS["hessian"]) / PLAIN


class Counted:
    """An `Objective` that counts what it is asked.

    Args:
        inner: the objective that answers.
        passes: where it is counted.
        faces: of the whole step; a domain's pass counts by its share of them.
    """

    def __init__(self, inner: Any, passes: Passes, faces: int) -> None:
        self._inner, self._passes, self._faces = inner, passes, faces
        self._weights = set(inner.parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def gradient(self, at: Vector | None = None, wrt: Iterable[torch.Tensor] | None = None) -> Vector:
        """Counted as a pass by the weights, or by the features alone where no weight is among `wrt`."""
        leaves = None if wrt is None else list(wrt)
        by_weights = leaves is None or any(leaf in self._weights for leaf in leaves)
        self._count("gradients" if by_weights else "by_features", at)
        found: Vector = self._inner.gradient(at=at, wrt=leaves)
        return found

    def hessian_product(self, vector: Vector, at: Vector | None = None) -> Vector:
        """Counted as a product with the Hessian."""
        self._count("hessian", at)
        found: Vector = self._inner.hessian_product(vector, at=at)
        return found

    def domains(self) -> Sequence[Objective]:
        """The domains' objectives, which count into the same place."""
        return [Counted(part, self._passes, self._faces) for part in self._inner.domains()]

    def _count(self, kind: str, at: Vector | None) -> None:
        share = self._inner.examples / self._faces
        setattr(self._passes, kind, getattr(self._passes, kind) + share)
        if at is not None:
            self._passes.shifted += share * UNITS[kind] / PLAIN


def passes_per_step(name: str, settings: dict[str, Any], base: str, domains: int) -> Passes:
    """What one step of this optimizer costs.

    Args:
        name, settings: of the rule, as in a grid.
        base: name of the base optimizer.
        domains: forgery methods in a step.

    Raises:
        RegistryError: an unknown name or setting.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = DETECTORS.build("resnet10", size=32, width=1)
        rule = OPTIMIZERS.build(name, **settings)
        optimizer = Optimizer(rule, build_base(base, list(detector.parameters()), lr=1e-6), detector)
        count = 4 * domains
        batch = Batch(
            images=torch.rand(count, 3, 32, 32),
            labels=torch.arange(count) % 2,
            domains=torch.arange(domains).repeat_interleave(4),
            videos=torch.arange(count),
        )
        passes = Passes()
        for _ in range(STEPS):
            optimizer.step(Counted(BatchObjective(detector, [batch]), passes, count))
    return Passes(*(total / STEPS for total in astuple(passes)))
