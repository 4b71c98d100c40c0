"""Stores out as DeepfakeBench's files: what it reads, and the faces the same when they come back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from deepfakebench_trees import SIDE, draw, imported, leaf, pixels, points, same, splits, uadfv, write

from preprocessing.diff import differences
from preprocessing.errors import PreprocessingError
from preprocessing.interop import export_deepfakebench, import_deepfakebench
from preprocessing.store import FaceStore


@pytest.fixture(scope="module")
def ff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rgb/, FaceForensics++.json and a finished store of it; do not write to it."""
    return imported(tmp_path_factory.mktemp("ff"))


@pytest.mark.parametrize("kind", ["rgb", "lmdb"])
def test_export_and_import_give_the_same_faces(ff: Path, tmp_path: Path, kind: str) -> None:
    with FaceStore(ff / "store") as store:
        done = export_deepfakebench(store, tmp_path / "out", with_lmdb=True)
    assert (done.videos, done.faces) == (12, 36)
    assert {f.relative_to(tmp_path / "out").as_posix() for f in done.files} == {
        f"{folder}/{name}.json" for folder in ("dataset_json", "dataset_json_v3") for name in ("FaceForensics++", "FF-DF")
    }
    folder = "dataset_json" if kind == "rgb" else "dataset_json_v3"
    files = sorted((tmp_path / "out" / folder).glob("*.json"))
    summary = import_deepfakebench(files, tmp_path / "back", **{kind: tmp_path / "out" / kind})
    assert ["compression levels" in finding for finding in summary.findings] == [True]
    assert same(ff / "store", tmp_path / "back")
    with FaceStore(ff / "store") as one, FaceStore(tmp_path / "back") as other:
        assert one.fingerprint == other.fingerprint
    with FaceStore(ff / "store") as store, pytest.raises(PreprocessingError, match="exists already"):
        export_deepfakebench(store, tmp_path / "out")


def test_an_export_is_what_deepfakebench_reads(ff: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaceStore(ff / "store") as store:
        export_deepfakebench(store, tmp_path / "datasets", with_lmdb=True)
    monkeypatch.chdir(tmp_path)  # as DeepfakeBench runs: "datasets" lies in its folder
    content = json.loads(Path("datasets/dataset_json/FF-DF.json").read_text())["FF-DF"]
    assert set(content) == {"FF-real", "FF-DF"}
    one = content["FF-DF"]["train"]["c23"]["000_003"]
    assert one["label"] == "FF-DF"
    path = next(p for p in one["frames"] if p.endswith("010.png"))
    assert path.startswith("./datasets/")
    sub = "FaceForensics++/manipulated_sequences/Deepfakes/c23"
    assert np.array_equal(cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB), pixels(sub, "000_003", 10))
    assert np.array_equal(np.load(path.replace("frames", "landmarks").replace(".png", ".npy")), points(sub, "000_003", 10))
    assert cv2.imread(path.replace("frames", "masks"), 0).shape == (SIDE, SIDE)
    content = json.loads(Path("datasets/dataset_json_v3/FF-DF.json").read_text())["FF-DF"]
    path = content["FF-DF"]["train"]["c23"]["000_003"]["frames"][0]
    with lmdb.open("datasets/lmdb/FaceForensics++_lmdb", readonly=True, lock=False) as env, env.begin() as transaction:
        assert transaction.get(path.encode()).startswith(b"\x89PNG")
        raw = transaction.get(path.replace("frames", "landmarks").replace(".png", ".npy").encode())
    read = np.frombuffer(raw, dtype=np.uint32).reshape((81, 2))
    assert np.array_equal(read.astype(np.int32), points(sub, "000_003", int(path[-7:-4])))


def test_names_of_ones_own_go_there_and_back(ff: Path, data: Path, tmp_path: Path) -> None:
    with FaceStore(data / "stores" / "mini-b") as store:
        done = export_deepfakebench(store, tmp_path / "b")
    assert [f.name for f in done.files] == ["mini-b.json"]
    assert done.notes[1].endswith("test_config.yaml: Celeb-synthesis_Fake: 1, mini-b_Real: 0")
    import_deepfakebench(done.files, tmp_path / "back-b", rgb=tmp_path / "b" / "rgb")
    assert same(data / "stores" / "mini-b", tmp_path / "back-b")
    # Two compressions under a name that DeepfakeBench does not nest: a file for each.
    with FaceStore(ff / "store") as store:
        done = export_deepfakebench(store, tmp_path / "own", name="own")
    assert [f.name for f in done.files] == ["own_c23.json", "own_c40.json"]
    for file in done.files:
        level = file.stem[-3:]
        import_deepfakebench([file], tmp_path / file.stem, rgb=tmp_path / "own" / "rgb", name="FaceForensics++")
        with FaceStore(ff / "store") as one, FaceStore(tmp_path / file.stem) as other:
            apart = list(differences(one, other, deep=True))
        assert {d.kind for d in apart} == {"only in A"}
        assert not [d for d in apart if d.key.split("/")[1] == level]


def test_without_a_split_everything_is_tested_and_comes_back_without_one(tmp_path: Path) -> None:
    content = json.loads(json.dumps(uadfv(tmp_path)))
    for label in content["UADFV"].values():
        label["none"] = label.pop("train")
    import_deepfakebench([write(tmp_path / "UADFV.json", content)], tmp_path / "store", rgb=tmp_path)
    assert set(splits(tmp_path / "store").values()) == {"none"}
    with FaceStore(tmp_path / "store") as store:
        export_deepfakebench(store, tmp_path / "out")
    written = json.loads((tmp_path / "out/dataset_json/UADFV.json").read_text())["UADFV"]
    assert set(written["UADFV_Real"]["test"]) == {"0000", "0001"}
    assert written["UADFV_Real"]["train"] == {}
    import_deepfakebench([tmp_path / "out/dataset_json/UADFV.json"], tmp_path / "back", rgb=tmp_path / "out/rgb")
    assert same(tmp_path / "store", tmp_path / "back")


def test_a_place_that_cannot_be_written(ff: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with FaceStore(ff / "store") as store:
        for with_lmdb in (False, True):
            with pytest.raises(PreprocessingError, match="cannot write to"):
                export_deepfakebench(store, tmp_path / "file" / "out", with_lmdb=with_lmdb)
    with pytest.raises(PreprocessingError, match="cannot write to"):
        import_deepfakebench([ff / "FaceForensics++.json"], tmp_path / "file" / "out", rgb=ff / "rgb")


@pytest.mark.parametrize("name", ["FaceForensics++", "DeepFakeDetection"])
def test_a_name_that_needs_a_compression_level(name: str, tmp_path: Path) -> None:
    """DeepfakeBench looks for the videos of these under "raw", "c23" or "c40" only."""
    import_deepfakebench([write(tmp_path / "UADFV.json", uadfv(tmp_path))], tmp_path / "store", rgb=tmp_path)
    words = f"{re.escape(name)} has its videos under raw, c23 or c40, and 'UADFV/none/fake/0000_fake' has no such level; export"
    with FaceStore(tmp_path / "store") as store, pytest.raises(PreprocessingError, match=words):
        export_deepfakebench(store, tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


def test_names_that_deepfakebench_cannot_take(tmp_path: Path) -> None:
    paths = {v: draw(tmp_path, "D/real", v) for v in ("frames_1", "a__b")}
    for video, leaves, words in (
        ("frames_1", {"frames_1": leaf("D_Real", paths["frames_1"])}, "replaces the word 'frames'"),
        ("a", {"a__b": leaf("D_Real", paths["a__b"]), "c": {**leaf("D_Real", paths["a__b"]), "video": "a/b"}}, "would both go to"),
    ):
        file = write(tmp_path / f"{video}.json", {"D": {"D_Real": {"test": leaves}}})
        import_deepfakebench([file], tmp_path / video, rgb=tmp_path)
        with FaceStore(tmp_path / video) as store, pytest.raises(PreprocessingError, match=words):
            export_deepfakebench(store, tmp_path / "out")
        assert not (tmp_path / "out").exists()
