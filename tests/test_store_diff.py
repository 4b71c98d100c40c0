"""Are these the same faces? Every way in which two stores can differ, through the library and the command line."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from deepfakebench_trees import SIDE, leaf, points, uadfv, write
from in_process import command
from preprocessing_material import Squares, clip, videos

from preprocessing.diff import Difference, differences
from preprocessing.interop import import_deepfakebench
from preprocessing.layouts import Video
from preprocessing.pipeline import Settings, preprocess
from preprocessing.store import FaceStore

REAL, FAKE = "UADFV/none/real", "UADFV/none/fake"


def make(folder: Path, change: Callable[[Path, dict[str, Any]], object] = lambda root, content: None) -> Path:
    content = uadfv(folder)
    content = {"UADFV": {label: {"test": dict(splits["test"])} for label, splits in content["UADFV"].items()}}
    change(folder, content["UADFV"])
    import_deepfakebench([write(folder / "UADFV.json", content)], folder / "store", rgb=folder)
    return folder / "store"


def compare(a: Path, b: Path, **options: Any) -> list[Difference]:
    with FaceStore(a) as first, FaceStore(b) as second:
        return list(differences(first, second, **options))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store; do not write to it."""
    return make(tmp_path_factory.mktemp("a"))


def test_a_store_is_the_same_as_itself_and_as_its_copy(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "copy")
    calls: list[tuple[int, int]] = []
    assert compare(store, store, deep=True) == []
    assert compare(store, tmp_path / "copy", on_progress=lambda *at: calls.append(at)) == []
    assert calls == [(2, 8), (4, 8), (6, 8), (8, 8)]
    assert compare(store, make(tmp_path), deep=True) == []


def test_faces_that_one_store_lacks_with_the_reason(store: Path, tmp_path: Path) -> None:
    def change(root: Path, content: dict[str, Any]) -> None:
        (root / "UADFV/real/frames/0000/003.png").unlink()
        real = content["UADFV_Real"]["test"]
        real["0002"] = leaf("UADFV_Real", real["0001"]["frames"][:1])
        del real["0001"]

    other = make(tmp_path, change)
    found = compare(store, other)
    assert [(d.kind, d.key) for d in found] == [
        ("only in A", f"{REAL}/0000/000003"),
        *(("only in A", f"{REAL}/0001/{n:06d}") for n in (0, 3, 10)),
        ("only in B", f"{REAL}/0002/000003"),
    ]
    assert found[0].detail == "unreadable in B: not in the source"
    assert [d.kind for d in compare(other, store)] == [{"A": "only in B", "B": "only in A"}[d.kind[-1]] for d in found]


def test_pixels_landmarks_masks_and_splits(store: Path, tmp_path: Path) -> None:
    def change(root: Path, content: dict[str, Any]) -> None:
        file = root / "UADFV/fake/frames/0000_fake/003.png"
        image = cv2.imread(str(file))
        image[0, 0] = np.where(image[0, 0] > 127, image[0, 0] - 12, image[0, 0] + 12)
        cv2.imwrite(str(file), image)
        np.save(root / "UADFV/fake/landmarks/0000_fake/010.npy", points("UADFV/fake", "0000_fake", 10) + np.array([3, 4]))
        np.save(root / "UADFV/fake/landmarks/0001_fake/010.npy", points("UADFV/fake", "0001_fake", 10)[:68])
        (root / "UADFV/real/masks/0000").mkdir(parents=True)
        cv2.imwrite(str(root / "UADFV/real/masks/0000/003.png"), np.zeros((SIDE, SIDE), np.uint8))
        cv2.imwrite(str(root / "UADFV/real/frames/0000/010.png"), np.zeros((8, 8, 3), np.uint8))
        content["UADFV_Real"] = {"train": content["UADFV_Real"]["test"]}

    found = {(d.kind, d.key): d for d in compare(store, make(tmp_path, change))}
    assert set(found) == {
        ("pixels", f"{FAKE}/0000_fake/000003"),
        ("landmarks", f"{FAKE}/0000_fake/000010"),
        ("landmarks", f"{FAKE}/0001_fake/000010"),
        ("mask", f"{REAL}/0000/000003"),
        ("pixels", f"{REAL}/0000/000010"),
        ("split", f"{REAL}/0000"),
        ("split", f"{REAL}/0001"),
    }
    one = found["pixels", f"{FAKE}/0000_fake/000003"]
    assert one.mean == pytest.approx(12 * 3 / (SIDE * SIDE * 3))
    assert one.detail == "largest difference 12"
    assert found["landmarks", f"{FAKE}/0000_fake/000010"].mean == pytest.approx(5)
    assert found["landmarks", f"{FAKE}/0001_fake/000010"].detail == "81 points in A, 68 in B"
    assert found["mask", f"{REAL}/0000/000003"].detail == "only in B"
    assert found["pixels", f"{REAL}/0000/000010"].detail == "24x24 in A, 8x8 in B"
    assert found["split", f"{REAL}/0000"].detail == "test in A, train in B"


def test_damage_that_the_digests_cannot_show_is_found_by_decoding(store: Path, tmp_path: Path) -> None:
    import lmdb

    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    with (
        lmdb.open(str(copy / "faces.lmdb"), subdir=False, max_dbs=5) as env,
        env.begin(write=True, db=env.open_db(b"images")) as transaction,
    ):
        transaction.put(f"{REAL}/0000/000003".encode(), b"damaged")
    assert compare(store, copy) == []
    (found,) = compare(store, copy, deep=True)
    assert (found.kind, found.key) == ("damaged", f"{REAL}/0000/000003")


# The command line.


@pytest.fixture
def dfgrid(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    return partial(command, capsys, monkeypatch)


Dfgrid = Callable[..., tuple[int, str, str]]


def test_diff_answers_by_its_exit_code(store: Path, tmp_path: Path, dfgrid: Dfgrid) -> None:
    shutil.copytree(store, tmp_path / "copy")
    code, out, _ = dfgrid("store", "diff", store, tmp_path / "copy")
    assert code == 0
    assert "the same faces, labels and splits; the fingerprints agree too" in out

    def change(root: Path, content: dict[str, Any]) -> None:
        shutil.rmtree(root / "UADFV/real/frames/0000")

    other = make(tmp_path / "b", change)
    code, out, _ = dfgrid("store", "diff", store, other, "--show", 1, "--out", tmp_path / "d.csv")
    assert code == 1
    assert re.search(r"only in A +│ +3 ", out)
    assert f"only in A: {REAL}/0000/000000 unreadable in B: not in the source" in out
    assert f"{REAL}/0000/000003" not in out
    with (tmp_path / "d.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"][-6:] for row in rows] == ["000000", "000003", "000010"]
    code, _, err = dfgrid("store", "diff", store, tmp_path / "nowhere")
    assert code == 2
    assert "no face store at" in err


def test_the_same_faces_under_other_fingerprints_say_why(tmp_path: Path, dfgrid: Dfgrid) -> None:
    def faces(name: str, made: list[Video], **settings: Any) -> Path:
        preprocess(made, tmp_path / name, Settings(size=64, **{"frames": 12, **settings}), detector=Squares())
        return tmp_path / name

    both = videos(tmp_path, 2)
    dark = Video("toy", "real", 0, "train", "d", "dark", clip(tmp_path / "dark.mp4", face=lambda n: False), "none")
    plain, more = faces("plain", both), faces("more", [*both, dark])
    moved = faces("moved", [*both, replace(dark, split="test")])
    cut = faces("cut", [*both, replace(dark, path=tmp_path / "nowhere.mp4")])
    every = faces("every", both, sampling="every")
    lasting = faces("lasting", [*both, dark], sampling="every")
    begin = "the same faces, labels and splits; the fingerprints differ: "
    without = "frames without a face, of 1 video (toy/none/real/dark"
    for a, b, words in (
        (plain, more, f"{without}, only in B)"),
        (more, plain, f"{without}, only in A)"),
        (more, moved, f"{without})"),
        (more, cut, f"{without})"),
        (plain, every, "the settings (frames, sampling)"),
        (plain, lasting, f"the settings (frames, sampling); {without}, only in B)"),
    ):
        code, out, _ = dfgrid("store", "diff", a, b)
        assert (code, out.splitlines()[-1]) == (0, begin + words)


def test_import_and_export_on_the_command_line(tmp_path: Path, dfgrid: Dfgrid) -> None:
    file = write(tmp_path / "UADFV.json", uadfv(tmp_path / "rgb"))
    code, out, err = dfgrid("import", "deepfakebench", "--json", file, "--rgb", tmp_path / "rgb", "--out", tmp_path / "s")
    assert code == 0
    assert "found UADFV/none/real: all 2 videos are in train, val and test: there is no split; they get the split 'none'" in err
    assert "4 videos done now, 0 there already" in out
    assert "4 videos (0 without frames), 12 face" in out
    assert "import UADFV" in out
    assert "4/4" in out
    code, out, _ = dfgrid("import", "deepfakebench", "--json", file, "--rgb", tmp_path / "rgb", "--out", tmp_path / "s")
    assert "nothing to do, the store is finished" in out
    code, out, _ = dfgrid("store", "export", "deepfakebench", tmp_path / "s", "--out", tmp_path / "x", "--lmdb")
    assert code == 0
    assert "12 faces of 4 videos, 2 JSON files" in out
    json = tmp_path / "x/dataset_json_v3/UADFV.json"
    args = ("import", "deepfakebench", "--json", json, "--lmdb", tmp_path / "x/lmdb", "--out", tmp_path / "t")
    assert dfgrid(*args)[0] == 0
    assert dfgrid("store", "diff", tmp_path / "s", tmp_path / "t", "--deep")[0] == 0
    for wrong, words in (
        (("store", "export", "deepfakebench", tmp_path / "s", "--out", tmp_path / "x"), "exists already"),
        (
            ("import", "deepfakebench", "--json", tmp_path / "n.json", "--rgb", tmp_path, "--out", tmp_path / "z"),
            "n.json is missing",
        ),
        (("import", "deepfakebench", "--json", file, "--out", tmp_path / "z"), "either the folder of PNG frames"),
    ):
        code, _, err = dfgrid(*wrong)
        assert code == 2
        assert words in err
        assert len(err.strip().splitlines()) == 1
