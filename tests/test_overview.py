"""What `dfgrid store` shows: every number from the ledger, nothing left out; and damage named by its key."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import lmdb
import numpy as np
import PIL.Image
import pytest
from preprocessing_material import SMALL, Squares, clip, ff_tree
from test_cli import Dfgrid, assert_mistake, dfgrid

from preprocessing.codec import encode_image
from preprocessing.layouts import Video, read_layout
from preprocessing.overview import Bin, histogram, overview
from preprocessing.pipeline import VideoReport, preprocess
from preprocessing.sheet import contact_sheet
from preprocessing.store import FaceStore
from preprocessing.unfinished import UnfinishedStore, open_store
from preprocessing.writer import StoreWriter

__all__ = ["dfgrid"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with good, half-good, faceless and unreadable videos; do not write to it."""
    folder = tmp_path_factory.mktemp("overview")
    (folder / "zero.mp4").write_bytes(b"")
    found = [
        *read_layout(ff_tree(folder / "ff", methods=("Deepfakes",))),
        Video("toy", "real", 0, "none", "h", "half", clip(folder / "half.mp4", face=lambda n: n < 6), "none"),
        Video("toy", "real", 0, "none", "n", "nobody", clip(folder / "nobody.mp4", face=lambda n: False), "none"),
        Video("toy", "real", 0, "none", "z", "zero", folder / "zero.mp4", "none"),
    ]
    preprocess(found, folder / "store", SMALL, detector=Squares())
    return folder / "store"


def test_overview(made: Path) -> None:
    with FaceStore(made) as store:
        found = overview(store)
    rows = [tuple(row) for row in found.groups.itertuples(index=False)]
    assert list(found.groups.columns) == [
        "dataset", "compression", "method", "split", "videos", "identities", "unreadable", "frames", "faces",
    ]  # fmt: skip
    ff = [("FaceForensics++", "c23", m, s, 1, 1, 0, 4, 4) for m in ("real", "Deepfakes") for s in ("train", "val", "test")]
    assert rows == [*ff, ("toy", "none", "real", "none", 3, 3, 1, 8, 2)]
    assert found.faces_per_video == [Bin(0, 0, 2), Bin(1, 1, 0), Bin(2, 2, 1), Bin(3, 3, 0), Bin(4, 4, 6)]
    assert [tuple(row) for row in found.failures.itertuples(index=False)] == [
        ("no_face", "", 2, 6), ("unreadable", "the file is empty", 1, 1),
    ]  # fmt: skip
    assert found.settings["frames"] == 4
    assert {"faces.lmdb", "manifest.parquet", "ledger.parquet", "store.json"} <= set(found.sizes)
    assert found.sizes["faces.lmdb"] >= 10_000


@pytest.mark.parametrize("most", [0, 1, 2, 11, 12, 31, 32, 300])
def test_a_histogram_holds_every_video_once(most: int) -> None:
    counts = np.random.default_rng(most).integers(0, most + 1, 200).tolist()
    bins = histogram(counts)
    assert sum(b.videos for b in bins) == 200
    assert len(bins) <= 13
    assert (bins[0].low, bins[0].high) == (0, 0)
    assert all(a.high + 1 == b.low for a, b in pairwise(bins)), "no number lies between two bins"
    assert bins[-1].high == max(counts)
    assert histogram([]) == [Bin(0, 0, 0)]


def test_info(dfgrid: Dfgrid, made: Path) -> None:
    code, out, err = dfgrid("store", "info", made)
    assert code == 0, err
    for words in (
        "faces per video",
        "the file is empty",
        "Deepfakes",
        "fingerprint",
        "on disk:",
        "frames 4, size 64",
        "26 face, 6 no face",
    ):
        assert words in out


def test_verify_names_the_damaged_face_and_ends_with_1(dfgrid: Dfgrid, made: Path, tmp_path: Path) -> None:
    assert dfgrid("store", "verify", made)[0] == 0
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    key = b"FaceForensics++/c23/Deepfakes/000_003/000003"
    with lmdb.open(str(copy / "faces.lmdb"), subdir=False, max_dbs=5) as env, env.begin(write=True) as t:
        images = env.open_db(b"images", txn=t)
        t.put(key, t.get(key, db=images)[:-20], db=images)
    code, _, err = dfgrid("store", "verify", "copy")
    assert code == 1
    assert key.decode() in err
    assert "1 problems" in err
    with open(copy / "faces.lmdb", "r+b") as file:
        file.truncate(file.seek(0, 2) // 2)
    code, _, err = dfgrid("store", "verify", "copy")
    assert code == 1
    assert "is cut short" in err


@pytest.mark.parametrize(
    ("kind", "lost"),
    [("branches and leaves", bytes(4096)), ("faces", bytes(4096)), ("faces", bytes(range(256)) * 16)],
    ids=["tree", "zeros", "noise"],
)
def test_damaged_pages_are_found(kind: str, lost: bytes, made: Path, tmp_path: Path) -> None:
    """Of some damage LMDB makes the end of the process; verify says so instead."""
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    whole = (copy / "faces.lmdb").read_bytes()
    with FaceStore(copy) as store:
        face = store.image(store.manifest["key"].iloc[-1])
        inside = whole.index(encode_image(face, "webp")) // 4096
    leading = [at for at in range(2, len(whole) // 4096) if int.from_bytes(whole[at * 4096 + 10 : at * 4096 + 12], "little") & 3]
    damaged = 0
    pages = leading[:: max(1, len(leading) // 3)] if kind == "branches and leaves" else [inside]
    for page in pages:
        (copy / "faces.lmdb").write_bytes(whole[: page * 4096] + lost + whole[(page + 1) * 4096 :])
        with FaceStore(copy) as store:
            damaged += bool(store.verify())
    assert damaged >= 1  # a page may have been free


def test_an_unfinished_store_can_be_looked_at(dfgrid: Dfgrid, tmp_path: Path) -> None:
    found = [Video("toy", "real", 0, "none", f"{n}", f"v{n}", clip(tmp_path / f"v{n}.mp4"), "none") for n in range(3)]

    def interrupt(report: VideoReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess(found, tmp_path / "store", SMALL, on_video=interrupt, detector=Squares())
    code, out, err = dfgrid("store", "info", "store")
    assert code == 0, err
    assert "unfinished" in out
    assert "4 face" in out
    assert dfgrid("store", "verify", "store")[0] == 0
    assert dfgrid("store", "sheet", "store")[0] == 0
    with StoreWriter(tmp_path / "begun", SMALL.recorded(Squares())):
        pass
    assert dfgrid("store", "info", "begun")[0] == 0
    assert dfgrid("store", "verify", "begun")[0] == 0
    assert_mistake(dfgrid("store", "sheet", "begun"), "store begun holds no video yet")
    with StoreWriter(tmp_path / "store", SMALL.recorded(Squares())):
        assert_mistake(dfgrid("store", "info", "store"), "another process is writing to store")
    preprocess(found, tmp_path / "store", SMALL, detector=Squares())
    with open_store(tmp_path / "store") as store:
        assert not isinstance(store, UnfinishedStore)


def test_two_runs_on_one_store(dfgrid: Dfgrid, data: Path, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", SMALL.recorded(Squares())):
        result = dfgrid("preprocess", data / "mini-b", "--frames", 2, "--out", "s")
    assert_mistake(result, "another process is writing to s; wait for it or give another folder")


def test_sheets_of_a_part(dfgrid: Dfgrid, made: Path, tmp_path: Path) -> None:
    with FaceStore(made) as store:
        said = contact_sheet(store, tmp_path / "a.png", methods=["real"], splits=["train", "val"])
        assert said == "2 of 2 videos, at most 4 of 4 sampled frames each, evenly spread"
        sheets = {}
        for seed in (0, 0, 1, 2, 3):
            said = contact_sheet(store, tmp_path / "b.png", videos=3, seed=seed)
            assert said.startswith("3 of 9 videos")
            assert said.endswith(f"videos at random (seed {seed})")
            pixels = np.asarray(PIL.Image.open(tmp_path / "b.png"))[30:].tobytes()  # below the head, which names the seed
            assert sheets.setdefault(seed, pixels) == pixels
        assert len(set(sheets.values())) > 1
    code, out, err = dfgrid("store", "sheet", made, "--method", "Deepfakes", "--masks", "--videos", 2, "--seed", 5, "-o", "c.png")
    assert code == 0, err
    assert "2 of 3 videos" in out
    assert_mistake(
        dfgrid("store", "sheet", made, "--method", "DeepFake", "-o", "d.png"), "no method 'DeepFake': did you mean 'Deepfakes'"
    )
    assert_mistake(dfgrid("store", "sheet", made, "--split", "tests", "-o", "d.png"), "no split 'tests': did you mean 'test'")
    assert_mistake(
        dfgrid("store", "sheet", made, "--method", "Deepfakes", "--split", "none", "-o", "d.png"), "no video of such a method"
    )
