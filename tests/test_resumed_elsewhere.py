"""A run that goes on on another processor or another GPU, and what it counted on the way."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import pytest
import torch
from small_cell import cell

from benchmark import energy, provenance
from benchmark.run import run_cell
from benchmark.seeding import random_state, restore_random_state
from benchmark.train import Stopped
from results.record import Energy


@pytest.fixture
def generators(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Stands for the generators of three GPUs."""
    states = {f"cuda:{i}": torch.tensor([100 + i]) for i in range(3)}
    monkeypatch.setattr("torch.cuda.get_rng_state", lambda device: states[device].clone())
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda state, device: states.update({device: state}))
    return states


def test_dropout_goes_on_on_another_gpu(generators: dict[str, torch.Tensor]) -> None:
    state = random_state("cuda:2")
    del generators["cuda:2"]  # it is not there any more
    restore_random_state(state, "cuda:0")
    assert {name: int(value) for name, value in generators.items()} == {"cuda:0": 102, "cuda:1": 101}


def test_a_run_on_the_cpu_asks_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it keep anything of one, that a machine without would have to take back."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for name in ("get_rng_state", "get_rng_state_all", "set_rng_state", "set_rng_state_all"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *args: pytest.fail("a GPU was asked"))
    state = random_state("cpu")
    drawn = torch.rand(3)
    restore_random_state(state, "cpu")
    assert torch.equal(torch.rand(3), drawn)


def test_another_processor_is_told_and_recorded(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, however often it goes on there."""
    told: list[str] = []
    for name in ("First", "Second"):
        monkeypatch.setattr(provenance, "cpu", lambda name=name: name)
        with pytest.raises(Stopped):
            run_cell(cell(), tmp_path, data, should_stop=lambda: True, tell=told.append)
    done = run_cell(cell(), tmp_path, data, tell=told.append)
    sentence = "it ran on First, then on Second, whose kernels may add in another order"
    assert [note for note in told if "may not repeat" in note] == [f"the cell may not repeat to the bit: {sentence}"]
    assert f"the cell may not repeat to the bit: {sentence}" in done.warnings
    assert (done.provenance.cpu, done.provenance.inexact, done.provenance.deterministic) == ("Second", sentence, False)


def test_the_same_processor_is_no_news(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run_cell(cell(), tmp_path, data, should_stop=lambda: True)
    done = run_cell(cell(), tmp_path, data)
    assert (done.provenance.inexact, done.provenance.deterministic, done.provenance.restarts) == ("", True, 1)


def test_energy_is_counted_all_the_way(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By looks at the counter often enough for one that runs over, and of a run that goes on also what it needed to get there."""
    joules, looks = count(1), count(1)
    monkeypatch.setattr(energy, "OFTEN", -1.0)
    monkeypatch.setattr(energy, "processor", lambda: (energy.PROCESSOR, lambda: float(next(joules))))
    with pytest.raises(Stopped):
        run_cell(cell(), tmp_path, data, should_stop=lambda: True, report=lambda *now: next(looks))
    used = run_cell(cell(), tmp_path, data, report=lambda *now: next(looks)).provenance.energy
    # One joule passes from look to look, and the first look of each of both runs only tells where the counter stands.
    assert used == Energy(joules=float(next(joules) - 1 - 2), source=energy.PROCESSOR)
    assert used.joules is not None
    assert used.joules >= next(looks) - 1


def test_a_meter_looks_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    values, now = iter([0.0, 5.0, 9.0]), [0.0]
    monkeypatch.setattr("benchmark.energy.time.monotonic", lambda: now[0])
    monkeypatch.setattr(energy, "processor", lambda: (energy.PROCESSOR, lambda: next(values)))
    meter = energy.Meter("cpu")
    now[0] = energy.OFTEN - 1
    meter.keep_up()
    assert meter.joules == 0.0
    now[0] = energy.OFTEN + 1
    meter.keep_up()
    meter.keep_up()
    assert meter.joules == 5.0
    meter.add(Energy(joules=100.0, source=energy.PROCESSOR))
    assert meter.sample() == Energy(joules=109.0, source=energy.PROCESSOR)


def test_how_a_gpu_rounds_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", True)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    told = provenance.arithmetic("cuda:1")
    assert told.endswith("driver unknown, TF32 in convolutions yes, in matrix products no")
    assert told.startswith(f"CUDA {torch.version.cuda}, cuDNN ")
    assert provenance.arithmetic("cpu") == ""
