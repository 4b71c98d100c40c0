"""Sharpness of losses whose answer is known, and the Hessian's largest eigenvalue against a dense Hessian."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from optimizer_reference import EQUAL, Tiny, faces, loss_at, weights_of
from torch import Tensor

from benchmark.objective import BatchObjective
from benchmark.sharpness import passes_of, sharpness, top_eigenvalue
from optimizers.vector import Vector


class Quadratic:
    """b w + (1/2) w A w of two leaves at theta = `at_weights`."""

    def __init__(self, matrix: Tensor, slope: Tensor, at_weights: Tensor) -> None:
        self.matrix, self.slope = matrix, slope
        self.leaves = [at_weights[:2].clone(), at_weights[2:].clone()]
        self.theta = at_weights

    def _at(self, at: Vector | None) -> Tensor:
        return self.theta if at is None else self.theta + torch.cat([at.parts[leaf] for leaf in self.leaves])

    def _vector(self, flat: Tensor) -> Vector:
        return Vector({self.leaves[0]: flat[:2], self.leaves[1]: flat[2:]})

    def weights(self) -> Vector:
        return self._vector(self.theta)

    def value(self, at: Vector | None = None) -> Tensor:
        w = self._at(at)
        return self.slope @ w + w @ self.matrix @ w / 2

    def gradient(self, at: Vector | None = None) -> Vector:
        return self._vector(self.slope + self.matrix @ self._at(at))

    def hessian_product(self, vector: Vector, at: Vector | None = None) -> Vector:
        return self._vector(self.matrix @ torch.cat([vector.parts[leaf] for leaf in self.leaves]))


def diagonal(values: list[float]) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("radius", [0.05, 0.5, 2.0])
def test_one_step_worst_average_and_adaptive_of_a_quadratic(radius: float) -> None:
    """The gradient is an eigenvector, so one step is the true maximum, and every value has a formula."""
    c = 3.0
    theta = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    surface = Quadratic(c * torch.eye(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64), theta)
    (found,) = sharpness(surface, [radius], steps=4, directions=200)
    truth = c * radius + c * radius**2 / 2
    assert found.radius == radius
    assert found.one_step == pytest.approx(truth, rel=1e-12)
    assert found.worst == pytest.approx(truth, rel=1e-12)
    assert found.adaptive == pytest.approx(truth, rel=1e-12)  # the only weight that moves is 1
    spread = c * radius / math.sqrt(5)  # of the linear term over the sphere; the quadratic one is the same everywhere
    assert found.average == pytest.approx(c * radius**2 / 2, abs=4 * spread / math.sqrt(200))
    assert found.deviation == pytest.approx(spread, rel=0.2)


def test_projected_ascent_finds_the_top_that_one_step_misses() -> None:
    """The gradient points along a flat axis, and nearly misses the steep one."""
    surface = Quadratic(
        diagonal([0.0, 0.0, 0.0, 0.0, 100.0]),
        torch.tensor([1.0, 0, 0, 0, 0.1], dtype=torch.float64),
        torch.zeros(5, dtype=torch.float64),
    )
    one, many = sharpness(surface, [1.0], steps=1, directions=1)[0], sharpness(surface, [1.0], steps=20, directions=1)[0]
    angles = torch.linspace(0, math.pi / 2, 100_001, dtype=torch.float64)
    truth = float((torch.cos(angles) + 0.1 * torch.sin(angles) + 50 * torch.sin(angles) ** 2).max())
    assert one.worst == one.one_step < 0.05 * truth
    assert one.deviation is None
    assert many.worst == pytest.approx(truth, rel=1e-3)


def test_the_adaptive_ball_does_not_see_a_change_of_scale() -> None:
    """w -> s w with the loss unchanged, as where a layer is scaled up and the next one down: only the l2 ball notices."""
    theta = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5], dtype=torch.float64)
    scale = torch.tensor([10.0, 0.1, 1.0, 5.0, 2.0], dtype=torch.float64)
    slope = torch.arange(1.0, 6.0, dtype=torch.float64)
    one = sharpness(Quadratic(diagonal([1, 2, 3, 4, 5]), slope, theta), [0.3])[0]
    other = Quadratic(torch.diag(scale) @ diagonal([1, 2, 3, 4, 5]) @ torch.diag(scale), slope * scale, theta / scale)
    two = sharpness(other, [0.3])[0]
    assert two.adaptive == pytest.approx(one.adaptive, rel=1e-12)
    assert abs(two.one_step / one.one_step - 1) > 0.1


def test_every_pass_is_told() -> None:
    ticks: list[int] = []
    surface = Quadratic(diagonal([1, 2, 3, 4, 5]), torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64))
    sharpness(surface, [0.1, 1.0], steps=3, directions=2, tick=lambda: ticks.append(1))
    assert len(ticks) == passes_of([0.1, 1.0], 3, 2)


def test_at_the_bottom_nothing_is_divided_by_zero() -> None:
    surface = Quadratic(diagonal([1, 2, 3, 4, 5]), torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64))
    (found,) = sharpness(surface, [0.1])
    assert found.one_step == 0
    assert found.average > 0


@pytest.mark.parametrize("values", [[1.0, 2, 3, 4, 5], [-9.0, -1, 0, 2, 4]])
def test_largest_means_most_positive(values: list[float]) -> None:
    surface = Quadratic(diagonal(values), torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64))
    assert top_eigenvalue(surface, 1e-10).value == pytest.approx(max(values), rel=1e-9)


@pytest.mark.parametrize("norm", [False, True])
def test_eigenvalue_is_that_of_the_dense_hessian(norm: bool) -> None:
    """Of the mean loss over micro-batches, in evaluation mode."""
    detector = Tiny(norm=norm).double().eval()
    batch = faces(EQUAL)
    w = weights_of(detector)
    names = list(w)

    def loss(flat: Tensor) -> Tensor:
        pieces = flat.split([w[n].numel() for n in names])
        moved = {n: p.view(w[n].shape) for n, p in zip(names, pieces, strict=True)}
        if not norm:
            return loss_at(moved, batch)
        prediction = torch.func.functional_call(detector, moved, (batch.images,))
        return torch.nn.functional.cross_entropy(prediction.logits, batch.labels)

    dense = torch.autograd.functional.hessian(loss, torch.cat([w[n].reshape(-1) for n in names]))
    truth = float(torch.linalg.eigvalsh(dense)[-1])
    parts = [batch.only(torch.arange(0, 5)), batch.only(torch.arange(5, 12))]
    before = {name: t.clone() for name, t in detector.state_dict().items()}
    found = top_eigenvalue(BatchObjective(detector, parts), tolerance=1e-9)
    assert found.value == pytest.approx(truth, rel=1e-6)
    assert found.residual is not None
    assert found.residual < 1e-6 * truth
    assert all(torch.equal(t, before[name]) for name, t in detector.state_dict().items())
    float32 = top_eigenvalue(BatchObjective(Tiny(norm=norm).eval(), [faces(EQUAL, dtype=torch.float32)]))
    assert float32.value == pytest.approx(truth, rel=1e-3)


def test_an_iteration_that_does_not_arrive_says_so() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(60, 60, generator=generator, dtype=torch.float64)
    surface = Quadratic(noise @ noise.T, torch.zeros(60, dtype=torch.float64), torch.zeros(60, dtype=torch.float64))
    found = top_eigenvalue(surface, tolerance=1e-14, iterations=1)
    assert (found.value, found.residual) == (None, None)
    assert found.products > 0
    assert top_eigenvalue(surface, 1e-10).value == pytest.approx(float(np.linalg.eigvalsh(noise @ noise.T)[-1]), rel=1e-8)
