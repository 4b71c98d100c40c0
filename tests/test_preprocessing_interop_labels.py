"""Names in DeepfakeBench's files: what is real and what is forged, labels of one's own, and frames named by long numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deepfakebench_trees import draw, leaf, pixels, write
from preprocessing_material import clip

from preprocessing.errors import PreprocessingError
from preprocessing.interop import import_deepfakebench
from preprocessing.layouts import read_layout
from preprocessing.store import FaceStore


@pytest.mark.parametrize("word", ["real", "Real", "REAL"])
def test_real_is_real_in_any_case(word: str, tmp_path: Path) -> None:
    content = {"own": {
        "Mine": {"test": {"a": leaf("Mine", draw(tmp_path, "own/Mine", "a"))}},
        "MyGAN": {"test": {"b": leaf("MyGAN", draw(tmp_path, "own/MyGAN", "b"))}},
    }}  # fmt: skip
    file = write(tmp_path / "own.json", content)
    import_deepfakebench([file], tmp_path / "store", rgb=tmp_path, labels=[f"Mine={word}", "MyGAN=MyGAN"])
    with FaceStore(tmp_path / "store") as store:
        classes = store.manifest[["method", "label"]].drop_duplicates()
    assert {tuple(row) for row in classes.itertuples(index=False)} == {("real", 0), ("MyGAN", 1)}


def test_a_videos_own_method_that_is_real_but_for_its_case_is_refused(tmp_path: Path) -> None:
    entry = {**leaf("FF-real", draw(tmp_path, "own/x", "a")), "method": "Real"}
    file = write(tmp_path / "own.json", {"own": {"FF-real": {"test": {"a": entry}}}})
    with pytest.raises(PreprocessingError, match=r"own\.json: own / FF-real / a has the method 'Real'; write 'real'"):
        import_deepfakebench([file], tmp_path / "store", rgb=tmp_path)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("label", ["real_fake", "Real_Fake"])
def test_a_forgery_called_real_must_be_explained(label: str, tmp_path: Path) -> None:
    content = {"own": {
        label: {"test": {"a": leaf(label, draw(tmp_path, "own/x", "a"))}},
        "own_real": {"test": {"b": leaf("own_real", draw(tmp_path, "own/y", "b"))}},
    }}  # fmt: skip
    file = write(tmp_path / "own.json", content)
    summary = import_deepfakebench([file], tmp_path / "store", rgb=tmp_path)
    assert any(f"label '{label}' says neither real nor which forgery" in finding for finding in summary.findings)
    assert summary.counts["videos"] == 1


def test_a_folder_of_forgeries_called_real_is_refused(tmp_path: Path) -> None:
    clip(tmp_path / "set/real/a.mp4", 2)
    clip(tmp_path / "set/fake/Real/b.mp4", 2)
    with pytest.raises(PreprocessingError, match=r"fake/Real calls a forgery 'Real'; name the folder by the forgery"):
        read_layout(tmp_path / "set", "folder")


def test_frames_with_numbers_that_no_table_holds_are_numbered_by_their_order(tmp_path: Path) -> None:
    stamps = [20241126135500123456, 20241126135500123457, 20241126135500123999]
    content = {"own": {"own_real": {"test": {
        "a": leaf("own_real", draw(tmp_path, "own/x", "a", stamps)),
        "b": leaf("own_real", draw(tmp_path, "own/x", "b", [7, 2**63 - 1])),
    }}}}  # fmt: skip
    import_deepfakebench([write(tmp_path / "own.json", content)], tmp_path / "store", rgb=tmp_path)
    with FaceStore(tmp_path / "store") as store:
        frames = store.manifest.groupby("video")["frame"].apply(list).to_dict()
        assert np.array_equal(store.image("own/none/real/a/000002"), pixels("own/x", "a", stamps[2]))
    assert frames == {"a": [0, 1, 2], "b": [7, 2**63 - 1]}


def own(root: Path) -> Path:
    """A JSON of one real and one forged video, under labels that say nothing."""
    content = {"own": {
        "Mine": {"test": {"a": leaf("Mine", draw(root, "own/x", "a"))}},
        "real": {"test": {"b": leaf("real", draw(root, "own/y", "b"))}},
    }}  # fmt: skip
    return write(root / "own.json", content)


def test_where_no_label_says_anything_the_error_says_which(tmp_path: Path) -> None:
    with pytest.raises(PreprocessingError) as caught:
        import_deepfakebench([own(tmp_path)], tmp_path / "store", rgb=tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'own.json'} leaves no video to import: label 'Mine' says neither real nor which forgery")
    assert "--label 'Mine=METHOD' or 'Mine=real'" in said
    assert "--label 'real=METHOD' or 'real=real'" in said


def test_a_label_that_no_video_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreprocessingError, match=r"^--label Mnie=Mine: no video has the label 'Mnie': did you mean 'Mine'"):
        import_deepfakebench([own(tmp_path)], tmp_path / "store", rgb=tmp_path, labels=["real=real", "Mnie=Mine"])
    assert not (tmp_path / "store").exists()
    summary = import_deepfakebench([own(tmp_path)], tmp_path / "store", rgb=tmp_path, labels=["real=real", "Mine=GAN"])
    assert summary.counts["videos"] == 2
