"""What ends a cell before its time: each accident in one sentence, and the last good checkpoint kept."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from in_process import command
from small_cell import CONTENT, assert_same, cell, grid

from benchmark import checkpoint
from benchmark.config import ConfigError
from benchmark.data import BalancedBatches
from benchmark.evaluate import Diverged
from benchmark.launch import Event, Job, run_cells
from benchmark.mishaps import NOT_FINITE
from benchmark.pool import run_one
from benchmark.run import run_cell
from benchmark.train import Stopped
from optimizers.base import Optimizer
from results.record import Record


def dfgrid(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: object) -> tuple[int, str]:
    code, out, err = command(capsys, monkeypatch, *args)
    return code, " ".join((out + err).split())


@pytest.fixture
def stores(data: Path, tmp_path: Path) -> Path:
    """Stores of one's own, to be spoilt."""
    shutil.copytree(data / "stores", tmp_path / "data" / "stores")
    return tmp_path / "data"


def change(stores: Path, name: str) -> None:
    """As if the store had been made again under other settings."""
    path = stores / name / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": "f" * 64}))


def test_a_loss_that_is_not_a_number(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step and its very faces are named; the checkpoint from before is kept, and is good."""
    monkeypatch.setattr("benchmark.run.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    shown: list[list[float]] = []
    batch, step = BalancedBatches.batch, Optimizer.step

    def watched(self: BalancedBatches, positions: Any) -> Any:
        shown.append(self.frames.rows["key"].to_numpy()[positions.reshape(-1)].tolist())
        return batch(self, positions)

    taken = [0]

    def fifth(self: Optimizer, objective: Any) -> torch.Tensor:
        loss = step(self, objective)
        taken[0] += 1
        return loss * float("nan") if taken[0] == 5 else loss

    monkeypatch.setattr(BalancedBatches, "batch", watched)
    monkeypatch.setattr(Optimizer, "step", fifth)
    with pytest.raises(Diverged, match=r"the loss is not finite at step 5 of \d+ \(faces .* and 5 more, see c/not_finite.json\); "):
        run_cell(cell(protocol={**CONTENT["protocol"], "epochs": 2}), tmp_path / "c", data)
    told = json.loads((tmp_path / "c" / NOT_FINITE).read_text())
    assert told["step"] == 5
    assert told["faces"] == shown[4]
    state = checkpoint.load(tmp_path / "c" / "checkpoint.pt")
    assert state["step"] == 4
    assert all(bool(torch.isfinite(w).all()) for w in state["detector"].values())


def test_weights_that_are_not_numbers_are_never_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the step is fine, its update is not: the step's own checkpoint must not be written."""
    monkeypatch.setattr("benchmark.run.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    step, count = Optimizer.step, [0]

    def broken(self: Optimizer, objective: Any) -> torch.Tensor:
        loss = step(self, objective)
        count[0] += 1
        if count[0] == 3:
            with torch.no_grad():
                self.parameters[0][0] = float("inf")
        return loss

    monkeypatch.setattr(Optimizer, "step", broken)
    with pytest.raises(Diverged, match=r"the weights are not finite after step 3 of .* the checkpoint of step 2 is kept"):
        run_cell(cell(), tmp_path / "c", data)
    assert checkpoint.load(tmp_path / "c" / "checkpoint.pt")["step"] == 2


def test_a_store_that_changes_while_a_cell_runs(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noticed at the next checkpoint, before anything of the new content is kept; and before the record."""
    monkeypatch.setattr("benchmark.run.SECONDS_BETWEEN_CHECKPOINTS", 0.0)

    def spoil(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("train", 4):
            change(stores, "stores/mini-a")

    with pytest.raises(
        ConfigError, match=r"store stores/mini-a changed since the run began \(fingerprint .* then, ffffffffffff now"
    ):
        run_cell(cell(), tmp_path / "c", stores, report=spoil)
    assert checkpoint.load(tmp_path / "c" / "checkpoint.pt")["step"] == 3
    assert not (tmp_path / "c" / "record.json").exists()


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_store_that_cannot_be_read_for_a_moment(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    """As on a disk in the network that is away: it is read again; of one that stays away nobody says that it changed."""
    monkeypatch.setattr("benchmark.run.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    file = stores / "stores" / "mini-a" / "store.json"
    content, slept = file.read_text(), []

    def away(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("train", 4):
            file.unlink()

    def later(seconds: float) -> None:
        slept.append(seconds)
        if comes_back:
            file.write_text(content if len(slept) == 2 else content[:50])

    monkeypatch.setattr("benchmark.mishaps.sleep", later)
    if comes_back:
        run_cell(cell(), tmp_path / "c", stores, report=away)
        assert len(slept) == 2
        return
    with pytest.raises(
        ConfigError, match=r"^store stores/mini-a cannot be read any more \(.*store.json: No such file or directory\); "
    ):
        run_cell(cell(), tmp_path / "c", stores, report=away)
    assert len(slept) == 4
    assert checkpoint.load(tmp_path / "c" / "checkpoint.pt")["step"] == 3
    file.write_text(content)
    run_cell(cell(), tmp_path / "c", stores)


def test_a_store_that_changed_between_two_starts(stores: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run_cell(cell(), tmp_path / "c", stores, should_stop=lambda: True)
    change(stores, "stores/mini-a")
    with pytest.raises(ConfigError, match="another content of store stores/mini-a"):
        run_cell(cell(), tmp_path / "c", stores)


def test_a_folder_that_cannot_be_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before the first step. (A file in the way: rights stop nobody who tests as root.)"""
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(CONTENT))
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    code, told = dfgrid(capsys, monkeypatch, "grid", "run", "g.yaml", "--data", data, "--runs", "file/runs")
    assert code == 2
    assert "cannot write into file/runs/small: Not a directory; name another folder with --runs" in told
    if Path("/proc/self").exists():
        code, told = dfgrid(capsys, monkeypatch, "grid", "run", "g.yaml", "--data", data, "--runs", "/proc/self")
        assert code == 2
        assert "cannot write into /proc/self/small" in told


def test_a_plug_in_that_raises_at_import(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before the first step; where it raises in the worker alone, that cell fails and the others go on."""
    (tmp_path / "bad.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "g.yaml").write_text(yaml.safe_dump({**CONTENT, "plugins": ["bad.py"]}))
    code, told = dfgrid(capsys, monkeypatch, "grid", "run", tmp_path / "g.yaml", "--data", data, "--runs", tmp_path / "runs")
    assert code == 2
    assert "bad.py fails to load: ModuleNotFoundError: No module named 'nowhere_to_be_found'" in told

    (tmp_path / "bad.py").write_text("raise ValueError('one line\\n  and another')\n")
    code, told = dfgrid(capsys, monkeypatch, "list", "detectors", "--plugin", tmp_path / "bad.py")
    assert (code, "bad.py fails to load: ValueError: one line and another" in told) == (2, True), told

    (tmp_path / "moody.py").write_text("import os\nif os.getpid() != " + str(__import__("os").getpid()) + ": raise SystemExit(3)\n")
    moody, calm = cell(plugins=[str(tmp_path / "moody.py")], seeds=[0]), cell(seeds=[1])
    outcome = run_cells([moody, calm], tmp_path / "runs", data)
    assert outcome.finished == [calm.id]
    assert "moody.py fails to load: SystemExit: 3" in outcome.failed[moody.id]


def test_a_disk_that_fills(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path) -> None:
    """The cell fails in one sentence, though its reason cannot be written down either; with room it ends in the same bits."""
    monkeypatch.setattr("benchmark.run.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    saved, count = torch.save, [0]

    def save(content: Any, file: Any) -> None:
        count[0] += 1
        if count[0] >= 4:
            file.write(b"half of it")
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                raise RuntimeError("unexpected pos 704 vs 598")  # what torch makes of it
        saved(content, file)

    def nothing(path: Any, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    one = cell()
    folder = tmp_path / one.id
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        reason = run_one(one, folder, data, "cpu", 1, lambda stage, done, total: None, lambda: False, print)
        assert re.fullmatch(
            r"its disk is full \([\d.]+ MB free\); what is done is kept: make room and run the same command", reason
        )
        assert not list(folder.glob("*.part"))
        patch.setattr("results.index.write_atomically", nothing)
        told: list[Event] = []
        Job([one], tmp_path, data, "cpu", 1, 1, told.append).book(one, reason)
        assert told[0].reason.endswith("(and this cannot be written down: No space left on device)")
    assert checkpoint.load(folder / "checkpoint.pt")["step"] == 3
    assert run_one(one, folder, data, "cpu", 1, lambda stage, done, total: None, lambda: False, print) == ""
    assert_same(finished, folder)


def test_an_error_whose_traceback_cannot_be_written(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the cell's folder was deleted while it ran: the sentence about the error itself is not lost."""

    def gone(cell: Any, folder: Path, *args: Any, **settings: Any) -> None:
        raise RuntimeError("something broke")

    monkeypatch.setattr("benchmark.run.run_cell", gone)
    folder = tmp_path / cell().id
    reason = run_one(cell(), folder, data, "cpu", 1, lambda stage, done, total: None, lambda: False, print)
    assert reason == "RuntimeError: something broke (its traceback cannot be written down: No such file or directory)"
    folder.mkdir()
    reason = run_one(cell(), folder, data, "cpu", 1, lambda stage, done, total: None, lambda: False, print)
    assert reason == f"RuntimeError: something broke (see {cell().id}/traceback.txt)"
    assert (folder / "traceback.txt").read_text().endswith("RuntimeError: something broke\n")


def test_an_error_beside_a_cells_work_fails_that_cell_alone(data: Path, tmp_path: Path) -> None:
    """Its settings do not reach the worker, say."""
    broken, calm = cell().model_copy(update={"seed": "none"}), cell(seeds=[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic's, about that seed
        outcome = run_cells([broken, calm], tmp_path / "runs", data)
        assert outcome.failed[broken.id].startswith("ValidationError: ")
    assert outcome.finished == [calm.id]


def test_a_command_on_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("benchmark.cli.app", full)
    code, told = dfgrid(capsys, monkeypatch, "table", "small")
    assert code == 2
    assert told == "Error: No space left on device; what is done is kept: make room and run the same command"


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "gone"])
def test_a_torn_checkpoint_gives_way_to_the_one_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path, harm: str
) -> None:
    """And the run still ends in the same bits."""
    folder = tmp_path / "c"
    with monkeypatch.context() as patch:
        patch.setattr("benchmark.run.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        calls = iter([False] * 4)
        with pytest.raises(Stopped, match="stopped after step 5"):
            run_cell(cell(), folder, data, should_stop=lambda: next(calls, True))
    last, previous = folder / checkpoint.LAST, folder / checkpoint.PREVIOUS
    assert (checkpoint.load(last)["step"], checkpoint.load(previous)["step"]) == (5, 4)
    content = last.read_bytes()
    if harm == "gone":
        last.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        last.write_bytes({"cut": content[:middle], "flipped": flipped, "empty": b""}[harm])
        with pytest.raises(checkpoint.Damaged):
            checkpoint.load(last)
    if harm == "gone":
        run_cell(cell(), folder, data)
    else:
        told: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            run_cell(cell(), folder, data, tell=told.append)
        sentence = "checkpoint.pt is damaged; going on from step 4 in checkpoint.previous.pt, the one before it"
        assert told == [sentence]
        path = folder / "record.json"
        content = json.loads(path.read_text())
        assert content["warnings"].pop() == sentence
        path.write_text(json.dumps(content))
    assert_same(finished, folder)


def test_a_torn_checkpoint_is_told_on_the_terminal(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of the cell's own process; and where both are torn, in one sentence that says what to do."""
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(CONTENT))
    folder = tmp_path / "runs" / "small" / cell().id
    with monkeypatch.context() as patch:
        patch.setattr("benchmark.run.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        calls = iter([False] * 2)
        with pytest.raises(Stopped):
            run_cell(cell(), folder, data, should_stop=lambda: next(calls, True))
    whole = (folder / checkpoint.PREVIOUS).read_bytes()
    for name in (checkpoint.LAST, checkpoint.PREVIOUS):
        (folder / name).write_bytes(b"torn")
    command = ("grid", "run", tmp_path / "g.yaml", "--data", data, "--runs", tmp_path / "runs")
    code, told = dfgrid(capfd, monkeypatch, *command)
    assert code == 1
    assert "going on" not in told
    assert f"checkpoint.pt and checkpoint.previous.pt in {folder} cannot be read" in told
    assert f"delete {folder}: the cell begins anew" in told
    (folder / checkpoint.PREVIOUS).write_bytes(whole)
    code, told = dfgrid(capfd, monkeypatch, *command)
    assert code == 0, told
    name = "resnet10 / roga / seed 0"
    assert f"warning {name}: checkpoint.pt is damaged; going on from step 2 in checkpoint.previous.pt, the one before it" in told
    assert "UserWarning" not in told
    assert [w for w in Record.load(folder / "record.json").warnings if "is damaged" in w]


def test_both_torn(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run_cell(cell(), tmp_path / "c", data, should_stop=lambda: True)
    (tmp_path / "c" / checkpoint.LAST).write_bytes(b"torn")
    (tmp_path / "c" / checkpoint.PREVIOUS).write_bytes(b"torn")
    told: list[str] = []
    with pytest.raises(
        ConfigError, match=r"^checkpoint\.pt and checkpoint\.previous\.pt in .*; delete .*/c: the cell begins anew$"
    ):
        run_cell(cell(), tmp_path / "c", data, tell=told.append)
    assert told == []


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "cell"
    run_cell(grid().cells()[0], folder, data)
    return folder
