"""One cell and a small grid on drawn faces: repeatable to the bit, resumable, and no failure takes the others along."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmark.checkpoint import load
from benchmark.config import Cell, ConfigError, Grid
from benchmark.evaluate import score
from benchmark.launch import run_cells, write_index
from benchmark.run import run_cell
from benchmark.scoring import score_sets
from benchmark.study import study_of
from benchmark.train import Stopped
from results.files import RecordError
from results.index import GridIndex
from results.record import Record
from results.scores import load_scores

CONTENT: dict[str, Any] = {
    "name": "small",
    "train": {"store": "stores/mini-a", "methods": ["Deepfakes", "Face2Face"]},
    "tests": [
        {"name": "NeuralTextures", "store": "stores/mini-a", "methods": ["NeuralTextures"], "role": "held-out"},
        {"name": "mini-b", "store": "stores/mini-b", "role": "cross-dataset"},
    ],
    "detectors": [{"name": "resnet10", "size": 32, "width": 4}],
    "optimizers": [{"name": "roga", "base": "adam"}],
    "bases": {"adam": {"lr": 0.001}},
    "seeds": [0],
    "protocol": {"epochs": 2, "batch_size": 8, "schedule": "cosine", "augment": "light"},
}


def cell(**changes: Any) -> Cell:
    return Grid.model_validate({**CONTENT, **changes}).cells()[0]


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], pd.DataFrame, list[Any], Any]:
    """What must be the same whatever happened on the way: weights, scores, measures, losses."""
    record = Record.load(folder / "record.json")
    return (
        load(folder / "checkpoint.pt")["detector"],
        load_scores(folder / "scores.parquet"),
        [m.model_dump() for m in record.measures],
        record.losses,
    )


def assert_same(one: Path, other: Path) -> None:
    (weights, scores, measures, losses), (weights2, scores2, measures2, losses2) = outcome(one), outcome(other)
    assert weights.keys() == weights2.keys()
    for name in weights:
        assert torch.equal(weights[name], weights2[name]), name
    pd.testing.assert_frame_equal(scores, scores2, check_exact=True)
    assert measures == measures2
    assert losses == losses2


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "cell"
    run_cell(cell(), folder, data)
    return folder


def test_the_record_says_what_was_done(finished: Path) -> None:
    record = Record.load(finished / "record.json")
    assert record.cell == cell().id
    assert record.optimizer.settings["rho"] == 0.1
    assert record.optimizer.base_settings["lr"] == 0.001
    assert set(record.provenance.stores) == {"stores/mini-a", "stores/mini-b"}
    assert len(record.provenance.code) == 64
    assert {(m.test, m.level) for m in record.measures} == {
        (t, level) for t in ("val", "NeuralTextures", "mini-b") for level in ("frame", "video")
    }
    assert [step for step, _ in record.losses] == [record.steps // 2, record.steps]
    assert "seed: 0" in (finished / "cell.yaml").read_text()
    assert list((finished / "events").iterdir())
    assert not (finished / "scores").exists()


def test_measures_can_be_recomputed_from_the_scores(finished: Path) -> None:
    from benchmark.metrics import measure, per_video

    scores = load_scores(finished / "scores.parquet")
    record = Record.load(finished / "record.json")
    for m in record.measures:
        rows = scores[(scores["test"] == m.test) & (scores["step"] == m.step)]
        rows = rows if m.level == "frame" else per_video(rows)
        values, _ = measure(rows["label"].to_numpy("int64"), rows["score"].to_numpy("float64"))
        assert values == {name: m.value(name) for name in values}  # type: ignore[arg-type]
        assert m.n == len(rows)


def test_twice_gives_the_same_bits(finished: Path, data: Path, tmp_path: Path) -> None:
    run_cell(cell(), tmp_path / "again", data)
    assert_same(finished, tmp_path / "again")


@pytest.mark.parametrize("train", [CONTENT["train"], {"store": "stores/mini-a", "source": "sbi"}], ids=["forgeries", "sbi"])
def test_without_a_cache_of_faces_the_bits_are_the_same(data: Path, tmp_path: Path, train: dict[str, Any]) -> None:
    """The faces come from the stores themselves, which is told once for each of the two; the training store is tested on, too."""
    short = cell(train=train, protocol={**CONTENT["protocol"], "epochs": 1})
    run_cell(short, tmp_path / "cached", data)
    for name in ("mini-a", "mini-b"):
        ignored = shutil.ignore_patterns("cache")
        shutil.copytree(data / "stores" / name, tmp_path / "data" / "stores" / name, ignore=ignored)
        (tmp_path / "data" / "stores" / name / "cache").touch()  # a folder cannot be made
    told: list[str] = []
    run_cell(short, tmp_path / "bare", tmp_path / "data", tell=told.append)
    assert_same(tmp_path / "cached", tmp_path / "bare")
    assert [sentence.partition(" cannot hold decoded faces (File exists): ")[0] for sentence in told] == [
        str(tmp_path / "data" / "stores" / name / "cache") for name in ("mini-a", "mini-b")
    ]
    warned = [Record.load(tmp_path / name / "record.json").warnings for name in ("cached", "bare")]
    assert warned[0] == warned[1]


def test_stopped_after_any_step_and_resumed_gives_the_same_bits(finished: Path, data: Path, tmp_path: Path) -> None:
    """Also after a step that is evaluated, and after the last one."""
    steps = Record.load(finished / "record.json").steps
    for step in range(1, steps + 1):
        with pytest.raises(Stopped, match=f"stopped after step {step} of {steps}"):
            run_cell(cell(), tmp_path / "c", data, should_stop=lambda: True)
    run_cell(cell(), tmp_path / "c", data)
    assert_same(finished, tmp_path / "c")


@pytest.mark.parametrize("stage", ["decode stores/mini-a", "evaluate val", "decode stores/mini-b", "evaluate mini-b"])
def test_stopped_between_steps_and_resumed_gives_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """It ends at the next face that is decoded, or batch that is scored, and leaves no half of a cache."""
    monkeypatch.setattr("benchmark.run.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr("benchmark.run.score", partial(score, batch_size=4))
    monkeypatch.setattr("benchmark.testing.score_sets", partial(score_sets, batch_size=4))
    for name in ("mini-a", "mini-b"):
        ignored = shutil.ignore_patterns("cache")
        shutil.copytree(data / "stores" / name, tmp_path / "data" / "stores" / name, ignore=ignored)
    seen: list[tuple[str, int]] = []
    with pytest.raises(Stopped) as told:
        run_cell(
            cell(),
            tmp_path / "c",
            tmp_path / "data",
            report=lambda stage, done, total: seen.append((stage, done)),
            should_stop=lambda: [s for s, _ in seen].count(stage) >= 2,
        )
    assert [s for s, _ in seen].count(stage) == 2
    steps = max((done for s, done in seen if s == "train"), default=0)
    # A step that is evaluated is kept when its evaluation is whole, and not before.
    kept = steps - (stage == "evaluate val")
    left = f"the checkpoint of step {kept} is kept" if kept else "no checkpoint yet"
    assert re.fullmatch(
        rf"stopped at face {seen[-1][1]} of \d+ of '{stage}'; {left}; run the same command to go on", str(told.value)
    )
    assert not list((tmp_path / "data").rglob("*.part"))
    run_cell(cell(), tmp_path / "c", tmp_path / "data")
    run_cell(cell(), tmp_path / "whole", data)
    assert_same(tmp_path / "whole", tmp_path / "c")


def test_killed_and_resumed_gives_the_same_bits(finished: Path, data: Path, tmp_path: Path) -> None:
    """kill -9 between its second checkpoint and its end; what is on disk then is enough."""
    script = (
        "import sys, time; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "import benchmark.run as run; from benchmark.config import Cell\n"
        "run.SECONDS_BETWEEN_CHECKPOINTS = 0.0\n"
        "cell = Cell.model_validate_json(sys.argv[1])\n"
        "slow = lambda stage, done, total: time.sleep(0.02)\n"
        "run.run_cell(cell, Path(sys.argv[2]), Path(sys.argv[3]), report=slow)\n"
    )
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", script, cell().model_dump_json(), str(folder), str(data)]
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)})
    deadline = time.monotonic() + 120
    writes = 0
    last = 0
    while writes < 3 and child.poll() is None and time.monotonic() < deadline:
        now = (folder / "checkpoint.pt").stat().st_mtime_ns if (folder / "checkpoint.pt").exists() else 0
        writes, last = writes + (now != last), now
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (folder / "record.json").exists()
    assert load(folder / "checkpoint.pt")["step"] > 0
    run_cell(cell(), folder, data)
    assert_same(finished, folder)


def test_a_grid_runs_in_processes_and_outlives_failures(data: Path, tmp_path: Path) -> None:
    grid = Grid.model_validate(
        {
            **CONTENT,
            "optimizers": [
                {"name": "sgd", "label": "wild", "base": {"name": "sgd", "lr": 1e30}},
                {"name": "sgd", "label": "tame", "base": {"name": "sgd", "lr": 0.01}},
            ],
        }
    )
    folder = tmp_path / "small"
    write_index(study_of(grid), folder)
    events: list[str] = []
    result = run_cells(grid.cells(), folder, data, workers=2, on_event=lambda e: events.append(e.stage))
    wild, tame = (c.id for c in grid.cells())
    assert result.finished == [tame]
    assert "not finite" in result.failed[wild]
    assert {"train", "finished", "failed"} <= set(events)
    index = GridIndex.read(folder)
    assert list(index.records) == [tame]
    assert "not finite" in index.reasons[wild]

    before = (folder / tame / "record.json").read_bytes()
    again = run_cells(grid.cells(), folder, data, workers=2)
    assert again.skipped == [tame]  # what is done is not done twice
    assert (folder / tame / "record.json").read_bytes() == before


def test_the_number_of_processes_does_not_change_the_numbers(finished: Path, data: Path, tmp_path: Path) -> None:
    run_cells([cell(), cell(seeds=[1])], tmp_path, data, workers=2)
    assert_same(finished, tmp_path / cell().id)
    assert Record.load(tmp_path / cell(seeds=[1]).id / "record.json").losses != Record.load(finished / "record.json").losses


def test_micro_batches_change_no_more_than_rounding(data: Path, tmp_path: Path) -> None:
    """Without BatchNorm, cutting a step into pieces gives the same gradient up to the order of additions."""
    from dataclasses import replace

    from benchmark.data import BalancedBatches, FaceFrames, choose
    from benchmark.decoded import CachedImages
    from benchmark.objective import BatchObjective
    from benchmark.train import micro_batches
    from detectors import DETECTORS
    from preprocessing.store import FaceStore

    with FaceStore(data / "stores" / "mini-a") as store:
        rows, methods = choose(store.manifest, "s", ["Deepfakes", "Face2Face"], "train", None)
        batches = BalancedBatches(FaceFrames(rows, methods, CachedImages(store, 32).images), 8, 0)
    batch = batches.batch(batches.epoch(0)[0])
    batch = replace(batch, images=batch.images.double())
    pieces = micro_batches(batch, 3)
    assert [len(p) for p in pieces] == [3, 3, 2]
    torch.manual_seed(0)
    detector = DETECTORS.build("resnet10", size=32, width=4).double().eval()
    whole, parts = BatchObjective(detector, [batch]).gradient(), BatchObjective(detector, pieces).gradient()
    assert float((whole - parts).norm() / whole.norm()) < 1e-10


def test_a_changed_store_is_refused(finished: Path, data: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(finished, tmp_path / "c")
    record = json.loads((tmp_path / "c" / "record.json").read_text())
    record["provenance"]["stores"]["stores/mini-a"] = "0" * 64
    (tmp_path / "c" / "record.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="another content of store stores/mini-a"):
        run_cell(cell(), tmp_path / "c", data)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("code", "0" * 64, "another code"),
        ("number of threads", "7", r"another number of threads \(7 then, 1 now\)"),
        ("version of torch", "1.0", "another version of torch"),
    ],
)
def test_a_checkpoint_of_other_circumstances_is_refused(data: Path, tmp_path: Path, key: str, value: str, sentence: str) -> None:
    with pytest.raises(Stopped):
        run_cell(cell(), tmp_path / "c", data, should_stop=lambda: True)
    state = torch.load(tmp_path / "c" / "checkpoint.pt", weights_only=True)
    torch.save({**state, "circumstances": {**state["circumstances"], key: value}}, tmp_path / "c" / "checkpoint.pt")
    with pytest.raises(ConfigError, match=sentence):
        run_cell(cell(), tmp_path / "c", data)


def test_what_is_called_done_is_looked_at(finished: Path, data: Path, tmp_path: Path) -> None:
    import shutil

    target = tmp_path / cell().id
    shutil.copytree(finished, target)
    assert run_cells([cell()], tmp_path, data).skipped == [cell().id]
    (target / "record.json").write_text("{}")
    with pytest.raises(RecordError, match=r"record\.json"):
        run_cells([cell()], tmp_path, data)


def test_more_evaluations_than_steps_are_refused(data: Path, tmp_path: Path) -> None:
    many = cell(protocol={"epochs": 1, "batch_size": 8, "evaluations_per_epoch": 1000})
    with pytest.raises(ConfigError, match="evaluations_per_epoch is 1000, but an epoch has"):
        run_cell(many, tmp_path / "c", data)


def test_a_batch_of_more_faces_than_there_are_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size: 4000 asks for 1000 faces"):
        run_cell(cell(protocol={"epochs": 1, "batch_size": 4000}), tmp_path / "c", data)


def test_two_processes_do_not_run_one_cell(data: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "c").mkdir()
    with FileLock(tmp_path / "c" / ".lock"), pytest.raises(ConfigError, match="run by another process"):
        run_cell(cell(), tmp_path / "c", data)
    (tmp_path / "grid" / cell().id).mkdir(parents=True)
    with FileLock(tmp_path / "grid" / cell().id / ".lock"):
        assert run_cells([cell()], tmp_path / "grid", data).busy == [cell().id]
    assert not (tmp_path / "grid" / cell().id / "failure.json").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04cos\nsystem\n(S'true'\ntR."])
def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(ConfigError, match="is no checkpoint"):
        load(tmp_path / "c.pt")
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "none.pt")


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / "c.pt")
    with pytest.raises(ConfigError, match=r"format 99.*reads 1"):
        load(tmp_path / "c.pt")


def test_workers_do_not_outlive_a_killed_parent(data: Path, tmp_path: Path) -> None:
    """kill -9 of the command leaves no worker behind that holds a cell; the same command goes on at once."""
    from filelock import FileLock

    script = (
        "import sys; from pathlib import Path\n"
        "from benchmark.config import Cell; from benchmark.launch import run_cells\n"
        "if __name__ == '__main__':\n"
        "    cell = Cell.model_validate_json(sys.argv[1])\n"
        "    run_cells([cell], Path(sys.argv[2]), Path(sys.argv[3]), workers=1)\n"
    )
    (tmp_path / "run.py").write_text(script)
    slow = cell(protocol={"epochs": 10_000, "batch_size": 8})
    command = [sys.executable, str(tmp_path / "run.py"), slow.model_dump_json(), str(tmp_path / "runs"), str(data)]
    parent = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)})
    deadline = time.monotonic() + 120
    while not (tmp_path / "runs" / slow.id / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    with FileLock(tmp_path / "runs" / slow.id / ".lock", timeout=10):
        assert not (tmp_path / "runs" / slow.id / "record.json").exists()


def test_ctrl_c_stops_a_grid_with_checkpoints(data: Path, tmp_path: Path) -> None:
    script = (
        "import signal, sys; from pathlib import Path\n"
        "from benchmark.config import Cell; from benchmark.launch import run_cells\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "    cells = [Cell.model_validate_json(c) for c in sys.argv[3:]]\n"
        "    print(len(run_cells(cells, Path(sys.argv[1]), Path(sys.argv[2])).stopped), flush=True)\n"
    )
    (tmp_path / "run.py").write_text(script)
    cells = [cell(protocol={"epochs": 10_000, "batch_size": 8}, seeds=[seed]) for seed in (0, 1)]
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "runs"), str(data), *(c.model_dump_json() for c in cells)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    # In a group of its own, which gets the signal as from a terminal: parent and workers alike.
    parent = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "runs" / cells[0].id / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(parent.pid, signal.SIGINT)
    out, err = parent.communicate(timeout=60)
    assert out == "2\n"
    assert "Traceback" not in err
    assert load(tmp_path / "runs" / cells[0].id / "checkpoint.pt")["step"] > 0
