"""Datasets on disk become the right list of videos, or one sentence that says what is missing."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from preprocessing.errors import PreprocessingError
from preprocessing.layouts import LAYOUTS, Video, check_unique, read_layout


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def ff(root: Path) -> Path:
    touch(root, "original_sequences/youtube/c23/videos/071.mp4", "original_sequences/youtube/c40/054.mp4")
    touch(root, "original_sequences/youtube/c23/videos/000.mp4", "original_sequences/youtube/c23/videos/._000.mp4")
    touch(root, "manipulated_sequences/Deepfakes/c23/videos/071_054.mp4", "manipulated_sequences/FaceSwap/c23/054_071.mp4")
    touch(root, "manipulated_sequences/Deepfakes/masks/videos/071_054.mp4")
    for split, pairs in {"train": [["054", "071"]], "val": [["000", "003"]], "test": [["010", "011"]]}.items():
        (root / f"{split}.json").write_text(json.dumps(pairs))
    return root


def celeb(root: Path, listed: str = "1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n") -> Path:
    touch(root, "Celeb-real/id0_0000.mp4", "YouTube-real/00170.mp4", "YouTube-real/videos/00011.mp4")
    touch(root, "Celeb-synthesis/id0_id1_0000.mp4", "Celeb-synthesis/id2_id1_0003.mp4")
    (root / "List_of_testing_videos.txt").write_text(listed)
    return root


def test_faceforensics(tmp_path: Path) -> None:
    found = {v.key: v for v in read_layout(ff(tmp_path))}
    assert set(found) == {
        "FaceForensics++/c23/real/000",
        "FaceForensics++/c23/real/071",
        "FaceForensics++/c23/Deepfakes/071_054",
        "FaceForensics++/c23/FaceSwap/054_071",
    }
    assert {v.video: v.split for v in found.values()} == {"000": "val", "071": "train", "071_054": "train", "054_071": "train"}
    assert {v.method: v.label for v in found.values()} == {"real": 0, "Deepfakes": 1, "FaceSwap": 1}
    forged = found["FaceForensics++/c23/Deepfakes/071_054"]
    assert forged.identity == "071_054"
    assert forged.mask == tmp_path / "manipulated_sequences/Deepfakes/masks/videos/071_054.mp4"
    assert found["FaceForensics++/c23/FaceSwap/054_071"].mask is None
    assert [v.video for v in read_layout(tmp_path, "faceforensics++", compression="c40", name="mini")] == ["054"]


def test_faceforensics_names_what_is_missing(tmp_path: Path) -> None:
    root = ff(tmp_path)
    with pytest.raises(PreprocessingError, match="no videos of compression 'raw'; it has c23, c40"):
        read_layout(root, compression="raw")
    (root / "val.json").unlink()
    with pytest.raises(PreprocessingError, match=r"val\.json is missing"):
        read_layout(root)
    (root / "val.json").write_text('[["054", "071"]]')
    with pytest.raises(PreprocessingError, match=r"'054' is in train\.json and in val\.json"):
        read_layout(root)
    (root / "val.json").write_text('["054"]')
    with pytest.raises(PreprocessingError, match="must be a list of pairs"):
        read_layout(root)
    (root / "val.json").write_text("{")
    with pytest.raises(PreprocessingError, match="no JSON"):
        read_layout(root)


def test_a_file_in_no_split_list_gets_no_split(tmp_path: Path) -> None:
    touch(ff(tmp_path), "manipulated_sequences/Deepfakes/c23/videos/900_901.mp4")
    notes: list[str] = []
    found = {v.video: v.split for v in read_layout(tmp_path, note=notes.append)}
    assert found["900_901"] == "none"
    assert any("in no split list" in n and "900_901" in n for n in notes)


def test_equal_names_in_one_method_are_refused(tmp_path: Path) -> None:
    touch(ff(tmp_path), "original_sequences/youtube/c23/copy/000.mp4")
    with pytest.raises(PreprocessingError, match="have one name"):
        read_layout(tmp_path)


def test_celeb_df(tmp_path: Path) -> None:
    found = {v.key: v for v in read_layout(celeb(tmp_path))}
    assert {k: (v.label, v.split, v.identity) for k, v in found.items()} == {
        "Celeb-DF-v2/none/real/id0_0000": (0, "train", "id0"),
        "Celeb-DF-v2/none/real/00170": (0, "test", "00170"),
        "Celeb-DF-v2/none/real/00011": (0, "train", "00011"),
        "Celeb-DF-v2/none/Celeb-synthesis/id0_id1_0000": (1, "test", "id0_id1"),
        "Celeb-DF-v2/none/Celeb-synthesis/id2_id1_0003": (1, "train", "id2_id1"),
    }


def test_celeb_df_list_is_checked(tmp_path: Path) -> None:
    with pytest.raises(PreprocessingError, match=r"line 2 .* calls Celeb-synthesis/id0_id1_0000.mp4 real"):
        read_layout(celeb(tmp_path, "1 YouTube-real/00170.mp4\n1 Celeb-synthesis/id0_id1_0000.mp4\n"))
    with pytest.raises(PreprocessingError, match="must read like"):
        read_layout(celeb(tmp_path, "real YouTube-real/00170.mp4\n"))
    notes: list[str] = []
    read_layout(celeb(tmp_path, "1 YouTube-real/99999.mp4\n"), note=notes.append)
    assert any("99999" in n for n in notes)
    (tmp_path / "List_of_testing_videos.txt").unlink()
    with pytest.raises(PreprocessingError, match="test videos would be trained on"):
        read_layout(tmp_path)


def test_equal_names_in_both_real_folders_are_refused(tmp_path: Path) -> None:
    touch(celeb(tmp_path), "Celeb-real/00170.mp4")
    with pytest.raises(PreprocessingError, match="would both be 'Celeb-DF-v2/none/real/00170'"):
        read_layout(tmp_path)


def test_folder_keeps_equal_names_apart(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.mp4", "real/monday/a.avi", "fake/swap/a.mp4", "fake/swap/deep/a.MP4", "fake/a.mov", "fake/notes.txt")
    found = read_layout(tmp_path, name="mine")
    assert {v.key: v.label for v in found} == {
        "mine/none/real/a": 0,
        "mine/none/real/monday/a": 0,
        "mine/none/swap/a": 1,
        "mine/none/swap/deep/a": 1,
        "mine/none/fake/a": 1,
    }
    assert {v.split for v in found} == {"none"}
    touch(tmp_path, "real/a.mkv")
    with pytest.raises(PreprocessingError, match="would both be 'mine/none/real/a'"):
        read_layout(tmp_path, name="mine")


def test_a_flat_folder_is_real_and_says_so(tmp_path: Path) -> None:
    notes: list[str] = []
    found = read_layout(touch(tmp_path / "clips", "b.mkv", "a.mkv"), note=notes.append)
    assert [(v.dataset, v.method, v.label, v.split, v.video) for v in found] == [
        ("clips", "real", 0, "none", "a"),
        ("clips", "real", 0, "none", "b"),
    ]
    assert any("all 2 videos count as real" in n for n in notes)


def test_labels_are_never_guessed(tmp_path: Path) -> None:
    with pytest.raises(PreprocessingError, match="neither real nor fake"):
        read_layout(touch(tmp_path / "own", "manipulated/a.mp4"))
    with pytest.raises(PreprocessingError, match=r"holds the FaceForensics\+\+ folder 'ff'"):
        read_layout(ff(tmp_path / "data" / "ff").parent)
    with pytest.raises(PreprocessingError, match="calls a forgery 'real'"):
        read_layout(touch(tmp_path / "odd", "fake/real/a.mp4"))


def test_no_videos_no_folder_no_layout(tmp_path: Path) -> None:
    with pytest.raises(PreprocessingError, match="no videos in"):
        read_layout(touch(tmp_path, "readme.txt"))
    with pytest.raises(PreprocessingError, match="is missing"):
        read_layout(tmp_path / "nowhere")
    with pytest.raises(PreprocessingError, match="is no folder"):
        read_layout(tmp_path / "readme.txt")
    with pytest.raises(PreprocessingError, match=r"unknown layout 'faceforensic': did you mean 'faceforensics\+\+'"):
        read_layout(tmp_path, "faceforensic")


def test_unicode_names_have_one_form(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "café")
    found = read_layout(touch(tmp_path / "视频", f"real/{decomposed}.mp4"))
    assert [v.key for v in found] == ["视频/none/real/café"]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"dataset": "a/b"}, "plain name"), ({"video": "../up"}, "empty parts"), ({"video": "x" * 600}, "longer than 511")],
)
def test_a_name_that_cannot_be_a_key_is_refused(change: dict[str, str], words: str) -> None:
    details = {"dataset": "d", "method": "real", "label": 0, "split": "none", "identity": "", "video": "v", "compression": "none"}
    with pytest.raises(PreprocessingError, match=words):
        Video(path=Path("v.mp4"), **{**details, **change})  # type: ignore[arg-type]


def test_check_unique_sees_two_files_with_one_name() -> None:
    one = Video("d", "real", 0, "none", "v", "v", Path("a/v.mp4"), "none")
    other = Video("d", "real", 0, "none", "v", "v", Path("b/v.mp4"), "none")
    check_unique([one, one])
    with pytest.raises(PreprocessingError, match="would both be"):
        check_unique([one, other])


def test_every_layout_describes_itself() -> None:
    for name, layout in LAYOUTS.items():
        assert name == layout.name
        assert layout.title
        assert layout.terms
        assert layout.tree
    assert list(LAYOUTS)[-1] == "folder", "it matches everything, so it must be asked last"
