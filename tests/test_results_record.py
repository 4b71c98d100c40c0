"""Records on disk: what is refused, and with which sentence; what a grid's folder says of cells without a record."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError
from results_grids import grid_file, measure, provenance, record, write_grid

from results import files as files_module
from results.files import RecordError, write_atomically
from results.index import GridFile, GridIndex, save_failure
from results.record import Record
from results.scores import SCORE_COLUMNS, load_scores

LONG = ", and so on" * 100


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    before = record("a", 0.9, protocol={"name": "strict", "betas": (0.9, 0.999)}, losses=((1, None), (2, 0.5)))
    before.save(tmp_path / "record.json")
    assert Record.load(tmp_path / "record.json") == before
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]
    assert json.loads((tmp_path / "record.json").read_text())["provenance"]["started"] == "2025-11-20T12:00:00Z"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(files_module.os, "fsync", full)
    with pytest.raises(OSError, match=r"no space.*record\.json"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: None, r"record\.json does not exist; run the cell again"),
        (lambda text: text[:100], r"record\.json is no valid JSON \(line \d+: .*\); delete it"),
        (lambda text: "[]", r"is no record: it has no key 'format'"),
        (lambda text: text.replace('"format": 1', '"format": 7'), r"holds a record of format 7, but this version reads format 1"),
        (lambda text: text.replace('"seed": 0', '"sede": 0'), r"is no record of format 1 \(seed: Field required\)"),
        (lambda text: text.replace('"auc": 0.9,', '"auc": 1.9,'), r"measures\.\d+\.auc: Input should be less than or equal to 1"),
        (lambda text: text.replace('"auc": 0.9,', '"auc": NaN,'), r"measures\.\d+\.auc: Input should be a finite number"),
    ],
)
def test_a_broken_record_is_one_sentence(tmp_path: Path, change, sentence: str) -> None:
    path = tmp_path / "record.json"
    record("a", 0.9).save(path)
    text = change(path.read_text())
    if text is None:
        path.unlink()
    else:
        assert text != path.read_text()
        path.write_text(text)
    with pytest.raises(RecordError, match=sentence) as caught:
        Record.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_metric_is_a_number_or_has_a_reason() -> None:
    assert measure(None).undefined["auc"] == "only fake faces"
    with pytest.raises(ValidationError, match="auc must have either a value or a reason"):
        measure(0.9, undefined={"auc": "only real faces"})
    with pytest.raises(ValidationError, match="acc must have either"):
        measure(0.9, acc=None)
    with pytest.raises(ValidationError, match="source-val belongs to the split val"):
        measure(0.9, role="source-val", split="test")


def test_the_same_evaluation_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"two measures of NeuralTextures \(test, frame level\) at step 10"):
        record("a", [measure(0.9), measure(0.8)])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"started": "2025-11-20T13:00:00+01:00"}, "started must be in UTC"),
        ({"started": "2025-11-20T12:00:00"}, "timezone"),
        ({"started": "2025-11-20T12:30:00Z"}, "finished lies before started"),
        ({"hostname": "x"}, "Extra inputs"),
    ],
)
def test_provenance_refuses(change: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        provenance(**change)


def test_a_grid_names_why_each_cell_has_no_record(tmp_path: Path) -> None:
    grid = grid_file(optimizers=("sgd", "sam"), seeds=(0, 1, 2, 3))
    folder = write_grid(
        tmp_path / "demo", grid, [record("meso4-sgd-s0", 0.9), record("meso4-sam-s2", 0.9, optimizer="adam", seed=2)]
    )
    for cell in ("meso4-sgd-s1", "meso4-sgd-s2", "meso4-sgd-s3", "meso4-sam-s0", "meso4-sam-s1"):
        (folder / cell).mkdir()
    save_failure(folder / "meso4-sgd-s1" / "failure.json", "the loss is not finite\n after step 3" + LONG)
    (folder / "meso4-sgd-s2" / "failure.json").write_text("{")
    (folder / "meso4-sgd-s3" / "checkpoint.pt").touch()
    (folder / "meso4-sam-s0" / "checkpoint.pt").touch()
    (folder / "meso4-sam-s0" / "scores").mkdir()
    for step, epoch in ((10, 1.0), (20, 2.5)):
        pd.DataFrame({"epoch": [epoch, epoch]}).to_parquet(folder / "meso4-sam-s0" / "scores" / f"{step:08d}.parquet")
    record("meso4-sam-s1", 0.9, optimizer="sam", seed=1).save(folder / "meso4-sam-s1" / "record.json")
    broken = folder / "meso4-sam-s1" / "record.json"
    broken.write_text(broken.read_text().replace('"format": 1', '"format": 2'))

    index = GridIndex.read(folder)
    assert list(index.records) == ["meso4-sgd-s0"]
    reasons = index.reasons
    assert reasons["meso4-sgd-s1"] == f"failed: the loss is not finite after step 3{LONG}", "whole, in one line"
    assert reasons["meso4-sgd-s2"] == "failed: meso4-sgd-s2/failure.json cannot be read"
    assert reasons["meso4-sgd-s3"] == "interrupted (or still running)"
    assert reasons["meso4-sam-s0"] == "interrupted after epoch 2.5 (or still running)"
    assert reasons["meso4-sam-s1"].startswith("meso4-sam-s1/record.json holds a record of format 2")
    assert reasons["meso4-sam-s2"] == "meso4-sam-s2/record.json belongs to cell meso4-sam-s2 of grid demo; delete it, run again"
    assert reasons["meso4-sam-s3"] == "not run yet"


def test_a_missing_grid_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"runs.never does not exist: this grid was never started; run `dfgrid grid run never`"):
        GridIndex.read(tmp_path / "runs" / "never")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match=r"grid\.json does not exist; run `dfgrid grid run empty`"):
        GridIndex.read(tmp_path / "empty")
    with pytest.raises(ValidationError, match="a cell stands there twice"):
        GridFile(name="x", tests=(), cells=grid_file().cells * 2)


def scores() -> pd.DataFrame:
    rows = [
        (0.5, 10, "test", "NT", "held-out", "mini-a", "real", "000", f, f"mini-a/c23/real/000/{f:06d}", 0, 0.25) for f in (0, 1)
    ]
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS)).astype({"score": "float32", "method": "category"})


def test_scores_come_back(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    scores()[list(SCORE_COLUMNS)[::-1]].to_parquet(path, index=False)
    pd.testing.assert_frame_equal(load_scores(path), scores())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop(columns="video").assign(clip=1), r"\(missing: video; unknown: clip\)"),
        (lambda t: t.assign(label=["0", "1"]), "column 'label' must be integer"),
        (lambda t: t.assign(frame=0.5), "column 'frame' must be integer, not float64"),
        (lambda t: t.assign(method=3), "column 'method' must be text"),
        (lambda t: t.assign(score=[0.5, float("nan")]), "column 'score' has 1 missing values"),
        (lambda t: t.assign(score=1.5), r"column 'score' has values outside \[0, 1\]"),
        (lambda t: t.assign(key="same"), "face same is scored twice on NT at step 10"),
    ],
)
def test_wrong_scores_are_refused(tmp_path: Path, change, sentence: str) -> None:
    path = tmp_path / "scores.parquet"
    change(scores()).to_parquet(path, index=False)
    with pytest.raises(RecordError, match=sentence):
        load_scores(path)


def test_a_score_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="does not exist"):
        load_scores(tmp_path / "scores.parquet")
    (tmp_path / "scores.parquet").write_bytes(b"text")
    with pytest.raises(RecordError, match="is no parquet file"):
        load_scores(tmp_path / "scores.parquet")
