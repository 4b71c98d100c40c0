"""Trees with one mistake each: the doctor and `preprocess` say in one sentence what is wrong and what to do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from preprocessing_material import ff_tree
from test_preprocessing_datasets import celeb_v1, deeper, dfd, dfdc, dfdcp, rows, touch, uadfv, wild
from test_preprocessing_doctor import said

from preprocessing.doctor import check
from preprocessing.errors import PreprocessingError
from preprocessing.layouts import LAYOUTS, read_layout

MAKE = {
    "faceforensics++": ff_tree,
    "deepfakedetection": dfd,
    "celeb-df-v1": celeb_v1,
    "dfdcp": dfdcp,
    "dfdc": dfdc,
    "deeperforensics-1.0": deeper,
    "uadfv": uadfv,
    "wilddeepfake": wild,
}


@pytest.mark.parametrize("name", MAKE)
def test_the_folder_above(name: str, tmp_path: Path) -> None:
    MAKE[name](tmp_path / "data/set")
    for layout in ("auto", name):
        with pytest.raises(
            PreprocessingError, match=f"holds the {LAYOUTS[name].title.replace('+', '.')} folder 'set'; give .*/set itself"
        ):
            read_layout(tmp_path / "data", layout)


INSIDE = {
    "faceforensics++": "manipulated_sequences/Deepfakes/c23/videos",
    "deepfakedetection": "original_sequences/actors/c23",
    "celeb-df-v1": "Celeb-synthesis",
    "dfdcp": "method_A/11",
    "dfdc": "train/dfdc_train_part_0",
    "deeperforensics-1.0": "manipulated_videos/end_to_end",
    "uadfv": "fake",
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_folder_inside_is_not_taken_for_real_videos_of_ones_own(name: str, tmp_path: Path) -> None:
    MAKE[name](tmp_path)
    place = tmp_path / INSIDE[name]
    with pytest.raises(PreprocessingError, match=f"is a part of the {LAYOUTS[name].title.replace('+', '.')} folder {tmp_path}:"):
        check(place)
    if any(place.glob("*.mp4")) and name != "uadfv":
        assert {v.label for v in read_layout(place, "folder")} == {0}, "asked for by name"


def test_flat_folders_called_fake(tmp_path: Path) -> None:
    touch(tmp_path, "fake/swap/a.mp4", "real/b.mp4")
    assert {v.key: v.label for v in read_layout(tmp_path, name="own")} == {"own/none/swap/a": 1, "own/none/real/b": 0}
    for place in ("fake/swap", "fake/swap/../swap"):
        with pytest.raises(PreprocessingError, match=f"would count as real, though it is called 'fake'; give {tmp_path}$"):
            read_layout(tmp_path / place)
    touch(tmp_path / "fake", "real/c.mp4")
    with pytest.raises(PreprocessingError, match="calls a forgery 'real'"):
        read_layout(tmp_path)
    shutil.rmtree(tmp_path / "fake")
    touch(tmp_path / "fake", "real/c.mp4", "fake/swap/d.mp4")
    assert {v.label for v in read_layout(tmp_path / "fake")} == {0, 1}, "a dataset may be called so"


def test_a_folder_of_ones_own_beside_a_dataset_is_not_inside_it(tmp_path: Path) -> None:
    touch(ff_tree(tmp_path, count=2), "mine/real/a.mp4", "mine/fake/swap/b.mp4")
    assert {v.dataset for v in read_layout(tmp_path / "mine")} == {"mine"}


@pytest.mark.parametrize(
    ("make", "folder", "wrong"),
    [
        (celeb_v1, "Celeb-synthesis", "celeb-synthesis"),
        (ff_tree, "manipulated_sequences/Deepfakes", "manipulated_sequences/deepfakes"),
        (ff_tree, "manipulated_sequences/FaceSwap/c23", "manipulated_sequences/FaceSwap/C23"),
        (ff_tree, "original_sequences", "Original_Sequences"),
        (dfdc, "test", "Test"),
        (dfdcp, "original_videos", "Original_Videos"),
    ],
)
def test_wrong_case(make: object, folder: str, wrong: str, tmp_path: Path) -> None:
    MAKE[next(name for name in MAKE if MAKE[name] is make)](tmp_path)
    (tmp_path / folder).rename(tmp_path / wrong)
    if (tmp_path / folder).exists():
        pytest.skip("names differ by case only, which this file system does not tell apart")
    with pytest.raises(PreprocessingError, match=f"'{Path(wrong).name}', which .* calls '{Path(folder).name}'; rename it"):
        read_layout(tmp_path)


def test_a_method_of_another_name_is_said_to_be_left_out(tmp_path: Path) -> None:
    touch(ff_tree(tmp_path, count=2), "manipulated_sequences/Deepfake/c23/videos/000_003.mp4")
    said(check(tmp_path), "warning", "no known method, which are left out: Deepfake")


def test_faceforensics_with_deepfakedetection_says_how_to_read_each(tmp_path: Path) -> None:
    dfd(ff_tree(tmp_path, count=2))
    said(check(tmp_path), "note", "DeepFakeDetection too, which is not read now: preprocess it with --layout deepfakedetection")
    said(check(tmp_path, "deepfakedetection"), "note", "preprocess it with --layout faceforensics++")
    assert {v.dataset for v in read_layout(tmp_path)} == {"FaceForensics++"}


def test_images_in_the_place_of_videos(tmp_path: Path) -> None:
    root = ff_tree(tmp_path / "ff", count=2)
    for file in root.rglob("*.mp4"):
        touch(file.parent, f"frames/{file.stem}/000.png")
        file.unlink()
    said(check(root), "error", "it has images: frames that DeepfakeBench cut out are read with 'dfgrid import deepfakebench'")
    wild(tmp_path / "wild")
    for name in ("real_test", "fake_train", "fake_test"):
        shutil.rmtree(tmp_path / "wild" / name)
    said(check(tmp_path / "wild"), "error", "WildDeepfake's faces with --layout wilddeepfake")


def test_a_stray_name_does_not_quietly_make_uadfv_a_folder_of_ones_own(tmp_path: Path) -> None:
    touch(tmp_path, *(f"real/{i:04d}.mp4" for i in range(9)), *(f"fake/{i:04d}_fake.mp4" for i in range(9)))
    assert not any("would be UADFV" in f.sentence for f in check(tmp_path))
    touch(tmp_path, "real/0000 copy.mp4")
    said(check(tmp_path), "warning", "but for 1 names")
    touch(tmp_path, "real/mine.mp4", "real/yours.mp4")
    assert not any("would be UADFV" in f.sentence for f in check(tmp_path)), "one's own"


def test_byte_order_marks_of_lists(tmp_path: Path) -> None:
    files = {
        "faceforensics++": ("train.json", "test.json"),
        "celeb-df-v1": ("List_of_testing_videos.txt",),
        "dfdcp": ("dataset.json",),
        "dfdc": ("test/labels.csv", "train/dfdc_train_part_0/metadata.json"),
        "deeperforensics-1.0": ("lists/splits/train.txt",),
    }
    for name, lists in files.items():
        root = MAKE[name](tmp_path / name)
        before = rows(read_layout(root))
        for file in lists:
            (root / file).write_bytes(b"\xef\xbb\xbf" + (root / file).read_bytes())
        assert rows(read_layout(root)) == before


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    root = celeb_v1(tmp_path / "celeb")
    (root / "List_of_testing_videos.txt").unlink()
    (root / "List_of_testing_videos.txt").symlink_to(tmp_path / "gone.txt")
    said(check(root), "error", "List_of_testing_videos.txt is missing (it is a link to nowhere)")
    (root / "List_of_testing_videos.txt").unlink()
    (root / "List_of_testing_videos.txt").mkdir()
    said(check(root), "error", "List_of_testing_videos.txt cannot be read (Is a directory)")
    root = ff_tree(tmp_path / "ff", count=2)
    (root / "val.json").write_bytes("[]".encode("utf-16"))
    said(check(root), "error", "val.json is no text file")


EMPTY = {
    "faceforensics++": ("val.json", "[]", "holds an empty list"),
    "celeb-df-v1": ("List_of_testing_videos.txt", "\n", "is empty, so test videos would be trained on"),
    "deeperforensics-1.0": ("lists/splits/test.txt", "", "is empty; get it from the dataset again"),
    "dfdc": ("test/labels.csv", "", "must begin with the line"),
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_list_is_not_a_dataset_without_a_test_set(name: str, tmp_path: Path) -> None:
    file, content, words = EMPTY[name]
    (MAKE[name](tmp_path) / file).write_text(content)
    with pytest.raises(PreprocessingError, match=words):
        read_layout(tmp_path, "celeb-df-v1" if name == "celeb-df-v1" else "auto")


def test_a_list_of_another_shape(tmp_path: Path) -> None:
    (ff_tree(tmp_path, count=2) / "train.json").write_text('{"000": "003"}')
    with pytest.raises(PreprocessingError, match=r"such as .*, and holds one dict"):
        read_layout(tmp_path)
    table = json.loads((dfdcp(tmp_path / "p") / "dataset.json").read_text())
    (tmp_path / "p/dataset.json").write_text(json.dumps({f"/data/{place}": row for place, row in table.items()}))
    with pytest.raises(PreprocessingError, match=r"and it lists e\.g\. /data/method_A"):
        read_layout(tmp_path / "p")


def test_archives_that_cannot_be_read(tmp_path: Path) -> None:
    (wild(tmp_path) / "fake_train/9.tar.gz").write_bytes(b"no archive")
    (tmp_path / "fake_train/10.tar.gz").symlink_to(tmp_path / "gone")
    findings = check(tmp_path)
    said(findings, "warning", "fake_train/10.tar.gz cannot be read")
    assert "\n" not in said(findings, "warning", "fake_train/9.tar.gz cannot be read").sentence
    assert len(said(findings, "error", "2 of 10 files cannot be read").examples) == 2


def test_videos_outside_of_real_and_fake(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.mp4", "fake/swap/b.mp4", "c.mp4", "unsorted/d.mp4")
    said(check(tmp_path), "warning", "2 videos of")
    touch(tmp_path / "two", "Real/a.mp4", "Fake/swap/b.mp4")
    with pytest.raises(PreprocessingError, match=r"which must be called '(real|fake)'; rename it"):
        read_layout(tmp_path / "two")


def test_links_to_nowhere_and_folders_that_look_like_videos(tmp_path: Path) -> None:
    root = ff_tree(tmp_path, count=2)
    video = root / "original_sequences/youtube/c23/videos/000.mp4"
    video.unlink()
    video.symlink_to("../gone.mp4")
    (root / "original_sequences/youtube/c23/videos/005.mp4").mkdir()
    assert said(check(root), "error", "1 of 10 files cannot be read").examples == (
        "original_sequences/youtube/c23/videos/000.mp4: a link to nowhere",
    )


def test_dfdc_parts_are_known_by_every_name(tmp_path: Path) -> None:
    before = rows(read_layout(dfdc(tmp_path)))
    said(check(tmp_path), "warning", "48 folders of the dataset are missing")
    train = tmp_path / "train"
    (train / "dfdc_train_part_0").rename(train / "dfdc_train_part_00")
    said(check(tmp_path), "warning", "48 folders of the dataset are missing")
    assert rows(read_layout(tmp_path)) == before
    (train / "dfdc_train_part_11").rename(tmp_path / "part")
    (train / "dfdc_train_part_11").mkdir()
    (tmp_path / "part").rename(train / "dfdc_train_part_11/dfdc_train_part_11")
    assert rows(read_layout(tmp_path)) == before, "an archive unpacked into a folder of its own name"
    for part in train.iterdir():
        part.rename(tmp_path / part.name)
    train.rmdir()
    assert rows(read_layout(tmp_path)) == before
    said(check(tmp_path), "warning", "48 folders of the dataset are missing")


def test_wilddeepfake_folders_are_known_by_every_name(tmp_path: Path) -> None:
    made = rows(read_layout(wild(tmp_path)))
    for form in ("{} {}", "{}-{}", "deepfake_in_the_wild/{} {}", "deepfake_in_the_wild/{}/{}"):
        root = tmp_path / "again"
        for label in ("real", "fake"):
            for split in ("train", "test"):
                shutil.copytree(tmp_path / f"{label}_{split}", root / form.format(label, split))
        assert rows(read_layout(root)) == made, form
        assert not any("folders of the dataset are missing" in f.sentence for f in check(root))
        shutil.rmtree(root)


def test_a_folder_that_may_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = ff_tree(tmp_path, count=2)
    closed = root / "original_sequences/youtube/c23/videos"
    scan = os.scandir

    def scandir(path: str) -> object:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PreprocessingError, match="videos cannot be looked into: Permission denied"):
        read_layout(root)
