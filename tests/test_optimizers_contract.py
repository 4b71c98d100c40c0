"""What every optimizer must fulfil, for every registered name and the example plug-in: a new one is tested with no new test."""

from __future__ import annotations

import copy
import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from optimizer_reference import Tiny, faces
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmark.objective import BatchObjective
from detectors.base import Batch
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer, Rule
from optimizers.bases import BASES, build_base
from optimizers.registry import load_plugin
from optimizers.vector import Vector

EXAMPLE = Path(__file__).parent.parent / "examples" / "my_optimizer.py"
load_plugin(EXAMPLE)
NAMES = OPTIMIZERS.names()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def eight(seed: int = 0) -> Batch:
    return faces([0, 0, 0, 0, 1, 1, 1, 1], seed, torch.float32)


def make(name: str, lr: float = 0.05, dropout: float = 0.0) -> tuple[Tiny, Optimizer]:
    detector = Tiny(dropout=dropout)
    return detector, Optimizer(OPTIMIZERS.build(name), build_base("sgd", detector.parameters(), lr=lr), detector)


def train(detector: Tiny, optimizer: Optimizer, steps: range) -> list[float]:
    return [float(optimizer.step(BatchObjective(detector, [eight(step)]))) for step in steps]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_example_is_among_them() -> None:
    assert "my_optimizer" in NAMES
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 30


def test_is_a_rule_with_settings_that_have_defaults(name: str) -> None:
    rule = OPTIMIZERS.build(name)
    assert isinstance(rule, Rule)
    assert dataclasses.is_dataclass(rule)
    assert rule.base in BASES
    assert OPTIMIZERS.NO_DEFAULT not in OPTIMIZERS.settings(name).values()
    settings = ", ".join(f"{key}={getattr(rule, key)!r}" for key in OPTIMIZERS.settings(name))
    assert repr(rule) == f"{type(rule).__name__}({settings})"


def test_gradient_is_finite_and_complete(name: str) -> None:
    detector, optimizer = make(name)
    g = optimizer.rule.gradient(BatchObjective(detector, [eight()]))
    assert isinstance(g, Vector)
    assert set(g.parts) == set(detector.parameters())
    for p, part in g.parts.items():
        assert part.shape == p.shape
        assert part.dtype is p.dtype
        assert part.isfinite().all()
        assert not part.requires_grad
    assert float(g.norm()) > 0


def test_weights_modes_and_hooks_are_as_before(name: str) -> None:
    detector, optimizer = make(name, dropout=0.3)
    before = copy.deepcopy(detector)
    for seed in range(2):
        optimizer.rule.gradient(BatchObjective(detector, [eight(seed)]))
    for p, q in zip(detector.parameters(), before.parameters(), strict=True):
        assert torch.equal(p.detach().view(torch.int32), q.detach().view(torch.int32))
        assert p.grad is None
    for module, old in zip(detector.modules(), before.modules(), strict=True):
        assert module.training == old.training
        assert not module._forward_hooks
        assert getattr(module, "track_running_stats", None) == getattr(old, "track_running_stats", None)


def test_step_spends_the_gradient_and_tells_the_loss(name: str) -> None:
    detector, optimizer = make(name)
    before = {n: p.detach().clone() for n, p in detector.named_parameters()}
    objective = BatchObjective(detector, [eight()])
    loss = optimizer.step(objective)
    assert loss.shape == ()
    assert not loss.requires_grad
    assert torch.equal(loss, objective.loss)
    assert all(not torch.equal(p, before[n]) for n, p in detector.named_parameters())
    assert all(p.grad is None for p in detector.parameters())


def test_loss_falls_on_eight_examples(name: str) -> None:
    detector, optimizer = make(name)
    losses = [float(optimizer.step(BatchObjective(detector, [eight()]))) for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]


def test_same_start_same_end(name: str) -> None:
    ends = []
    for _ in range(2):
        torch.manual_seed(5)
        detector, optimizer = make(name, dropout=0.3)
        train(detector, optimizer, range(4))
        ends.append(detector.state_dict())
    assert equal(*ends)


def test_attaching_twice_does_no_harm(name: str) -> None:
    ends = []
    for by_hand in (False, True):
        torch.manual_seed(5)
        detector = Tiny()
        rule = OPTIMIZERS.build(name)
        if by_hand:
            rule.attach(detector)
        train(detector, Optimizer(rule, build_base("sgd", detector.parameters()), detector), range(2))
        ends.append(detector.state_dict())
    assert equal(*ends)


def test_resuming_through_a_file_changes_no_bit(name: str) -> None:
    """A run of six steps, and one that was saved and taken up again after every number of steps: all memory is in the state."""
    detector, optimizer = make(name)
    train(detector, optimizer, range(6))
    for half in range(1, 6):
        first, before = make(name)
        train(first, before, range(half))
        file = io.BytesIO()
        torch.save({"detector": first.state_dict(), "optimizer": before.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        second, after = make(name)
        second.load_state_dict(saved["detector"])
        after.load_state_dict(saved["optimizer"])
        train(second, after, range(half, 6))
        assert equal(second.state_dict(), detector.state_dict())


class Reads(TorchDispatchMode):
    """Notes every operation that fetches a number from the device, and so makes the host wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_never_waits_for_the_device(name: str) -> None:
    detector, optimizer = make(name)
    for seed in range(2):
        objective = BatchObjective(detector, [eight(seed)])
        with Reads() as reads:
            optimizer.rule.gradient(objective)
        assert reads.found == []
    with Reads() as reads:
        float(objective.loss)
    assert reads.found  # the counter does see such a read


def test_frozen_weights_are_left_alone(name: str) -> None:
    detector = Tiny()
    detector.first.requires_grad_(False)
    before = {n: p.clone() for n, p in detector.first.named_parameters()}
    optimizer = Optimizer(OPTIMIZERS.build(name), build_base("sgd", detector.parameters()), detector)
    optimizer.step(BatchObjective(detector, [eight()]))
    assert all(torch.equal(p, before[n]) for n, p in detector.first.named_parameters())
