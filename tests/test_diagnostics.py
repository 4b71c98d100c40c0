"""Looking at gradients and sharpness on the way: the right numbers, at the right steps, without a trace in training."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from optimizer_reference import EQUAL, UNEQUAL, Tiny, Weights, faces, loss_at, slope, weights_of
from test_optimizers_contract import Reads
from test_run import CONTENT, assert_same
from torch import nn

from benchmark.checkpoint import load
from benchmark.config import Cell, ConfigError, Grid
from benchmark.diagnostics import RADIUS, SHARE, Probe, radii, schedule
from benchmark.objective import BatchObjective
from benchmark.reading import parse
from benchmark.run import run_cell
from benchmark.train import Stopped, micro_batches
from detectors.base import Batch
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base
from results.diagnostics import FILE, Row, cosines, load_diagnostics, ranges, table
from results.files import RecordError
from results.record import Record

NAMES = OPTIMIZERS.names()


def probe_of(detector: Any, name: str, micro_batch: int | None = None, **settings: Any) -> Probe:
    rule = OPTIMIZERS.build(name, **settings)
    rule.attach(detector)
    return Probe(detector, name, rule, partial(BatchObjective, detector), micro_batch)


# --- no trace ---


@pytest.mark.parametrize("micro_batch", [None, 4])
@pytest.mark.parametrize("name", NAMES)
def test_looking_changes_no_bit_of_training(name: str, micro_batch: int | None) -> None:
    """Weights, BatchNorm's statistics (also cumulative ones), the base optimizer's memory, the masks and the generator."""
    ends = []
    for looking in (False, True):
        torch.manual_seed(5)
        detector = Tiny(dropout=0.3)
        detector.second[1] = nn.BatchNorm2d(5, momentum=None)
        base = build_base("sgd", detector.parameters(), lr=0.05, momentum=0.9)
        optimizer = Optimizer(OPTIMIZERS.build(name), base, detector)
        probe = Probe(detector, name, optimizer.rule, partial(BatchObjective, detector), micro_batch)
        for step in range(3):
            batch = faces(EQUAL, step, torch.float32)
            if looking:
                assert probe.look(batch)
                assert all(p.grad is None for p in detector.parameters())
            optimizer.step(BatchObjective(detector, micro_batches(batch, 6)))
        momenta = [state["momentum_buffer"] for state in base.state.values()]
        told = optimizer.rule.diagnostics
        ends.append([*detector.state_dict().values(), *momenta, torch.get_rng_state(), *(told[key] for key in sorted(told))])
    assert len(ends[0]) == len(ends[1])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_looking_fetches_nothing_from_the_device(name: str) -> None:
    detector = Tiny()
    probe = probe_of(detector, name)
    with Reads() as reads:
        probe.look(faces(EQUAL, 0, torch.float32))
    assert reads.found == []


def test_a_domain_is_never_left_with_one_face() -> None:
    """Micro-batches of three hold one face of each domain; each domain is cut for itself, so BatchNorm always has two."""
    detector = Tiny()
    for m in detector.modules():
        if isinstance(m, nn.Conv2d):
            m.stride = (8, 8)  # a single position is left, of which one face has no variance
    assert probe_of(detector, "adam", micro_batch=3).look(faces([0, 1, 2] * 2, 0, torch.float32))


# --- the numbers ---


def flat(w: Weights) -> torch.Tensor:
    return torch.cat([t.reshape(-1) for t in w.values()])


def parts(batch: Batch) -> list[Batch]:
    return [batch.only(batch.domains == k) for k in range(3)]


@pytest.mark.parametrize("domains", [EQUAL, UNEQUAL])
def test_geometry_is_that_of_an_independent_computation(domains: Sequence[int]) -> None:
    detector = Tiny().double()
    w, batch = weights_of(detector), faces(list(domains))
    seen = {key: float(value) for key, value in probe_of(detector, "gnp", r=0.2).look(batch).items()}
    slopes = [slope(w, part) for part in parts(batch)]
    g = torch.stack([flat(s) for s in slopes])
    mean = {name: sum(s[name] for s in slopes) / 3 for name in w}
    for i in range(3):
        assert seen[("gradient_norm", i, None)] == pytest.approx(float(g[i].norm()), rel=1e-10)
        assert seen[("loss", i, None)] == pytest.approx(float(loss_at(w, parts(batch)[i])), rel=1e-10)
        assert seen[("gradient_cosine", i, i)] == pytest.approx(1, abs=1e-10)
        for j in range(3):
            cosine = float(nn.functional.cosine_similarity(g[i], g[j], dim=0))
            assert seen[("gradient_cosine", i, j)] == pytest.approx(cosine, abs=1e-10)
            assert seen[("gradient_cosine", i, j)] == seen[("gradient_cosine", j, i)]
    assert seen[("gradient_norm", None, None)] == pytest.approx(float(g.mean(dim=0).norm()), rel=1e-10)
    for rho in (RADIUS, 0.2):
        moved = {name: t + rho * mean[name] / float(flat(mean).norm()) for name, t in w.items()}
        gaps = [float(loss_at(moved, part) - loss_at(w, part)) for part in parts(batch)]
        assert [seen[(f"sharpness_gap@{rho:g}", i, None)] for i in range(3)] == pytest.approx(gaps, rel=1e-9)
        assert seen[(f"sharpness_gap@{rho:g}", None, None)] == pytest.approx(sum(gaps) / 3, rel=1e-9)


def test_roga_tells_how_far_it_is_from_perturbation_alone() -> None:
    detector = Tiny().double()
    w, batch = weights_of(detector), faces(EQUAL)
    seen = probe_of(detector, "roga", rho=0.1, alpha=0.05).look(batch)
    directions = []
    for alpha in (0.0, 0.05):
        total = torch.zeros(())
        for part in parts(batch):
            own = slope(w, part)
            scale = 0.1 / float(flat(own).norm()) - alpha
            total = total + flat(slope({name: t + scale * own[name] for name, t in w.items()}, part)) / 3
        directions.append(total)
    b, d = directions
    cosine = float(nn.functional.cosine_similarity(b, d, dim=0))
    assert float(seen[("roga/cosine_b_d", None, None)]) == pytest.approx(cosine, abs=1e-10)
    assert float(seen[("roga/distance_b_d", None, None)]) == pytest.approx(float((d - b).norm() / b.norm()), rel=1e-8)
    assert float(probe_of(detector, "roga", alpha=0.0).look(batch)[("roga/distance_b_d", None, None)]) == 0


@pytest.mark.parametrize("name", ["pim", "dualflat"])
def test_pim_tells_the_norm_of_delta_and_its_shares(name: str) -> None:
    detector = Tiny().double()
    rule = OPTIMIZERS.build(name, r=0.3)
    rule.attach(detector)
    assert rule.diagnostics == {}
    rule.gradient(BatchObjective(detector, [faces(EQUAL)]))
    told = {key: float(value) for key, value in rule.diagnostics.items()}
    zeros = [torch.zeros(c, dtype=torch.float64, requires_grad=True) for c in (4, 4, 5, 5)]
    found = torch.autograd.grad(loss_at(weights_of(detector), faces(EQUAL), zeros), zeros)
    squares = [float((g**2).sum()) for g in found]
    assert told["delta_norm"] == pytest.approx(0.3)
    assert told["slope_norm"] == pytest.approx(math.sqrt(sum(squares)), rel=1e-9)
    assert told["delta_share/first"] == pytest.approx(sum(squares[:2]) / sum(squares), rel=1e-9)
    assert told["delta_share/first"] + told["delta_share/second"] == pytest.approx(1)


def test_a_radius_in_another_norm_is_not_taken() -> None:
    assert radii(OPTIMIZERS.build("asam", rho=0.5)) == radii(OPTIMIZERS.build("adam")) == (RADIUS,)
    assert radii(OPTIMIZERS.build("sam", rho=0.02)) == (0.02, RADIUS)
    assert radii(OPTIMIZERS.build("roga", rho=0.0)) == (RADIUS,)


# --- when ---


@pytest.mark.parametrize("name", NAMES)
def test_long_runs_pay_less_than_one_hundredth(name: str) -> None:
    steps = 50_000
    plan = schedule("auto", steps, OPTIMIZERS.build(name), 4)
    assert len(plan.steps) >= 50
    assert 0.5 * SHARE < plan.share <= SHARE
    assert plan == schedule("auto", steps, OPTIMIZERS.build(name), 4)


def test_a_run_too_short_for_that_does_not_look() -> None:
    rule = OPTIMIZERS.build("adam")
    plan = schedule("auto", 300, rule, 3)
    assert (plan.steps, plan.share, plan.short) == (set(), 0, True)
    assert plan.reason.startswith("never: 0.75% of the passes allow a look every ")
    assert plan.reason.endswith(" steps, and the run has 300; set diagnostics_every to a number of steps")


def test_when_can_be_said() -> None:
    rule = OPTIMIZERS.build("adam")
    assert schedule(7, 30, rule, 3).steps == {7, 14, 21, 28}
    assert schedule(0, 30, rule, 3).steps == set()
    assert not any(schedule(every, 30, rule, 3).short for every in (0, 7, 31))


@pytest.mark.parametrize("value", [-1, 1.5, "often", True])
def test_a_wrong_number_of_steps_is_one_sentence(value: Any) -> None:
    content = {**CONTENT, "protocol": {**CONTENT["protocol"], "diagnostics_every": value}}
    with pytest.raises(ConfigError, match=r"^g\.yaml: protocol\.diagnostics_every: must be auto, a number of steps, or 0 for none"):
        parse(Grid, content, "g.yaml")


# --- in a run ---


def cell(every: Any = "auto", optimizer: str = "roga") -> Cell:
    changes = {"protocol": {**CONTENT["protocol"], "diagnostics_every": every}, "optimizers": [{"name": optimizer, "base": "adam"}]}
    return Grid.model_validate({**CONTENT, **changes}).cells()[0]


def after(steps: int) -> Callable[[], bool]:
    """Stops the run after so many steps."""
    count = itertools.count(1)
    return lambda: next(count) >= steps


def test_looking_does_not_change_the_name_of_a_cell() -> None:
    assert cell(0).id == cell(5).id == cell("auto").id


def test_a_run_keeps_what_it_saw_and_its_numbers(data: Path, tmp_path: Path) -> None:
    record = run_cell(cell(2), tmp_path / "looking", data)
    without = run_cell(cell(0), tmp_path / "not", data)
    assert_same(tmp_path / "looking", tmp_path / "not")
    assert record.protocol == without.protocol
    seen = load_diagnostics(tmp_path / "looking" / FILE)
    looks = sorted(range(2, record.steps + 1, 2))
    assert sorted(seen.loc[seen["name"] == "loss", "step"].unique()) == looks
    matrix = cosines(seen, looks[-1])
    assert list(matrix.index) == list(matrix.columns) == ["Deepfakes", "Face2Face"]
    assert np.array_equal(matrix, matrix.T)
    assert np.diag(matrix) == pytest.approx(1, abs=1e-5)
    assert set(seen.loc[seen["name"] == "roga/alpha_g_over_rho", "domain"]) == {"Deepfakes", "Face2Face"}
    assert record.diagnostics is not None
    assert record.diagnostics.looks == len(looks)
    assert record.diagnostics.radii == (0.05, 0.1)
    assert record == Record.load(tmp_path / "looking" / "record.json")
    # The rule's own numbers cost nothing, and are there without any look.
    assert set(load_diagnostics(tmp_path / "not" / FILE)["name"]) == {"roga/alpha_g_over_rho"}
    plain = run_cell(cell(0, "adam"), tmp_path / "plain", data)
    assert plain.diagnostics is None
    assert not (tmp_path / "plain" / FILE).exists()
    with pytest.raises(RecordError, match=r"diagnostics\.parquet does not exist; run the cell with protocol\.diagnostics_every"):
        load_diagnostics(tmp_path / "plain" / FILE)

    short = run_cell(cell("auto", "adam"), tmp_path / "short", data).diagnostics
    assert short is not None
    assert (short.looks, short.share, short.ranges) == (0, 0, ())
    assert short.schedule.startswith("never: ")
    assert not (tmp_path / "short" / FILE).exists()

    # Stopped after a step with and one without a look, and taken up again.
    for steps in (2, 3):
        with pytest.raises(Stopped):
            run_cell(cell(2), tmp_path / "stopped", data, should_stop=after(steps))
    with pytest.raises(ConfigError, match=r"another diagnostics_every \(2 then, 3 now\)"):
        run_cell(cell(3), tmp_path / "stopped", data)
    again = run_cell(cell(2), tmp_path / "stopped", data)
    pd.testing.assert_frame_equal(seen, load_diagnostics(tmp_path / "stopped" / FILE), check_exact=True)
    assert again.diagnostics == record.diagnostics


def test_a_resumed_run_has_the_same_curves(data: Path, tmp_path: Path) -> None:
    """Also at the step that the run was stopped after."""
    run_cell(cell(2, "adam"), tmp_path / "whole", data)
    with pytest.raises(Stopped, match="after step 2 "):
        run_cell(cell(2, "adam"), tmp_path / "c", data, should_stop=after(2))
    time.sleep(1.1)  # event files are ordered by the second of their name
    run_cell(cell(2, "adam"), tmp_path / "c", data)
    assert curves(tmp_path / "whole") == curves(tmp_path / "c")


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "events"))
    events.Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert "diagnostics/gradient_cosine/Deepfakes-Face2Face" in found
    assert "diagnostics/gradient_cosine/Face2Face-Deepfakes" not in found
    return found


def test_what_was_seen_before_a_kill_is_in_the_checkpoint(data: Path, tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(Stopped):
            run_cell(cell(1, "adam"), tmp_path / "c", data, should_stop=lambda: True)
    assert {row[0] for row in load(tmp_path / "c" / "checkpoint.pt")["diagnostics"]} == {1, 2, 3}


# --- the file ---


def test_ranges_leave_out_what_is_no_number() -> None:
    rows = [Row(step, "loss", "", "", value) for step, value in ((3, 1.0), (1, 4.0), (2, math.nan))]
    rows += [Row(1, "gradient_cosine", a, b, 0.5) for a in "xy" for b in "xy"] + [Row(1, "gap", "", "", math.inf)]
    loss, cosine, gap = ranges(table(rows))
    assert (loss.first, loss.last, loss.mean, loss.lowest, loss.highest, loss.count, loss.finite) == (4, 1, 2.5, 1, 4, 3, 2)
    assert (cosine.domain, cosine.other) == ("x", "y")
    assert (gap.finite, gap.mean) == (0, None)


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(RecordError, match="is no parquet file"):
        load_diagnostics(tmp_path / FILE)
    pd.DataFrame({"step": [1]}).to_parquet(tmp_path / FILE)
    with pytest.raises(RecordError, match="has not the columns"):
        load_diagnostics(tmp_path / FILE)
