"""First weights are part of where a number comes from: named, hashed, compared, and told to whoever runs a cell."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from small_cell import CONTENT, assert_same, cell

from benchmark.cli.running import look_at_fit
from benchmark.config import Cell, ConfigError
from benchmark.launch import finished
from benchmark.provenance import file_hash
from benchmark.reproduce import reproduce
from benchmark.run import run_cell
from benchmark.train import Stopped
from detectors import DETECTORS
from results.record import Record

DETECTOR = {"name": "resnet10", "size": 32, "width": 4}


def weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    torch.save(DETECTORS.build(**DETECTOR).state_dict(), path)
    return path


def begun_from(path: Path) -> Cell:
    return cell(detectors=[{**DETECTOR, "weights": str(path)}], protocol=CONTENT["protocol"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return weights(tmp_path / "init.pth", 1)


def test_the_record_names_the_file_and_its_content(file: Path, data: Path, tmp_path: Path) -> None:
    record = run_cell(begun_from(file), tmp_path / "run", data)
    assert record.provenance.weights == {"init.pth": file_hash(file)}
    assert run_cell(cell(), tmp_path / "other", data).provenance.weights == {}


def test_the_command_says_what_it_read(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look_at_fit([begun_from(file), begun_from(file)])
    tensors = len(torch.load(file))
    assert capsys.readouterr().out.strip() == f"first weights of resnet10: {file}: {tensors} tensors loaded"


def test_another_content_is_not_the_cell_that_was_run(file: Path, data: Path, tmp_path: Path) -> None:
    one = begun_from(file)
    run_cell(one, tmp_path / one.id, data)
    assert finished([one], tmp_path, data) == {one.id}
    weights(file, 2)
    with pytest.raises(ConfigError, match=r"record.json was made with another content of the weights file init.pth; put that back"):
        finished([one], tmp_path, data)
    file.unlink()  # the numbers stay what they are
    assert finished([one], tmp_path, data) == {one.id}


def test_a_run_does_not_go_on_from_another_content(file: Path, data: Path, tmp_path: Path) -> None:
    one = begun_from(file)
    with pytest.raises(Stopped):
        run_cell(one, tmp_path / "run", data, should_stop=lambda: True)
    weights(file, 2)
    with pytest.raises(ConfigError, match=r"checkpoint.pt was made with another content of the weights file init.pth"):
        run_cell(one, tmp_path / "run", data)


def test_reproduce_knows_the_file_by_its_content(file: Path, data: Path, tmp_path: Path) -> None:
    one = begun_from(file)
    run_cell(one, tmp_path / "run", data)
    record = tmp_path / "run" / "record.json"
    assert reproduce(record, data, tmp_path / "again").identical
    moved = tmp_path / "elsewhere.pth"
    shutil.move(file, moved)
    with pytest.raises(ConfigError, match=r"those of init.pth \(SHA-256 .*is not there; give that very file with --weights"):
        reproduce(record, data, tmp_path / "third")
    third = reproduce(record, data, tmp_path / "third", weights=[weights(tmp_path / "wrong.pth", 3), moved])
    assert third.identical
    assert third.circumstances == {}  # the file's name is none of them
    weights(file, 2)
    with pytest.raises(ConfigError, match=r"init.pth has another content; give that very file with --weights"):
        reproduce(record, data, tmp_path / "fourth")


def test_older_records_do_not_tell(file: Path, data: Path, tmp_path: Path) -> None:
    one = begun_from(file)
    done = run_cell(one, tmp_path / one.id, data)
    content = done.model_copy(update={"provenance": done.provenance.model_copy(update={"weights": {}})})
    content.save(tmp_path / one.id / "record.json")
    weights(file, 2)
    assert finished([one], tmp_path, data) == {one.id}
    assert Record.load(tmp_path / one.id / "record.json").provenance.weights == {}
    run_cell(one, tmp_path / "new", data)
    with pytest.raises(AssertionError):
        assert_same(tmp_path / one.id, tmp_path / "new")
