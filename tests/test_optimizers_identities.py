"""What the methods have in common, where they meet, and how fast the cheap forms approach the exact ones."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from optimizer_reference import EQUAL, UNEQUAL, Tiny, faces
from torch import nn

from benchmark.objective import BatchObjective
from detectors.base import Batch
from optimizers import OPTIMIZERS
from optimizers.vector import Vector

ONE = [0] * 8


def gradient(detector: Tiny, batch: Batch, name: str, **settings: Any) -> Vector:
    rule = OPTIMIZERS.build(name, **settings)
    rule.attach(detector)
    return rule.gradient(BatchObjective(detector, [batch]))


def gap(a: Vector, b: Vector) -> float:
    assert set(a.parts) == set(b.parts)
    return float((a - b).norm())


@pytest.fixture(params=[True, False], ids=["batchnorm", "no norm"])
def tiny(request: pytest.FixtureRequest) -> Tiny:
    return Tiny(norm=request.param).double()


def test_one_domain_roga_is_sam_with_a_smaller_radius(tiny: Tiny) -> None:
    batch, alpha = faces(ONE), 0.05
    length = float(gradient(tiny, batch, "sgd").norm())
    roga = gradient(tiny, batch, "roga", rho=0.1, alpha=alpha)
    assert gap(roga, gradient(tiny, batch, "sam", rho=0.1 - alpha * length)) < 1e-12
    assert gap(roga, gradient(tiny, batch, "sam", rho=0.1)) > 1e-5


def test_one_domain_sagm_is_half_of_g_and_roga(tiny: Tiny) -> None:
    batch, settings = faces(ONE), {"rho": 0.1, "alpha": 0.05}
    g, roga = gradient(tiny, batch, "sgd"), gradient(tiny, batch, "roga", **settings)
    assert gap(gradient(tiny, batch, "sagm", **settings), (g + roga) / 2) < 1e-12
    assert gap(gradient(tiny, batch, "sagm", average=False, **settings), g + roga) < 1e-12


def test_limits_of_the_mixtures(tiny: Tiny) -> None:
    batch = faces(UNEQUAL)
    sam, pim = gradient(tiny, batch, "sam", rho=0.07), gradient(tiny, batch, "pim", r=0.2)
    assert gap(gradient(tiny, batch, "gnp", r=0.07, alpha=1.0), sam) < 1e-12
    assert gap(gradient(tiny, batch, "dualflat", r=0.2, rho=0.07, alpha=1.0, beta=0.0), pim) < 1e-12
    assert gap(gradient(tiny, batch, "dualflat", r=0.2, rho=0.07, alpha=0.0, beta=1.0), sam) < 1e-12
    assert gap(sam, pim) > 1e-3


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sam", {"rho": 0.0}),
        ("asam", {"rho": 0.0}),
        ("gnp", {"r": 0.0}),
        ("gnp", {"alpha": 0.0}),
        ("sagm", {"rho": 0.0, "alpha": 0.0}),
        ("pim", {"r": 0.0}),
        ("pim", {"alpha": 0.0}),
        ("dualflat", {"r": 0.0, "rho": 0.0}),
        ("dualflat", {"alpha": 0.0, "beta": 0.0}),
        ("roga", {"rho": 0.0, "alpha": 0.0}),
        ("roga", {"rho": 0.0, "alpha": 0.0, "form": "exact"}),
        ("roga", {"rho": 0.0, "alpha": 0.0, "variant": "c"}),
    ],
)
def test_without_a_shift_every_method_is_plain_descent(tiny: Tiny, name: str, settings: dict[str, Any]) -> None:
    batch = faces(ONE)
    assert gap(gradient(tiny, batch, name, **settings), gradient(tiny, batch, "sgd")) < 1e-12


@pytest.mark.parametrize("name", ["sam", "asam", "gnp", "sagm", "roga", "pim", "dualflat"])
def test_a_zero_gradient_gives_no_shift(name: str) -> None:
    """Equal faces, equal logits, half of them real: the gradient is zero, and so is its norm that everything is divided by."""
    detector, some = Tiny(norm=False).double(), faces(ONE)
    torch.nn.init.zeros_(detector.head.weight)
    torch.nn.init.zeros_(detector.head.bias)
    batch = Batch(some.images[:1].expand(8, -1, -1, -1), some.labels, some.domains, some.videos)
    assert float(gradient(detector, batch, name).norm()) < 1e-15


def test_without_a_shift_roga_is_the_mean_over_domains() -> None:
    detector, batch = Tiny(norm=False).double(), faces(UNEQUAL)
    plain = gradient(detector, batch, "sgd")
    assert gap(gradient(detector, batch, "roga", rho=0.0, alpha=0.0, weighting="size"), plain) < 1e-12
    assert gap(gradient(detector, batch, "roga", rho=0.0, alpha=0.0, weighting="equal"), plain) > 1e-3


def test_variant_b_is_the_full_method_without_alignment(tiny: Tiny) -> None:
    batch = faces(EQUAL)
    b = gradient(tiny, batch, "roga", variant="b", alpha=0.3)
    assert gap(b, gradient(tiny, batch, "roga", variant="d", alpha=0.0)) < 1e-12


@pytest.mark.parametrize("variant", ["c", "d"])
@pytest.mark.parametrize("align", ["domain", "global"])
def test_first_order_error_shrinks_as_alpha_squared(tiny: Tiny, variant: str, align: str) -> None:
    batch = faces(EQUAL)

    def error(alpha: float) -> float:
        settings = {"rho": 0.1, "alpha": alpha, "variant": variant, "align": align}
        return gap(gradient(tiny, batch, "roga", **settings), gradient(tiny, batch, "roga", form="exact", **settings))

    errors = [error(0.02 / 2**k) for k in range(4)]
    assert errors[0] > 1e-9
    for coarse, fine in itertools.pairwise(errors):
        assert 3.7 < coarse / fine < 4.3


def test_exact_form_is_the_gradient_of_the_objective(tiny: Tiny) -> None:
    """Central differences of sum_i L_i(theta + e_i) - alpha <grad L_i(theta + e_i), g_i>, with e_i and g_i held."""
    batch, rho, alpha = faces(UNEQUAL), 0.1, 0.5
    domains = [d.batches for d in BatchObjective(tiny, [batch]).domains()]
    own = [BatchObjective(tiny, d).gradient() for d in domains]
    lifts = [rho / g.norm() * g for g in own]

    def value(shift: Vector) -> float:
        total = 0.0
        for d, g, e in zip(domains, own, lifts, strict=True):
            objective = BatchObjective(tiny, d)
            slope = objective.gradient(at=e + shift)
            total += float(objective.loss) - alpha * float(slope.dot(g))
        return total / len(domains)

    ours = gradient(tiny, batch, "roga", rho=rho, alpha=alpha, form="exact")
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        v = Vector({p: torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in tiny.parameters()})
        h = 1e-5
        assert abs((value(h * v) - value(-h * v)) / (2 * h) - float(ours.dot(v))) < 1e-7 * float(v.norm())


def test_roga_tells_how_the_two_terms_compare(tiny: Tiny) -> None:
    batch = faces([0, 0, 0, 0, 2, 2, 2, 2])
    rule = OPTIMIZERS.build("roga", rho=0.1, alpha=0.02)
    objective = BatchObjective(tiny, [batch])
    rule.gradient(objective)
    assert list(rule.diagnostics) == ["alpha_g_over_rho/domain_0", "alpha_g_over_rho/domain_2"]
    length = float(objective.domains()[1].gradient().norm())
    assert abs(float(rule.diagnostics["alpha_g_over_rho/domain_2"]) - 0.02 * length / 0.1) < 1e-12


def test_asam_authors_scale_by_name() -> None:
    detector = Tiny().double()
    rule = OPTIMIZERS.build("asam")
    rule.attach(detector)
    t = rule.scale(BatchObjective(detector, [faces(ONE)]).weights())
    for name, p in detector.named_parameters():
        expected = p.abs() + 0.01 if "weight" in name else torch.ones_like(p)
        assert torch.equal(t.parts[p], expected)
    assert isinstance(detector.first[1], nn.BatchNorm2d)  # its scale is a "weight"


def test_asam_does_not_see_a_rescaling_that_the_network_does_not_see() -> None:
    """Kwon et al., section 3: with T = |w| the shift commutes with rescalings that leave the function alone."""
    batch = faces(ONE)

    def sharpness(scale: float, name: str, **settings: Any) -> float:
        detector = Tiny(norm=False).double()
        detector.first[2] = detector.second[2] = nn.ReLU()  # positively homogeneous, unlike Tanh
        with torch.no_grad():
            for module, factor in ((detector.first[0], scale), (detector.second[0], 1 / scale)):
                module.weight.mul_(factor)
            detector.first[0].bias.mul_(scale)
        rule = OPTIMIZERS.build(name, **settings)
        rule.attach(detector)
        objective = BatchObjective(detector, [batch])
        g = objective.gradient()
        t = rule.scale(objective.weights()) if name == "asam" else None
        shift = settings["rho"] * g / g.norm() if t is None else settings["rho"] / (t * g).norm() * t * t * g
        moved = BatchObjective(detector, [batch])
        moved.gradient(at=shift)
        return float(moved.loss - objective.loss)

    assert abs(sharpness(1.0, "asam", rho=0.1, scaling="all") - sharpness(5.0, "asam", rho=0.1, scaling="all")) < 1e-12
    assert abs(sharpness(1.0, "sam", rho=0.1) - sharpness(5.0, "sam", rho=0.1)) > 1e-3
