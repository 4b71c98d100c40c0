"""Channels last in memory, and the BatchNorm that several threads do not fight over."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from efficientnet_pytorch.utils import Conv2dStaticSamePadding
from torch import nn

from detectors import DETECTORS
from detectors.layout import DepthwiseConv2d, DepthwiseSame, NarrowBatchNorm2d, channels_last, for_scoring


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def pair(**settings: object) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(6, dtype=torch.float64, **settings)  # type: ignore[arg-type]
    if plain.affine:
        nn.init.normal_(plain.weight)
        nn.init.normal_(plain.bias)
    narrow = copy.deepcopy(plain)
    channels_last(narrow)
    assert type(narrow) is NarrowBatchNorm2d
    return plain, narrow


@pytest.mark.parametrize(
    "settings", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"momentum": 0.3}], ids=str
)
def test_it_is_torchs_batchnorm(threads: int, settings: dict[str, object]) -> None:
    """Values, statistics, first and second derivatives; in training and evaluation."""
    plain, narrow = pair(**settings)
    images = torch.randn(5, 6, 7, 9, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    along = torch.randn(5, 6, 7, 9, dtype=torch.float64)
    for training in (True, True, False):
        found = []
        for module in (plain, narrow):
            module.train(training)
            leaves = [images.clone(memory_format=torch.preserve_format).requires_grad_(), *module.parameters()]
            out = module(leaves[0])
            own = module is narrow and training and threads > 1
            assert (out.grad_fn.name() == "_BatchNormBackward") is own  # ours runs where it should, and nowhere else
            slopes = torch.autograd.grad((out.tanh() * along).sum(), leaves, create_graph=True)
            twice = torch.autograd.grad(sum((s.sin() * s).sum() for s in slopes), leaves, allow_unused=True)
            found.append([out, *slopes, *[t for t in twice if t is not None], *module.buffers()])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_it_is_torchs_in_bfloat16(threads: int) -> None:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(6)
    narrow = copy.deepcopy(plain)
    channels_last(narrow)
    images = torch.randn(5, 6, 7, 9).bfloat16().contiguous(memory_format=torch.channels_last)
    found = []
    for module in (plain, narrow):
        leaves = [images.clone(memory_format=torch.preserve_format).requires_grad_(), *module.parameters()]
        out = module(leaves[0])
        found.append([out, *torch.autograd.grad((out.float().tanh() * out.float()).sum(), leaves), *module.buffers()])
    for one, other in zip(*found, strict=True):
        assert one.dtype is other.dtype
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)


def test_on_one_thread_it_is_torchs_to_the_bit() -> None:
    plain, narrow = pair()
    images = torch.randn(5, 6, 7, 9, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    slopes = []
    for module in (plain, narrow):
        out = module(images.requires_grad_())
        slopes.append(torch.autograd.grad((out.tanh() * out).sum(), [images, *module.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*slopes, strict=True))


def test_the_backward_pass_gives_back_channels_last(threads: int) -> None:
    _, narrow = pair()
    images = torch.randn(5, 6, 7, 9, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = narrow(images)
    (slope,) = torch.autograd.grad((out * out).sum(), images)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert slope.is_contiguous(memory_format=torch.channels_last)


def test_wide_ones_and_other_classes_stay_what_they_are() -> None:
    class Own(nn.BatchNorm2d):
        """Somebody's."""

    network = nn.Sequential(nn.BatchNorm2d(16), nn.BatchNorm2d(24), nn.BatchNorm2d(15), Own(8), nn.BatchNorm1d(8))
    channels_last(network)
    assert [type(m) for m in network] == [nn.BatchNorm2d, nn.BatchNorm2d, NarrowBatchNorm2d, Own, nn.BatchNorm1d]


def test_a_detectors_state_and_first_step_stay_the_same(threads: int) -> None:
    torch.manual_seed(0)
    plain = DETECTORS.build("meso4", size=64)
    narrow = copy.deepcopy(plain)
    channels_last(narrow)
    assert any(isinstance(m, NarrowBatchNorm2d) for m in narrow.modules())
    images = torch.rand(6, 3, 64, 64)
    found = []
    for detector in (plain, narrow):
        torch.manual_seed(1)
        detector.train()
        loss = detector(images.contiguous(memory_format=torch.channels_last)).logits.logsumexp(1).sum()
        found.append(torch.autograd.grad(loss, list(detector.parameters())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert plain.state_dict().keys() == narrow.state_dict().keys()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(value, narrow.state_dict()[key])


def test_scoring_lays_out_and_puts_back() -> None:
    """As on a GPU, tried on the CPU: same values, and the weights lie as before."""
    detector = DETECTORS.build("mesoinception4", size=64).eval()
    channels_last(detector)
    images = torch.rand(4, 3, 64, 64)
    strides = [p.stride() for p in detector.parameters()]
    with torch.no_grad():
        last = detector(images.contiguous(memory_format=torch.channels_last)).logits
        with for_scoring(detector, torch.device("cuda")) as order:
            assert order is torch.contiguous_format
            assert all(p.is_contiguous() for p in detector.parameters())
            first = detector(images.contiguous(memory_format=order)).logits
    torch.testing.assert_close(first, last)
    assert [p.stride() for p in detector.parameters()] == strides
    with for_scoring(detector, torch.device("cpu")) as order:
        assert order is torch.channels_last
    with for_scoring(DETECTORS.build("meso4", size=64), torch.device("cuda")) as order:
        assert order is torch.channels_last


SLOW = [
    lambda: nn.Conv2d(6, 6, 5, padding=2, groups=6),
    lambda: nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6, bias=False),
    lambda: Conv2dStaticSamePadding(6, 6, 5, stride=2, groups=6, bias=False, image_size=16),
]


@pytest.mark.parametrize("make", SLOW, ids=["5x5", "strides", "same"])
def test_a_depthwise_convolution_is_torchs(make: object) -> None:
    """To the bit in float32; in bfloat16 forward to the bit, and its gradients are nearer to the exact ones."""
    torch.manual_seed(0)
    plain = make()  # type: ignore[operator]
    fast = copy.deepcopy(plain)
    channels_last(fast)
    assert type(fast) in (DepthwiseConv2d, DepthwiseSame)
    images = torch.randn(4, 6, 16, 16).contiguous(memory_format=torch.channels_last)
    found: dict[tuple[bool, bool], list[torch.Tensor]] = {}
    for bf16 in (False, True):
        for module in (plain, fast):
            leaves = [images.clone(memory_format=torch.preserve_format).requires_grad_(), *module.parameters()]
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16, cache_enabled=False):
                out = module(leaves[0])
            assert out.dtype is (torch.bfloat16 if bf16 else torch.float32)
            assert (out.grad_fn.name() == "_DepthwiseBackward") is (bf16 and module is fast)
            slopes = torch.autograd.grad((out.float() * out.float().sin()).sum(), leaves)
            assert all(s.dtype is torch.float32 for s in slopes)
            found[bf16, module is fast] = [out, *slopes]
    assert all(torch.equal(a, b) for a, b in zip(found[False, False], found[False, True], strict=True))
    assert torch.equal(found[True, False][0], found[True, True][0])
    for exact, torchs, ours in zip(found[False, False][1:], found[True, False][1:], found[True, True][1:], strict=True):
        assert float((ours - exact).norm()) < 0.02 * float(exact.norm())
        assert float((ours - exact).norm()) <= 1.05 * float((torchs - exact).norm())


def test_a_depthwise_convolution_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(4, 4, 5, padding=2, groups=4)
    channels_last(module)
    images = torch.randn(2, 4, 8, 8)
    twice = []
    for bf16 in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16, cache_enabled=False):
            out = module(images)
        (slope,) = torch.autograd.grad(out.float().sin().sum(), module.weight, create_graph=True)
        twice.append(torch.autograd.grad(slope.square().sum(), module.weight)[0])
    assert float((twice[0] - twice[1]).norm()) < 0.05 * float(twice[0].norm())


def test_other_convolutions_stay_what_they_are() -> None:
    class Own(nn.Conv2d):
        """Somebody's."""

    others = (nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 6, 5), Own(6, 6, 5, groups=6), nn.Conv2d(1, 4, 5))
    network = nn.Sequential(*others, nn.Conv2d(6, 6, 5, padding="same", groups=6))
    channels_last(network)
    assert [type(m) for m in network] == [nn.Conv2d, nn.Conv2d, Own, nn.Conv2d, nn.Conv2d]
