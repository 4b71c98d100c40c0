"""`dfgrid train` on splits that are named, and on datasets that ship none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from preprocessing_material import SMALL, Squares, clip
from test_cli import Dfgrid, assert_mistake, dfgrid

from benchmark import checkpoint
from preprocessing.layouts import read_layout
from preprocessing.pipeline import Settings, preprocess
from preprocessing.store import FaceStore
from results.record import Record

__all__ = ["dfgrid"]

CELL = ("--detector", "resnet10", "--optimizer", "adam", "--set", "detector.size=32", "--set", "detector.width=4",
        "--method", "fake", "--batch-size", 8, "--epochs", 1)  # fmt: skip


@pytest.fixture(scope="module")
def unsplit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores `one` and `two` of UADFV's layout, whose faces all have the split "none"; `two` has larger faces."""
    folder = tmp_path_factory.mktemp("unsplit")
    for number in range(4):
        clip(folder / f"own/real/{number:04d}.mp4", 6, tint=number)
        clip(folder / f"own/fake/{number:04d}_fake.mp4", 6, tint=20 + number)
    for name, size in (("one", 32), ("two", 48)):
        preprocess(read_layout(folder / "own"), folder / name, Settings(frames=4, size=size), detector=Squares())
    return folder


def test_only_when_asked_for_by_name(dfgrid: Dfgrid, unsplit: Path) -> None:
    words = ("has no 'fake' faces in split 'train'", "its dataset ships no split for them", "--train-split none --val-split none")
    assert_mistake(dfgrid("train", *CELL, "--store", unsplit / "one"), *words)
    half = dfgrid("train", *CELL, "--store", unsplit / "one", "--train-split", "none")
    assert_mistake(half, "has no 'fake' faces in split 'val'", "--val-split none")
    assert not Path("runs").exists()
    assert_mistake(dfgrid("train", *CELL, "--store", unsplit / "one", "--frame-pick", "last"), "'uniform' or 'first'")
    assert_mistake(dfgrid("train", *CELL, "--store", unsplit / "one", "--frame-pick", "first"), "needs frames")


def test_a_store_without_splits_is_trained_on_with_warnings(dfgrid: Dfgrid, unsplit: Path) -> None:
    none = ("--train-split", "none", "--val-split", "none", "--frames", 2, "--frame-pick", "first")
    code, out, err = dfgrid("train", *CELL, "--store", unsplit / "one", "--test", unsplit / "two", *none)
    assert code == 0, err
    assert "cross-dataset" in out
    assert "training, validation and test faces are the same by construction" in err
    (folder,) = Path("runs/train").glob("resnet10-*-adam-*")
    record = Record.load(folder / "record.json")
    assert len(record.warnings) == err.count("warning") == 5
    assert any("validation uses the training faces" in w for w in record.warnings)
    assert any("32 pixels here" in w and "48 pixels there" in w for w in record.warnings), "the stores were made differently"
    for part in (record.data["train"], *record.data["tests"]):
        assert (part["frames"], part["frame_pick"]) == (2, "first")
    assert [t["split"] for t in record.data["tests"]] == ["none", "none"]
    assert {m.n_fake for m in record.measures if m.level == "frame"} == {8}, "the first 2 faces of each of 4 videos"

    settings = FaceStore(unsplit / "one").info["settings"]
    assert record.provenance.faces[str((unsplit / "one").resolve())] == settings
    kept = checkpoint.load(folder / "checkpoint.pt")["faces"]
    assert kept["settings"] == settings
    assert kept["notes"] == ["UADFV has no official split: all 8 videos have the split 'none' and are for testing"]

    code, out, err = dfgrid("table", "train")
    assert code == 0, err
    assert "are the same by construction" in Path("runs/train/tables/table.md").read_text()

    code, out, err = dfgrid("evaluate", folder / "checkpoint.pt", unsplit / "one", unsplit / "two", "--split", "none")
    assert code == 0, err
    assert err.count("warning") == 1, "one of the two has the faces of the training"
    assert "32 pixels there, 48 pixels here" in err
    mistake = dfgrid("evaluate", folder / "checkpoint.pt", unsplit / "one")
    assert_mistake(mistake, "has no faces in split 'test'; it has them in 'none' (its dataset ships no split for them)")

    # predict has dlib's detector only.
    video = unsplit / "own/real/0000.mp4"
    assert_mistake(dfgrid("predict", video, "-c", folder / "checkpoint.pt"), "detector squares", "landmark model", "--predictor")


def test_a_store_with_some_splits_says_what_it_has(dfgrid: Dfgrid, tmp_path: Path) -> None:
    splits = {"000": "train", "001": "none"}
    made = [
        video
        for label, method in enumerate(("real", "fake"))
        for name, split in splits.items()
        for video in [_video(clip(tmp_path / method / f"{name}.mp4", 4), method, label, split)]
    ]
    preprocess(made, tmp_path / "store", SMALL, detector=Squares())
    run = dfgrid("train", *CELL, "--store", tmp_path / "store")
    assert_mistake(run, "no 'fake' faces in split 'val'; it has them in train and 'none' (its dataset ships no split for them)")
    assert "--train-split none" not in run[2], "train is there"


def _video(path: Path, method: str, label: int, split: str):  # type: ignore[no-untyped-def]
    from preprocessing.layouts import Video

    return Video("toy", method, label, split, path.stem, path.stem, path, "none")


def test_records_of_before_are_read(tmp_path: Path) -> None:
    from test_results_tables import record

    content = json.loads(record("x", 0.5).model_dump_json())
    del content["warnings"], content["provenance"]["faces"]
    (tmp_path / "record.json").write_text(json.dumps(content))
    found = Record.load(tmp_path / "record.json")
    assert (found.warnings, found.provenance.faces) == ((), {})
