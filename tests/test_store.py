"""Reading a store: from anywhere, by anyone, and never a wrong or damaged one in silence."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import PIL.Image
import pytest
from preprocessing_material import SMALL, Squares, clip, ff_tree, videos

from preprocessing.codec import digest, encode_image
from preprocessing.errors import PreprocessingError
from preprocessing.layouts import Video, read_layout
from preprocessing.pipeline import preprocess
from preprocessing.sheet import contact_sheet
from preprocessing.store import _ENVIRONMENTS, FaceStore, fingerprint
from preprocessing.work import Work
from preprocessing.writer import StoreWriter


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store; do not write to it."""
    folder = tmp_path_factory.mktemp("store")
    preprocess(read_layout(ff_tree(folder / "ff")), folder / "store", SMALL, detector=Squares())
    return folder / "store"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A store to spoil."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def spoil(store: Path, database: str, key: str, value: bytes) -> None:
    with (
        lmdb.open(str(store / "faces.lmdb"), subdir=False, max_dbs=5) as env,
        env.begin(write=True, db=env.open_db(database.encode())) as t,
    ):
        assert t.get(key.encode()) is not None
        t.put(key.encode(), value)


GOLDEN = "a3f0a0a3ea4c1d19d97c64583cad2c78082c1f13f57b845c374872a7769b73ac"
GOLDEN_DIGEST = "6df66db2f06b54248c052de6dda625d8919279eb6b9329392c1552c697ff5fc6"
KEY = "FaceForensics++/c23/Deepfakes/000_003/000003"


def test_what_a_store_says_of_itself(made: Path) -> None:
    with FaceStore(made) as store:
        assert store.info["format"] == 1
        assert store.info["settings"]["detector"] == {"name": "squares"}
        assert {"av", "opencv-python-headless", "numpy"} <= set(store.info["libraries"])
        assert store.info["counts"]["faces"] == len(store.manifest) == 36
        assert store.manifest.columns.tolist() == [
            "dataset", "method", "label", "split", "identity", "video", "frame", "key", "compression",
        ]  # fmt: skip
        assert store.manifest["key"].is_monotonic_increasing
        assert store.manifest["frame"].dtype == store.manifest["label"].dtype == np.int64
        assert len(store.fingerprint) == 64
        assert str(made.parent) not in json.dumps(store.info)
        calls: list[tuple[int, int]] = []
        assert store.verify(lambda done, total: calls.append((done, total))) == []
        assert calls[-1] == (36, 36)


def test_missing_unfinished_and_other_versions(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(PreprocessingError, match="no face store at"):
        FaceStore(tmp_path / "nowhere")
    info = json.loads((copy / "store.json").read_text())
    (copy / "store.json").write_text(json.dumps({**info, "format": 7}))
    with pytest.raises(PreprocessingError, match="has format version 7, this program reads version 1"):
        FaceStore(copy)
    with pytest.raises(PreprocessingError, match="has format version 7, this program reads version 1"):
        preprocess(videos(tmp_path, 1), copy, SMALL, detector=Squares())
    (copy / "store.json").write_text("{")
    with pytest.raises(PreprocessingError, match="is damaged"):
        FaceStore(copy)
    (copy / "store.json").unlink()
    with pytest.raises(PreprocessingError, match="is unfinished; run preprocess again"):
        FaceStore(copy)
    spoil(copy, "meta", "store", json.dumps({"format": 7, "settings": {}}).encode())
    with pytest.raises(PreprocessingError, match="has format version 7"):
        preprocess(videos(tmp_path, 1), copy, SMALL, detector=Squares())


def test_the_fingerprint_keeps_its_definition() -> None:
    """Fingerprints stand in records and tables: a change of their definition needs a new FORMAT, and then a new value here."""
    record = {"dataset": "d", "compression": "c23", "method": "real", "video": "ü", "label": 0, "split": "train", "identity": "000"}
    rows = [[0, "face", "", "ab"], [5, "no_face", "any wording", ""]]
    settings = {"frames": 2, "size": 64, "mode": "strict", "image_format": "webp", "detector": {"name": "squares"}}
    assert fingerprint(settings, [{**record, "error": None, "frames": rows}]) == GOLDEN
    assert digest(np.arange(6, dtype=np.uint8).reshape(2, 3), np.float32([[1, 2]]), None) == GOLDEN_DIGEST


def test_an_unknown_key_is_named(made: Path) -> None:
    with FaceStore(made) as store, pytest.raises(PreprocessingError, match="has no face 'a/b/c/d/000000'"):
        store.image("a/b/c/d/000000")


def test_verify_names_what_was_changed(copy: Path) -> None:
    with FaceStore(copy) as store:
        image = store.image(KEY).copy()
    image[0, 0, 0] ^= 1  # the smallest change there is
    spoil(copy, "images", KEY, encode_image(image, "webp"))
    other = KEY.replace("000003", "000007")
    spoil(copy, "images", other, b"no image")
    with FaceStore(copy) as store:
        problems = store.verify()
    assert len(problems) == 2
    assert problems[0].startswith(KEY)
    assert "changed" in problems[0]
    assert problems[1].startswith(other)
    assert "cannot be decoded" in problems[1]


def test_verify_sees_changed_tables_and_records(copy: Path) -> None:
    with FaceStore(copy) as store:
        table = store.manifest
        record = next(store.records())
    table.assign(split="train").to_parquet(copy / "manifest.parquet", index=False)
    (copy / "ledger.parquet").unlink()
    spoil(copy, "videos", "FaceForensics++/c23/Deepfakes/000_003", json.dumps({**record, "split": "test"}).encode())
    with FaceStore(copy) as store:
        problems = " | ".join(store.verify())
    assert "manifest.parquet does not list what the store holds" in problems
    assert "ledger.parquet cannot be read" in problems
    assert "fingerprint" in problems


def read_there(store: FaceStore, queue: Any) -> None:
    total = int(store.image(KEY).sum())
    own = _ENVIRONMENTS[store._file].pid == os.getpid()
    queue.put(total if own else "LMDB forbids the use of an environment that was opened before the fork")
    store.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_read_what_the_parent_reads(method: str, made: Path) -> None:
    context = multiprocessing.get_context(method)
    with FaceStore(made) as store:
        here = int(store.image(KEY).sum())  # LMDB is open before the fork
        queue = context.Queue()
        processes = [context.Process(target=read_there, args=(store, queue)) for _ in range(2)]
        for process in processes:
            process.start()
        assert [queue.get(timeout=60) for _ in processes] == [here, here]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert int(store.image(KEY).sum()) == here, "the children left the parent's LMDB alone"


def test_many_readers_in_one_process(made: Path) -> None:
    first, second = FaceStore(made), FaceStore(made)
    third = pickle.loads(pickle.dumps(first))
    images = [s.image(KEY) for s in (first, second, third)]
    assert all(np.array_equal(images[0], i) for i in images)
    first.close()
    assert np.array_equal(second.image(KEY), images[0])
    second.close()
    third.close()
    assert np.array_equal(first.image(KEY), images[0]), "a closed store opens again when it is asked"
    first.close()


def test_a_store_is_not_written_under_its_reader(tmp_path: Path) -> None:
    made = videos(tmp_path, 1)
    preprocess(made, tmp_path / "store", SMALL, detector=Squares())
    with FaceStore(tmp_path / "store") as store:
        store.image("toy/none/real/v0/000000")
        with pytest.raises(PreprocessingError, match="is open for reading in this process; close it first"):
            preprocess(made, tmp_path / "store", SMALL, detector=Squares())
    assert preprocess(made, tmp_path / "store", SMALL, detector=Squares()).finished_before


def test_the_map_grows(tmp_path: Path) -> None:
    settings, done = SMALL.recorded(Squares()), [Work(SMALL, Squares())(v) for v in videos(tmp_path, 3)]
    for out, size in ((tmp_path / "small", 1 << 17), (tmp_path / "large", 1 << 26)):
        with StoreWriter(out, settings, map_size=size) as writer:
            for video in done:
                for face in video.faces:
                    object.__setattr__(face, "landmarks", face.landmarks + bytes(50_000))
                writer.add(video)
            info = writer.finish()
            assert info["counts"]["faces"] == 12
    assert (tmp_path / "small" / "faces.lmdb").stat().st_size > 1 << 17
    assert FaceStore(tmp_path / "small").fingerprint == FaceStore(tmp_path / "large").fingerprint


def test_contact_sheet(made: Path, tmp_path: Path) -> None:
    with FaceStore(made) as store:
        said = contact_sheet(store, tmp_path / "sheet.png", videos=3, frames=2, tile=48, landmarks=True, masks=True)
        assert said == "3 of 9 videos, at most 2 of 4 sampled frames each, evenly spread"
        sheet = np.asarray(PIL.Image.open(tmp_path / "sheet.png"))
        green = (sheet[..., 1] > 200) & (sheet[..., 0] < 60) & (sheet[..., 2] < 60)
        assert green.sum() > 6 * 500, "six faces are drawn"
        with pytest.raises(PreprocessingError, match="cannot write the contact sheet"):
            contact_sheet(store, tmp_path / "no" / "folder.png")
        with pytest.raises(PreprocessingError, match="at least one video"):
            contact_sheet(store, tmp_path / "sheet.png", videos=0)


def test_contact_sheet_shows_gaps(tmp_path: Path) -> None:
    (tmp_path / "zero.mp4").write_bytes(b"")
    half = Video("toy", "real", 0, "none", "", "half", clip(tmp_path / "half.mp4", face=lambda n: n < 6), "none")
    zero = Video("toy", "real", 0, "none", "", "zero", tmp_path / "zero.mp4", "none")
    preprocess([half, zero], tmp_path / "store", SMALL, detector=Squares())
    with FaceStore(tmp_path / "store") as store:
        contact_sheet(store, tmp_path / "sheet.png", tile=50)
    sheet = np.asarray(PIL.Image.open(tmp_path / "sheet.png"))
    for colour, least in (((228, 228, 228), 2 * 1500), ((248, 205, 205), 1500)):
        assert (sheet == colour).all(axis=-1).sum() > least


def test_threads_that_open_and_give_back_one_store_do_not_meet(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of the stores are garbage in a cycle: the collector gives them back, in whatever thread it runs."""
    path = data / "stores" / "mini-b"
    keys = FaceStore(path).manifest["key"]
    failed: list[BaseException] = []
    opened = lmdb.open

    def slowly(*args: Any, **settings: Any) -> lmdb.Environment:
        time.sleep(0.002)  # as on a disk far away; another thread goes on meanwhile
        return opened(*args, **settings)

    monkeypatch.setattr(lmdb, "open", slowly)

    def read(thread: int) -> None:
        try:
            for number in range(150):
                store = FaceStore(path)
                store.image(keys.iloc[(7 * thread + number) % len(keys)])
                if number % 2:
                    store.itself = store  # type: ignore[attr-defined]
                if number % 3 == thread % 3:
                    store.close()
                if number % 10 == thread:
                    gc.collect()
        except PreprocessingError as error:
            failed.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
