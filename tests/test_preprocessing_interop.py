"""DeepfakeBench's files in: every shape of theirs, and every error of theirs named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
from deepfakebench_trees import (
    SIDE,
    back,
    draw,
    faceforensics,
    imported,
    leaf,
    mixed,
    pixels,
    points,
    same,
    splits,
    to_lmdb,
    uadfv,
    write,
)

from preprocessing.errors import PreprocessingError
from preprocessing.interop import export_deepfakebench, import_deepfakebench
from preprocessing.interop.index import place_of
from preprocessing.store import FaceStore


@pytest.fixture(scope="module")
def ff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rgb/, FaceForensics++.json and a finished store of it; do not write to it."""
    return imported(tmp_path_factory.mktemp("ff"))


def test_faceforensics_becomes_an_ordinary_store(ff: Path) -> None:
    with FaceStore(ff / "store") as store:
        assert store.verify() == []
        assert store.info["settings"]["mode"] == "imported from DeepfakeBench"
        assert store.info["settings"]["json_sha256"][0][0] == "FaceForensics++.json"
        assert len(store.info["settings"]["json_sha256"][0][1]) == 64
        assert store.info["counts"]["faces"] == len(store.manifest) == 3 * 2 * 2 * 3
        assert set(store.manifest["compression"]) == {"c23", "c40"}
        assert store.manifest.groupby("video")["split"].first().to_dict()["000_003"] == "train"
        assert splits(ff / "store")["real/004"] == "test"
        assert store.manifest["frame"].iloc[:3].tolist() == [0, 3, 10], "sorted by number, listed unsorted"
        key = "FaceForensics++/c40/Deepfakes/000_003/000010"
        sub = "FaceForensics++/manipulated_sequences/Deepfakes/"
        assert np.array_equal(store.image(key), pixels(sub + "c40", "000_003", 10)), "not a grey level is lost"
        assert np.array_equal(store.landmarks(key), points(sub + "c40", "000_003", 10))
        assert store.landmarks(key).dtype == np.float32
        mask = store.mask(key)
        assert mask is not None
        assert np.array_equal(mask > 0, pixels(sub + "c23", "000_003", 10, "mask")[..., 0] > 127), "c23's masks, as listed"
        assert store.mask("FaceForensics++/c40/real/000/000010") is None


@pytest.mark.parametrize("form", ["absolute", "windows", "dot", "below", "bare"])
def test_paths_of_every_kind_and_other_machines(ff: Path, tmp_path: Path, form: str) -> None:
    content = json.loads((ff / "FaceForensics++.json").read_text())
    text = json.dumps(content)
    prefix = {"absolute": "/home/zhiyuan/frames/rgb/", "windows": "D:/data/", "dot": "./datasets/rgb/"}.get(form, "")
    text = text.replace('"FaceForensics++/', f'"{prefix}FaceForensics++/')
    if form == "bare":  # relative to the dataset's own folder, which no path names
        text = text.replace('"FaceForensics++/', '"')
    content = json.loads(text)
    file = write(tmp_path / "x.json", back(content) if form == "windows" else content)
    rgb = ff / "rgb" / "FaceForensics++" if form in ("below", "bare") else ff / "rgb"
    import_deepfakebench([file], tmp_path / "store", rgb=rgb)
    with FaceStore(tmp_path / "store") as one, FaceStore(ff / "store") as other:
        assert one.fingerprint == other.fingerprint, "the fingerprint knows nothing of paths"


@pytest.mark.parametrize(
    ("key", "dtype", "windows"),
    [
        (mixed, "int32", False),
        (back, "int32", True),
        (str, "int64", False),
        (mixed, "int64", True),
        (back, "float32", False),
        (lambda path: path.partition("/")[2], "int64", False),
    ],
    ids=["mixed-32", "back-32", "slash-64", "mixed-64", "back-float", "no-dataset"],
)
def test_lmdb_in_every_form_gives_the_same_store(ff: Path, tmp_path: Path, key: Any, dtype: str, windows: bool) -> None:
    content = json.loads((ff / "FaceForensics++.json").read_text())
    file = write(tmp_path / "x.json", back(content) if windows else content)
    to_lmdb(ff / "rgb", "FaceForensics++", tmp_path / "lmdb" / "FaceForensics++_lmdb", key, dtype)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "lmdb").rglob("*.mdb")}
    import_deepfakebench([file], tmp_path / "store", lmdb=tmp_path / "lmdb")
    workers = 2 if dtype == "float32" else 1
    import_deepfakebench([file], tmp_path / "again", lmdb=tmp_path / "lmdb" / "FaceForensics++_lmdb", workers=workers)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "lmdb").rglob("*.mdb")} == before
    prints = set()
    for store in (tmp_path / "store", tmp_path / "again", ff / "store"):
        with FaceStore(store) as faces:
            prints.add(faces.fingerprint)
    assert len(prints) == 1


@pytest.mark.parametrize(("dtype", "size"), [("int32", 544), ("int64", 1088)])
def test_68_points_without_dtype_or_shape(tmp_path: Path, dtype: str, size: int) -> None:
    paths = draw(tmp_path / "rgb", "UADFV/real", "0000", count=68)
    file = write(tmp_path / "UADFV.json", {"UADFV": {"UADFV_Real": {"test": {"0000": leaf("UADFV_Real", paths)}}}})
    env = to_lmdb(tmp_path / "rgb", "UADFV", tmp_path / "lmdb", mixed, dtype)
    with lmdb.open(str(env), readonly=True, lock=False) as opened, opened.begin() as transaction:
        assert len(transaction.get(b"UADFV\\real/landmarks/0000/000.npy")) == size
    import_deepfakebench([file], tmp_path / "store", lmdb=env)
    with FaceStore(tmp_path / "store") as store:
        assert np.array_equal(store.landmarks("UADFV/none/real/0000/000003"), points("UADFV/real", "0000", 3, count=68))


def test_png_files_stay_byte_by_byte(ff: Path, tmp_path: Path) -> None:
    import_deepfakebench([ff / "FaceForensics++.json"], tmp_path / "png", rgb=ff / "rgb", image_format="png", compressions=["c23"])
    with lmdb.open(str(tmp_path / "png" / "faces.lmdb"), subdir=False, readonly=True, lock=False, max_dbs=5) as env:
        with env.begin(db=env.open_db(b"images", create=False)) as transaction:
            data = transaction.get(b"FaceForensics++/c23/real/000/000003")
        assert env.stat()["entries"] == 5
    path = ff / "rgb/FaceForensics++/original_sequences/youtube/c23/frames/000/003.png"
    assert data == path.read_bytes()
    with FaceStore(tmp_path / "png") as store:
        assert set(store.manifest["compression"]) == {"c23"}


def test_parts_of_faceforensics_meet_in_one_store(ff: Path, tmp_path: Path) -> None:
    whole = json.loads((ff / "FaceForensics++.json").read_text())["FaceForensics++"]
    one = write(tmp_path / "FF-DF.json", {"FF-DF": whole})
    two = write(tmp_path / "FaceForensics++_c40.json", {"FaceForensics++": {"FF-real": whole["FF-real"]}})
    summary = import_deepfakebench([one, two], tmp_path / "store", rgb=ff / "rgb")
    assert ["compression levels" in finding for finding in summary.findings] == [True]
    assert same(tmp_path / "store", ff / "store"), "the real videos of both files are the same videos"


def test_a_dataset_without_splits_is_for_testing_only(tmp_path: Path) -> None:
    file = write(tmp_path / "UADFV.json", uadfv(tmp_path))
    summary = import_deepfakebench([file], tmp_path / "store", rgb=tmp_path)
    assert sorted(summary.findings) == [
        f"UADFV/none/{method}: all 2 videos are in train, val and test: there is no split; they get the split 'none'"
        for method in ("fake", "real")
    ]
    assert set(splits(tmp_path / "store").values()) == {"none"}
    assert (tmp_path / "store" / "findings.txt").read_text().splitlines() == summary.findings
    kept = import_deepfakebench([file], tmp_path / "kept", rgb=tmp_path, keep_splits=True)
    assert any("they are taken once for each" in f for f in kept.findings)
    assert splits(tmp_path / "kept")["real/0001@train"] == "train"
    assert splits(tmp_path / "kept")["fake/0001_fake@val"] == "val"
    with FaceStore(tmp_path / "kept") as store:
        assert len(store.manifest) == 3 * 12
        assert store.verify() == []


def celebdf(root: Path) -> dict[str, Any]:
    """Celeb-DF-v1 with its errors: Celeb-real lost from train, test videos in train, val = test, a test video without frames."""
    youtube = {v: leaf("CelebDFv1_real", draw(root, "Celeb-DF-v1/YouTube-real", v)) for v in ("00000", "00001", "00002")}
    celeb = {v: leaf("CelebDFv1_real", draw(root, "Celeb-DF-v1/Celeb-real", v)) for v in ("id0_0000", "id1_0000")}
    fake = {v: leaf("CelebDFv1_fake", draw(root, "Celeb-DF-v1/Celeb-synthesis", v)) for v in ("id0_id1_0000", "id1_id0_0000")}
    tested = {"00001": youtube["00001"], "id0_0000": celeb["id0_0000"], "00170": leaf("CelebDFv1_real", [])}
    forged = {"id1_id0_0000": fake["id1_id0_0000"]}
    return {
        "Celeb-DF-v1": {
            "CelebDFv1_real": {"train": youtube, "val": tested, "test": tested},
            "CelebDFv1_fake": {"train": fake, "val": forged, "test": forged},
        }
    }


@pytest.mark.parametrize("kind", ["rgb", "lmdb", "bare"])
def test_the_errors_of_celeb_df_are_named_and_mended(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path / "Celeb-DF-v1.json", celebdf(tmp_path / "rgb"))
    to_lmdb(tmp_path / "rgb", "Celeb-DF-v1", tmp_path / "lmdb", mixed)
    source: dict[str, Any] = {kind: tmp_path / kind}
    if kind == "bare":  # paths that begin below the dataset's folder
        file.write_text(file.read_text().replace('"Celeb-DF-v1/', '"'))
        source = {"rgb": tmp_path / "rgb"}
    summary = import_deepfakebench([file], tmp_path / "store", **source)
    text = "\n".join(summary.findings)
    for words in (
        "Celeb-DF-v1/none/real: 1 of 5 videos have no frames, e.g. 00170",
        "Celeb-DF-v1/none/real: val and test list the same 3 videos; they are kept in test alone",
        "Celeb-DF-v1/none/real: 1 of 3 test videos are in train too; they are kept in test alone",
        "Celeb-DF-v1/none/Celeb-synthesis: 1 of 1 test videos are in train too; they are kept in test alone",
        "no video of Celeb-real is in the real class of train",
        "Celeb-DF-v1: 1 real videos of Celeb-real that the JSON lost are there and added to train",
    ):
        assert words in text
    assert splits(tmp_path / "store") == {
        "Celeb-synthesis/id0_id1_0000": "train",
        "Celeb-synthesis/id1_id0_0000": "test",
        "real/00000": "train",
        "real/00001": "test",
        "real/00002": "train",
        "real/00170": "test",
        "real/id0_0000": "test",
        "real/id1_0000": "train",
    }
    with FaceStore(tmp_path / "store") as store:
        people = {r["video"]: r["identity"] for r in store.records()}
        assert people["id1_id0_0000"] == "id1_id0"
        assert (people["id1_0000"], people["00000"]) == ("id1", "00000")
        assert store.ledger.set_index("video").loc["00170", "status"] == "unreadable"
        assert store.info["counts"]["unreadable_videos"] == 1
        assert store.verify() == []


def test_kept_splits_repeat_celeb_df_as_it_is(tmp_path: Path) -> None:
    file = write(tmp_path / "Celeb-DF-v1.json", celebdf(tmp_path))
    import_deepfakebench([file], tmp_path / "store", rgb=tmp_path, keep_splits=True)
    found = splits(tmp_path / "store")
    assert {k for k, split in found.items() if split == "train"} == {
        "real/00000", "real/00001@train", "real/00002", "Celeb-synthesis/id0_id1_0000", "Celeb-synthesis/id1_id0_0000@train",
    }  # fmt: skip
    assert found["real/id0_0000@val"] == "val"


def test_dfdc_with_its_malformed_val(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    for label, kind in (("DFDC_Real", "r"), ("DFDC_Fake", "f")):
        train = {v: leaf(label, draw(tmp_path, "DFDC/train/dfdc_train_part_0", v)) for v in (f"{kind}a", f"{kind}b")}
        test = {v: leaf(label, draw(tmp_path, "DFDC/test", v)) for v in (f"{kind}c",)}
        content[label] = {"train": train, "test": test, "val": {**test[f"{kind}c"], **train}}
    summary = import_deepfakebench([write(tmp_path / "DFDC.json", {"DFDC": content})], tmp_path / "store", rgb=tmp_path)
    text = "\n".join(summary.findings)
    assert "DFDC.json: DFDC / DFDC_Real / val holds one video's label and frames in the place of the videos" in text
    assert "DFDC/none/fake: 2 training videos are in val too; they are kept in train alone" in text
    assert splits(tmp_path / "store") == {
        f"{method}/{kind}{video}": "test" if video == "c" else "train"
        for method, kind in (("real", "r"), ("fake", "f"))
        for video in "abc"
    }


def test_other_shapes_labels_and_methods(tmp_path: Path) -> None:
    a = {v: leaf("DFDCP_FakeA", draw(tmp_path, "DFDCP/method_A", v)) for v in ("x",)}
    b = {v: leaf("DFDCP_FakeB", draw(tmp_path, "DFDCP/method_B", v)) for v in ("x",)}
    real = {v: leaf("DFDCP_Real", draw(tmp_path, "DFDCP/original_videos", v)) for v in ("y",)}
    dfdcp = {"DFDCP": {"DFDCP_Real": {"train": real}, "DFDCP_FakeA": {"train": a}, "DFDCP_FakeB": {"test": b, "val": b}}}
    above = "FaceForensics++/original_sequences/actors/c23"
    actors = {"c23": {"01__hall": leaf("DFD_real", draw(tmp_path, above, "01__hall"))}}
    above = "FaceForensics++/manipulated_sequences/DeepFakeDetection/c23"
    forged = {"c23": {"01_02__hall__ABC": leaf("DFD_fake", draw(tmp_path, above, "01_02__hall__ABC"))}}
    dfd = {"DeepFakeDetection": {"DFD_real": {"train": actors, "test": actors, "val": actors}, "DFD_fake": {"test": forged}}}
    source = {"000": leaf("DF_real", draw(tmp_path, "DeeperForensics-1.0/source_videos/M101", "000"))}
    above = "DeeperForensics-1.0/manipulated_videos/end_to_end"
    deeper = {"DeeperForensics-1.0": {
        "DF_real": {"train": source, "val": source, "test": source},
        "DF_fake": {"train": {"000_M101": leaf("DF_fake", draw(tmp_path, above, "000_M101"))}, "val": {}, "test": {}},
    }}  # fmt: skip
    files = [write(tmp_path / f"{next(iter(c))}.json", c) for c in (dfdcp, dfd, deeper)]
    summary = import_deepfakebench(files, tmp_path / "store", rgb=tmp_path)
    with FaceStore(tmp_path / "store") as store:
        keys = {
            r["dataset"] + "/" + r["compression"] + "/" + r["method"] + "/" + r["video"]: r["identity"] for r in store.records()
        }
    assert keys == {
        "DFDCP/none/method_A/x": "x",
        "DFDCP/none/method_B/x": "x",
        "DFDCP/none/real/y": "y",
        "DeepFakeDetection/c23/DeepFakeDetection/01_02__hall__ABC": "01_02",
        "DeepFakeDetection/c23/real/01__hall": "01",
        "DeeperForensics-1.0/none/end_to_end/000_M101": "000_M101",
        "DeeperForensics-1.0/none/real/000": "000",
    }
    text = "\n".join(summary.findings)
    assert "DFDCP/none: test has fake videos only" in text
    assert "the real videos are the source videos" in text
    assert (
        "DeeperForensics-1.0/none/real: all 1 videos are in train, val and test: there is no split; they are kept in test" in text
    )
    found = splits(tmp_path / "store")
    assert (found["end_to_end/000_M101"], found["real/000"]) == ("train", "test")
    with FaceStore(tmp_path / "store") as store:
        done = export_deepfakebench(store, tmp_path / "out")
    assert not [note for note in done.notes if "label_dict" in note], "every label is one that DeepfakeBench knows"
    import_deepfakebench(done.files, tmp_path / "back", rgb=tmp_path / "out" / "rgb")
    assert same(tmp_path / "store", tmp_path / "back")


def test_unknown_and_contradicting_labels(tmp_path: Path) -> None:
    paths = {v: draw(tmp_path, "mine/x", v) for v in "abc"}
    content = {"mine": {
        "Mine": {"test": {"a": leaf("Mine", paths["a"])}},
        "GAN_fake": {"test": {"b": leaf("GAN_fake", paths["b"]), "c": leaf("other_Real", paths["c"])}},
    }}  # fmt: skip
    file = write(tmp_path / "mine.json", content)
    summary = import_deepfakebench([file], tmp_path / "store", rgb=tmp_path)
    assert splits(tmp_path / "store") == {"GAN/b": "test", "real/c": "test"}
    assert any(
        "label 'Mine' says neither real nor which forgery: its 1 mentions of videos are left out" in f for f in summary.findings
    )
    contradiction = "1 videos stand under another label than their own, which is taken: e.g. mine/GAN_fake/c (other_Real)"
    assert contradiction in summary.findings
    import_deepfakebench([file], tmp_path / "own", rgb=tmp_path, labels=["Mine=real"], name="ours")
    assert splits(tmp_path / "own") == {"GAN/b": "test", "real/a": "test", "real/c": "test"}
    with pytest.raises(PreprocessingError, match="LABEL=METHOD"):
        import_deepfakebench([file], tmp_path / "own", rgb=tmp_path, labels=["Mine"])


def test_videos_of_one_name_in_two_folders_stay_two(tmp_path: Path) -> None:
    train = {"x": leaf("DFDC_Real", draw(tmp_path, "DFDC/train/dfdc_train_part_0", "x"))}
    test = {"x": leaf("DFDC_Real", draw(tmp_path, "DFDC/test", "x"))}
    file = write(tmp_path / "DFDC.json", {"DFDC": {"DFDC_Real": {"train": train, "test": test, "val": {}}}})
    summary = import_deepfakebench([file], tmp_path / "store", rgb=tmp_path)
    assert splits(tmp_path / "store") == {"real/test/x": "test", "real/train/dfdc_train_part_0/x": "train"}
    assert any("is the name of 2 videos in different folders" in f for f in summary.findings)


def test_what_the_source_lacks_is_in_the_ledger_and_among_the_findings(tmp_path: Path) -> None:
    file = write(tmp_path / "UADFV.json", uadfv(tmp_path))
    real, fake = tmp_path / "UADFV/real", tmp_path / "UADFV/fake"
    (real / "frames/0000/003.png").unlink()
    (real / "frames/0001/003.png").write_bytes(b"no image")
    cv2.imwrite(str(real / "frames/0001/010.png"), np.zeros((SIDE, SIDE, 3), np.uint16))
    (real / "landmarks/0000/010.npy").unlink()
    (real / "landmarks/0000/000.npy").write_bytes(b"\x93NUMPY damaged")
    shutil.rmtree(fake / "frames/0001_fake")
    draw(tmp_path, "UADFV/fake", "0000_fake", masks=True)
    (fake / "masks/0000_fake/000.png").write_bytes(b"")
    cv2.imwrite(str(fake / "masks/0000_fake/003.png"), np.zeros((8, 8), np.uint8))
    shutil.copy(fake / "frames/0000_fake/010.png", tmp_path / "x.png")
    cv2.imwrite(str(tmp_path / "x.jpg"), cv2.imread(str(tmp_path / "x.png")))
    shutil.copy(tmp_path / "x.jpg", fake / "frames/0000_fake/010.png")
    summary = import_deepfakebench([file], tmp_path / "store", rgb=tmp_path)
    text = "\n".join(summary.findings)
    for words in (
        "UADFV/none/real: 1 frames that the JSON lists are missing (0 whole videos), e.g. UADFV/none/real/0000/000003",
        "UADFV/none/fake: 3 frames that the JSON lists are missing (1 whole videos)",
        "UADFV/none/real: 2 frames: no image of 8 bits",
        "UADFV/none/real: 1 faces: no landmarks; the faces are kept",
        "UADFV/none/real: 1 faces: landmarks: no array of points that can be read; the faces are kept",
        "UADFV/none/fake: 1 frames: mask: no image",
        "UADFV/none/fake: 1 frames: mask: another size than the face",
        "UADFV/none/fake: 1 faces: the source is a JPEG file; the faces are kept",
    ):
        assert words in text
    with FaceStore(tmp_path / "store") as store:
        assert store.verify() == []
        assert len(store.ledger) == 12
        assert store.landmarks("UADFV/none/real/0000/000010").shape == (0, 2)
        assert store.info["counts"]["unreadable_videos"] == 1
    again = import_deepfakebench([file], tmp_path / "store", rgb=tmp_path)
    assert again.finished_before
    assert again.findings == summary.findings
    uadfv(tmp_path)  # the download is completed
    assert import_deepfakebench([file], tmp_path / "store", rgb=tmp_path, retry=True).processed == 3
    with FaceStore(tmp_path / "store") as store:
        assert store.info["counts"]["frames"]["unreadable"] == 0


def test_a_class_that_the_lmdb_writer_left_out(tmp_path: Path) -> None:
    real = {"y": leaf("DFDCP_Real", draw(tmp_path / "rgb", "DFDCP/original_videos", "y"))}
    fake = {v: leaf("DFDCP_FakeA", draw(tmp_path / "rgb", "DFDCP/method_A", v)) for v in "ab"}
    file = write(tmp_path / "x.json", {"DFDCP": {"DFDCP_Real": {"test": real}, "DFDCP_FakeA": {"test": fake}}})
    shutil.copytree(tmp_path / "rgb", tmp_path / "part", ignore=shutil.ignore_patterns("*video*"))
    to_lmdb(tmp_path / "part", "DFDCP", tmp_path / "DFDCP_lmdb", mixed)
    summary = import_deepfakebench([file], tmp_path / "store", lmdb=tmp_path)
    assert any("DFDCP/none/real: not one of its 3 frames is in the source; the whole class is lost" in f for f in summary.findings)


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    content = uadfv(tmp_path / "rgb")
    file = write(tmp_path / "UADFV.json", content)
    to_lmdb(tmp_path / "rgb", "UADFV", tmp_path / "lmdb" / "UADFV_lmdb", mixed)
    foreign = json.dumps(content).replace("UADFV/real/", "UADFV/echt/").replace("UADFV/fake/", "UADFV/falsch/")
    other = write(tmp_path / "o.json", json.loads(foreign))
    (tmp_path / "text.json").write_text("{")
    (tmp_path / "empty").mkdir()
    shapes = [
        write(tmp_path / "s1.json", [["071", "054"]]),
        write(tmp_path / "s2.json", {"UADFV": {"UADFV_Real": {"0000": {"label": "x"}}}}),
        write(tmp_path / "s3.json", {"a.mp4": {"label": "REAL", "split": "train"}}),
        write(tmp_path / "s4.json", {"UADFV": []}),
    ]
    rgb: dict[str, Any] = {"rgb": tmp_path / "rgb"}
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (tmp_path / "none.json", rgb, r"none\.json is missing"),
        (tmp_path / "text.json", rgb, "is no JSON"),
        *((shape, rgb, "another shape than DeepfakeBench's") for shape in shapes),
        (
            write(tmp_path / "l.json", {"D": {"x_real": {"test": {"v": ["a.png"]}}}}),
            rgb,
            "v must hold a label and a list of frames",
        ),
        (
            write(tmp_path / "n.json", {"D": {"x_real": {"test": {"v": leaf("x_real", [])}}}}),
            rgb,
            "none of the 1 videos of D has frames",
        ),
        (write(tmp_path / "i.json", {"D": {"x_real": {"test": {"v": {"frames": [3]}}}}}), rgb, "lists 3 among its frames"),
        (write(tmp_path / "e.json", {"D": {"x_real": {"test": {}}}}), rgb, "lists no videos"),
        (file, {**rgb, "compressions": ["c40"]}, "lists no videos of compression c40; there is none"),
        (file, {}, "either the folder of PNG frames"),
        (file, {**rgb, "lmdb": tmp_path / "lmdb"}, "either the folder of PNG frames"),
        (file, {"rgb": tmp_path / "nowhere"}, "nowhere is missing"),
        (file, {"rgb": tmp_path / "empty"}, "has none of the frames that the JSON lists for UADFV, e.g. UADFV/real/frames/000"),
        (file, {"lmdb": tmp_path / "empty"}, "holds no LMDB"),
        (file, {"lmdb": file}, "cannot be opened as an LMDB"),
        (
            other,
            {"lmdb": tmp_path / "lmdb"},
            r"asks for 'UADFV/echt/frames/.*has keys like 'UADFV\\fake/frames/0000_fake/000\.png'",
        ),
        (file, {**rgb, "image_format": "jpg"}, "unknown image format"),
        (file, {**rgb, "workers": 0}, "workers"),
    ]
    for path, options, words in cases:
        with pytest.raises(PreprocessingError, match=words):
            import_deepfakebench([path], tmp_path / "store", **options)
        assert not (tmp_path / "store").exists(), words
    import_deepfakebench([file], tmp_path / "store", rgb=tmp_path / "rgb")
    with pytest.raises(PreprocessingError, match="was begun with splits = one per video"):
        import_deepfakebench([file], tmp_path / "store", rgb=tmp_path / "rgb", keep_splits=True)
    with pytest.raises(PreprocessingError, match=r"holds UADFV/none/.* which the JSON does not list now"):
        import_deepfakebench([file], tmp_path / "store", rgb=tmp_path / "rgb", name="other")
    two = [file, write(tmp_path / "FF.json", faceforensics(tmp_path / "rgb"))]
    with pytest.raises(PreprocessingError, match="would mix them"):
        import_deepfakebench(two, tmp_path / "store2", rgb=tmp_path / "rgb", name="other")


def test_a_path_is_cut_at_the_datasets_folder() -> None:
    assert place_of("D:\\x\\UADFV\\real\\frames\\0000\\000.png", "UADFV") == ("UADFV", "real", "frames", "0000", "000.png")
    assert place_of("././datasets/rgb\\/UADFV/UADFV/real/frames/1/2.png", "UADFV")[0:2] == ("UADFV", "real")
    assert place_of("/x/real/frames/0000/000.png", "UADFV") == ("x", "real", "frames", "0000", "000.png")


def test_faces_of_two_classes_never_meet(tmp_path: Path) -> None:
    # Cut down to "frames/0000/000.png", real and fake would be one file: what they do not share is never cut.
    content = {"UADFV": {
        "UADFV_Real": {"test": {"0000": leaf("UADFV_Real", draw(tmp_path, "UADFV/real", "0000"))}},
        "UADFV_Fake": {"test": {"0000": leaf("UADFV_Fake", draw(tmp_path, "UADFV/fake", "0000"))}},
    }}  # fmt: skip
    file = write(tmp_path / "UADFV.json", content)
    summary = import_deepfakebench([file], tmp_path / "store", rgb=tmp_path / "UADFV")
    assert summary.counts["faces"] == 6
    with pytest.raises(PreprocessingError, match="has none of the frames"):
        import_deepfakebench([file], tmp_path / "store2", rgb=tmp_path / "UADFV" / "real")


def test_killed_and_continued_it_is_the_same(ff: Path, tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        from preprocessing.interop import import_deepfakebench
        def on_video(done, total):
            if done == 4:
                os.kill(os.getpid(), signal.SIGKILL)
        import_deepfakebench([sys.argv[1] + "/FaceForensics++.json"], sys.argv[2], rgb=sys.argv[1] + "/rgb", on_video=on_video)
    """
    here = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(ff), str(tmp_path / "store")], cwd=here, env={**os.environ}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(PreprocessingError, match="unfinished"):
        FaceStore(tmp_path / "store")
    summary = import_deepfakebench([ff / "FaceForensics++.json"], tmp_path / "store", rgb=ff / "rgb")
    assert (summary.skipped, summary.processed) == (4, 8)
    with FaceStore(tmp_path / "store") as one, FaceStore(ff / "store") as other:
        assert one.fingerprint == other.fingerprint
        assert one.verify() == []
    assert same(tmp_path / "store", ff / "store")
