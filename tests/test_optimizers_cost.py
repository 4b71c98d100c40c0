"""What the optimizers cost that no noise disturbs, vectors that give up their memory, and torch's fused kernels."""

from __future__ import annotations

import itertools
import math
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optimizer_reference import EQUAL, Tiny, faces
from torch import nn

from benchmark.objective import BatchObjective
from benchmark.speed import optimizers as speed
from benchmark.speed.ideals import Measurement, Row
from benchmark.speed.targets import ASIDE, CONFIDENCE, LIMITS, LOOKS, REAL, looked_at, verdict
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base
from optimizers.vector import Vector

LAUNCHES = {"adam": 2, "sam": 10, "gnp": 13, "sagm": 13, "roga": 54, "pim": 13, "dualflat": 20}
"""At most so many beyond the passes, with one pushed module in PIM and DualFlat; each further one takes `PUSHED`."""

PUSHED = 5
"""Three forward (a contiguous copy, its norm, the difference) and two backward."""

COPIES = {"adam": 0, "sam": 1, "gnp": 2, "sagm": 2, "roga": 2, "pim": 0.2, "dualflat": 3}
"""Of the weights, at most, a tenth aside; PIM's are its normalised features."""


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The script takes SIGTERM for Ctrl-C."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def measured() -> dict[str, tuple[int, int, float]]:
    """Launches, waits and copies of the weights by method, on a ResNet whose weights outweigh what it computes of small faces."""
    found = Measurement("resnet10", sorted(LAUNCHES), 8, 32, 4, torch.device("cpu"))
    for _ in found.count_all():
        pass
    return {row.name: speed.beyond(found, row) for row in found.rows}


@pytest.mark.parametrize("name", sorted(LAUNCHES))
def test_launches_waits_and_memory(measured: dict[str, tuple[int, int, float]], name: str) -> None:
    launches, waits, copies = measured[name]
    assert 0 < launches <= LAUNCHES[name]
    assert waits == 0
    assert copies < COPIES[name] + ASIDE["copies of the weights"]


def test_launches_of_three_pushed_modules() -> None:
    found = Measurement("resnet34", ["dualflat", "pim"], 8, 32, 4, torch.device("cpu"))
    assert len(found.detector.shallow) == 3
    for _ in found.count_all():
        pass
    for row in found.rows:
        assert speed.beyond(found, row)[0] <= LAUNCHES[row.name] + 2 * PUSHED <= LIMITS["launches"][row.name]


@pytest.mark.parametrize("repeats", ["1", "2"])
def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, repeats: str) -> None:
    file = tmp_path / "table.md"
    names = ["--detectors", "meso4", "--optimizers", "sam", "roga"]
    sizes = ["--repeats", repeats, "--batch", "8", "--size", "32", "--markdown", str(file)]
    monkeypatch.setattr(sys, "argv", ["optimizers", *names, *sizes])
    speed.main()
    assert "meso4: 8 faces of 32 px" in capsys.readouterr().out
    rows = {line.split(" | ")[0]: line for line in file.read_text(encoding="utf-8").splitlines()}
    assert rows["| sam"].count("(target") == 4
    assert rows["| roga"].split(" | ")[1] == "8"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "is no Python file"), ("x = 1", "defines no class SAM"), ("def (", "cannot be imported: SyntaxError")],
)
def test_a_wrong_peer_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "theirs.py"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["optimizers", "--detectors", "meso4", "--peer", str(file)])
    with pytest.raises(SystemExit, match=f"Error: --peer .*theirs.py {said}"):
        speed.main()


def test_a_peer_is_measured_beside_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One that moves the weights as the popular classes do: rounds are timed, and BatchNorm has its momentum back."""
    file = tmp_path / "theirs.py"
    file.write_text(
        """
import torch
class SAM:
    def __init__(self, weights, base, rho, **settings):
        self.weights, self.rho, self.base = list(weights), rho, base(weights, **settings)
    @torch.no_grad()
    def first_step(self, zero_grad):
        norm = torch.stack([p.grad.norm() for p in self.weights]).norm()
        self.shift = [p.grad * (self.rho / norm) for p in self.weights]
        torch._foreach_add_(self.weights, self.shift)
        self.base.zero_grad()
    @torch.no_grad()
    def second_step(self, zero_grad):
        torch._foreach_sub_(self.weights, self.shift)
        self.base.step()
        self.base.zero_grad()
""",
        encoding="utf-8",
    )
    output = tmp_path / "table.md"
    sizes = ["--repeats", "1", "--batch", "8", "--size", "32", "--markdown", str(output)]
    monkeypatch.setattr(sys, "argv", ["optimizers", "--detectors", "meso4", "--optimizers", "sam", *sizes, "--peer", str(file)])
    speed.main()
    capsys.readouterr()
    rows = {line.split(" | ")[0]: line.split(" | ") for line in output.read_text(encoding="utf-8").splitlines()}
    ours, theirs = rows["| sam"], rows["| sam of theirs"]
    assert (ours[1], theirs[1]) == ("2", "2")
    assert int(theirs[6]) > int(ours[6].split()[0])
    assert "target" not in "".join(theirs)


@pytest.mark.parametrize("when", ["counting", "timing"])
def test_a_measurement_that_is_stopped_says_what_it_knows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, when: str
) -> None:
    file = tmp_path / "table.md"
    names = ["--detectors", "meso4", "resnet10", "--optimizers", "adam", "sam"]
    monkeypatch.setattr(
        sys, "argv", ["optimizers", *names, "--repeats", "2", "--batch", "8", "--size", "32", "--markdown", str(file)]
    )
    whole = Measurement.count_all if when == "counting" else Measurement.time_round

    def stopped(self: Measurement, *rows: Any) -> Iterator[None]:
        if self.size == 32:  # and not while the small faces are timed
            yield from itertools.islice(whole(self, *rows), 4)
            signal.raise_signal(signal.SIGTERM)
        yield from whole(self, *rows)

    monkeypatch.setattr(Measurement, whole.__name__, stopped)
    with pytest.raises(SystemExit, match="Stopped while meso4 was measured"):
        speed.main()
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = {line.split(" | ")[0]: line.removesuffix(" |").split(" | ") for line in lines if line.startswith(("| adam", "| sam"))}
    assert "resnet10" not in file.read_text(encoding="utf-8")
    adam, sam = rows["| adam"], rows["| sam"]
    assert "target" in adam[6]  # its launches were counted
    assert ("target" in sam[6]) == (when == "timing")
    assert bool(adam[2]) == (when == "timing")
    assert "target" in sam[5]  # of the small faces


def test_what_methods_have_in_common_is_counted_once() -> None:
    found = Measurement("resnet10", ["sam", "gnp", "adam", "sgd"], 8, 32, 4, torch.device("cpu"))
    for _ in found.count_all():
        pass
    sam, gnp, adam, sgd = found.rows
    assert sam.ideal is gnp.ideal
    assert sam.counts[1:] == gnp.counts[1:]
    assert sam.counts[1] is gnp.counts[1]
    assert adam.counts[1] is not sam.counts[1]  # other passes
    assert sgd.ideal is not adam.ideal  # another base


def test_a_figure_is_held_against_its_target() -> None:
    assert verdict("launches", "sam", 30) == " (target 30 met)"
    assert verdict("launches", "sam", 31) == " (target 30 NOT met)"
    assert verdict("launches", "plug-in", 99) == ""
    assert verdict("copies of the weights", "sam", 1.09) == " (target 1 met)"
    assert verdict("copies of the weights", "sam", 1.11) == " (target 1 NOT met)"


def test_a_ratio_is_held_against_its_target_where_the_rounds_can_tell() -> None:
    ratios = [1.0 + 0.001 * i for i in range(9)]
    assert (looked_at(ratios).low, looked_at(ratios).high) == (1.0, 1.008)  # the whole range of nine
    assert verdict(REAL, "sam", 0.0, ratios) == " (target 1.01 met)"
    assert verdict(REAL, "sam", 0.0, [r + 0.005 for r in ratios]) == " (target 1.01 undecided)"
    assert verdict(REAL, "sam", 0.0, [r + 0.02 for r in ratios]) == " (target 1.01 NOT met)"
    assert (looked_at([1.0, 2.0]).low, looked_at([1.0, 2.0]).high) == (-math.inf, math.inf)
    assert looked_at([0.5]).at_most(1.0) == "undecided"


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    """Of skewed noise, at each look; and it narrows with the rounds."""
    numbers = np.random.default_rng(0)
    widths = []
    for look in LOOKS:
        drawn = [looked_at(numbers.lognormal(0.0, 0.1, look)) for _ in range(400)]
        assert sum(d.low <= 1.0 <= d.high for d in drawn) >= 400 * CONFIDENCE - 12
        widths.append(float(np.median([d.high - d.low for d in drawn])))
    assert widths == sorted(widths, reverse=True)


def test_only_what_is_undecided_is_timed_on() -> None:
    timed: list[tuple[str, ...]] = []

    class Scripted:
        """Ratios that are told beforehand: sam's is clear, gnp's never."""

        name = "scripted"

        def __init__(self) -> None:
            self.rows = [Row(name, int, int, int, 2, 2.0, real=1.0) for name in ("sam", "gnp")]

        def count_all(self) -> Iterator[None]:
            yield

        def time_round(self, rows: list[Row]) -> Iterator[None]:
            timed.append(tuple(row.name for row in rows))
            for row in rows:
                row.rounds.append((1.0 if row.name == "sam" else (1.0, 1.02)[len(timed) % 2], 1.0, 0.5))
            yield

        undecided = Measurement.undecided

    speed.measure(Scripted(), LOOKS, minutes=1.0)  # type: ignore[arg-type]
    assert timed == [("sam", "gnp")] * LOOKS[0] + [("gnp",)] * (LOOKS[-1] - LOOKS[0])
    timed.clear()
    speed.measure(Scripted(), LOOKS, minutes=0.0)  # type: ignore[arg-type]
    assert timed == [("sam", "gnp")] * LOOKS[0]


@pytest.fixture
def leaves() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]


def test_a_spent_vector_lends_its_memory_and_is_gone(leaves: list[nn.Parameter]) -> None:
    v = Vector({p: torch.ones_like(p) for p in leaves}, fresh=True)
    places = [t.data_ptr() for t in v.parts.values()]
    twice = 2 * v.spent()
    assert [t.data_ptr() for t in twice.parts.values()] == places
    assert float(twice.norm()) == pytest.approx(2 * 7**0.5)
    total = twice + Vector({leaves[0]: torch.ones(3)})  # a multiple of a spent vector can be used once
    assert float(total.norm()) == pytest.approx(43**0.5)
    with pytest.raises(RuntimeError, match="spent"):
        _ = v.parts
    assert repr(v) == "Vector, spent"


def test_memory_that_others_hold_is_left_alone(leaves: list[nn.Parameter]) -> None:
    one = torch.ones(3)
    twin = nn.Parameter(torch.zeros(3))
    doubled = 2 * Vector({leaves[0]: one, twin: one}, fresh=True).spent()  # autograd gives one tensor to two leaves of a sum
    assert [t.tolist() for t in doubled.parts.values()] == [[2.0] * 3] * 2
    expanded = 2 * Vector({leaves[0]: torch.ones(1).expand(3)}, fresh=True).spent()
    assert expanded.parts[leaves[0]].tolist() == [2.0] * 3
    v = Vector({p: torch.ones_like(p) for p in leaves}, fresh=True)
    kept = v.only(leaves[:1])
    _ = 5 * v.spent()
    assert kept.parts[leaves[0]].tolist() == [1.0] * 3
    lone = Vector({leaves[1]: torch.ones(2, 2)}, fresh=True)
    both = kept + lone
    _ = 5 * both.spent()
    assert float(lone.norm()) == 2.0


def test_a_shift_can_be_used_again_unless_it_was_spent() -> None:
    detector = Tiny().double()
    objective = BatchObjective(detector, [faces(EQUAL)])
    g = objective.gradient()
    first, second = objective.gradient(at=0.1 * g), objective.gradient(at=0.1 * g.spent())
    assert float((first - second).norm()) == 0.0
    e = first / 10
    assert float((objective.gradient(at=e) - objective.gradient(at=e)).norm()) == 0.0


def test_fused_kernels_meet_gradients_of_another_layout() -> None:
    """torch's fused optimizers pair numbers by their place in memory: a gradient that is laid out otherwise would be mixed up."""

    class Fixed:
        base = "sgd"

        def attach(self, detector: nn.Module) -> None: ...

        def gradient(self, objective: BatchObjective) -> Vector:
            objective.gradient()
            return Vector({p: torch.arange(p.numel(), dtype=p.dtype).reshape(p.shape) for p in objective.parameters})

    for base in ("sgd", "adam"):
        ends = []
        for layout in (torch.contiguous_format, torch.channels_last):
            detector = Tiny().to(memory_format=layout)
            optimizer = Optimizer(Fixed(), build_base(base, detector.parameters(), lr=0.01), detector)  # type: ignore[arg-type]
            for _ in range(2):
                optimizer.step(BatchObjective(detector, [faces(EQUAL, dtype=torch.float32)]))
            ends.append(detector.second[0].weight.detach().contiguous())
        assert torch.allclose(*ends, rtol=0, atol=1e-6)


def test_memory_of_the_base_is_laid_out_like_the_weights_when_it_is_loaded() -> None:
    first, second = Tiny(), Tiny().to(memory_format=torch.channels_last)
    one, two = (Optimizer(OPTIMIZERS.build("sgd"), build_base("sgd", d.parameters()), d) for d in (first, second))
    batch = faces(EQUAL, dtype=torch.float32)
    one.step(BatchObjective(first, [batch]))
    second.load_state_dict(first.state_dict())
    two.load_state_dict(one.state_dict())
    weight = second.second[0].weight
    assert two.base.state[weight]["momentum_buffer"].stride() == weight.stride()


def test_bases_take_one_kernel_where_torch_has_one() -> None:
    for name in ("sgd", "adam"):
        parameters = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, dtype=torch.float64))]
        defaults = build_base(name, parameters).defaults
        assert defaults["fused"] or defaults["foreach"]
