"""Trees with one mistake each: the doctor and `preprocess` say in one sentence what is wrong and what to do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from preprocessing_material import clip, encode, ff_tree, frame
from test_preprocessing_datasets import celeb_v1, deeper, dfd, dfdc, dfdcp, rows, touch, uadfv, wild
from test_preprocessing_doctor import errors_in, leaf, said

from preprocessing.doctor import check
from preprocessing.errors import PreprocessingError
from preprocessing.layouts import LAYOUTS, read_layout
from preprocessing.peer_splits import read_peer_file
from preprocessing.peer_trees import count_errors, frame_errors
from preprocessing.probe import BYTES_PER_FACE, estimate, probe
from preprocessing.settings import Settings

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


def test_header_counts(tmp_path: Path) -> None:
    assert probe(clip(tmp_path / "a.mp4", 12)).frames == 12
    assert probe(encode(tmp_path / "a.mkv", [frame(n) for n in range(10)])).frames == 10, "from the length; Matroska has no count"
    assert probe(wild(tmp_path / "wild") / "real_train/5/real/0", "crops").frames == 5
    assert probe(touch(tmp_path, "b.mp4") / "b.mp4").frames is None


@pytest.mark.parametrize(
    ("settings", "frames", "words"),
    [
        (Settings(), 12 + 32, "(32 in each)"),
        (Settings(frames=8), 16, "(8 in each)"),
        (Settings(sampling="fixed-stride", stride=5), 3 + 8, "(one in 5)"),
        (Settings(sampling="every"), 12 + 40, "(all of them)"),
        (Settings(frames=8, size=512), 64, "(8 in each)"),
    ],
)
def test_the_size_follows_the_sampling(settings: Settings, frames: int, words: str, tmp_path: Path) -> None:
    clip(tmp_path / "real/a.mp4", 12)
    clip(tmp_path / "fake/swap/b.mp4", 40)
    touch(tmp_path, "real/broken.mp4")
    found = said(check(tmp_path, settings=settings), "note", words)
    assert f"a store of about {frames * BYTES_PER_FACE / 1e6:.2g} MB" in found.sentence


def test_a_store_that_is_there_half_way_needs_less(tmp_path: Path) -> None:
    clip(tmp_path / "set/real/a.mp4", 40)
    (tmp_path / "store").mkdir()
    (tmp_path / "store/faces.lmdb").write_bytes(bytes(range(256)) * 4000)
    said(check(tmp_path / "set", out=tmp_path / "store"), "note", "a store of about 1.6 MB, 1 MB of it there already;")
    said(check(tmp_path / "set", out=tmp_path / "set/real/a.mp4/store"), "error", "a.mp4 is a file")


def test_headers_without_a_count(tmp_path: Path) -> None:
    clip(tmp_path / "real/a.mp4", 12)
    shutil.copy(tmp_path / "real/a.mp4", tmp_path / "real/b.mp4")
    videos = read_layout(tmp_path)
    probes = {(v.path, v.kind, v.inside): probe(v.path) for v in videos}
    unsaid = dict.fromkeys(list(probes)[:1], type(probe(videos[0].path))())
    every = Settings(sampling="every")
    assert (estimate(videos, {**probes, **unsaid}, every).frames, estimate(videos, {**probes, **unsaid}, every).guessed) == (24, 1)
    assert estimate(videos, {**probes, **unsaid}, Settings()).frames == 12 + 32
    with pytest.raises(PreprocessingError, match="none of 2 headers says how many frames"):
        estimate(videos, dict.fromkeys(probes, next(iter(unsaid.values()))), every)


def test_other_counts_in_use_are_a_note(tmp_path: Path) -> None:
    table = {f"original_videos/{i}.mp4": {"label": "real", "set": "test" if i < 276 else "train"} for i in range(1131)}
    table |= {f"method_A/{i}.mp4": {"label": "fake", "set": "test" if i < 501 else "train"} for i in range(4113)}
    touch(tmp_path, *table)
    (tmp_path / "dataset.json").write_text(json.dumps(table))
    layout = LAYOUTS["dfdcp"]
    videos = layout.videos(tmp_path)
    from preprocessing.doctor import _totals

    assert [(f.severity, f.sentence) for f in _totals(layout, videos)] == [
        ("note", "4113 videos are fake; DFDCP has 4119 (some sources count 4113)")
    ]


def test_rearrange_would_stop_at_faceforensics_alone(tmp_path: Path) -> None:
    root = ff_tree(tmp_path, count=2)
    found = said(check(root), "note", "would stop with a KeyError, because 3 folders are not here")
    assert "original_sequences/actors" in found.examples
    touch(dfd(root), "manipulated_sequences/FaceShifter/c23/videos/000_003.mp4")
    assert not any("KeyError, because" in f.sentence for f in check(root))
    touch(root, "manipulated_sequences/Deepfakes/c23/videos/900_901.mp4")
    assert said(check(root), "note", "would put 1 forged videos that no list names into").examples == ("900_901.mp4",)


def test_rearrange_would_stop_at_a_name_of_no_list(tmp_path: Path) -> None:
    assert not any("NameError" in f.sentence for f in check(deeper(tmp_path)))
    touch(tmp_path, "manipulated_videos/end_to_end/900_M101.mp4")
    assert said(check(tmp_path), "note", "would stop with a NameError at 1 forged videos").examples == ("900_M101.mp4",)


def test_rearrange_would_lose_a_celeb_df_folder(tmp_path: Path) -> None:
    touch(celeb_v1(tmp_path), "YouTube-real/90000.mp4")
    said(check(tmp_path), "note", "one of the two real folders only and lose the other (1 of Celeb-real or 1 of YouTube-real)")
    said(check(tmp_path), "note", "DeepfakeBench would train on all 100 test videos too")


def test_frames_and_names_in_deeperforensics_json(tmp_path: Path) -> None:
    frames = tmp_path / "source_videos/M004/frames/v"
    frames.mkdir(parents=True)
    (frames / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n...")
    (frames / "001.png").write_bytes(b"")
    listed = leaf("D:\\data/DeeperForensics-1.0/source_videos/M004", 3)
    content = {
        "DeeperForensics-1.0": {"DF_real": {"train": {"D:\\data\\DeeperForensics-1.0\\source_videos\\M004\\frames\\v": listed}}}
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    classes = read_peer_file(tmp_path / "x.json")
    assert classes is not None
    (named, names), (broken, files) = frame_errors(classes, tmp_path)
    assert "DF_real: 1 videos are named by their whole path" in named
    assert names == ["D:\\data\\DeeperForensics-1.0\\source_videos\\M004\\frames\\v"]
    assert "DF_real: 1 listed frames are no PNG files" in broken
    assert files == [listed["frames"][1]], "000 is one, and 002 is not here"
    assert not any(
        "whole path" in e for e in errors_in({"UADFV": {"UADFV_Real": content["DeeperForensics-1.0"]["DF_real"]}}, tmp_path)
    )


def test_counts_of_the_authors_files(tmp_path: Path) -> None:
    def of(videos: int, frames: int) -> dict[str, object]:
        listed = {str(i): leaf("UADFV/real", frames // videos + (i < frames % videos)) for i in range(videos)}
        return {"UADFV": {"UADFV_Real": dict.fromkeys(("train", "val", "test"), listed)}}

    for content, wanted in ((of(49, 1548), []), (of(48, 1500), ["48 videos and 1500 frames", "49 videos and 1548 frames"])):
        (tmp_path / "x.json").write_text(json.dumps(content))
        classes = read_peer_file(tmp_path / "x.json")
        assert classes is not None
        sentences = [sentence for sentence, _ in count_errors(classes)]
        assert len(sentences) == (1 if wanted else 0)
        assert all(word in sentences[0] for word in wanted)


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
