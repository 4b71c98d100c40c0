"""MesoInception-4's inception modules are computed in fewer passes than they are written down in; nothing else of them is other."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectors import DETECTORS, meso
from detectors.meso import _Inception, _parts

SIZES = {"block1": (3, 1, 4, 4, 2), "block2": (11, 2, 4, 4, 2)}


def written_down(module: _Inception, x: Tensor) -> Tensor:
    """One convolution after the other, as the paper draws them."""
    ways = [module.plain(x).relu()]
    for before, after in zip(module.reduce, module.dilated, strict=True):
        ways.append(after(before(x).relu()).relu())
    return torch.cat(ways, dim=1)


def drawn(sizes: tuple[int, ...]) -> _Inception:
    torch.manual_seed(0)
    module = _Inception(*sizes).double()
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.normal_(conv.bias)  # type: ignore[arg-type]
    return module


@pytest.fixture(params=[True, False], ids=["as on a CPU", "as on a GPU"])
def in_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways to rectify the parts, on whatever this is run on."""
    asked: list[bool] = []

    def parts(maps: Tensor, sizes: list[int], in_place: bool) -> list[Tensor]:
        asked.append(in_place)
        return _parts(maps, sizes, in_place=request.param)

    monkeypatch.setattr(meso, "_parts", parts)
    drawn(SIZES["block1"])(torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    assert asked == [True]
    return bool(request.param)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_values_and_derivatives_are_those_of_the_convolutions(
    in_place: bool, sizes: tuple[int, ...], layout: torch.memory_format
) -> None:
    """First and second, by the input and by every parameter; and the order of memory is handed on."""
    module = drawn(sizes)
    images = torch.randn(2, sizes[0], 12, 10, dtype=torch.float64)
    along = torch.randn(2, sum(sizes[1:]), 12, 10, dtype=torch.float64)
    found: list[list[Tensor]] = []
    for form in (module, lambda x: written_down(module, x)):
        leaves = [images.clone(memory_format=layout).requires_grad_(), *module.parameters()]
        out = form(leaves[0])
        slopes = torch.autograd.grad((out.tanh() * along).sum(), leaves, create_graph=True)
        twice = torch.autograd.grad(sum((s.sin() * s).sum() for s in slopes), leaves)
        found.append([out, *slopes, *twice])
        assert all(bool(s.any()) for s in slopes)
    assert found[0][0].is_contiguous(memory_format=layout)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_gpu_scores_with_the_same_values(sizes: tuple[int, ...], layout: torch.memory_format) -> None:
    module = drawn(sizes)
    images = torch.randn(2, sizes[0], 12, 10, dtype=torch.float64).contiguous(memory_format=layout)
    with torch.no_grad():
        scored = module._scored(images)
        torch.testing.assert_close(scored, written_down(module, images), rtol=1e-12, atol=1e-12)
    assert scored.is_contiguous(memory_format=layout)


def test_a_step_moves_every_convolution_by_its_own_gradient(in_place: bool) -> None:
    """The parts' gradients may lie side by side in one piece of memory; a step must not mix them."""
    module = drawn(SIZES["block2"])
    other = copy.deepcopy(module)
    images = torch.randn(2, 11, 12, 10, dtype=torch.float64)
    for net, form in ((module, module), (other, lambda x: written_down(other, x))):
        adam = torch.optim.Adam(net.parameters(), lr=0.1)
        for _ in range(3):
            adam.zero_grad(set_to_none=True)
            form(images).square().mean().backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.01)
            adam.step()
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
def test_what_a_gpu_convolves_again_lies_on_its_own(layout: torch.memory_format) -> None:
    maps = torch.randn(2, 11, 6, 6).contiguous(memory_format=layout)
    given = maps.clone()
    first, *others = _parts(maps, [1, 4, 4, 2], in_place=False)
    assert torch.equal(maps, given)
    assert torch.equal(first, maps[:, :1])
    for part, start in zip(others, (1, 5, 9), strict=True):
        assert torch.equal(part, maps[:, start : start + part.shape[1]].relu())
        assert part.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("name", ["mesoinception4", "dfb-mesoinception4"])
def test_checkpoints_from_before_fit(name: str) -> None:
    """Names, shapes and their order, in which the weights are drawn."""
    state: dict[str, Any] = DETECTORS.build(name).state_dict()
    kinds = ("weight", "bias") if name == "mesoinception4" else ("weight",)
    for block, (inputs, plain, *others) in SIZES.items():
        expected: list[tuple[str, tuple[int, ...]]] = [("plain", (plain, inputs, 1, 1))]
        expected += [(f"reduce.{i}", (channels, inputs, 1, 1)) for i, channels in enumerate(others)]
        expected += [(f"dilated.{i}", (channels, channels, 3, 3)) for i, channels in enumerate(others)]
        wanted = [(f"{n}.{k}", shape if k == "weight" else shape[:1]) for n, shape in expected for k in kinds]
        start = f"{block}.inception."
        assert [(k.removeprefix(start), tuple(v.shape)) for k, v in state.items() if k.startswith(start)] == wanted
