"""PIM's second pass goes on from the first pushed module's output of the first pass, where that is what it would compute."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from optimizer_reference import Tiny, faces
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmark.diagnostics import Remembering
from benchmark.objective import BatchObjective, LaterPasses
from detectors import DETECTORS
from detectors.base import Batch, Detector, Prediction
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base
from optimizers.features import FeatureShift


class Block(nn.Sequential):
    """Counts how often it computes, and remembers its last output as long as somebody else does."""

    computed = 0
    last: weakref.ref[Tensor]

    def forward(self, images: Tensor) -> Tensor:
        self.computed += 1
        out: Tensor = super().forward(images)
        self.last = weakref.ref(out)
        return out


class Counting(Tiny):
    """A stem, two blocks to push, and dropout behind them."""

    def __init__(self, *more: nn.Module) -> None:
        super().__init__(dropout=0.4)
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout(0.2))
        self.first = Block(*self.first, *more)
        self.second = Block(*self.second)

    def forward(self, images: Tensor) -> Prediction:
        return super().forward(self.stem(images))


class Twice(Counting):
    def forward(self, images: Tensor) -> Prediction:
        features = self.second(self.first(images) + self.first(images.flip(3))).mean(dim=(2, 3))
        return Prediction(self.head(self.dropout(features)), features)


class Again(Counting):
    """Calls the first block once more, though only in training, and of something that leads to no loss."""

    def forward(self, images: Tensor) -> Prediction:
        told = super().forward(images)
        if self.training:
            with torch.no_grad():
                self.first(images)
        return told


class Skipping(Counting):
    """What leads to the first block also leads past it."""

    def forward(self, images: Tensor) -> Prediction:
        stem = self.stem(images)
        features = self.second(self.first(stem) + stem.mean(dim=1, keepdim=True)).mean(dim=(2, 3))
        return Prediction(self.head(self.dropout(features)), features)


class Checkpointed(Counting):
    """The first block computes again whenever its graph is needed."""

    def forward(self, images: Tensor) -> Prediction:
        features = self.second(checkpoint(self.first, self.stem(images), use_reentrant=False)).mean(dim=(2, 3))
        return Prediction(self.head(self.dropout(features)), features)


class Inside(nn.Module):
    """Its own part is computed again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = checkpoint(self.part, images, use_reentrant=False)
        return out


class Wandering(nn.Module):
    """A buffer that moves with each pass and enters what is computed."""

    scale: Tensor

    def __init__(self, anew: bool) -> None:
        super().__init__()
        self.anew = anew
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        self.scale = self.scale + 0.5 if self.anew else self.scale.add_(0.5)
        return images * self.scale.clone()


class Later(Counting):
    """What comes after the blocks is computed again."""

    def forward(self, images: Tensor) -> Prediction:
        features = checkpoint(self.second, self.first(self.stem(images)), use_reentrant=False).mean(dim=(2, 3))
        return Prediction(self.head(self.dropout(features)), features)


ONCE: dict[str, Callable[[], Detector]] = {"dropout elsewhere": Counting}
AGAIN: dict[str, Callable[[], Detector]] = {
    "dropout": lambda: Counting(nn.Dropout(0.3)),
    "a buffer written to": lambda: Counting(Wandering(anew=False)),
    "a buffer put in another's place": lambda: Counting(Wandering(anew=True)),
    "a way past": Skipping,
    "a checkpoint inside": lambda: Counting(Inside()),
    "spectral norm": lambda: Counting(nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))),
}


OTHERS: list[Callable[[], Detector]] = [Twice, Again, Checkpointed, Later]


def batch(dtype: torch.dtype = torch.float32) -> Batch:
    return faces([0, 1, 2] * 4, dtype=dtype)


def computed(detector: Detector, name: str = "pim", batches: list[Batch] | None = None, **settings: Any) -> int:
    """How often the first block computes in a step."""
    later = settings.pop("later", None)
    rule = OPTIMIZERS.build(name, **settings)
    optimizer = Optimizer(rule, build_base("sgd", detector.parameters(), lr=0.01), detector)
    detector.first.computed = detector.second.computed = 0
    optimizer.step(BatchObjective(detector, batches or [batch()], later=later))
    return int(detector.first.computed)


def result(detector: Detector, repeats: bool, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[Tensor]:
    """All that a step of PIM leaves: loss, gradient, buffers, generator; `repeats` False computes everything twice."""
    with monkeypatch.context() as patch:
        if not repeats:
            patch.setattr(BatchObjective, "repeats", False)
        rule = OPTIMIZERS.build("pim", r=0.7)
        rule.attach(detector)
        torch.manual_seed(1)
        objective = BatchObjective(detector, [settings.pop("faces", None) or batch()], **settings)
        gradient = rule.gradient(objective)
    found = [gradient.parts[p] for p in detector.parameters() if p in gradient.parts]
    return [objective.loss, *found, *(b.clone() for b in detector.buffers()), torch.get_rng_state()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ONCE)
def test_the_first_block_computes_once(name: str) -> None:
    detector = ONCE[name]()
    assert computed(detector) == 1
    assert detector.second.computed == 2
    assert computed(Later()) == 1


@pytest.mark.parametrize("name", AGAIN)
def test_it_computes_again_where_something_else_may_come_out(name: str) -> None:
    assert computed(AGAIN[name]()) == 2


def test_it_computes_again_where_the_step_or_the_rule_asks_for_it() -> None:
    assert computed(Counting(), later=LaterPasses(batchnorm="update")) == 2
    assert computed(Counting(), later=LaterPasses(masks="fresh")) == 2
    assert computed(Counting(), batches=[batch(), batch()]) == 4
    assert computed(Counting(), alpha=0.5) == 2
    assert computed(Counting(), "dualflat") == 3
    assert computed(Twice()) == computed(Again()) == 4
    assert computed(Checkpointed()) == 4


@pytest.mark.parametrize("make", [*ONCE.values(), *AGAIN.values(), *OTHERS], ids=[*ONCE, *AGAIN, *map(str, OTHERS)])
def test_no_bit_differs_from_computing_everything_twice(make: Callable[[], Detector], monkeypatch: pytest.MonkeyPatch) -> None:
    detector = make()
    assert same(*(result(copy.deepcopy(detector), repeats, monkeypatch) for repeats in (True, False)))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_no_bit_differs_under_autocast(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if precision == "fp16" else None
    found = [result(Counting(), repeats, monkeypatch, precision=precision, scaler=scaler) for repeats in (True, False)]
    assert same(*found)


@pytest.mark.parametrize("name", ["meso4", "resnet10", "srm", "f3net", "efficientnet_b0", "dfb-mesoinception4", "ucf"])
def test_no_bit_differs_with_real_detectors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SRM's first block is also looked past: its attention reads what leads there."""
    detector = DETECTORS.build(name, size=DETECTORS.get(name).smallest)
    few = faces([0, 1] * 2, dtype=torch.float32, size=detector.size)
    found = [result(copy.deepcopy(detector), repeats, monkeypatch, faces=few) for repeats in (True, False)]
    assert same(*found)
    assert (FeatureShift(detector, detector.shallow).kept() is None) == (name == "srm")


def test_hooks_of_others_run_in_both_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def hooked() -> Detector:
        detector = Counting()
        detector.first.register_forward_hook(lambda _module, _inputs, output: 2 * output)
        return detector

    assert computed(hooked()) == 1
    assert same(result(hooked(), True, monkeypatch), result(hooked(), False, monkeypatch))


def test_an_output_that_a_hook_writes_to_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def hooked() -> Detector:
        detector = Counting(nn.Softplus())  # whose derivative is of its input
        detector.first.register_forward_hook(lambda _module, _inputs, output: output.mul_(2))
        return detector

    assert computed(hooked()) == 2
    assert same(result(hooked(), True, monkeypatch), result(hooked(), False, monkeypatch))


def test_the_output_is_held_until_its_graph_has_been_passed() -> None:
    """And by nothing else: the gradient by the block's first weights is the last that the second pass computes of it."""
    detector, held = Counting(), []
    detector.first[0].weight.register_hook(lambda _gradient: held.append(detector.first.last() is not None))
    assert computed(detector) == 1
    assert held == [False]
    assert detector.first.last() is None


class Failing(Counting):
    """Fails behind the blocks, in the pass that is told."""

    passes, fails = 0, 0

    def forward(self, images: Tensor) -> Prediction:
        self.passes += 1
        told = super().forward(images)
        if self.passes == self.fails:
            raise ZeroDivisionError
        return told


@pytest.mark.parametrize("fails", [1, 2])
def test_a_pass_that_fails_leaves_nothing_behind(fails: int) -> None:
    detector = Failing()
    rule = OPTIMIZERS.build("pim")
    rule.attach(detector)
    own = detector.second.forward
    detector.second.forward = own  # as tools that wrap a module's forward leave it
    detector.passes, detector.fails = 0, fails
    with pytest.raises(ZeroDivisionError):
        rule.gradient(BatchObjective(detector, [batch()]))
    assert "forward" not in detector.first.__dict__
    assert detector.second.__dict__["forward"] is own
    detector.first.computed = detector.second.computed = 0
    detector(batch().images)
    assert detector.first.computed == 1


def test_one_micro_batch_of_one_process_repeats() -> None:
    detector = Counting()
    assert BatchObjective(detector, [batch()]).repeats
    assert Remembering(BatchObjective(detector, [batch()])).repeats
    assert [d.repeats for d in BatchObjective(detector, [batch()]).domains()] == [True] * 3
    assert not BatchObjective(detector, [batch(), batch()]).repeats
    assert not BatchObjective(detector, [batch()], ranks=Mock(gather=lambda mine: [mine])).repeats
