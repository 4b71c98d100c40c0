"""Options of `dfgrid preprocess` that would change nothing are refused, or said to."""

from __future__ import annotations

from pathlib import Path

import pytest
from preprocessing_material import Squares, clip, ff_tree
from test_cli import Dfgrid, assert_mistake, dfgrid

from preprocessing.layouts import read_layout
from preprocessing.pipeline import Settings, preprocess

__all__ = ["dfgrid"]


@pytest.mark.parametrize("sampling", [("every",), ("fixed-stride", "--stride", 2)])
@pytest.mark.parametrize("check", [(), ("--check",)])
def test_frames_belong_to_one_way_of_sampling(
    sampling: tuple[object, ...], check: tuple[str, ...], dfgrid: Dfgrid, tmp_path: Path
) -> None:
    clip(tmp_path / "set/a.mp4")
    command = ("preprocess", "set", "--layout", "folder", "--out", "s", *check, "--sampling", *sampling)
    assert_mistake(dfgrid(*command, "--frames", 3), "--frames 3", f"--sampling {sampling[0]}", "leave it out")
    assert not (tmp_path / "s").exists()
    if not check:
        assert dfgrid(*command)[0] == 0


def test_a_compression_level_of_videos_that_have_none(dfgrid: Dfgrid, tmp_path: Path) -> None:
    clip(tmp_path / "set/a.mp4", 2)
    command = ("preprocess", "set", "--layout", "folder", "--out", "s", "--frames", 1)
    assert_mistake(
        dfgrid(*command, "--compression", "c40"), "--compression c40", "videos of this layout have no levels", "leave it out"
    )
    assert dfgrid(*command)[0] == 0


def test_masks_that_no_video_has_choose_no_face(tmp_path: Path) -> None:
    chosen, words = Settings(2, 64, face="mask-overlap"), "no video has a mask: --face mask-overlap takes the largest face of each"
    found = read_layout(ff_tree(tmp_path / "ff", ("FaceSwap",), 2))
    assert words in preprocess(found, tmp_path / "store", chosen, detector=Squares()).notes
    found = read_layout(ff_tree(tmp_path / "masked", ("Deepfakes",), 2))
    assert words not in preprocess(found, tmp_path / "other", chosen, detector=Squares()).notes
