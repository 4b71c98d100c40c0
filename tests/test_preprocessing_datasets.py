"""Each dataset's tree, small and of its exact shape, becomes the right list of videos; cut-out faces become a store."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from preprocessing_material import SMALL, Squares, frame

from preprocessing.crops import fit
from preprocessing.errors import PreprocessingError
from preprocessing.layouts import Video, read_layout
from preprocessing.pipeline import Settings, preprocess
from preprocessing.sheet import contact_sheet
from preprocessing.store import FaceStore


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def rows(found: list[Video]) -> dict[str, tuple[int, str, str]]:
    return {v.key.partition("/")[2]: (v.label, v.split, v.identity) for v in found}


def dfd(root: Path) -> Path:
    touch(root, "original_sequences/actors/c23/videos/01__exit_phone_room.mp4")
    touch(root, "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4")
    return touch(root, "manipulated_sequences/DeepFakeDetection/masks/videos/01_02__exit_phone_room__YVGY8LOK.mp4")


def celeb_v1(root: Path) -> Path:
    real = [f"YouTube-real/{i:05d}.mp4" for i in range(38)]
    fake = [f"Celeb-synthesis/id0_id1_{i:04d}.mp4" for i in range(62)]
    touch(root, *real, *fake, "Celeb-real/id0_0000.mp4", "Celeb-synthesis/id2_id3_0000.mp4")
    (root / "List_of_testing_videos.txt").write_text("".join(f"1 {p}\n" for p in real) + "".join(f"0 {p}\n" for p in fake))
    return root


def dfdc(root: Path) -> Path:
    touch(root, "train/dfdc_train_part_0/aaa.mp4", "train/dfdc_train_part_0/bbb.mp4", "train/dfdc_train_part_11/ccc.mp4")
    parts = {
        "0": {
            "aaa.mp4": {"label": "REAL", "split": "train", "original": None},
            "bbb.mp4": {"label": "FAKE", "original": "aaa.mp4"},
        },
        "11": {"ccc.mp4": {"label": "FAKE", "original": "aaa.mp4"}},
    }
    for number, table in parts.items():
        (root / f"train/dfdc_train_part_{number}/metadata.json").write_text(json.dumps(table))
    touch(root, "test/ddd.mp4", "test/eee.mp4")
    (root / "test/labels.csv").write_text("filename,label\nddd.mp4,0\neee.mp4,1\n")
    return root


def dfdcp(root: Path) -> Path:
    table = {
        "original_videos/11/11_A_001.mp4": {
            "augmentations": [],
            "label": "real",
            "set": "train",
            "swapped_id": None,
            "target_id": 11,
        },
        "original_videos/22/11_A_001.mp4": {
            "augmentations": [],
            "label": "real",
            "set": "test",
            "swapped_id": None,
            "target_id": 22,
        },
        "method_A/11/11_22_A_001.mp4": {
            "augmentations": ["fps"],
            "label": "fake",
            "set": "train",
            "swapped_id": 22,
            "target_id": 11,
        },
        "method_B/22/22_33_B_001.mp4": {"augmentations": [], "label": "fake", "set": "test", "swapped_id": 33, "target_id": 22},
    }
    touch(root, *table)
    (root / "dataset.json").write_text(json.dumps(table))
    return root


def deeper(root: Path) -> Path:
    for split, name in (("train", "000_M101"), ("val", "001_W005"), ("test", "002_M101")):
        touch(root, f"manipulated_videos/end_to_end/{name}.mp4", f"manipulated_videos/reenact_postprocess/{name}.mp4")
        (root / "lists/splits").mkdir(parents=True, exist_ok=True)
        (root / f"lists/splits/{split}.txt").write_text(f"{name}.mp4\n")
    for actor in ("M101", "W005"):
        touch(root, f"source_videos/{actor}/light_up/neutral/camera_up/{actor}_light_up_neutral_camera_up.mp4")
    return touch(root, *(f"target_videos/{i:03d}.mp4" for i in range(4)))


def uadfv(root: Path) -> Path:
    return touch(root, "real/0000.mp4", "real/0001.mp4", "fake/0000_fake.mp4", "fake/0001_fake.mp4")


def picture(number: int, face: bool = True, width: int = 128) -> bytes:
    return bytes(cv2.imencode(".png", frame(number, width, 96, face)[..., ::-1])[1])


def pack(file: Path, images: dict[str, bytes]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz") as archive:
        for name, data in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def wild(root: Path) -> Path:
    """Extracted folders for the real class, archives for the fakes."""
    for split in ("train", "test"):
        for sequence in ("0", "1"):
            for number in (3, 7, 20, 100, 101):
                place = root / f"real_{split}/5/real/{sequence}/{number}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(picture(number, face=sequence == "0"))
        pack(root / f"fake_{split}/8.tar.gz", {f"8/fake/{s}/{n}.png": picture(n) for s in "49" for n in (10, 2, 33)})
    return root


def test_deepfakedetection(tmp_path: Path) -> None:
    notes: list[str] = []
    found = read_layout(dfd(tmp_path), note=notes.append)
    assert rows(found) == {
        "c23/real/01__exit_phone_room": (0, "none", "01"),
        "c23/DeepFakeDetection/01_02__exit_phone_room__YVGY8LOK": (1, "none", "01_02"),
    }
    assert [v.mask is not None for v in found] == [True, False]
    assert any("no official split" in n for n in notes)
    with pytest.raises(PreprocessingError, match="no DeepFakeDetection videos of compression 'raw'; it has c23"):
        read_layout(tmp_path, compression="raw")


def test_actors_inside_a_faceforensics_folder(tmp_path: Path) -> None:
    touch(
        dfd(tmp_path), "original_sequences/youtube/c23/videos/000.mp4", "manipulated_sequences/FaceShifter/c23/videos/000_003.mp4"
    )
    for split, pair in {"train": ["000", "003"], "val": ["001", "002"], "test": ["004", "005"]}.items():
        (tmp_path / f"{split}.json").write_text(json.dumps([pair]))
    assert rows(read_layout(tmp_path)) == {"c23/real/000": (0, "train", "000"), "c23/FaceShifter/000_003": (1, "train", "000_003")}
    assert {v.dataset for v in read_layout(tmp_path, "deepfakedetection")} == {"DeepFakeDetection"}


def test_celeb_df_v1_is_told_by_its_list(tmp_path: Path) -> None:
    found = read_layout(celeb_v1(tmp_path))
    assert {v.dataset for v in found} == {"Celeb-DF-v1"}
    assert sum(v.split == "test" for v in found) == 100
    assert rows(found)["none/Celeb-synthesis/id2_id3_0000"] == (1, "train", "id2_id3")
    (tmp_path / "List_of_testing_videos.txt").write_text("1 YouTube-real/00000.mp4\n")
    assert {v.dataset for v in read_layout(tmp_path)} == {"Celeb-DF-v2"}


def test_dfdc(tmp_path: Path) -> None:
    notes: list[str] = []
    assert rows(read_layout(dfdc(tmp_path), note=notes.append)) == {
        "none/real/aaa": (0, "train", "aaa"),
        "none/fake/bbb": (1, "train", "aaa"),
        "none/fake/ccc": (1, "train", "aaa"),
        "none/real/ddd": (0, "test", "ddd"),
        "none/fake/eee": (1, "test", "eee"),
    }
    assert any("48 of the 50 training parts" in n and "part 1" in n for n in notes)


def test_dfdc_never_guesses_a_label(tmp_path: Path) -> None:
    notes: list[str] = []
    touch(dfdc(tmp_path), "train/dfdc_train_part_0/zzz.mp4")
    (tmp_path / "train/dfdc_train_part_11/ccc.mp4").unlink()
    found = rows(read_layout(tmp_path, note=notes.append))
    assert len(found) == 4
    assert any("1 videos in" in n and "no label" in n and "zzz.mp4" in n for n in notes)
    assert any("1 of the 1 videos that have a label" in n and "ccc.mp4" in n for n in notes)
    (tmp_path / "test/labels.csv").write_text("filename,label\nddd.mp4,2\n")
    with pytest.raises(PreprocessingError, match=r"labels\.csv gives ddd\.mp4 the label '2'"):
        read_layout(tmp_path)
    (tmp_path / "test/labels.csv").write_text("video,fake\n")
    with pytest.raises(PreprocessingError, match="must begin with the line 'filename,label'"):
        read_layout(tmp_path)
    (tmp_path / "test/labels.csv").unlink()
    with pytest.raises(PreprocessingError, match=r"labels\.csv is missing"):
        read_layout(tmp_path)
    (tmp_path / "train/dfdc_train_part_0/metadata.json").write_text("[]")
    with pytest.raises(PreprocessingError, match="must hold an object per video"):
        read_layout(tmp_path)


def test_dfdcp(tmp_path: Path) -> None:
    assert rows(read_layout(dfdcp(tmp_path))) == {
        "none/real/11/11_A_001": (0, "train", "11"),
        "none/real/22/11_A_001": (0, "test", "22"),
        "none/method_A/11/11_22_A_001": (1, "train", "11_22"),
        "none/method_B/22/22_33_B_001": (1, "test", "22_33"),
    }


def test_dfdcp_table_is_checked(tmp_path: Path) -> None:
    table = json.loads((dfdcp(tmp_path) / "dataset.json").read_text())
    name = "method_A/11/11_22_A_001.mp4"
    for change, words in (({"label": "real"}, "disagree whether"), ({"set": "val"}, "the set 'val', neither")):
        (tmp_path / "dataset.json").write_text(json.dumps({**table, name: {**table[name], **change}}))
        with pytest.raises(PreprocessingError, match=words):
            read_layout(tmp_path)
    notes: list[str] = []
    gone = {k: v for k, v in table.items() if k != name} | {"method_A/x.mp4": table[name]}
    (tmp_path / "dataset.json").write_text(json.dumps(gone))
    assert len(read_layout(tmp_path, note=notes.append)) == 3
    assert any("are left out" in n and name in n for n in notes)
    assert any("method_A/x.mp4" in n for n in notes)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(PreprocessingError, match="no video has a label or a split"):
        read_layout(tmp_path)


def test_deeperforensics_takes_targets_as_real(tmp_path: Path) -> None:
    found = rows(read_layout(deeper(tmp_path)))
    assert found["none/end_to_end/000_M101"] == (1, "train", "000_M101")
    assert found["none/reenact_postprocess/001_W005"] == (1, "val", "001_W005")
    real = {key: row for key, row in found.items() if row[0] == 0}
    assert {key.rpartition("/")[2]: row[1] for key, row in real.items()} == {
        "000": "train",
        "001": "val",
        "002": "test",
        "003": "none",
    }
    for file in (tmp_path / "target_videos").iterdir():
        file.unlink()
    with pytest.raises(PreprocessingError, match=r"take --layout deeperforensics-1\.0-source"):
        read_layout(tmp_path)


def test_deeperforensics_source_videos_by_name_only(tmp_path: Path) -> None:
    found = read_layout(deeper(tmp_path), "deeperforensics-1.0-source")
    assert {v.dataset for v in found} == {"DeeperForensics-1.0-source"}, "every key tells which real class it was"
    assert {v.identity: v.split for v in found if v.label == 0} == {"M101": "none", "W005": "val"}
    (tmp_path / "lists/splits/val.txt").write_text("000_M101.mp4\n")
    with pytest.raises(PreprocessingError, match=r"'000_M101' is in lists/splits/train\.txt and in lists/splits/val\.txt"):
        read_layout(tmp_path)


def test_uadfv(tmp_path: Path) -> None:
    found = read_layout(uadfv(tmp_path))
    assert rows(found)["none/fake/0001_fake"] == (1, "none", "0001")
    assert {v.dataset for v in found} == {"UADFV"}
    touch(tmp_path, "fake/swap/mine.mp4")
    assert {v.split for v in read_layout(tmp_path, name="own")} == {"none"}
    assert "own/none/swap/mine" in {v.key for v in read_layout(tmp_path, name="own")}, "other names are one's own folder"


def test_wilddeepfake_in_folders_and_archives(tmp_path: Path) -> None:
    notes: list[str] = []
    found = read_layout(wild(tmp_path), note=notes.append)
    assert {v.kind for v in found} == {"crops"}
    made = rows(found)
    assert len(made) == 8
    assert made["none/real/train/5/real/0"] == (0, "train", "real-train-5")
    assert made["none/fake/test/8/fake/9"] == (1, "test", "fake-test-8")
    assert any("2 archives" in n for n in notes)
    for other in ("real train", "real/train", "deepfake_in_the_wild/real_train"):
        place = tmp_path / other
        place.parent.mkdir(exist_ok=True)
        (tmp_path / "real_train").rename(place)
        assert rows(read_layout(tmp_path, "wilddeepfake")) == made
        place.rename(tmp_path / "real_train")
    # Extracted beside the archive: the same names, and nothing twice.
    with tarfile.open(tmp_path / "fake_train/8.tar.gz") as archive:
        archive.extractall(tmp_path / "fake_train", filter="data")
    again = read_layout(tmp_path)
    assert rows(again) == made
    assert sum(bool(v.inside) for v in again) == 2


def test_own_videos_in_train_and_test_folders_are_not_wilddeepfake(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{s}/swap/a.mp4" for c in ("real", "fake") for s in ("train", "test")))
    assert {v.kind for v in read_layout(tmp_path, name="own")} == {"video"}


def test_crops_become_a_store_that_says_so(tmp_path: Path) -> None:
    found = read_layout(wild(tmp_path / "wild"))
    summary = preprocess(found, tmp_path / "store", SMALL, detector=Squares())
    assert summary.counts["faces"] == 4 * 4 + 4 * 3
    assert summary.warnings == []
    with FaceStore(tmp_path / "store") as store:
        assert store.info["notes"] == summary.notes
        assert "were resized, not aligned" in summary.notes[0]
        manifest = store.manifest.set_index("key")
        key = "WildDeepfake/none/real/train/5/real/0/000020"
        assert manifest.loc[[k for k in manifest.index if "/train/5/real/0/" in k], "frame"].tolist() == [3, 7, 20, 101]
        assert store.image(key).shape == (64, 64, 3)
        assert np.array_equal(store.image(key), fit(frame(20), 64))
        assert store.landmarks(key).shape == (68, 2)
        assert store.landmarks("WildDeepfake/none/real/train/5/real/1/000020").shape == (0, 2)
        reasons = store.ledger[store.ledger["video"] == "train/5/real/1"]["reason"]
        assert all("no landmarks" in r for r in reasons)
        assert manifest.loc["WildDeepfake/none/fake/train/8/fake/4/000033", "split"] == "train"
        assert store.verify() == []
        contact_sheet(store, tmp_path / "sheet.png", landmarks=True)
        assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    again = preprocess(found, tmp_path / "two", SMALL, workers=2, detector=Squares())
    assert again.fingerprint == summary.fingerprint
    assert preprocess(found, tmp_path / "store", SMALL, detector=Squares()).notes == summary.notes


def test_broken_sequences_are_accounted_for(tmp_path: Path) -> None:
    wild(tmp_path)
    (tmp_path / "real_train/5/real/0/20.png").write_bytes(b"")
    (tmp_path / "real_train/5/real/1/face.png").write_bytes(b"x")
    archive = tmp_path / "fake_train/8.tar.gz"
    archive.write_bytes(archive.read_bytes()[:900])
    notes: list[str] = []
    found = read_layout(tmp_path, note=notes.append)
    assert any("8.tar.gz cannot be read" in n for n in notes)
    summary = preprocess(found, tmp_path / "store", Settings(frames=5, size=64), detector=Squares())
    errors = dict(summary.errors)
    assert list(errors) == ["WildDeepfake/none/fake/train/8"], "one image without a number does not cost its sequence"
    assert "damaged archive" in errors["WildDeepfake/none/fake/train/8"]
    with FaceStore(tmp_path / "store") as store:
        one = store.ledger[store.ledger["video"] == "train/5/real/0"]
        assert one.set_index("frame")["status"].to_dict() == {3: "face", 7: "face", 20: "unreadable", 100: "face", 101: "face"}


def test_fit_keeps_the_shape_of_a_face() -> None:
    tall = np.full((100, 50, 3), 200, np.uint8)
    made = fit(tall, 100)
    assert made[:, 25:75].min() == 200
    assert made[:, :25].max() == 0
    assert fit(tall, 32).shape == (32, 32, 3)
    assert np.array_equal(fit(made, 100), made)


def test_a_store_without_official_split_says_so(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    found = read_layout(uadfv(tmp_path))
    summary = preprocess(found, tmp_path / "store", SMALL, detector=Squares())
    assert summary.notes == ["UADFV has no official split: all 4 videos have the split 'none' and are for testing"]
    assert summary.counts["unreadable_videos"] == 4, "the ledger counts every one"
