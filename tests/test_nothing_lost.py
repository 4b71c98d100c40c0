"""Killed at any moment, out of disk, out of addresses: the finished store is the one of an uninterrupted run."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest
from preprocessing_material import SMALL, Squares, videos

import preprocessing.writer
from preprocessing.errors import PreprocessingError
from preprocessing.layouts import Video
from preprocessing.pipeline import Settings, preprocess
from preprocessing.store import FaceStore
from preprocessing.unfinished import UnfinishedStore, open_store
from preprocessing.writer import StoreWriter

SQUARES = Squares()
LARGE = Settings(frames=4, size=256, image_format="png")
"""Faces of some 25 kB, so that a few of them fill a small disk."""


def files(store: Path) -> dict[str, bytes]:
    """Everything of a store but LMDB's own files, whose page layout depends on the order of writing."""
    return {p.name: b"" if p.name.startswith("faces.lmdb") else p.read_bytes() for p in store.iterdir()}


def assert_same(store: Path, whole: Path) -> None:
    """Fingerprint, manifest, ledger, counts and settings, byte for byte; and every face reads back."""
    assert files(store) == files(whole)
    with FaceStore(store) as here, FaceStore(whole) as there:
        assert here.fingerprint == there.fingerprint
        assert here.verify() == []


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Video], Path]:
    """Eight videos, and the store that an uninterrupted run makes of them at 256 pixels."""
    folder = tmp_path_factory.mktemp("eight")
    made = videos(folder / "videos", 8)
    preprocess(made, folder / "whole", LARGE, detector=SQUARES)
    return made, folder / "whole"


PATHS = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
KILLED = """
import sys, time
sys.path[:0] = {paths!r}
from preprocessing.layouts import read_layout
from preprocessing.pipeline import preprocess
from preprocessing_material import SMALL, Squares
done = 0
def on_video(report):
    global done
    done += 1
    print("done", flush=True)
    if done == 4:
        time.sleep(600)  # so that ten runs together cannot finish
found = read_layout({videos!r}, "folder", name="toy")
print("begun", flush=True)
preprocess(found, {out!r}, SMALL, on_video=on_video, detector=Squares(pause=0.005))
"""


def test_ten_kills_at_random_moments(tmp_path: Path) -> None:
    made = videos(tmp_path / "videos", 42)
    found = [Video("toy", "real", 0, "none", v.video, v.video, v.path, "none") for v in made]
    preprocess(found, tmp_path / "whole", SMALL, detector=SQUARES)
    seed = int(os.environ.get("DFGRID_KILL_SEED", time.time_ns() % 10**6))
    print(f"moments drawn from DFGRID_KILL_SEED={seed}")
    draw, out = random.Random(seed), tmp_path / "store"
    code = KILLED.format(paths=PATHS, videos=str(tmp_path / "videos"), out=str(out))
    for kill in range(10):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        for _ in range(draw.randint(0, 3)):
            assert process.stdout.readline() == b"done\n"
        if kill == 4:  # a second run meanwhile is refused and disturbs nothing
            while not (out / "preprocess.lock").exists() or process.stdout.readline() != b"done\n":
                pass
            with pytest.raises(PreprocessingError, match="another process is writing"):
                preprocess(found, out, SMALL, detector=SQUARES)
            with pytest.raises(PreprocessingError, match="another process is writing"):
                open_store(out)
        time.sleep(draw.uniform(0, 0.06))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert not (out / "store.json").exists()
    resumed = preprocess(found, out, SMALL, detector=SQUARES)
    assert resumed.processed < 42, "what was done before the kills was kept"
    assert resumed.processed + resumed.skipped == 42
    assert_same(out, tmp_path / "whole")


FINISHED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from preprocessing.layouts import read_layout
from preprocessing.pipeline import preprocess
from preprocessing_material import SMALL, Squares
found = read_layout({videos!r}, "folder", name="toy")
calls, fatal = 0, 0
def counted(function):
    def call(*args):
        global calls
        calls += 1
        if calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)
    return call
os.fsync, os.replace = counted(os.fsync), counted(os.replace)
for fatal in range(1, 100):
    child = os.fork()
    if not child:
        preprocess(found, {out!r}, SMALL, detector=Squares())
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print("killed" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), os.path.exists({out!r} + "/store.json"))
    if not os.WIFSIGNALED(status):
        break
"""


def test_a_kill_at_every_step_of_the_end(tmp_path: Path) -> None:
    made = videos(tmp_path / "videos", 2)
    found = [Video("toy", "real", 0, "none", v.video, v.video, v.path, "none") for v in made]
    preprocess(found, tmp_path / "whole", SMALL, detector=SQUARES)
    out = tmp_path / "store"
    code = FINISHED.format(paths=PATHS, videos=str(tmp_path / "videos"), out=str(out))
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == ["killed False"] * 6 + ["0 True"], "a sync and a rename for each of three files; store.json is the last"
    assert_same(out, tmp_path / "whole")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: a full disk that needs no superuser."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [5_000, 20_000, 100_000, 500_000])
def test_no_room_for_faces(size: int, eight: tuple[list[Video], Path], tmp_path: Path) -> None:
    made, whole = eight
    out = tmp_path / "store"
    with largest_file(size), pytest.raises(PreprocessingError, match=r"faces.lmdb.*(make room)"):
        preprocess(made, out, LARGE, detector=SQUARES)
    with pytest.raises(PreprocessingError, match=r"is unfinished|no face store"):
        FaceStore(out)
    if size > 100_000:
        with open_store(out) as store:
            assert isinstance(store, UnfinishedStore)
            assert 0 < store.info["counts"]["videos"] < 8
            assert len(store.manifest) == store.info["counts"]["faces"] == len(store.ledger)
            assert store.image(store.manifest["key"].iloc[-1]).shape == (256, 256, 3)
            assert store.verify() == []
    resumed = preprocess(made, out, LARGE, detector=SQUARES)
    assert (resumed.skipped > 0) == (size > 100_000)
    assert_same(out, whole)


def test_no_room_for_the_tables(eight: tuple[list[Video], Path], tmp_path: Path) -> None:
    made, whole = eight
    out = Path(shutil.copytree(whole, tmp_path / "store"))
    for name in ("store.json", "manifest.parquet", "ledger.parquet"):
        (out / name).unlink()
    with largest_file(1000), pytest.raises(PreprocessingError, match=r"cannot write to .*File too large.*make room and run"):
        preprocess(made, out, LARGE, detector=SQUARES)
    assert not list(out.glob("*.tmp")), "what is of no use must not fill the disk"
    assert preprocess(made, out, LARGE, detector=SQUARES).processed == 0
    assert_same(out, whole)


def test_a_full_disk(eight: tuple[list[Video], Path], tmp_path: Path) -> None:
    made, whole = eight
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs a superuser")
    try:
        with pytest.raises(PreprocessingError, match=r"its disk is full \(0.\d MB free\); what is done is kept: make room"):
            preprocess(made, disk / "store", LARGE, detector=SQUARES)
        with open_store(disk / "store") as store:
            assert len(store.manifest) >= 4
            assert store.verify() == []
        with pytest.raises(PreprocessingError, match="its disk is full"):
            preprocess(made, disk / "store", LARGE, detector=SQUARES)
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert preprocess(made, disk / "store", LARGE, detector=SQUARES).skipped > 0
        assert_same(disk / "store", whole)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_while_the_tables_are_written(
    eight: tuple[list[Video], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, whole = eight

    def full(file: Path, columns: list[str], records: object) -> None:
        file.write_bytes(b"half a table")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(preprocessing.writer, "write_table", full)
    with pytest.raises(PreprocessingError, match=r"its disk is full .* MB free"):
        preprocess(made, tmp_path / "store", LARGE, detector=SQUARES)
    assert not list((tmp_path / "store").glob("*.tmp"))
    monkeypatch.undo()
    assert preprocess(made, tmp_path / "store", LARGE, detector=SQUARES).processed == 0
    assert_same(tmp_path / "store", whole)


def test_a_map_that_cannot_grow(eight: tuple[list[Video], Path], tmp_path: Path) -> None:
    made, _ = eight
    preprocess(made[:1], tmp_path / "store", LARGE, detector=SQUARES)

    def full(transaction: lmdb.Transaction) -> None:
        raise lmdb.MapFullError("MDB_MAP_FULL")

    # Twice 64 TB are more addresses than a process has.
    writer = StoreWriter(tmp_path / "store", LARGE.recorded(SQUARES), map_size=1 << 46)
    with writer, pytest.raises(PreprocessingError, match=r"cannot grow: this process may not map 134217728 MB .* \(ulimit -v\)"):
        writer._write(full)
    with FaceStore(tmp_path / "store") as store:
        assert store.verify() == []


def test_a_store_that_was_cut_short(eight: tuple[list[Video], Path], tmp_path: Path) -> None:
    """Reading the missing part of a memory map would end the process by a bus error."""
    made, whole = eight
    out = Path(shutil.copytree(whole, tmp_path / "store"))
    os.truncate(out / "faces.lmdb", 500_000)
    with FaceStore(out) as store:
        with pytest.raises(PreprocessingError, match=r"is cut short: 500000 of \d+ bytes; copy it again"):
            store.image("toy/none/real/v7/000000")
        (problem,) = store.verify()
        assert "is cut short" in problem
    with pytest.raises(PreprocessingError, match="is cut short"):
        preprocess(made, out, LARGE, detector=SQUARES)


def test_an_unfinished_store_with_nothing_in_it(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "faces.lmdb"), subdir=False, max_dbs=5):
        pass
    with pytest.raises(PreprocessingError, match="run preprocess again"):
        open_store(tmp_path)
    with pytest.raises(PreprocessingError, match="no face store at"):
        open_store(tmp_path / "nowhere")
