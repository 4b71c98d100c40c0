"""Directions in weight space: + - * /, norm and dot, so that no optimizer loops over parameters.

Everything is a handful of `torch._foreach_*` launches however many parameters there are, and nothing waits for the device: a
norm is a 0-dim tensor, and a 0-dim tensor is a scalar that a vector can be multiplied by.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

Scalar = float | Tensor

TINY = 1e-12
"""Added to a norm that something is divided by, so that a zero gradient gives no shift rather than a NaN."""


class Vector:
    """One tensor for each leaf tensor that it is about: a gradient, a shift of the weights, or the weights themselves.

    A vector is a value: no operation changes its operands. A leaf that is missing counts as zero. Where a rule needs a vector
    for the last time it may say so, `2 * g.spent()`, and the result takes g's memory instead of memory of its own, if that was
    made for g: tensors that somebody else put together, the weights themselves perhaps, are never written to.

    Args:
        parts: leaf tensor -> tensor of the same shape.
        fresh: nobody else holds these tensors.
    """

    __slots__ = ("_fresh", "_norm", "_parts", "owned")

    def __init__(self, parts: Mapping[Tensor, Tensor], fresh: bool = False) -> None:
        self._parts: dict[Tensor, Tensor] | None = dict(parts)
        self._fresh = fresh
        self._norm: Tensor | None = None
        self.owned = False

    def __repr__(self) -> str:
        if self._parts is None:
            return "Vector, spent"
        return f"Vector of {len(self.parts)} parts, {sum(t.numel() for t in self.parts.values())} numbers"

    @property
    def parts(self) -> dict[Tensor, Tensor]:
        """Leaf tensor (the parameter object itself) -> tensor of the same shape.

        Raises:
            RuntimeError: the vector was spent.
        """
        if self._parts is None:
            raise RuntimeError("this vector was spent, and its memory holds something else; call spent() where it is used last")
        return self._parts

    def spent(self) -> Vector:
        """The same vector, for its last use: what is computed from the result takes its memory, if nobody else holds it.

        A multiple of a spent vector counts as spent, too; a sum does not. Using this vector, or a spent one, again is an error.
        """
        result = Vector(self.parts)
        # Autograd hands one tensor to two leaves where a sum passes its gradient on, and expanded or sliced tensors elsewhere.
        if not self.owned and self._fresh:
            storages = [t.untyped_storage() for t in self.parts.values()]
            whole = all(s.nbytes() == t.numel() * t.element_size() for s, t in zip(storages, self.parts.values(), strict=True))
            result.owned = whole and len({s.data_ptr() for s in storages}) == len(storages)
        else:
            result.owned = self.owned
        result._norm = self._norm
        self._parts = None
        return result

    def __add__(self, other: Vector | Scalar) -> Vector:
        """Sum of two vectors; a scalar is added to every number of the parts that are present."""
        if isinstance(other, Vector):
            return self.plus(other, 1.0)
        return self._map("add", other)

    __radd__ = __add__

    def __sub__(self, other: Vector | Scalar) -> Vector:
        return self.plus(other, -1.0) if isinstance(other, Vector) else self + (-other)

    def __rsub__(self, other: Scalar) -> Vector:
        return -self + other

    def __neg__(self) -> Vector:
        return self._map("neg")

    def __mul__(self, other: Vector | Scalar) -> Vector:
        """Multiple of a vector; with another vector the elementwise product, whose parts are those that both have."""
        if isinstance(other, Vector):
            both = [leaf for leaf in self.parts if leaf in other.parts]
            mine = self if len(both) == len(self.parts) else self.only(both)
            return mine._map("mul", [other.parts[leaf] for leaf in both])
        return self._map("mul", other)

    __rmul__ = __mul__

    def __truediv__(self, other: Scalar) -> Vector:
        if isinstance(other, Tensor):
            return self * other.reciprocal()
        return self._map("div", other)

    def __abs__(self) -> Vector:
        return self._map("abs")

    def plus(self, other: Vector, times: float) -> Vector:
        """self + `times` * other, in one go."""
        both = [leaf for leaf in self.parts if leaf in other.parts]
        theirs = [other.parts[leaf] for leaf in both]
        if len(both) == len(self.parts) == len(other.parts):
            result = Vector(self._map("add", theirs, alpha=times).parts, fresh=True)
            if other.owned:
                other._parts = None  # nobody may use it again: free its memory
            return result
        mine, alone = self.without(both), other.without(both)
        common = self.only(both)._map("add", theirs, alpha=times)
        return Vector({**mine.parts, **common.parts, **(alone if times == 1 else times * alone).parts})

    def norm(self) -> Tensor:
        """The l2 norm over all parts together: a 0-dim tensor on the device, float32 at least."""
        if self._norm is not None:
            return self._norm
        if not self.parts:
            return torch.zeros(())
        tensors = _at_least_float32(self.parts.values())
        if len(tensors) == 1:
            return torch.linalg.vector_norm(tensors[0])
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))

    def of_length(self, length: float) -> Vector:
        """`length / (v.norm() + TINY) * v`, rounded less, in two launches beyond the norm's instead of four."""
        if length < TINY:  # whose inverse float32 may not hold
            return length / (self.norm() + TINY) * self
        return self._map("div", torch.rsub(self.norm(), TINY / length, alpha=-1 / length))  # (norm + TINY) / length

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
        self._fresh = False
        return Vector({leaf: part for leaf, part in self.parts.items() if leaf in wanted})

    def without(self, leaves: Collection[Tensor]) -> Vector:
        """The part of the vector that is not about `leaves`."""
        dropped = set(leaves)
        self._fresh = False
        return Vector({leaf: part for leaf, part in self.parts.items() if leaf not in dropped})

    def _map(self, function: str, *operands: Any, **options: Any) -> Vector:
        """torch's foreach function of that name: into fresh memory, or in place where the vector was spent."""
        leaves, tensors = list(self.parts), list(self.parts.values())
        if not leaves:  # a foreach function refuses an empty list; an empty vector is zero and stays so
            return Vector({})
        if not self.owned:
            computed = getattr(torch, f"_foreach_{function}")(tensors, *operands, **options)
            return Vector(dict(zip(leaves, computed, strict=True)), fresh=True)
        getattr(torch, f"_foreach_{function}_")(tensors, *operands, **options)
        self._parts = None
        result = Vector(dict(zip(leaves, tensors, strict=True)))
        result.owned = True
        return result


def measure(*vectors: Vector) -> None:
    """Take the norms of several vectors in one go, so that each one's `norm` costs nothing any more."""
    tensors = [tensor for vector in vectors for tensor in vector.parts.values()]
    if not tensors:
        return
    norms = torch.stack(torch._foreach_norm(_at_least_float32(tensors)))
    for vector, its in zip(vectors, norms.split([len(vector.parts) for vector in vectors]), strict=True):
        vector._norm = its[0] if len(its) == 1 else torch.linalg.vector_norm(its)


def weighted(*terms: tuple[float, Vector]) -> Vector:
    """The sum of multiples of vectors. One that weighs nothing is not looked at, and may have been spent."""
    terms = tuple((weight, vector) for weight, vector in terms if weight != 0)
    total = Vector({})
    if len(terms) == 2 and math.isclose(terms[0][0] + terms[1][0], 1) and terms[0][1].parts.keys() == terms[1][1].parts.keys():
        (_, one), (share, other) = terms
        total = one._map("lerp", [other.parts[leaf] for leaf in one.parts], share)
    else:
        for weight, vector in terms:
            if total.parts:
                total = total.spent().plus(vector, weight)
            elif weight != 1:
                total = weight * vector
            else:
                total = vector if vector.owned else Vector(vector.parts)
    return Vector(total.parts, fresh=total.owned or total._fresh)


def copies(tensors: Collection[Tensor]) -> list[Tensor]:
    """The same bits in memory of their own, detached."""
    fresh = [torch.empty_like(t, requires_grad=False) for t in tensors]
    if fresh:
        with torch.no_grad():
            torch._foreach_copy_(fresh, list(tensors))
    return fresh


def aligned(tensor: Tensor, leaf: Tensor) -> Tensor | None:
    """The same memory with the strides of `leaf`, if each number has its place already; None if they lie otherwise.

    A dimension of size 1 has any stride: torch's sums give a 1 x 1 convolution's weights others than its products do.
    """
    if tensor.stride() == leaf.stride():
        return tensor
    same = all(a == b or size == 1 for a, b, size in zip(tensor.stride(), leaf.stride(), leaf.shape, strict=True))
    return tensor.as_strided(leaf.shape, leaf.stride()) if same else None


def _at_least_float32(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors]
