"""Pushed channel statistics: what is computed, and that nothing is left behind."""

from __future__ import annotations

import copy

import pytest
import torch
from optimizer_reference import Tiny, faces, pushed
from torch import Tensor, nn

from detectors.base import Detector, Prediction
from optimizers import OPTIMIZERS
from optimizers.features import FeatureShift, push
from optimizers.registry import RegistryError
from optimizers.vector import Vector


def bits(t: Tensor) -> Tensor:
    return t.detach().contiguous().view(torch.int32 if t.dtype == torch.float32 else torch.int64)


def test_push_is_the_paper_s_formula() -> None:
    f = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    d_mu, d_sigma = torch.randn(2, 4, dtype=torch.float64)
    assert torch.allclose(push(f, d_mu, d_sigma), pushed(f, (d_mu, d_sigma)), rtol=0, atol=1e-12)


def test_push_moves_mean_and_deviation_by_what_it_says() -> None:
    f = 3 * torch.randn(2, 4, 16, 16, dtype=torch.float64)
    d_mu, d_sigma = torch.tensor([0.1, -0.2, 0.0, 1.0]).double(), torch.tensor([0.0, 0.5, -0.3, 0.2]).double()
    out = push(f, d_mu, d_sigma)
    assert torch.allclose(out.mean(dim=(2, 3)) - f.mean(dim=(2, 3)), d_mu.expand(2, -1), atol=1e-12)
    moved = out.std(dim=(2, 3), correction=0) - f.std(dim=(2, 3), correction=0)
    assert torch.allclose(moved, d_sigma.expand(2, -1), atol=1e-5)  # up to the 1e-5 under the root


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_zero_push_changes_no_bit(dtype: torch.dtype) -> None:
    """Signed zeros, denormals and constant channels included."""
    f = torch.randn(2, 3, 4, 4).to(dtype)
    f[0, 0, 0, :4] = torch.tensor([-0.0, 0.0, 1e-40, -1e-40])
    f[1, 1] = -0.0
    zero = torch.zeros(3, dtype=torch.promote_types(dtype, torch.float32), requires_grad=True)
    out = push(f, zero, zero)
    assert out.dtype is dtype
    integers = torch.int16 if dtype == torch.bfloat16 else torch.int32
    assert torch.equal(out.detach().view(integers), f.view(integers))


def test_zero_push_changes_neither_loss_nor_gradient() -> None:
    for dtype in (torch.float32, torch.float64):
        detector, batch = Tiny().to(dtype), faces([0] * 6, dtype=dtype)
        features = FeatureShift(detector, detector.shallow)
        parameters = list(detector.parameters())
        plain = detector.loss(detector(batch.images), batch)
        for at in (None, Vector({features.leaf: torch.zeros_like(features.leaf)})):
            with features.pushed(at):
                zero = detector.loss(detector(batch.images), batch)
            assert torch.equal(bits(plain), bits(zero))
            ours, theirs = (torch.autograd.grad(v, parameters, retain_graph=True) for v in (zero, plain))
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


LAYOUTS = [torch.contiguous_format, torch.channels_last]


def push_by_hand(f: Tensor, d_mu: Tensor, d_sigma: Tensor) -> Tensor:
    return pushed(f, (d_mu, d_sigma))


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 1, 4, 4), (2, 3, 1, 1), (1, 1, 1, 1), (2, 3, 4, 1)])
@pytest.mark.parametrize("layouts", [(a, b) for a in LAYOUTS for b in LAYOUTS])
def test_the_slope_by_pushed_features(shape: tuple[int, ...], layouts: tuple[torch.memory_format, torch.memory_format]) -> None:
    """Whatever the layouts of the features and of what comes back, also where strides are ambiguous."""
    f, weight = (torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout) for layout in layouts)
    shift = torch.randn(2, shape[1], dtype=torch.float64)
    f.requires_grad_()
    found, expected = (torch.autograd.grad(how(f, *shift), f, weight)[0] for how in (push, push_by_hand))
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_digits_of_a_large_mean_are_kept_with_the_channels_last() -> None:
    """In float32, where torch's own group norm of such features loses three more digits."""
    torch.manual_seed(0)
    f = (1000 + torch.randn(4, 8, 32, 32)).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, shift = torch.randn_like(f), torch.randn(2, 8)
    out = push(f, *shift)
    exact = f.detach().double().requires_grad_()
    wanted = push_by_hand(exact, *shift.double())
    assert relative(out, wanted) < 1e-7
    found, expected = (torch.autograd.grad(o, x, weight.to(x.dtype))[0] for o, x in ((out, f), (wanted, exact)))
    assert relative(found, expected) < 5e-5
    naive = f - nn.functional.group_norm(f, 8, -shift[1], -shift[0], 1e-5)
    assert relative(naive, wanted) > 1e-5


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).detach().norm() / expected.detach().norm())


class Mixed(Detector):
    """Three shallow modules, of which two agree in positions and differ in channels; one has constant features."""

    size, shallow = 8, ("one", "two", "three")

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 2, 2, stride=2)
        self.head = nn.Linear(32, 2)

    def forward(self, images: Tensor, slopes: dict[str, tuple[Tensor, Tensor]] | None = None) -> Prediction:
        x = images
        for name in self.shallow:
            x = self.get_submodule(name)(x)
            x = (x if slopes is None else push_by_hand(x, *slopes[name])).tanh()
        return Prediction(self.head(x.flatten(1)), x)


def test_slopes_of_modules_of_all_shapes_are_computed_together() -> None:
    detector, batch = Mixed().double(), faces([0] * 4, size=8)
    features = FeatureShift(detector, detector.shallow)
    with features.pushed():
        (found,) = torch.autograd.grad(detector.loss(detector(batch.images), batch), features.leaf)
    zero = torch.zeros_like(features.leaf, requires_grad=True)
    by_hand = {name: (part[0], part[1]) for name, part in features.parts(zero).items()}
    (expected,) = torch.autograd.grad(detector.loss(detector(batch.images, by_hand), batch), zero)
    assert found.shape == (2, 11)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_a_length_is_that_of_all_modules_together() -> None:
    """Delta = r d / ||d||, with one norm; a zero d gives no push at all."""
    detector, images = Mixed().double(), faces([0] * 4, size=8).images
    features = FeatureShift(detector, detector.shallow)
    d = torch.randn_like(features.leaf).detach()
    with features.pushed(Vector({features.leaf: d}), length=0.3):
        found = detector(images).logits
    with features.pushed(Vector({features.leaf: 0.3 * d / d.norm()})):
        assert torch.allclose(found, detector(images).logits, rtol=1e-10)
    with features.pushed(Vector({features.leaf: 0 * d}), length=0.3):
        assert torch.equal(bits(detector(images).logits), bits(detector.eval()(images).logits))


class TwoScales(Mixed):
    """Its modules are called again on half the faces at half the size."""

    def forward(self, images: Tensor, slopes: dict[str, tuple[Tensor, Tensor]] | None = None) -> Prediction:
        whole = super().forward(images, slopes)
        x = nn.functional.avg_pool2d(images, 2)[::2]
        for name in self.shallow[:2]:
            x = self.get_submodule(name)(x)
            x = (x if slopes is None else push_by_hand(x, *slopes[name])).tanh()
        return Prediction(whole.logits + x.mean(), whole.features)


def test_slopes_of_modules_that_see_two_scales_are_added() -> None:
    detector, batch = TwoScales().double(), faces([0] * 4, size=8)
    for shallow in (("one", "two"), ("one", "two", "three")):
        features = FeatureShift(detector, shallow)
        with features.pushed():
            (found,) = torch.autograd.grad(detector(batch.images).logits.square().sum(), features.leaf)
        zero = torch.zeros_like(features.leaf, requires_grad=True)
        by_hand = {
            name: (torch.zeros(c).double(), torch.zeros(c).double()) for name, c in zip(detector.shallow, (4, 5, 2), strict=True)
        }
        by_hand |= {name: (part[0], part[1]) for name, part in features.parts(zero).items()}
        (expected,) = torch.autograd.grad(detector(batch.images, by_hand).logits.square().sum(), zero)
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_what_one_backward_pass_has_seen_is_no_other_s() -> None:
    """Backward passes that do not ask for the gradient by the shifts, twice through one graph, and one pass after the other."""
    detector, batches = Mixed().double(), [faces([0] * 4, seed, size=8) for seed in (0, 1)]
    features = FeatureShift(detector, detector.shallow)
    weights = list(detector.parameters())
    with features.pushed():
        losses = [detector.loss(detector(batch.images), batch) for batch in batches]
        alone = [torch.autograd.grad(loss, features.leaf, retain_graph=True)[0] for loss in losses]
        torch.autograd.grad(losses[1], weights, retain_graph=True)
        again = [torch.autograd.grad(loss, [*weights, features.leaf], retain_graph=True)[-1] for loss in losses]
    assert all(torch.equal(one, other) for one, other in zip(alone, again, strict=True))


def test_hooks_live_only_inside() -> None:
    detector = Tiny()
    keys, hooks = list(detector.state_dict()), [len(m._forward_hooks) for m in detector.modules()]
    features = FeatureShift(detector, detector.shallow)
    assert [len(m._forward_hooks) for m in detector.modules()] == hooks
    with features.pushed():
        assert len(detector.first._forward_hooks) == 1
        assert list(detector.state_dict()) == keys
    assert [len(m._forward_hooks) for m in detector.modules()] == hooks
    with pytest.raises(ZeroDivisionError), features.pushed():
        _ = 1 / 0
    assert [len(m._forward_hooks) for m in detector.modules()] == hooks
    copy.deepcopy(detector)


class Noisy(Tiny):
    """Draws at random in evaluation mode, too."""

    def forward(self, images: Tensor) -> Prediction:
        return super().forward(images + 0.1 * torch.rand_like(images))


def test_attach_leaves_the_detector_alone() -> None:
    detector = Noisy().train()
    detector.second.eval()
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    modes, state = [m.training for m in detector.modules()], torch.get_rng_state()
    OPTIMIZERS.build("pim").attach(detector)
    assert all(torch.equal(v, before[k]) for k, v in detector.state_dict().items())
    assert [m.training for m in detector.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


class Twice(Detector):
    """One shallow block that is called twice, and that has two names."""

    size = 4

    def __init__(self, shallow: tuple[str, ...]) -> None:
        super().__init__()
        self.shallow = shallow
        self.block = nn.Conv2d(3, 3, 1)
        self.alias = self.block
        self.flat = nn.Flatten()
        self.spare = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(48, 2)

    def forward(self, images: Tensor) -> Prediction:
        features = self.flat(self.block(self.block(images).tanh()).tanh())
        return Prediction(self.head(features), features)


def test_a_module_that_is_called_twice_is_pushed_twice_by_one_shift() -> None:
    detector = Twice(("block", "alias")).double()
    features = FeatureShift(detector, detector.shallow)
    assert features.leaf.shape == (2, 3)
    d = torch.randn(2, 3, dtype=torch.float64)
    shift = Vector({features.leaf: d})
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    expected = detector.head(pushed(detector.block(pushed(detector.block(images), d).tanh()), d).tanh().flatten(1))
    with features.pushed(shift):
        assert torch.allclose(detector(images).logits, expected, atol=1e-12)
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    by_hand = detector.head(pushed(detector.block(pushed(detector.block(images), zero).tanh()), zero).tanh().flatten(1))
    with features.pushed():
        (found,) = torch.autograd.grad(detector(images).logits.square().sum(), features.leaf)
    (wanted,) = torch.autograd.grad(by_hand.square().sum(), zero)
    assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("shallow", "sentence"),
    [
        ((), "names none"),
        ("conv", r"has shallow = 'conv', one string; write shallow = \('conv',\)"),
        (("blok",), "'blok' in `shallow`, which is no submodule"),
        (("spare",), "'spare' in `shallow`, but its forward pass does not call it"),
        (("flat",), "not \\(N, C, H, W\\)"),
    ],
)
@pytest.mark.parametrize("rule", ["pim", "dualflat"])
def test_a_detector_that_gives_no_hold_is_refused(rule: str, shallow: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(RegistryError, match=sentence):
        OPTIMIZERS.build(rule).attach(Twice(shallow))


@pytest.mark.parametrize("rule", ["pim", "dualflat", "asam"])
def test_a_rule_that_was_not_attached_says_so(rule: str) -> None:
    from benchmark.objective import BatchObjective

    with pytest.raises(RegistryError, match="attach"):
        OPTIMIZERS.build(rule).gradient(BatchObjective(Tiny().double(), [faces([0] * 4)]))
