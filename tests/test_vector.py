"""Vector algebra against what numpy says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from optimizers.vector import TINY, Vector, copies, measure, weighted


@pytest.fixture
def leaves() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(s)) for s in ((3,), (2, 2), ())]


def make(leaves: list[nn.Parameter], seed: int, dtype: torch.dtype = torch.float32) -> Vector:
    generator = torch.Generator().manual_seed(seed)
    return Vector({p: torch.randn(p.shape, generator=generator).to(dtype) for p in leaves})


def flat(v: Vector, leaves: list[nn.Parameter]) -> torch.Tensor:
    return torch.cat([v.parts[p].reshape(-1).double() if p in v.parts else torch.zeros(p.numel()).double() for p in leaves])


def same(v: Vector, expected: torch.Tensor, leaves: list[nn.Parameter]) -> bool:
    return torch.allclose(flat(v, leaves), expected, rtol=1e-6, atol=1e-7)


def test_algebra(leaves: list[nn.Parameter]) -> None:
    a, b = make(leaves, 0), make(leaves, 1)
    x, y = flat(a, leaves), flat(b, leaves)
    s = torch.tensor(0.3)
    for ours, expected in [
        (a + b, x + y),
        (a - b, x - y),
        (-a, -x),
        (2 * a, 2 * x),
        (a * 2, 2 * x),
        (s * a, 0.3 * x),
        (a * s, 0.3 * x),
        (a / 3, x / 3),
        (a / s, x / 0.3),
        (a * b, x * y),
        (abs(a), x.abs()),
        (a + 0.5, x + 0.5),
        (0.5 - a, 0.5 - x),
        (a - 0.5, x - 0.5),
        (0.1 / (a.norm() + TINY) * a, 0.1 * x / x.norm()),
        (sum([a, b, a], Vector({})), 2 * x + y),
        (a.plus(b, times=0.3), x + 0.3 * y),
        (a.only(leaves[:1]).plus(b, times=0.3), torch.cat([x[:3], 0 * x[3:]]) + 0.3 * y),
        (a.of_length(0.1), 0.1 * x / x.norm()),
        (weighted((0.3, a), (0.7, b)), 0.3 * x + 0.7 * y),
        (weighted((0.3, a), (0.2, b)), 0.3 * x + 0.2 * y),
        (weighted((0.2, a), (0.3, b), (0.5, a)), 0.7 * x + 0.3 * y),
        (weighted((0.3, a.only(leaves[:1])), (0.7, b)), 0.3 * torch.cat([x[:3], 0 * x[3:]]) + 0.7 * y),
        (weighted((0.3, Vector({})), (0.7, b)), 0.7 * y),
        (weighted((1, a), (0, b)), x),
    ]:
        assert same(ours, expected, leaves)
    assert math.isclose(float(a.norm()), float(x.norm()), rel_tol=1e-6)
    assert math.isclose(float(a.dot(b)), float(x @ y), rel_tol=1e-5)


def test_operands_are_left_alone(leaves: list[nn.Parameter]) -> None:
    a, b = make(leaves, 0), make(leaves, 1)
    before = flat(a, leaves), flat(b, leaves)
    _ = a + b, a - b, a * b, 2 * a, -a, abs(a), a + 1
    assert torch.equal(flat(a, leaves), before[0])
    assert torch.equal(flat(b, leaves), before[1])


def test_missing_parts_are_zero(leaves: list[nn.Parameter]) -> None:
    a, b = make(leaves, 0), make(leaves, 1)
    left, right = a.only(leaves[:2]), b.without(leaves[:1])
    x, y = flat(left, leaves), flat(right, leaves)
    assert list(left.parts) == leaves[:2]
    assert list(right.parts) == leaves[1:]
    assert same(left + right, x + y, leaves)
    assert same(left - right, x - y, leaves)
    assert same(right - left, y - x, leaves)
    assert same(left * right, x * y, leaves)
    assert math.isclose(float(left.dot(right)), float(x @ y), rel_tol=1e-5)


def test_empty_vector(leaves: list[nn.Parameter]) -> None:
    nothing, a = Vector({}), make(leaves, 0)
    assert float(nothing.norm()) == 0.0
    assert float(nothing.dot(a)) == 0.0
    assert (0.1 / (nothing.norm() + TINY) * nothing).parts == {}
    assert (-nothing).parts == {}
    assert same(nothing + a, flat(a, leaves), leaves)
    assert same(nothing - a, -flat(a, leaves), leaves)


def test_zero_vector_gives_no_shift(leaves: list[nn.Parameter]) -> None:
    zero = 0.0 * make(leaves, 0)
    assert float((0.05 / (zero.norm() + TINY) * zero).norm()) == 0.0


def test_a_difference_is_exact(leaves: list[nn.Parameter]) -> None:
    """a - b is computed as a - b, not as something that rounds twice."""
    a, b = make(leaves, 0), make(leaves, 1)
    assert all(torch.equal((a - b).parts[p], a.parts[p] - b.parts[p]) for p in leaves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norm_and_dot_of_low_precision_are_accumulated_in_float32(dtype: torch.dtype) -> None:
    p = nn.Parameter(torch.zeros(100_000))
    v = Vector({p: torch.full((100_000,), 0.01, dtype=dtype)})
    exact = float(v.parts[p][0].double()) * math.sqrt(100_000)
    assert v.norm().dtype is torch.float32
    assert math.isclose(float(v.norm()), exact, rel_tol=1e-4)
    assert math.isclose(float(v.dot(v)), exact**2, rel_tol=1e-4)


def test_copies_keep_bits_and_share_no_memory() -> None:
    special = torch.tensor([-0.0, float("nan"), float("inf"), 1e-45])
    (copy,) = copies([nn.Parameter(special)])
    assert torch.equal(copy.view(torch.int32), special.view(torch.int32))
    assert copy.data_ptr() != special.data_ptr()
    assert not copy.requires_grad
    assert copies([]) == []


def test_a_length_of_nothing_and_no_length_are_no_vector(leaves: list[nn.Parameter]) -> None:
    zero = Vector({p: torch.zeros_like(p) for p in leaves})
    for none in (zero.of_length(0.1), make(leaves, 0).of_length(0), zero.of_length(0), make(leaves, 0).of_length(1e-40)):
        assert float(none.norm()) < 1e-39
    assert weighted().parts == {}


def test_norms_that_were_measured_together_are_those_of_each(leaves: list[nn.Parameter]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        vectors = [make(leaves, 0, dtype), make(leaves, 1, dtype).only(leaves[1:2]), Vector({})]
        expected = [v.norm() for v in vectors]
        measure(*vectors)
        for vector, norm in zip(vectors, expected, strict=True):
            assert float(vector.norm()) == pytest.approx(float(norm), rel=1e-6)
            assert vector.norm().dtype is torch.float32
            assert vector.spent().norm() is vector._norm  # it stays known, for the spent one, too
        doubled = 2 * make(leaves, 0, dtype)
        assert float(doubled.norm()) == pytest.approx(2 * float(expected[0]), rel=1e-6)


def test_a_sum_writes_to_no_vector_that_was_not_spent(leaves: list[nn.Parameter]) -> None:
    a, b = (2 * make(leaves, seed) for seed in (0, 1))  # whose memory is their own
    x, y = flat(a, leaves), flat(b, leaves)
    for terms in ([(1.0, a)], [(0.4, a), (0.6, b)], [(1.0, a), (2.0, b)]):
        _ = 3 * weighted(*terms).spent()
        assert same(a, x, leaves)
        assert same(b, y, leaves)
    lent = [t.data_ptr() for t in a.parts.values()]
    total = weighted((0.4, a.spent()), (0.6, b))
    assert [t.data_ptr() for t in total.parts.values()] == lent
    assert same(total, 0.4 * x + 0.6 * y, leaves)
    assert same(total + total, 0.8 * x + 1.2 * y, leaves)  # a value like any other
