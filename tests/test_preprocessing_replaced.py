"""Videos that were replaced by others of the same names: a store does not pass for one of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from preprocessing_material import SMALL, Squares, clip, videos
from test_cli import Dfgrid, assert_mistake, dfgrid
from test_preprocessing_datasets import wild

from preprocessing.errors import PreprocessingError
from preprocessing.layouts import read_layout
from preprocessing.pipeline import preprocess
from preprocessing.store import FaceStore

__all__ = ["dfgrid"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_replaced_video_is_named_and_read_again_on_request(workers: int, tmp_path: Path) -> None:
    made = videos(tmp_path, 3)
    before = preprocess(made, tmp_path / "store", SMALL, workers=workers, detector=Squares())
    was = made[1].path.stat().st_size
    clip(made[1].path, 20, tint=90)
    words = (
        rf"store .* 1 video whose file has another size now than when it was read: {made[1].key} \({was} bytes then,"
        rf" {made[1].path.stat().st_size} now\); read it again with --retry, or give another folder"
    )
    grown = [*made, *videos(tmp_path / "more", 4)[3:]]
    for now in (made, grown):
        with pytest.raises(PreprocessingError, match=words):
            preprocess(now, tmp_path / "store", SMALL, workers=workers, detector=Squares())
    with FaceStore(tmp_path / "store") as store:
        assert store.fingerprint == before.fingerprint, "a refusal leaves the store as it is"
    again = preprocess(made, tmp_path / "store", SMALL, workers=workers, detector=Squares(), retry=True)
    assert (again.processed, again.skipped) == (1, 2)
    assert again.fingerprint == preprocess(made, tmp_path / "fresh", SMALL, detector=Squares()).fingerprint != before.fingerprint


def test_the_same_files_elsewhere_are_the_same(tmp_path: Path) -> None:
    before = preprocess(videos(tmp_path / "a"), tmp_path / "store", SMALL, detector=Squares())
    made = videos(tmp_path / "b")
    os.utime(made[0].path, (0, 0))
    again = preprocess(made, tmp_path / "store", SMALL, detector=Squares())
    assert again.finished_before
    assert again.fingerprint == before.fingerprint


def test_faces_that_came_cut_out(tmp_path: Path) -> None:
    """An archive has a size; a folder of images has none that says anything."""
    found = read_layout(wild(tmp_path / "wild"), "wilddeepfake")
    preprocess(found, tmp_path / "store", SMALL, detector=Squares())
    assert preprocess(found, tmp_path / "store", SMALL, detector=Squares()).finished_before
    with FaceStore(tmp_path / "store") as store:
        assert {record["label"] for record in store.records() if "size" in record} == {1}


def test_stores_that_know_no_sizes_are_taken_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = videos(tmp_path, 2)
    monkeypatch.setattr("preprocessing.pipeline.size_of", lambda video: None)
    old = preprocess(made, tmp_path / "store", SMALL, detector=Squares())
    monkeypatch.undo()
    with FaceStore(tmp_path / "store") as store:
        assert all("size" not in json.dumps(record) for record in store.records())
    clip(made[1].path, 20)
    assert preprocess(made, tmp_path / "store", SMALL, detector=Squares()).finished_before
    assert old.fingerprint == preprocess(videos(tmp_path / "same", 2), tmp_path / "new", SMALL, detector=Squares()).fingerprint


def test_the_command_line(dfgrid: Dfgrid, tmp_path: Path) -> None:
    clip(tmp_path / "set/a.mp4", 2)
    command = ("preprocess", "set", "--layout", "folder", "--frames", 1, "--out", "s")
    assert dfgrid(*command)[0] == 0
    clip(tmp_path / "set/a.mp4", 3)
    assert_mistake(dfgrid(*command), "set/none/real/a", "--retry")
    code, out, err = dfgrid(*command, "--retry")
    assert code == 0, err
    assert "1 video done now" in out
