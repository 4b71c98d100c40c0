"""Rules from outside may keep what they return, hand over tensors of their own, and ask for a gradient again and again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optimizer_reference import EQUAL, Tiny, faces, weights_of
from torch import Tensor, nn

from benchmark.diagnostics import Probe
from benchmark.objective import BatchObjective
from optimizers import OPTIMIZERS
from optimizers.base import Objective, Optimizer, Rule
from optimizers.bases import build_base
from optimizers.vector import Vector


class HeavyBall(Rule):
    """Returns its own memory."""

    def __init__(self) -> None:
        self.v = Vector({})

    def gradient(self, objective: Objective) -> Vector:
        self.v = 0.9 * self.v + objective.gradient()
        return self.v


class Weights(Rule):
    """Returns the weights' own tensors, at the price of one pass."""

    def attach(self, detector: nn.Module) -> None:
        self.trained = list(detector.parameters())

    def gradient(self, objective: Objective) -> Vector:
        objective.gradient(at=-0.1 * Vector({p: p.detach() for p in self.trained}).spent())
        return Vector({p: p.detach() for p in self.trained})


class Nothing(Rule):
    """Asks, and then wants nothing to move."""

    def gradient(self, objective: Objective) -> Vector:
        objective.gradient()
        return Vector({})


class Asking(Rule):
    """Spends, in its probe, what the prober remembers."""

    def gradient(self, objective: Objective) -> Vector:
        sam: Vector = OPTIMIZERS.build("sam").gradient(objective)
        return sam

    def probe(self, objective: Objective) -> dict[str, Tensor]:
        for domain in objective.domains():
            _ = 2 * domain.gradient().spent()
        return {"change": (self.gradient(objective) - self.gradient(objective)).norm()}


def trained(rule: Rule, steps: int = 3, clip: float | None = None, scale: float | None = None, **base: Any) -> Tiny:
    detector = Tiny()
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    optimizer = Optimizer(rule, build_base("sgd", detector.parameters(), **base), detector, clip=clip, scaler=scaler)
    for seed in range(steps):
        batch = faces(EQUAL, seed=seed, dtype=torch.float32)
        optimizer.step(BatchObjective(detector, [batch], precision="fp32" if scaler is None else "fp16", scaler=scaler))
    return detector


@pytest.mark.parametrize("settings", [{}, {"clip": 1e3}, {"scale": 8.0}], ids=["plain", "clip", "scaler"])
def test_a_rule_may_keep_what_it_returned(settings: dict[str, Any]) -> None:
    """Momentum of the rule is momentum of the base: what clipping or the scaler do to the gradient is not done to the memory."""
    by_rule = trained(HeavyBall(), momentum=0.0, weight_decay=0.0, **settings)
    by_base = trained(OPTIMIZERS.build("sgd"), momentum=0.9, weight_decay=0.0, **settings)
    for mine, theirs in zip(by_rule.parameters(), by_base.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("settings", [{}, {"clip": 1e-3}, {"scale": 8.0}], ids=["plain", "clip", "scaler"])
def test_tensors_of_somebody_else_are_never_written_to(settings: dict[str, Any]) -> None:
    before = weights_of(Tiny())
    after = weights_of(trained(Weights(), lr=0.0, momentum=0.0, weight_decay=0.0, **settings))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("settings", [{}, {"clip": 1.0}, {"scale": 8.0}], ids=["plain", "clip", "scaler"])
def test_an_empty_gradient_moves_nothing(settings: dict[str, Any]) -> None:
    before = weights_of(Tiny())
    after = weights_of(trained(Nothing(), **settings))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_probe_may_spend_what_is_remembered() -> None:
    detector, batch = Tiny(), faces(EQUAL, dtype=torch.float32)

    def looked(rule: Rule) -> dict[Any, Tensor]:
        return Probe(detector, "mine", rule, lambda batches: BatchObjective(detector, batches)).look(batch)

    plain, found = looked(OPTIMIZERS.build("sgd")), looked(Asking())
    assert float(found[("mine/change", None, None)]) == 0.0
    assert all(torch.equal(found[key], value) for key, value in plain.items())
