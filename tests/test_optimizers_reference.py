"""Every optimizer against the naive formulas, in float64: several plausible mistakes are too small for float32 to show."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optimizer_reference import BASE_SETTINGS, EQUAL, NAIVE_BASES, RULES, UNEQUAL, Tiny, faces, weights_of

from benchmark.objective import BatchObjective
from detectors.base import Batch
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base

CASES: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {}),
    ("sam", {"rho": 0.05}),
    ("asam", {"rho": 0.5, "eta": 0.01}),
    ("asam", {"rho": 0.5, "eta": 0.0, "scaling": "all"}),
    ("gnp", {"r": 0.05, "alpha": 0.8}),
    ("sagm", {"rho": 0.05, "alpha": 0.02}),
    ("sagm", {"rho": 0.05, "alpha": 0.02, "average": False}),
    ("roga", {"rho": 0.1, "alpha": 2e-4}),
    ("roga", {"rho": 0.1, "alpha": 0.02, "align": "global"}),
    ("roga", {"rho": 0.1, "alpha": 0.02, "weighting": "size", "align": "global"}),
    ("roga", {"rho": 0.1, "alpha": 0.02, "variant": "b"}),
    ("roga", {"rho": 0.1, "alpha": 0.02, "variant": "c"}),
    ("roga", {"rho": 0.1, "alpha": 0.02, "variant": "c", "form": "exact"}),
    ("roga", {"rho": 0.1, "alpha": 0.02, "form": "exact", "weighting": "size"}),
    ("pim", {"r": 0.1}),
    ("pim", {"r": 0.1, "alpha": 0.6}),
    ("dualflat", {"r": 0.1, "rho": 0.05, "alpha": 0.5, "beta": 0.3}),
]
NAMES = ["-".join([name, *(str(v) for v in settings.values())]) for name, settings in CASES]


def distance(detector: torch.nn.Module, expected: dict[str, torch.Tensor]) -> float:
    return max(float((p.detach().double() - expected[name]).abs().max()) for name, p in detector.named_parameters())


def make(
    name: str, settings: dict[str, Any], base: str, norm: bool, dtype: torch.dtype, **spent: float
) -> tuple[Tiny, Optimizer, Any]:
    detector = Tiny(norm=norm).to(dtype)
    spent = {**BASE_SETTINGS[base], **spent}
    optimizer = Optimizer(OPTIMIZERS.build(name, **settings), build_base(base, detector.parameters(), **spent), detector)
    return detector, optimizer, NAIVE_BASES[base](**spent)


@pytest.mark.parametrize(("norm", "domains", "base"), [(True, EQUAL, "sgd"), (True, UNEQUAL, "adam"), (False, UNEQUAL, "sgd")])
@pytest.mark.parametrize(("name", "settings"), CASES, ids=NAMES)
def test_float64(name: str, settings: dict[str, Any], norm: bool, domains: list[int], base: str) -> None:
    detector, optimizer, naive = make(name, settings, base, norm, torch.float64)
    expected = weights_of(detector)
    for step in range(5):
        batch = faces(domains, seed=step)
        optimizer.step(BatchObjective(detector, [batch]))
        expected = naive.step(expected, RULES[name](expected, batch, **settings))
        assert distance(detector, expected) < (1e-10 if step == 0 else 1e-9)


@pytest.mark.parametrize("base", ["sgd", "adam"])
@pytest.mark.parametrize(("name", "settings"), CASES, ids=NAMES)
def test_float32(name: str, settings: dict[str, Any], base: str) -> None:
    # Adam's first step is nearly lr times the gradient's sign: a large lr magnifies the rounding of a gradient close to zero.
    detector, optimizer, naive = make(name, settings, base, True, torch.float32, lr=0.05 if base == "sgd" else 2e-4)
    batch = faces(EQUAL, dtype=torch.float32)
    start = {n: t.double() for n, t in weights_of(detector).items()}
    optimizer.step(BatchObjective(detector, [batch]))
    exact = Batch(batch.images.double(), batch.labels, batch.domains, batch.videos)
    assert distance(detector, naive.step(start, RULES[name](start, exact, **settings))) < 5e-6


@pytest.mark.parametrize(("name", "settings"), CASES[1:], ids=NAMES[1:])
def test_every_case_does_something(name: str, settings: dict[str, Any]) -> None:
    """The reference itself can tell the methods apart: each one differs from plain descent by far more than the tolerance."""
    w, batch = weights_of(Tiny().double()), faces(UNEQUAL)
    ours, plain = RULES[name](w, batch, **settings), RULES["sgd"](w, batch)
    assert max(float((ours[n] - plain[n]).abs().max()) for n in w) > 1e-4


def test_clip_limits_the_combined_gradient() -> None:
    detector = Tiny().double()
    batch = faces(EQUAL)
    start = weights_of(detector)
    g = RULES["sam"](start, batch, rho=0.05)
    length = sum(float((t**2).sum()) for t in g.values()) ** 0.5
    base = build_base("sgd", detector.parameters(), lr=1.0, momentum=0.0, weight_decay=0.0)
    Optimizer(OPTIMIZERS.build("sam"), base, detector, clip=length / 4).step(BatchObjective(detector, [batch]))
    assert distance(detector, {n: start[n] - g[n] / 4 for n in start}) < 1e-6
    now = weights_of(detector)
    Optimizer(OPTIMIZERS.build("sam"), base, detector, clip=1e6).step(BatchObjective(detector, [batch]))
    g = RULES["sam"](now, batch, rho=0.05)
    assert distance(detector, {n: now[n] - g[n] for n in now}) < 1e-10


@pytest.mark.parametrize("name", ["sgd", "adam", "sam", "roga"])
@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_resuming_half_way_changes_no_bit(name: str, base: str) -> None:
    def run(interrupt: bool) -> dict[str, torch.Tensor]:
        detector, optimizer, _ = make(name, {}, base, True, torch.float32)
        for step in range(6):
            if interrupt and step == 3:
                weights, memory = detector.state_dict(), optimizer.state_dict()
                detector, optimizer, _ = make(name, {}, base, True, torch.float32)
                detector.load_state_dict(weights)
                optimizer.load_state_dict(memory)
            optimizer.step(BatchObjective(detector, [faces(EQUAL, seed=step, dtype=torch.float32)]))
        return detector.state_dict()

    whole, resumed = run(False), run(True)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_state_holds_no_weights() -> None:
    detector, optimizer, _ = make("sam", {}, "sgd", True, torch.float32)
    optimizer.step(BatchObjective(detector, [faces(EQUAL, dtype=torch.float32)]))
    state = optimizer.state_dict()
    held = [t for entry in state["base"]["state"].values() for t in entry.values() if isinstance(t, torch.Tensor)]
    assert len(held) == len(list(detector.parameters()))  # the momentum, and that alone
    weights = weights_of(detector)
    assert not any(torch.equal(t, w) for t in held for w in weights.values() if t.shape == w.shape)
    assert state["rule"] == {}
    assert set(state) == {"rule", "base"}
