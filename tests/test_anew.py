"""Scores that were lost are made anew: the advice of `dfgrid verify` is one that `dfgrid grid run` follows."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest
import yaml
from small_cell import CONTENT, assert_same, cell

from benchmark.anew import PREVIOUS, what_is_made_anew
from benchmark.cli import main
from benchmark.launch import finished as done_in
from benchmark.run import run_cell
from benchmark.train import Stopped
from benchmark.verify import verify
from results.record import Record
from results.scores import load_scores

TWICE = {**CONTENT["protocol"], "epochs": 2}


@pytest.fixture(scope="module")
def once(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once") / cell().id
    run_cell(cell(), folder, data)
    return folder


@pytest.fixture(scope="module")
def twice(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell that was evaluated twice, of which the first evaluation's weights are not kept."""
    folder = tmp_path_factory.mktemp("twice") / cell(protocol=TWICE).id
    run_cell(cell(protocol=TWICE), folder, data)
    return folder


def lose(folder: Path, into: Path, content: bytes | None) -> Path:
    target = into / folder.name
    shutil.copytree(folder, target)
    (target / "scores.parquet").unlink()
    if content is not None:
        (target / "scores.parquet").write_bytes(content)
    return target


@pytest.mark.parametrize("content", [None, b"garbage", b""])
def test_one_evaluation_is_scored_again(once: Path, data: Path, tmp_path: Path, content: bytes | None) -> None:
    """From its checkpoint: no step is trained."""
    folder = lose(once, tmp_path, content)
    assert verify(tmp_path).findings
    assert done_in([cell()], tmp_path, data) == set()
    said = what_is_made_anew(folder)
    assert f"scores.parquet {'is missing' if content is None else 'is no parquet file'}, so the weights of its checkpoint" in said
    stages: list[str] = []
    run_cell(cell(), folder, data, report=lambda stage, done, total: stages.append(stage))
    assert "train" not in stages
    assert_same(once, folder)
    assert verify(tmp_path).findings == ()
    assert Record.load(folder / PREVIOUS) == Record.load(once / "record.json")
    assert done_in([cell()], tmp_path, data) == {cell().id}
    assert what_is_made_anew(folder) == ""


def test_more_evaluations_are_trained_again(twice: Path, data: Path, tmp_path: Path) -> None:
    """By any code, as nothing is taken over; stopped on the way, it goes on, and the old record stays until the end."""
    folder = lose(twice, tmp_path, b"garbage")
    content = json.loads((folder / "record.json").read_text())
    content["provenance"]["code"] = "0" * 64
    (folder / "record.json").write_text(json.dumps(content))
    said = what_is_made_anew(folder)
    assert "it is trained again, by other code than its record's: it was evaluated 2 times, and only its last weights" in said
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > content["steps"] // 2 + 1

    with pytest.raises(Stopped):
        run_cell(cell(protocol=TWICE), folder, data, should_stop=stop)
    assert json.loads((folder / "record.json").read_text()) == content
    assert "what was begun anew goes on" in what_is_made_anew(folder)
    trained: list[int] = []
    run_cell(cell(protocol=TWICE), folder, data, report=lambda s, done, total: trained.append(done) if s == "train" else None)
    assert trained[0] > content["steps"] // 2
    assert_same(twice, folder)


def test_killed_between_the_scores_and_the_record(once: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old record is not taken for one of the new scores, which other code may have made."""
    folder = lose(once, tmp_path, b"garbage")
    with monkeypatch.context() as patch:
        patch.setattr("benchmark.run.provenance_now", None)  # called between the two
        with pytest.raises(TypeError):
            run_cell(cell(), folder, data)
    assert load_scores(folder / "scores.parquet").equals(load_scores(once / "scores.parquet"))
    assert done_in([cell()], tmp_path, data) == set()
    run_cell(cell(), folder, data)
    assert_same(once, folder)
    assert Record.load(folder / PREVIOUS) == Record.load(once / "record.json")


def test_a_record_that_was_deleted(twice: Path, data: Path, tmp_path: Path) -> None:
    """As a broken one's sentence advises: what its checkpoint lacks is trained again, and that is said."""
    folder = tmp_path / twice.name
    shutil.copytree(twice, folder)
    (folder / "record.json").unlink()
    with pytest.warns(UserWarning, match="lacks the weights of evaluations before it; the cell is trained again"):
        run_cell(cell(protocol=TWICE), folder, data)
    assert_same(twice, folder)


def test_the_command_says_what_it_does(
    once: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a checkpoint all is trained again."""
    folder = lose(once, tmp_path / "runs" / "small", None)
    for path in folder.glob("checkpoint*.pt"):
        path.unlink()
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(CONTENT))
    monkeypatch.setattr(sys, "argv", ["dfgrid", "grid", "run", *(str(tmp_path / "g.yaml"), "--runs", str(tmp_path / "runs"))])
    sys.argv += ["--data", str(data)]
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    told = capsys.readouterr()
    assert "scores.parquet is missing, so it is trained again: its checkpoint.pt is gone too; its record stays" in told.err
    assert "nothing to run" not in told.out
    assert_same(once, folder)


def test_a_look_at_scores_is_cheap(once: Path) -> None:
    """The footer alone: a thousand cells in seconds."""
    from results.scores import lost_scores

    begun = time.perf_counter()
    for _ in range(1000):
        assert lost_scores(once / "scores.parquet") == ""
    assert time.perf_counter() - begun < 10
