"""How flat the loss is around trained weights: worst and average case over a ball, and the Hessian's largest eigenvalue.

Everything is asked of an objective over fixed examples. For a trained detector that is one in evaluation mode: BatchNorm normalises
by its running statistics and dropout is off, so the loss is a function of the weights alone, and the one that is deployed. (In
training mode the batch's own statistics hide a part of every shift.) Weight decay is no part of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from optimizers.vector import TINY, Vector

Tick = Callable[[], None]
"""Called after every pass."""


class Surface(Protocol):
    """The loss as a function of the weights (`benchmark.objective.BatchObjective` is one)."""

    def weights(self) -> Vector:
        """A copy of the weights."""

    def value(self, at: Vector | None = None) -> Tensor:
        """The loss at theta or theta + `at`, 0-dim."""

    def gradient(self, at: Vector | None = None) -> Vector:
        """The gradient at theta or theta + `at`."""

    def hessian_product(self, vector: Vector, at: Vector | None = None) -> Vector:
        """H(theta + `at`) `vector`."""


@dataclass(frozen=True)
class Sharpness:
    """Rises of the loss over its value at theta, in the loss's unit (nats for cross entropy), at one radius.

    Keskar et al. 2017 divide the worst case by 1 + L(theta); here it is left as it is.

    Attributes:
        radius: of the ball, in the l2 norm over all weights together (`adaptive`: in the scaled norm).
        one_step: L(theta + r g / ||g||) - L(theta), the maximum to first order (Foret et al. 2021, arXiv 2010.01412, eq. 2).
        worst: the highest rise that `steps` steps of projected gradient ascent met in the ball, of which the first is the one
            above (Keskar et al. 2017, arXiv 1609.04836, with a box; Andriushchenko & Flammarion 2022, arXiv 2206.06232; a lower
            bound of the true maximum, never below `one_step`).
        average, deviation: mean rise, and its sample standard deviation, over random directions of length r (the average case of
            Andriushchenko et al. 2023, arXiv 2302.07011, with the length fixed). The deviation is None for one direction.
        adaptive: the one-step rise where the ball is ||e / |w| || <= r: e = r w^2 g / || |w| g || elementwise (Kwon et al. 2021,
            arXiv 2102.11600). It stays the same where one layer is scaled up and the next one down.
    """

    radius: float
    one_step: float
    worst: float
    average: float
    deviation: float | None
    adaptive: float


@dataclass(frozen=True)
class Eigenvalue:
    """The Hessian's largest (most positive) eigenvalue.

    Attributes:
        value: the eigenvalue; None where the iteration did not reach its tolerance.
        residual: ||H v - value v|| for the unit eigenvector v: there is an eigenvalue within this distance of `value`.
        products: Hessian-vector products that it took.
    """

    value: float | None
    residual: float | None
    products: int


def sharpness(
    surface: Surface, radii: Sequence[float], steps: int = 5, directions: int = 5, seed: int = 0, tick: Tick = lambda: None
) -> list[Sharpness]:
    """Sharpness at each radius.

    Args:
        surface: the loss.
        radii: positive, l2.
        steps: of the projected ascent, 1 at least. Each goes half the radius along the gradient, the first the whole radius.
        directions: random ones, 1 at least; the same ones for every radius.
        seed: of the directions.
        tick: called after every pass; there are 1 + `passes_of(radii, steps, directions)`.
    """
    loss, g, weights = float(surface.value()), surface.gradient(), surface.weights()
    tick()

    def rise(at: Vector) -> float:
        gap = float(surface.value(at)) - loss
        tick()
        return gap

    scale = abs(weights)
    adaptive = 1 / ((scale * g).norm() + TINY) * (scale * scale * g)
    found = []
    for radius in radii:
        shift = radius / (g.norm() + TINY) * g
        rises = [rise(shift)]
        for _ in range(steps - 1):
            shift = _ascended(surface, shift, radius)
            rises.append(rise(shift))
        around = [rise(radius * u) for u in _directions(weights, directions, seed)]
        deviation = float(np.std(around, ddof=1)) if directions > 1 else None
        found.append(Sharpness(radius, rises[0], max(rises), float(np.mean(around)), deviation, rise(radius * adaptive)))
    return found


def passes_of(radii: Sequence[float], steps: int, directions: int) -> int:
    """How often `sharpness` ticks."""
    return 1 + len(radii) * (steps + directions + 1)


def top_eigenvalue(
    surface: Surface, tolerance: float = 1e-3, iterations: int = 100, seed: int = 0, tick: Tick = lambda: None
) -> Eigenvalue:
    """The largest eigenvalue of the loss's Hessian, by ARPACK's restarted Lanczos over Hessian-vector products (double backward).

    Largest means most positive: the curvature that sharpness speaks of. Negative eigenvalues of larger magnitude do not count.

    Args:
        surface: the loss.
        tolerance: relative accuracy of the eigenvalue.
        iterations: restarts at most.
        seed: of the starting vector.
        tick: called after every Hessian-vector product; their number is not known beforehand.
    """
    weights = surface.weights()
    leaves = list(weights.parts)
    dtype = np.float64 if leaves[0].dtype is torch.float64 else np.float32
    size = sum(leaf.numel() for leaf in leaves)
    products = 0

    def multiply(flat: NDArray[np.floating]) -> NDArray[np.floating]:
        nonlocal products
        products += 1
        product = surface.hessian_product(_unflatten(flat.reshape(-1), leaves))
        tick()
        return _flatten(product, leaves)

    start = np.random.Generator(np.random.Philox(seed)).standard_normal(size).astype(dtype)
    operator = LinearOperator((size, size), matvec=multiply, dtype=dtype)
    try:
        # The host holds ncv vectors as long as the weights.
        values, vectors = eigsh(operator, k=1, which="LA", v0=start, ncv=min(size, 12), tol=tolerance, maxiter=iterations)
    except ArpackNoConvergence:
        return Eigenvalue(None, None, products)
    value, vector = float(values[0]), vectors[:, 0]
    residual = float(np.linalg.norm(multiply(vector) - value * vector))
    return Eigenvalue(value, residual, products)


def _ascended(surface: Surface, shift: Vector, radius: float) -> Vector:
    """One step of projected ascent: half the radius along the gradient there, and back onto the ball if that left it."""
    slope = surface.gradient(at=shift)
    moved = shift + (radius / 2) / (slope.norm() + TINY) * slope
    return (radius / (moved.norm() + TINY)).clamp(max=1.0) * moved


def _directions(weights: Vector, count: int, seed: int) -> list[Vector]:
    """Random directions of length 1, drawn on the CPU so that every device gets the same ones."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        parts = {
            leaf: torch.randn(leaf.shape, generator=generator, dtype=torch.float32).to(part) for leaf, part in weights.parts.items()
        }
        direction = Vector(parts)
        found.append(direction / direction.norm())
    return found


def _flatten(vector: Vector, leaves: Sequence[Tensor]) -> NDArray[np.floating]:
    """One array; a leaf without a part counts as zero."""
    pieces = [vector.parts[leaf] if leaf in vector.parts else torch.zeros_like(leaf) for leaf in leaves]
    return np.asarray(torch.cat([p.detach().reshape(-1) for p in pieces]).cpu().numpy())


def _unflatten(flat: NDArray[np.floating], leaves: Sequence[Tensor]) -> Vector:
    whole = torch.from_numpy(flat.copy()).to(device=leaves[0].device, dtype=leaves[0].dtype)
    pieces = whole.split([leaf.numel() for leaf in leaves])
    return Vector({leaf: piece.view(leaf.shape) for leaf, piece in zip(leaves, pieces, strict=True)})
