"""fp16 with a scaler and rounded weights: gradients unscaled to the bit, overflowing steps undone, lost shifts told."""

from __future__ import annotations

import copy
import io
from functools import lru_cache
from typing import Any

import pytest
import torch
from optimizer_reference import EQUAL, Tiny, faces
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmark.config import ConfigError, Protocol
from benchmark.objective import BatchObjective
from benchmark.precision import realised_cosine
from detectors.base import Batch, Prediction
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base
from optimizers.vector import Vector

NAMES = ["sgd", "adam", "sam", "asam", "gnp", "sagm", "roga", "pim", "dualflat"]
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]),
]


def float32(domains: list[int] = EQUAL, seed: int = 0) -> Batch:
    return faces(domains, seed, torch.float32)


class Cast(Tiny):
    """Overflows when told so, in the backward or the forward part of a pass; counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.overflow_in: set[int] = set()
        self.poison_in: set[int] = set()
        self.passes = 0

    def forward(self, images: Tensor) -> Prediction:
        self.passes += 1
        if self.passes in self.poison_in:
            images = images * float("inf")
        prediction = super().forward(images)
        if self.passes in self.overflow_in:
            prediction.logits.register_hook(lambda g: g * float("inf"))
        return prediction


def scaler(**settings: Any) -> GradScaler:
    return GradScaler("cpu", **{"init_scale": 2.0**10, "growth_interval": 3, **settings})


def make(name: str, base: str = "sgd", **settings: Any) -> tuple[Cast, Optimizer]:
    detector = Cast()
    optimizer = Optimizer(
        OPTIMIZERS.build(name), build_base(base, detector.parameters(), lr=0.05), detector, scaler=scaler(**settings)
    )
    detector.passes = 0
    return detector, optimizer


def objective(detector: Tiny, optimizer: Optimizer, seed: int = 0, weights_dtype: str = "fp32") -> BatchObjective:
    return BatchObjective(detector, [float32(seed=seed)], "fp16", weights_dtype, optimizer.scaler)


def bits(tensors: Any) -> list[Tensor]:
    integers = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.int64: torch.int64}
    return [t.detach().clone().view(integers[t.dtype]) for t in tensors]


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(bits(one), other, strict=True))


# --- the scale ---


@pytest.mark.parametrize("weights_dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_rule_sees_the_gradient_without_the_scale(name: str, weights_dtype: str) -> None:
    """To the bit, where a power of two neither overflows nor falls below float16's normal numbers: of float32 passes, say."""
    plain = Tiny()
    expected = Optimizer(OPTIMIZERS.build(name), build_base("sgd", plain.parameters()), plain).rule
    exact = expected.gradient(BatchObjective(plain, [float32()]))
    by_scale = []
    for power in (6, 10):
        detector, optimizer = make(name, init_scale=2.0**power)
        by_scale.append(optimizer.rule.gradient(objective(detector, optimizer, weights_dtype=weights_dtype)))
    for p, q, a, b in zip(exact.parts, plain.parameters(), *(v.parts.values() for v in by_scale), strict=True):
        assert p is q
        assert a.dtype is b.dtype is torch.float32
        assert float((a - exact.parts[p]).norm()) < 0.03 * float(exact.norm())
    assert float((by_scale[0] - Vector(dict(zip(by_scale[0].parts, by_scale[1].parts.values(), strict=True)))).norm()) < 0.01


def test_scale_is_exact() -> None:
    """Passes that run in float32 (those beside the weights) give the very same bits whatever the scale."""
    found = []
    for power in (0, 7, 16):
        detector, optimizer = make("sgd", init_scale=2.0**power)
        shift = Vector({p: torch.full_like(p, 0.01) for p in detector.parameters()})
        found.append(bits(objective(detector, optimizer).gradient(at=shift).parts.values()))
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*found, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_scale_saves_gradients_that_float16_cannot_hold(device: str) -> None:
    """A loss of a millionth has gradients below 6e-8, where float16 ends."""

    class Faint(Tiny):
        def loss(self, prediction: Prediction, batch: Batch) -> Tensor:
            return super().loss(prediction, batch) * 1e-8

    found = {}
    for power in (0, 24):
        detector = Faint().to(device)
        own = GradScaler(device, init_scale=2.0**power)
        found[power] = BatchObjective(detector, [float32().to(device)], "fp16", scaler=own).gradient().norm()
    exact = BatchObjective(Faint(), [float32()]).gradient().norm()
    assert float(found[0]) < 0.5 * float(exact)
    assert abs(float(found[24]) - float(exact)) < 0.02 * float(exact)


@pytest.mark.parametrize(("precision", "outer"), [("bf16", False), ("bf16", True), ("fp16", False), ("fp16", True)])
def test_no_cast_of_the_first_pass_serves_the_second(precision: str, outer: bool) -> None:
    """Also inside somebody else's autocast context, whose cache outlives the pass."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    detector = Tiny(norm=False)
    with torch.autocast("cpu", dtype=dtype, enabled=outer):
        asked = BatchObjective(detector, [float32()], precision, precision, scaler() if precision == "fp16" else None)
        g = asked.gradient()
        moved = asked.gradient(at=0.5 / g.norm() * g)
    plain = BatchObjective(detector, [float32()])
    expected = plain.gradient(at=0.5 / plain.gradient().norm() * plain.gradient())
    assert float((moved - g).norm()) > 0.3 * float((expected - plain.gradient()).norm()) > 1e-3
    assert float((moved - expected).norm()) < 0.1 * float(expected.norm())


# --- overflow ---


@pytest.mark.parametrize("base", ["sgd", "adam"])
@pytest.mark.parametrize(("name", "which"), [("sgd", 1), ("sam", 1), ("sam", 2), ("roga", 5), ("dualflat", 2), ("gnp", 2)])
def test_an_overflow_undoes_the_step(name: str, which: int, base: str) -> None:
    detector, optimizer = make(name, base)
    optimizer.step(objective(detector, optimizer))
    before, state = bits((*detector.parameters(), *detector.buffers())), copy.deepcopy(optimizer.base.state_dict())
    detector.passes, detector.overflow_in = 0, {which}
    loss = optimizer.step(objective(detector, optimizer, seed=1))
    assert loss.isfinite()
    assert same((*detector.parameters(), *detector.buffers()), before)
    for one, other in zip(optimizer.base.state_dict()["state"].values(), state["state"].values(), strict=True):
        assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in other if other[key] is not None)
    assert {key: float(value) for key, value in optimizer.diagnostics.items() if key in ("loss_scale", "skipped_steps")} == {
        "loss_scale": 2.0**9,
        "skipped_steps": 1,
    }
    optimizer.step(objective(detector, optimizer, seed=2))
    assert not same(detector.parameters(), before[: len(list(detector.parameters()))])
    assert float(optimizer.diagnostics["skipped_steps"]) == 1


@pytest.mark.parametrize(("kind", "settings"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {})])
def test_an_overflow_undoes_the_step_of_a_fused_base(kind: Any, settings: dict[str, Any]) -> None:
    """Which is not skipped by the host: its kernel is told of the Inf and divides by the scale."""
    ends = []
    for fused in (False, True):
        detector = Cast()
        base = kind(detector.parameters(), lr=0.05, fused=fused, **settings)
        optimizer = Optimizer(OPTIMIZERS.build("sam"), base, detector, scaler=scaler())
        optimizer.step(objective(detector, optimizer))
        before = bits((*detector.parameters(), *detector.buffers()))
        detector.passes, detector.overflow_in = 0, {2}
        optimizer.step(objective(detector, optimizer, 1))
        assert same((*detector.parameters(), *detector.buffers()), before)
        optimizer.step(objective(detector, optimizer, 2))
        ends.append(torch.cat([p.detach().reshape(-1) for p in detector.parameters()]))
    assert torch.allclose(*ends, rtol=1e-5, atol=1e-6)


def test_an_overflow_in_the_forward_pass_spares_the_statistics() -> None:
    detector, optimizer = make("sam")
    before = bits((*detector.parameters(), *detector.buffers()))
    detector.poison_in = {1}
    optimizer.step(objective(detector, optimizer))
    assert same((*detector.parameters(), *detector.buffers()), before)


def test_clipping_does_not_hide_an_overflow() -> None:
    detector, optimizer = make("sgd")
    optimizer.clip = 0.1
    before = bits(detector.parameters())
    detector.overflow_in = {1}
    optimizer.step(objective(detector, optimizer))
    assert same(detector.parameters(), before)


def test_clipping_is_of_the_gradient_without_the_scale() -> None:
    moves = []
    for power in (4, 12):
        detector, optimizer = make("sam", init_scale=2.0**power)
        optimizer.clip = 0.1
        before = [p.detach().clone() for p in detector.parameters()]
        optimizer.step(objective(detector, optimizer))
        moves.append(torch.cat([(p.detach() - b).reshape(-1) for p, b in zip(detector.parameters(), before, strict=True)]).norm())
    assert 0.99 < float(moves[0] / moves[1]) < 1.01


def test_scale_grows_as_torch_says() -> None:
    detector, optimizer = make("sam")
    scales = []
    for step in range(7):
        optimizer.step(objective(detector, optimizer, step))
        scales.append(float(optimizer.diagnostics["loss_scale"]))
    assert scales == [2.0**10] * 2 + [2.0**11] * 3 + [2.0**12] * 2


@pytest.mark.parametrize("name", ["sgd", "sam", "roga", "dualflat"])
@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_resuming_half_way_changes_no_bit(name: str, base: str) -> None:
    """With a step that overflows in each half, the scale's growth, momentum or Adam's state, and a schedule."""

    def begin() -> tuple[Cast, Optimizer, CosineAnnealingLR]:
        detector, optimizer = make(name, base)
        return detector, optimizer, CosineAnnealingLR(optimizer.base, 8)

    def go(detector: Cast, optimizer: Optimizer, schedule: CosineAnnealingLR, steps: range) -> None:
        for step in steps:
            detector.passes, detector.overflow_in = 0, {1} if step in (1, 6) else set()
            optimizer.step(objective(detector, optimizer, step))
            schedule.step()

    whole = begin()
    go(*whole, range(8))
    for half in (1, 2, 4, 7):
        first = begin()
        go(*first, range(half))
        file = io.BytesIO()
        torch.save([part.state_dict() for part in first], file)
        file.seek(0)
        second = begin()
        for part, state in zip(second, torch.load(file, weights_only=True), strict=True):
            part.load_state_dict(state)
        go(*second, range(half, 8))
        assert same((*second[0].parameters(), *second[0].buffers()), bits((*whole[0].parameters(), *whole[0].buffers())))
        assert second[1].state_dict()["scaler"] == whole[1].state_dict()["scaler"]
        assert second[1].state_dict()["skipped_steps"] == 2


# --- what the passes see the weights in ---


class Seeing(Tiny):
    """Notes the weights that its first convolution computes with, as its output tells them: on an image with a single one."""

    def __init__(self) -> None:
        super().__init__(norm=False)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Prediction:
        probe = torch.zeros(1, 3, 3, 3)
        probe[0, 0, 1, 1] = 1
        bias = self.first[0](torch.zeros(1, 3, 3, 3))[0, :, 1, 1]
        self.seen.append((self.first[0](probe)[0, :, 1, 1].float() - bias.float()).detach())
        return super().forward(images)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_passes_beside_the_weights_see_them_in_fp32_unless_told_otherwise(precision: str) -> None:
    for weights_dtype, kept in (("fp32", True), (precision, False)):
        detector = Seeing()
        with torch.no_grad():
            detector.first[0].weight.fill_(1.0)
            detector.first[0].bias.zero_()
        own = GradScaler("cpu") if precision == "fp16" else None
        asked = BatchObjective(detector, [float32()], precision, weights_dtype, own)
        asked.gradient()
        asked.gradient(at=Vector({detector.first[0].weight: torch.full((4, 3, 3, 3), 1e-4)}))
        moved = detector.seen[1] - detector.seen[0]
        assert torch.allclose(moved, torch.full((4,), 1e-4 if kept else 0.0), atol=1e-6)
        assert ("realised_cosine" in asked.diagnostics) != kept


def plain_cosine(e: Tensor, before: Tensor, after: Tensor) -> float:
    moved = after.double() - before.double()
    return float((e.double() * moved).sum() / (e.double().norm() * moved.norm()))


@lru_cache(maxsize=1)
def resnet34_like() -> tuple[list[Tensor], list[Tensor]]:
    """Convolutions as ResNet-34 has them and is initialised (He, fan out), 21 million numbers; and a shift of length 0.1."""
    generator = torch.Generator().manual_seed(0)
    widths = [(64, 64, 6), (64, 128, 1), (128, 128, 7), (128, 256, 1), (256, 256, 11), (256, 512, 1), (512, 512, 5)]
    shapes = [(o, i, 3, 3) for i, o, count in widths for _ in range(count)]
    weights = [torch.randn(shape, generator=generator) * (2 / (9 * shape[0])) ** 0.5 for shape in shapes]
    shift = [torch.randn(shape, generator=generator) for shape in shapes]
    length = torch.stack(torch._foreach_norm(shift)).norm()
    return weights, [0.1 / length * e for e in shift]


@pytest.mark.parametrize(("dtype", "low", "high"), [(torch.bfloat16, 0.55, 0.7), (torch.float16, 0.94, 0.99)])
def test_what_is_left_of_sam_s_shift_on_a_resnet34(dtype: torch.dtype, low: float, high: float) -> None:
    """rho = 0.1 over 21 million weights: cosine near 0.64 in bf16 and 0.96 in fp16 where they are kept in that precision."""
    wide, shift = resnet34_like()
    assert 20e6 < sum(w.numel() for w in wide) < 22e6
    weights = [w.to(dtype) for w in wide]
    moved = [(w.float() + e).to(dtype) for w, e in zip(weights, shift, strict=True)]
    found = float(realised_cosine(shift, weights, moved, dtype))
    assert low < found < high
    flat = [torch.cat([t.reshape(-1) for t in ts]) for ts in (shift, weights, moved)]
    assert abs(found - plain_cosine(*flat)) < 1e-3
    # float32 weights that a pass rounds lose more: where they lie between two numbers of bf16 does not follow the shift.
    rounded = float(realised_cosine(shift, wide, [w + e for w, e in zip(wide, shift, strict=True)], dtype))
    assert rounded < found - 0.02


def test_realised_cosine_of_no_shift_and_of_a_lost_one() -> None:
    w = [torch.ones(3)]
    assert float(realised_cosine([torch.zeros(3)], w, w, torch.bfloat16)) == 1
    assert float(realised_cosine([torch.full((3,), 1e-4)], w, [w[0] + 1e-4], torch.bfloat16)) == 0
    assert float(realised_cosine([torch.full((3,), 0.5)], w, [w[0] + 0.5], torch.bfloat16)) == pytest.approx(1)


@pytest.mark.parametrize("name", ["sam", "roga", "dualflat"])
def test_a_step_tells_the_least_cosine_of_its_shifts(name: str) -> None:
    detector = Tiny()
    optimizer = Optimizer(OPTIMIZERS.build(name, rho=0.01), build_base("sgd", detector.parameters()), detector)
    asked = BatchObjective(detector, [float32()], "bf16", "bf16")
    optimizer.step(asked)
    told = optimizer.diagnostics["realised_cosine"]
    assert 0.05 < float(told) < 0.9
    shift = {p: torch.full_like(p, 1.0) for p in detector.parameters()}
    asked.gradient(at=Vector(shift))
    assert torch.equal(asked.diagnostics["realised_cosine"], told)  # a long shift survives; the least stays


def bf16_weights(detector: nn.Module) -> nn.Module:
    """Convolutions and linear layers in bfloat16."""
    for module in detector.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)
    return detector


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept_in", ["fp32", "bf16", "rounded"])
def test_learning_rate_zero_leaves_every_bit(name: str, kept_in: str) -> None:
    """With an Inf among the gradients, too."""
    detector = Cast()
    if kept_in == "bf16":
        bf16_weights(detector)
    settings = ("fp32", "fp32") if kept_in == "fp32" else ("bf16", "bf16")
    optimizer = Optimizer(OPTIMIZERS.build(name), build_base("sgd", detector.parameters(), lr=0.0), detector)
    before = bits(detector.parameters())
    for step in range(2):
        optimizer.step(BatchObjective(detector, [float32(seed=step)], *settings))
    assert same(detector.parameters(), before)
    detector.passes, detector.overflow_in = 0, {1}
    optimizer.rule.gradient(BatchObjective(detector, [float32()], *settings))
    assert same(detector.parameters(), before)


# --- what is refused ---


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"precision": "fp16"}, "needs a GradScaler"),
        ({"precision": "bf16", "scaler": scaler()}, "goes with precision 'fp16', not with 'bf16'"),
        ({"precision": "bf16", "weights_dtype": "fp16"}, "take fp32 or bf16"),
        ({"precision": "fp32", "weights_dtype": "bf16"}, "take fp32$"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        BatchObjective(Tiny(), [float32()], **settings)


def test_a_grid_is_refused_before_it_runs() -> None:
    with pytest.raises(ValueError, match="weights_dtype 'bf16' does not go with precision 'fp32'"):
        Protocol(epochs=1, batch_size=8, weights_dtype="bf16")
