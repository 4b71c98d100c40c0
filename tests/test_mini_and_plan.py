"""`--data mini` from nothing to a paper's table, and `grid plan`, which needs no store."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from in_process import command

import benchmark.mini
import benchmark.timed
from benchmark.config import Grid
from benchmark.expected import Expected, Faces, layout_of
from benchmark.passes import passes_per_step
from benchmark.plan import plan_grid
from benchmark.run import run_cell
from benchmark.sizes import Sizes
from benchmark.specs import DetectorSpec
from benchmark.study import load_grid
from benchmark.timed import Timing, time_detector
from preprocessing.store import FaceStore
from results.index import GridIndex

Dfgrid = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dfgrid(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dfgrid:
    """Run `dfgrid ARGS` in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    return partial(command, capsys, monkeypatch)


def test_from_nothing_to_the_papers_table(dfgrid: Dfgrid, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fewer = functools.partial(benchmark.mini.stand_ins, trained=6, tested=6, frames=2)
    monkeypatch.setattr(benchmark.mini, "stand_ins", fewer)
    code, out, err = dfgrid("grid", "run", "pim/table1", "--data", "mini")
    assert code == 0, err
    assert "1 of 1 dataset drawn now" in out
    assert "are no evidence" in " ".join(err.split())
    said = " ".join(out.split())
    assert "[SCALED DOWN, ON DRAWN FACES: no evidence] (measured)" in said
    assert "Warning: all data are drawn" in said
    assert "Detectors: ConvNeXt-base is resnet10 (size 64, weights none, width 8)." in said
    tidy = pd.read_csv(tmp_path / "runs/pim-table1-mini/tables/pim-1-measured-tidy.csv", dtype={"reported": str})
    assert len(tidy) == 4 * 4
    assert tidy["measured"].notna().all()
    assert list(tidy["reported"][:4]) == ["1.0000", "0.4329", "0.6672", "0.6740"]
    index = GridIndex.read(tmp_path / "runs/pim-table1-mini")
    assert len(index.records) == 4
    for record in index.records.values():
        assert any(w.startswith("all data are drawn") for w in record.warnings)
        assert all(name.startswith("mini/stores/") for name in record.provenance.stores)

    # Another grid finds the drawn stores; a second run has nothing to do; the table has its other modes.
    for one in fewer(benchmark.mini.mini_study("pim/table1")):
        assert not benchmark.mini.draw(one, tmp_path / "data")
    code, out, _ = dfgrid("grid", "run", "pim-table1", "--data", "mini")
    assert code == 0
    assert "0 of 1 dataset drawn now, 1 there already" in out
    assert "nothing to run" in out
    code, out, _ = dfgrid("table", "pim/1", "--mode", "beside", "--mini", "--out", "elsewhere")
    assert code == 0
    assert "measured minus reported" in " ".join(out.split())
    assert len(list((tmp_path / "elsewhere").iterdir())) == 4


def test_an_interrupted_drawing_is_continued(tmp_path: Path) -> None:
    (one,) = (s for s in benchmark.mini.stand_ins(benchmark.mini.mini_study("roga/table4"), 6, 6, 1) if s.style == "mini-b")

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("faces") and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark.mini.draw(one, tmp_path, on_progress=stop)
    seen: list[tuple[str, int, int]] = []
    assert benchmark.mini.draw(one, tmp_path, on_progress=lambda *said: seen.append(said))
    assert not any(what.startswith("draw") for what, _, _ in seen)
    store = FaceStore(tmp_path / one.store)
    assert store.info["counts"]["videos"] == 10
    assert set(store.manifest["split"]) == {"none"}  # as UADFV, which ships no split
    assert set(store.manifest["dataset"]) == {"drawn-UADFV"}


@pytest.mark.parametrize(
    ("name", "settings", "count", "work"),
    [
        ("sgd", {}, 1, 1),
        ("sam", {}, 2, 2),
        ("roga", {}, 2, 2),
        ("roga", {"variant": "c"}, 3, 3),
        ("roga", {"form": "exact"}, 3, 13 / 3),
        ("pim", {}, 2, 5 / 3),
        ("pim", {"alpha": 0.5}, 2, 2),
        ("dualflat", {}, 3, 3),
    ],
)
def test_passes_are_counted_from_the_rule(name: str, settings: dict[str, Any], count: float, work: float) -> None:
    found = passes_per_step(name, settings, "sgd", domains=3)
    assert (found.count, found.work) == (pytest.approx(count), pytest.approx(work))


def test_the_published_counts() -> None:
    layout = layout_of("stores/FaceForensics++-c23")
    assert layout is not None
    assert Expected(layout).split("train", ("Deepfakes", "FaceSwap"), None) == Faces(3 * 720 * 32, 720 * 32, 720 * 32, True)
    assert Expected(layout).split("test", ("Deepfakes",), 8) == Faces(2 * 140 * 8, 140 * 8, 140 * 8, True)
    celeb = layout_of("stores/Celeb-DF-v2")
    assert celeb is not None
    assert Expected(celeb).split("test", None, None) == Faces(518 * 32, 340 * 32, 178 * 32, True)
    assert Expected(celeb).faces() == 6529 * 32
    wild = layout_of("WildDeepfake")
    assert wild is not None
    found = Expected(wild).split("test", None, None)
    assert found is not None
    assert not found.exact
    assert layout_of("stores/mine") is None


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--address", "there:6379"), "the launcher 'local' runs on this machine alone"),
        (("--launcher", "slurm"), "unknown launcher 'slurm'"),
        (("--device", "gpu"), "unknown device 'gpu'"),
    ],
)
def test_where_it_runs_is_checked_before_anything_is_drawn(
    dfgrid: Dfgrid, tmp_path: Path, more: tuple[str, ...], sentence: str
) -> None:
    code, _, err = dfgrid("grid", "run", "pim/table1", "--data", "mini", *more)
    assert code == 2
    assert sentence in " ".join(err.split())
    assert not (tmp_path / "data").exists()


CONTENT: dict[str, Any] = {
    "name": "small",
    "train": {"store": "stores/FaceForensics++-c23", "methods": ["Deepfakes"]},
    "tests": [
        {"name": "DF", "store": "stores/FaceForensics++-c23", "methods": ["Deepfakes"], "role": "in-domain"},
        {"name": "WDF", "store": "stores/WildDeepfake", "role": "cross-dataset"},
        {"name": "mine", "store": "stores/mine", "role": "cross-dataset"},
    ],
    "detectors": [{"name": "resnet10", "size": 32, "width": 2}],
    "optimizers": ["sgd", "sam"],
    "seeds": [0, 1],
    "protocol": {"epochs": 2, "batch_size": 16},
}


def test_a_plan_without_any_store(dfgrid: Dfgrid, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(benchmark.timed, "TIMED_SECONDS", 0.01)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**CONTENT, "tests": CONTENT["tests"][:2]}))
    code, out, err = dfgrid("grid", "plan", "small.yaml")
    assert code == 0, err
    said = " ".join(out.split())
    assert "4 cells" in said
    assert "5,760" in said  # 720 x 32 fakes, 8 of them a step, two epochs
    assert said.count("92,160") == 2  # their faces, of SGD and SAM alike: a record's `examples`
    assert "184,320" not in said
    assert "get FaceForensics++ from https://github.com/ondyari/FaceForensics" in said
    command = "dfgrid preprocess FOLDER --layout faceforensics++ --compression c23 --frames 32"
    assert f"{command} --out data/stores/FaceForensics++-c23" in said
    assert "stores/WildDeepfake: the counts of split 'test' are not published" in said
    assert "estimate" in said
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "runs").exists()


def test_a_store_of_unknown_size_leaves_the_hours_open(dfgrid: Dfgrid, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(benchmark.timed, "TIMED_SECONDS", 0.01)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONTENT))
    code, out, err = dfgrid("grid", "plan", "small.yaml", "--data", "d")
    assert code == 0, err
    said = " ".join(out.split())
    assert "Time: ? for 0 of 4 cells, of the others unknown" in said
    assert "no dataset that dfgrid knows has this name" in said
    assert "stores/mine: the counts of split 'test' are not published, so nothing is estimated from it" in said
    code, _, err = dfgrid("grid", "plan", "small.yaml", "--data", "mini")
    assert code == 2
    assert "plan the grid itself" in err


@pytest.mark.parametrize(
    ("train", "protocol"),
    [
        ({"methods": ["Deepfakes"]}, {"epochs": 2, "batch_size": 8}),
        ({"methods": ["Deepfakes", "FaceSwap"]}, {"name": "dfb-compat", "epochs": 2, "batch_size": 8, "augment": "flip"}),
        ({"source": "sbi"}, {"epochs": 1, "batch_size": 8}),
    ],
    ids=["strict", "dfb-compat", "sbi"],
)
def test_a_plan_counts_what_is_there(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, train: dict[str, Any], protocol: dict[str, Any]
) -> None:
    """Steps and scored faces are those that a run takes; the checkpoint's size is near the real one."""
    monkeypatch.setattr(benchmark.timed, "TIMED_SECONDS", 0.01)
    content = {
        **CONTENT,
        "train": {"store": "stores/mini-a", **train},
        "tests": [{"name": "mini-b", "store": "stores/mini-b", "role": "cross-dataset"}],
        "optimizers": ["adam"],
        "seeds": [0],
        "protocol": protocol,
    }
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(content))
    cells = load_grid(tmp_path / "g.yaml").cells()
    plan = plan_grid(cells, data)
    folder = tmp_path / "run"
    record = run_cell(cells[0], folder, data)
    (one,) = plan.cells
    assert (one.steps, one.faces) == (record.steps, record.provenance.examples)
    assert one.scored == len(pd.read_parquet(folder / "scores.parquet"))
    assert plan.hours is not None
    assert plan.hours > 0
    weights = 4 * 3 * record.parameters
    assert weights <= one.checkpoint <= (folder / "checkpoint.pt").stat().st_size
    assert one.evaluations == len({m.step for m in record.measures})
    assert all(need.there and need.faces for need in plan.needs)
    assert plan.missing == 0


def test_times_are_told_in_a_unit_that_does_not_round_them_away() -> None:
    from benchmark.cli.plan import _time

    assert [_time(hours) for hours in (0.00001, 0.01, 0.1, 2.04)] == ["1 s", "36 s", "6 min", "2.0 h"]


def test_a_face_in_several_test_sets_is_planned_once(tmp_path: Path) -> None:
    """As it is scored: their real faces are the same. A store that is missing is counted like one that is there."""
    store = {"store": "stores/FaceForensics++-c23", "role": "in-domain"}
    tests = [{"name": m, "methods": [m], **store} for m in ("Deepfakes", "FaceSwap")]
    both = {"name": "both", "methods": ["Deepfakes", "FaceSwap"], **store}
    train = {"store": "stores/FaceForensics++-c23", "methods": ["Deepfakes", "FaceSwap"]}
    (tmp_path / "g.yaml").write_text(yaml.safe_dump({**CONTENT, "train": train, "tests": [*tests, both]}))
    cells = load_grid(tmp_path / "g.yaml").cells()
    once = Sizes(cells, tmp_path).evaluation(cells[0])
    assert once is not None
    assert once.rows == (3 + 2 + 2 + 3) * 140 * 32
    assert once.faces == (3 + 3) * 140 * 32


def test_the_calibration_takes_a_step_of_faces_where_that_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of four would take several times as long a face as a step does on a GPU, or with a small detector."""
    monkeypatch.setattr(benchmark.timed, "TIMED_SECONDS", 0.0)
    seen: list[int] = []
    forward = torch.nn.Conv2d.forward

    def watched(self: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    spec = DetectorSpec(name="resnet10", size=32, width=2)
    monkeypatch.setattr(benchmark.timed, "LONG", 60.0)
    time_detector(spec, faces=24)
    assert list(dict.fromkeys(seen)) == [4, 8, 16, 24]
    seen.clear()
    monkeypatch.setattr(benchmark.timed, "LONG", 0.0)
    time_detector(spec, faces=24)
    assert set(seen) == {4}


def test_the_calibration_is_in_the_cells_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes at the weights under autocast; those at a shift in fp32 unless weights are rounded; scoring never."""
    monkeypatch.setattr(benchmark.timed, "TIMED_SECONDS", 0.0)
    seen: set[tuple[bool, torch.dtype]] = set()
    forward = torch.nn.Conv2d.forward

    def watched(self: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        found = forward(self, images)
        seen.add((torch.is_grad_enabled(), found.dtype))
        return found

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    spec = DetectorSpec(name="resnet10", size=32, width=2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        seen.clear()
        time_detector(spec, faces=4, precision=precision)
        assert seen == {(True, dtype), (False, torch.float32)}


@pytest.mark.parametrize(
    ("rule", "protocol", "work"),
    [
        ("sgd", {}, {"fp32": 1}),
        ("sgd", {"precision": "bf16"}, {"bf16": 1}),
        ("sam", {"precision": "bf16"}, {"bf16": 1, "fp32": 1}),
        ("sam", {"precision": "bf16", "weights_dtype": "bf16"}, {"bf16": 2}),
        ("sam", {"precision": "fp16"}, {"fp16": 1, "fp32": 1}),
        ("pim", {"precision": "bf16"}, {"bf16": 5 / 3}),
    ],
)
def test_hours_are_those_of_the_cells_precision(
    data: Path, monkeypatch: pytest.MonkeyPatch, rule: str, protocol: dict[str, Any], work: dict[str, float]
) -> None:
    rates = {"fp32": 100.0, "bf16": 10.0, "fp16": 1.0}
    timed: list[str] = []

    def timing(spec: DetectorSpec, device: str, faces: int, precision: str) -> Timing:
        timed.append(precision)
        return Timing(train=rates[precision], score=0.0, weights=1, numbers=1)

    monkeypatch.setattr("benchmark.plan.time_detector", timing)
    content = {
        **CONTENT,
        "train": {"store": "stores/mini-a", "methods": ["Deepfakes"]},
        "tests": [{"name": "mini-b", "store": "stores/mini-b", "role": "cross-dataset"}],
        "optimizers": [rule],
        "seeds": [0],
        "protocol": {"epochs": 1, "batch_size": 8, **protocol},
    }
    (one,) = plan_grid(Grid.model_validate(content).cells(), data).cells
    assert sorted(timed) == sorted(work)
    assert one.faces is not None
    assert one.hours == pytest.approx(one.faces * sum(share * rates[name] for name, share in work.items()) / 3600)
