"""How far the cells of a grid are, which of them are run again, and whose grid it is."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_cell import CONTENT, cell, grid

from benchmark.config import ConfigError
from benchmark.evaluate import Diverged
from benchmark.heartbeat import FILE, SILENT, Heartbeat, read_beat
from benchmark.launch import Job, finished, write_index
from benchmark.run import run_cell
from benchmark.same_name import check_same_grid
from benchmark.standing import standing
from benchmark.study import load_grid, study_of
from results.files import RecordError
from results.index import GridIndex

WILD = [
    {"name": "sgd", "label": "wild", "base": {"name": "sgd", "lr": 1e30}},
    {"name": "sgd", "label": "tame", "base": {"name": "sgd", "lr": 0.01}},
]


def test_a_heart_beats_while_it_is_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.heartbeat.SECONDS", 0.01)
    told: list[tuple[str, int, int]] = []
    with Heartbeat(tmp_path, lambda *progress: told.append(progress)) as heart:
        deadline = time.monotonic() + 20
        done = 0
        while time.monotonic() < deadline:
            done += 1
            heart.report("train", done, 10_000)
            time.sleep(0.002)
            beat = read_beat(tmp_path)
            if beat is not None and beat.rate > 0:
                break
        assert beat is not None
        assert (beat.stage, beat.total, beat.alive) == ("train", 10_000, True)
    assert read_beat(tmp_path) is None
    assert told[0] == ("train", 1, 10_000)


def test_standing(tmp_path: Path) -> None:
    """Waiting, running with step and rate, killed (its beat is old), failed."""
    four = grid(seeds=[0, 1, 2, 3])
    folder = tmp_path / "small"
    write_index(study_of(four), folder)
    waiting, running, killed, failed = (folder / c.id for c in four.cells())
    for path in (running, killed, failed):
        path.mkdir()
    beat = {"stage": "train", "done": 20, "total": 100, "rate": 4.0, "beat": time.time()}
    (running / FILE).write_text(json.dumps(beat))
    (killed / FILE).write_text(json.dumps({**beat, "beat": time.time() - SILENT - 1}))
    (failed / "failure.json").write_text('{"reason": "out of luck"}')
    found = {c.id: c for c in standing(folder).cells}
    assert found[waiting.name].state == "waiting"
    assert (found[running.name].state, found[running.name].detail) == ("running", "train 20/100, 4/s")
    assert found[running.name].seconds == pytest.approx(20.0)
    assert (found[killed.name].state, found[killed.name].detail) == ("interrupted", "")
    assert (found[failed.name].state, found[failed.name].detail) == ("failed", "out of luck")
    assert standing(folder).left == pytest.approx(20 + 25 + 25)  # the other two as long as the running one, by its rate
    (running / FILE).write_text(json.dumps({**beat, "stage": "start", "total": 0, "rate": 0.0}))
    assert standing(folder).left is None  # nothing tells how long a cell takes


def test_status_and_retry(dfgrid: Any, data: Path, tmp_path: Path) -> None:
    """A cell that failed is said to have failed, and runs again from its own settings, without the grid's file."""
    two = grid(optimizers=WILD)
    folder = tmp_path / "runs" / "small"
    write_index(study_of(two), folder)
    wild, tame = two.cells()
    run_cell(tame, folder / tame.id, data)
    with pytest.raises(Diverged) as error:
        run_cell(wild, folder / wild.id, data)
    Job([wild], folder, data, "cpu", 1, 1, lambda event: None).book(wild, str(error.value))
    code, told = dfgrid("grid", "status", "small")
    assert code == 0
    assert "1 of 2 cells done, 1 failed" in told
    assert "the loss is not finite at step" in told
    assert dfgrid("grid", "status", "small", "--watch")[1].strip() == told.strip()  # nothing runs: it looks once
    code, told = dfgrid("grid", "retry", "small", "--failed", "--data", data)
    assert code == 1  # it fails again
    assert "1 of 1 cell failed" in told
    settings = folder / two.cells()[0].id / "cell.yaml"
    content = yaml.safe_load(settings.read_text())
    settings.write_text("nonsense: 1")
    code, told = dfgrid("grid", "retry", "small", "--data", data)
    assert code == 2
    assert "cell.yaml cannot be read" in told
    settings.write_text(yaml.safe_dump({**content, "base": {"name": "sgd", "lr": 0.01}}))
    (folder / two.cells()[0].id / "failure.json").unlink()
    assert "nothing to retry" in dfgrid("grid", "retry", "small", "--failed", "--data", data)[1]


def test_a_cell_that_ends_while_one_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running or done, but never failed: its beat is looked at before its record."""
    one = grid()
    folder = tmp_path / "small"
    write_index(study_of(one), folder)
    cell_folder = folder / one.cells()[0].id
    cell_folder.mkdir()
    (cell_folder / FILE).write_text(json.dumps({"stage": "train", "done": 1, "total": 2, "rate": 1.0, "beat": time.time()}))
    read = GridIndex.read

    def ends(folder: Path, averages: bool = True) -> GridIndex:
        found = read(folder, averages)
        (cell_folder / FILE).unlink()  # its record was written after the index was read
        (cell_folder / "record.json").write_text("{}")
        return found

    monkeypatch.setattr(GridIndex, "read", ends)
    assert standing(folder).cells[0].state == "running"


def test_cells_that_are_begun_at_once_are_all_wanted(tmp_path: Path) -> None:
    """`dfgrid train` adds its cell to those that are there, whatever others do meanwhile."""
    cells = [study_of(grid(seeds=[seed])) for seed in range(12)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda study: write_index(study, tmp_path, add=True), cells))
    assert {c.seed for c in GridIndex.read(tmp_path).grid.cells} == set(range(12))


def test_a_grid_that_has_just_begun_is_not_replaced(tmp_path: Path) -> None:
    """Neither record nor checkpoint is there yet, but a process works at a cell."""
    folder = tmp_path / "small"
    write_index(study_of(grid()), folder)
    running = folder / grid().cells()[0].id
    running.mkdir()
    other = study_of(grid(protocol={"epochs": 2, "batch_size": 8}))
    assert check_same_grid(other, folder) == []
    beat = {"stage": "decode", "done": 1, "total": 2, "rate": 1.0, "beat": time.time()}
    (running / FILE).write_text(json.dumps(beat))
    with pytest.raises(ConfigError, match="holds another grid of the name 'small'"):
        check_same_grid(other, folder)


def test_a_record_of_another_cell_is_no_result(data: Path, tmp_path: Path) -> None:
    one, other = grid(seeds=[0, 1]).cells()
    run_cell(one, tmp_path / one.id, data)
    shutil.copytree(tmp_path / one.id, tmp_path / other.id)
    with pytest.raises(RecordError, match=rf"record.json belongs to cell {one.id} of grid small; delete it, run again"):
        finished([one, other], tmp_path, data)


def test_retry_looks_before_it_runs(dfgrid: Any, data: Path, tmp_path: Path) -> None:
    """At the device and the launcher, so that the reason of a failure is not written over; at a grid's name with a slash, too."""
    one = grid(name="roga-small")
    folder = tmp_path / "runs" / "roga-small"
    write_index(study_of(one), folder)
    (only,) = one.cells()
    Job([only], folder, data, "cpu", 1, 1, lambda event: None).book(only, "out of luck")
    for option, value, said in (
        ("--device", "gpu", "unknown device 'gpu'"),
        ("--launcher", "cloud", "unknown launcher 'cloud'"),
    ):
        code, told = dfgrid("grid", "retry", "roga/small", option, value, "--data", data)
        assert code == 2
        assert said in told
    assert "out of luck" in dfgrid("grid", "status", "roga/small")[1]


def test_one_unreadable_cell_does_not_keep_the_others(dfgrid: Any, data: Path, tmp_path: Path) -> None:
    two = grid(seeds=[0, 1])
    folder = tmp_path / "runs" / "small"
    write_index(study_of(two), folder)
    for each in two.cells():
        Job([each], folder, data, "cpu", 1, 1, lambda event: None).book(each, "out of luck")
    first, second = two.cells()
    (folder / first.id / "cell.yaml").write_text("")
    code, told = dfgrid("grid", "retry", "small", "--data", data)
    assert code == 1
    assert f"{first.id}/cell.yaml cannot be read" in " ".join(told.split())
    assert (folder / second.id / "record.json").exists()


def test_a_grid_is_found_by_the_name_that_started_it(dfgrid: Any, tmp_path: Path) -> None:
    """`grid run roga/table4` runs in the folder roga-table4; and where it was never started, what is advised is what works."""
    for command in ("status", "retry"):
        code, told = dfgrid("grid", command, "roga/table4")
        assert code == 2
        assert "runs/roga-table4 does not exist: this grid was never started; run `dfgrid grid run roga-table4`" in told
    assert load_grid("roga-table4").name == "roga-table4"
    write_index(study_of(grid(name="roga-table4")), tmp_path / "runs" / "roga-table4")
    assert "0 of 1 cell done, 1 waiting" in dfgrid("grid", "status", "roga/table4")[1]
    assert "runs/roga-table4: nothing to retry" in dfgrid("grid", "retry", "roga/table4")[1]


def test_lost_scores_are_not_done(dfgrid: Any, data: Path, tmp_path: Path) -> None:
    """Neither to `grid status` nor to `grid retry`, as they are not to `grid run`."""
    one = grid()
    folder = tmp_path / "runs" / "small"
    write_index(study_of(one), folder)
    (only,) = one.cells()
    run_cell(only, folder / only.id, data)
    scores = folder / only.id / "scores.parquet"
    was = scores.read_bytes()
    assert "1 of 1 cell done" in dfgrid("grid", "status", "small")[1]
    scores.write_bytes(was[:100])
    told = " ".join(dfgrid("grid", "status", "small")[1].split())
    assert "0 of 1 cell done, 1 interrupted" in told
    assert "recorded, but its scores.parquet is no parquet file; to be made anew" in told
    assert "nothing to retry" in dfgrid("grid", "retry", "small", "--failed", "--data", data)[1]
    failure = folder / only.id / "failure.json"
    failure.write_text('{"reason": "no room"}')
    assert "failed" in (told := dfgrid("grid", "status", "small")[1])
    assert "no room" in told
    failure.unlink()
    code, told = dfgrid("grid", "retry", "small", "--data", data)
    assert code == 0
    assert "the weights of its checkpoint are scored again" in " ".join(told.split())
    assert scores.read_bytes() == was
    assert "1 of 1 cell done" in dfgrid("grid", "status", "small")[1]


def test_two_grids_of_one_name(dfgrid: Any, data: Path, tmp_path: Path) -> None:
    longer = {**CONTENT["protocol"], "epochs": 2}
    folder = tmp_path / "runs" / "small"
    write_index(study_of(grid()), folder)
    run_cell(cell(), folder / cell().id, data)
    before = (folder / "grid.json").read_bytes()
    (tmp_path / "g.yaml").write_text(yaml.safe_dump({**CONTENT, "protocol": longer}))
    code, told = dfgrid("grid", "run", "g.yaml", "--data", data)
    assert code == 2
    assert "runs/small holds another grid of the name 'small': protocol.epochs is 1 there and 2 here; give this one" in told
    assert (folder / "grid.json").read_bytes() == before

    assert check_same_grid(study_of(grid(seeds=[0, 1])), folder) == []  # more of the same
    (sentence,) = check_same_grid(study_of(grid(seeds=[1])), folder)
    assert "has cells that this grid does not want any more: resnet10-roga-s0" in sentence
    assert check_same_grid(study_of(grid(protocol=longer)), tmp_path / "runs" / "another") == []
    (folder / "grid.json").write_text("torn")
    assert check_same_grid(study_of(grid(protocol=longer)), folder) == []

    (tmp_path / "g.yaml").write_text(yaml.safe_dump(CONTENT))
    write_index(study_of(grid(protocol=longer)), folder)
    (folder / cell(protocol=longer).id).mkdir()
    (folder / cell(protocol=longer).id / "checkpoint.pt").touch()
    code, told = dfgrid("grid", "run", "g.yaml", "--data", data)
    assert code == 2
    assert "has other settings; give this one another name" in told
    code, told = dfgrid("grid", "run", "g.yaml", "--data", data, "--replace")
    assert code == 0
    assert "nothing to run, its only cell is done" in told
    assert list(GridIndex.read(folder).records) == [cell().id]
