"""Directions in weight space: + - * /, norm and dot, so that no optimizer loops over parameters.

Everything is a handful of `torch._foreach_*` launches however many parameters there are, and nothing waits for the device: a
norm is a 0-dim tensor, and a 0-dim tensor is a scalar that a vector can be multiplied by.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import Tensor

Scalar = float | Tensor

TINY = 1e-12
"""Added to a norm that something is divided by, so that a zero gradient gives no shift rather than a NaN."""


class Vector:
    """One tensor for each leaf tensor that it is about: a gradient, a shift of the weights, or the weights themselves.

    A vector is a value: no operation changes its operands. A leaf that is missing counts as zero.

    Attributes:
        parts: leaf tensor (the parameter object itself) -> tensor of the same shape.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: Mapping[Tensor, Tensor]) -> None:
        self.parts = dict(parts)

    def __repr__(self) -> str:
        return f"Vector of {len(self.parts)} parts, {sum(t.numel() for t in self.parts.values())} numbers"

    def __add__(self, other: Vector | Scalar) -> Vector:
        """Sum of two vectors; a scalar is added to every number of the parts that are present."""
        if isinstance(other, Vector):
            return self.plus(other, 1.0)
        return self._map(lambda tensors: torch._foreach_add(tensors, other))

    __radd__ = __add__

    def __sub__(self, other: Vector | Scalar) -> Vector:
        return self.plus(other, -1.0) if isinstance(other, Vector) else self + (-other)

    def __rsub__(self, other: Scalar) -> Vector:
        return -self + other

    def __neg__(self) -> Vector:
        return self._map(torch._foreach_neg)

    def __mul__(self, other: Vector | Scalar) -> Vector:
        """Multiple of a vector; with another vector the elementwise product, whose parts are those that both have."""
        if isinstance(other, Vector):
            both = [leaf for leaf in self.parts if leaf in other.parts]
            return self.only(both)._map(lambda tensors: torch._foreach_mul(tensors, [other.parts[leaf] for leaf in both]))
        return self._map(lambda tensors: torch._foreach_mul(tensors, other))

    __rmul__ = __mul__

    def __truediv__(self, other: Scalar) -> Vector:
        if isinstance(other, Tensor):
            return self * other.reciprocal()
        return self._map(lambda tensors: torch._foreach_div(tensors, other))

    def __abs__(self) -> Vector:
        return self._map(torch._foreach_abs)

    def plus(self, other: Vector, times: float) -> Vector:
        """self + `times` * other, in one go."""
        both = [leaf for leaf in self.parts if leaf in other.parts]
        theirs = [other.parts[leaf] for leaf in both]
        alone = other.without(both)
        return Vector(
            {
                **self.parts,
                **self.only(both)._map(lambda tensors: torch._foreach_add(tensors, theirs, alpha=times)).parts,
                **(alone if times == 1 else times * alone).parts,
            }
        )

    def norm(self) -> Tensor:
        """The l2 norm over all parts together: a 0-dim tensor on the device, float32 at least."""
        if not self.parts:
            return torch.zeros(())
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(_at_least_float32(self.parts.values()))))

    def dot(self, other: Vector) -> Tensor:
        """The inner product over all parts together: a 0-dim tensor on the device, float32 at least."""
        both = [leaf for leaf in self.parts if leaf in other.parts]
        if not both:
            return torch.zeros(())
        mine, theirs = (_at_least_float32(v.parts[leaf] for leaf in both) for v in (self, other))
        return torch.dot(torch.cat([t.reshape(-1) for t in mine]), torch.cat([t.reshape(-1) for t in theirs]))

    def only(self, leaves: Collection[Tensor]) -> Vector:
        """The part of the vector that is about `leaves`."""
        wanted = set(leaves)
        return Vector({leaf: part for leaf, part in self.parts.items() if leaf in wanted})

    def without(self, leaves: Collection[Tensor]) -> Vector:
        """The part of the vector that is not about `leaves`."""
        dropped = set(leaves)
        return Vector({leaf: part for leaf, part in self.parts.items() if leaf not in dropped})

    def _map(self, function: Callable[[list[Tensor]], Iterable[Tensor]]) -> Vector:
        # A foreach function refuses an empty list; an empty vector is zero and stays so.
        if not self.parts:
            return Vector({})
        return Vector(dict(zip(self.parts, function(list(self.parts.values())), strict=True)))


def copies(tensors: Collection[Tensor]) -> list[Tensor]:
    """The same bits in memory of their own, detached."""
    fresh = [torch.empty_like(t, requires_grad=False) for t in tensors]
    if fresh:
        with torch.no_grad():
            torch._foreach_copy_(fresh, list(tensors))
    return fresh


def _at_least_float32(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors]
