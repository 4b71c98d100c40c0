"""Splits that say less than they seem to are possible, and said aloud."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from preprocessing_material import Squares, clip
from small_cell import cell

from benchmark.cli import main
from benchmark.cli.single import names_apart
from benchmark.config import ConfigError
from benchmark.data import split_warnings
from benchmark.reads import cell_warnings, open_stores, seen_warnings
from benchmark.run import run_cell
from benchmark.specs import TestSet, TrainData
from benchmark.study import load_grid
from preprocessing.layouts import read_layout
from preprocessing.pipeline import Settings, preprocess


def test_sentences() -> None:
    good = TrainData(store="a", methods=("fake",))
    elsewhere = TestSet(name="b", store="b", split="none", role="cross-dataset")
    at_home = TestSet(name="a", store="a", role="in-domain")
    assert split_warnings(good, [elsewhere, at_home]) == []
    bad = TrainData(store="a", methods=("fake",), train_split="none", val_split="none")
    none, validation, tested = split_warnings(bad, [elsewhere, TestSet(name="t", store="a", split="none", role="in-domain")])
    assert "split 'none' of store a" in none
    assert "validation uses the training faces" in validation
    assert "test set 't' is split 'none' of store a, on which the cells are trained" in tested
    (seen,) = split_warnings(good, [TestSet(name="t", store="a", split="val", role="in-domain")])
    assert "validated" in seen


def test_a_grid_may_train_on_split_none_and_is_warned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        clip(tmp_path / f"own/real/{number:04d}.mp4", 2, tint=number)
        clip(tmp_path / f"own/fake/{number:04d}_fake.mp4", 2, tint=20 + number)
    summary = preprocess(read_layout(tmp_path / "own"), tmp_path / "store", Settings(frames=2, size=32), detector=Squares())
    assert summary.notes == ["UADFV has no official split: all 8 videos have the split 'none' and are for testing"]
    content = {
        "name": "g",
        "train": {"store": str(tmp_path / "store"), "methods": ["fake"], "train_split": "none", "val_split": "none"},
        "tests": [{"name": "home", "store": str(tmp_path / "store"), "methods": ["fake"], "split": "none", "role": "in-domain"}],
        "detectors": [{"name": "resnet10", "size": 32, "width": 4}],
        "optimizers": ["adam"],
        "seeds": [0],
        "protocol": {"epochs": 1, "batch_size": 8},
    }
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(content))
    (cell,) = load_grid(str(tmp_path / "g.yaml")).cells()
    run_cell(cell, tmp_path / "runs/g" / cell.id, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dfgrid", "grid", "run", "g.yaml"])
    with pytest.raises(SystemExit, match="0"):
        main()
    out, err = capsys.readouterr()
    assert "its only cell is done" in out
    assert err.count("warning") == 3


def test_training_faces_are_no_other_dataset_under_another_path(data: Path, tmp_path: Path) -> None:
    """A link, a copy, another spelling: it is the content that counts."""
    shutil.copytree(data / "stores" / "mini-a", tmp_path / "copy")
    for store in ("./stores/mini-a", "stores/../stores/mini-a", str(tmp_path / "copy")):
        one = cell(tests=[{"name": "other", "store": store, "methods": ["Deepfakes"], "split": "train", "role": "cross-dataset"}])
        with pytest.raises(ConfigError, match=r"tests: 'other' is of store .*, which has the very content of .* stores/mini-a: "):
            open_stores(one, data)


def test_videos_of_the_training_data_in_another_store_are_told(data: Path, tmp_path: Path) -> None:
    """The same videos once more, of which another number of frames was taken: as at another compression."""
    layout = read_layout(data / "mini-a", layout="faceforensics++", name="mini-a")
    preprocess(layout, tmp_path / "again", Settings(frames=1))

    def told(split: str, methods: list[str] | None = None) -> list[str]:
        test = {"name": "again", "store": str(tmp_path / "again"), "methods": methods, "split": split, "role": "cross-dataset"}
        one = cell(tests=[test])
        return seen_warnings(one, open_stores(one, data))

    assert told("test") == []
    (sentence,) = told("train", ["Deepfakes"])
    found = re.match(
        r"(\d+) of the (\d+) videos of test set 'again' are by their names trained or validated on, too \(mini-a ", sentence
    )
    assert found is not None
    assert found[1] == found[2] != "0"
    (partly,) = told("val")
    a, b = map(int, re.findall(r"\d+", partly)[:2])
    assert a < b  # NeuralTextures is not trained on
    one = cell(tests=[{"name": "again", "store": str(tmp_path / "again"), "split": "train", "role": "cross-dataset"}])
    assert any("trained or validated on, too" in sentence for sentence in cell_warnings(one, open_stores(one, data)))


def test_stores_of_one_name_are_told_apart() -> None:
    a, b, c = Path("/data/a/store"), Path("/data/b/store"), Path("/data/b/other")
    assert names_apart([a, b, c]) == {a: "a/store", b: "b/store", c: "other"}
    assert names_apart([a, a]) == {a: "store"}
