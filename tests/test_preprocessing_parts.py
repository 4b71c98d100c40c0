"""Long videos reach the store in parts: memory does not grow with their length, and no kill leaves half of one."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray
from preprocessing_material import SMALL, Squares, clip, encode, videos
from test_nothing_lost import assert_same
from worker_tasks import counting

import preprocessing.work
from preprocessing.begun import face_keys
from preprocessing.faces import Box
from preprocessing.layouts import Video
from preprocessing.pipeline import Settings, preprocess
from preprocessing.store import DATABASES, FaceStore
from preprocessing.unfinished import open_store
from preprocessing.work import VideoFaces, Work, unreadable, whole
from preprocessing.workers import Crash, parallel
from preprocessing.writer import StoreWriter

EVERY = Settings(size=64, sampling="every")


class Anywhere(Squares):
    """A face in every frame, at one place."""

    def boxes(self, image: NDArray[np.uint8], upsample: int) -> list[Box]:
        return [Box(20, 20, 67, 67)]


def noise(count: int, side: int = 96) -> Iterator[NDArray[np.uint8]]:
    draw = np.random.default_rng(count)
    return (draw.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count))


def long_video(folder: Path, count: int) -> Video:
    path = encode(folder / f"v{count}.mp4", list(noise(count)), preset="ultrafast")
    return Video("toy", "real", 0, "train", "v", "v", path, "none")


def long_sequence(folder: Path, count: int) -> Video:
    path = folder / f"s{count}"
    path.mkdir()
    for number, image in enumerate(noise(count, 128)):
        cv2.imwrite(str(path / f"{number}.png"), image)
    return Video("toy", "real", 0, "train", "s", "s", path, "none", kind="crops")


@pytest.mark.parametrize("make", [long_video, long_sequence])
def test_memory_does_not_grow_with_the_length_of_a_video(make: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(make)
    monkeypatch.setattr(preprocessing.work, "PART_BYTES", 1 << 20)
    settings, peaks = Settings(size=128, image_format="png", sampling="every"), []
    preprocess([make(tmp_path, 2)], tmp_path / "first", settings, detector=Anywhere())  # what is loaded once
    for count in (75, 300):
        video = make(tmp_path, count)
        tracemalloc.start()
        summary = preprocess([video], tmp_path / f"store{count}", settings, detector=Anywhere())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert summary.counts["faces"] == count
    faces = 225 * 30_000  # bytes of the faces by which the two differ
    assert peaks[1] < peaks[0] + faces // 8


def test_parts_make_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip(tmp_path / "v.mp4", 40, face=lambda n: n % 9 != 3)
    video = Video("toy", "real", 0, "train", "v", "v", path, "none")
    settings = Settings(8, 64, sampling="fixed-stride", stride=3, top_up=True)
    once = Work(settings, Squares())(video)
    monkeypatch.setattr(preprocessing.work, "PART_BYTES", 10_000)
    parts = list(Work(settings, Squares()).parts(video))
    assert [part.part for part in parts] == list(range(len(parts)))
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    assert len(parts) > 2
    assert all(not part.rows for part in parts[:-1])
    for made in (whole(parts), whole([*parts[:2], *parts])):  # begun anew after two parts
        assert (made.rows, made.faces, made.error) == (once.rows, once.faces, None)
    assert sum(parts[-1].seconds.values()) > 0
    assert preprocess([video], tmp_path / "store", settings, detector=Squares()).counts["faces"] == len(once.faces)


def keys(store: Path, database: str) -> list[str]:
    with (
        lmdb.open(str(store / "faces.lmdb"), subdir=False, readonly=True, lock=False, max_dbs=len(DATABASES)) as env,
        env.begin(db=env.open_db(database.encode(), create=False)) as transaction,
    ):
        return [bytes(key).decode() for key in transaction.cursor().iternext(values=False)]


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
import preprocessing.work
from preprocessing.layouts import read_layout
from preprocessing.pipeline import Settings, preprocess
from preprocessing.writer import StoreWriter
from preprocessing_material import Squares
preprocessing.work.PART_BYTES = 10_000
found = read_layout({videos!r}, "folder", name="toy")
write, calls, fatal = StoreWriter._write, 0, 0
def counted(self, put):
    global calls
    calls += 1
    if calls == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, put)
StoreWriter._write = counted
for fatal in range(1, 99):
    child = os.fork()
    if not child:
        preprocess(found, {out!r}, Settings(size=64, sampling="every"), detector=Squares())
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print("killed" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    if not os.WIFSIGNALED(status):
        break
"""


def test_a_kill_before_every_write_leaves_no_half_video(tmp_path: Path) -> None:
    for name in ("a", "b"):
        clip(tmp_path / "videos" / f"{name}.mp4", 24)
    found = [Video("toy", "real", 0, "none", n, n, tmp_path / "videos" / f"{n}.mp4", "none") for n in ("a", "b")]
    preprocess(found, tmp_path / "whole", EVERY, detector=Squares())
    out = tmp_path / "store"
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

    code = KILLED.format(paths=paths, videos=str(tmp_path / "videos"), out=str(out))
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[-1] == "0"
    assert len(said) > 8
    assert set(said[:-1]) == {"killed"}
    assert_same(out, tmp_path / "whole")
    with FaceStore(out) as store:
        assert keys(out, "images") == keys(out, "landmarks") == sorted(store.manifest["key"])
    assert keys(out, "meta") == ["store"]


def part(video: Video, frames: list[int], number: int, more: bool) -> VideoFaces:
    done = Work(EVERY, Squares())(video)
    faces = [face for face in done.faces if face.frame in frames]
    return VideoFaces(video, [] if more else done.rows, faces, part=number, more=more)


def test_parts_without_an_end_do_not_count_and_are_dropped(tmp_path: Path) -> None:
    first, second = videos(tmp_path, 2)
    with StoreWriter(tmp_path / "store", EVERY.recorded(Squares())) as writer:
        writer.add(part(first, [0, 1, 2, 3], 0, more=True))
        writer.add(part(first, [4, 5], 1, more=True))
    assert keys(tmp_path / "store", "meta") == ["begun:toy/none/real/v0", "store"]
    assert len(keys(tmp_path / "store", "images")) == 6
    with open_store(tmp_path / "store") as store:
        assert store.info["counts"]["videos"] == len(store.ledger) == 0
        assert store.verify() == []
    assert preprocess([second], tmp_path / "store", EVERY, detector=Squares()).processed == 1, "the first is of no use here"
    assert keys(tmp_path / "store", "meta") == ["store"]
    assert len(keys(tmp_path / "store", "images")) == 12
    preprocess([second], tmp_path / "whole", EVERY, detector=Squares())
    assert_same(tmp_path / "store", tmp_path / "whole")


def test_a_video_that_begins_anew_leaves_nothing_of_its_first_try(tmp_path: Path) -> None:
    (video,) = videos(tmp_path, 1)
    below = Video("toy", "real", 0, "train", "w", "v0/0", video.path, "none")
    digits = Video("toy", "real", 0, "train", "x", "v0/000001", video.path, "none")
    with StoreWriter(tmp_path / "store", SMALL.recorded(Squares())) as writer:
        for other in (below, digits):
            writer.add(Work(SMALL, Squares())(other))
        writer.add(part(video, [0, 1, 2, 5], 0, more=True))
        assert len(list(writer.records())) == 2
        writer.add(part(video, [0, 1], 0, more=True))
        writer.add(unreadable(video, "decoding it ends the process"))
        assert len(list(writer.records())) == 3
        with writer._env.begin() as transaction:
            assert list(face_keys(transaction, writer._databases["images"], video.key)) == []
            assert len(list(face_keys(transaction, writer._databases["images"], below.key))) == 4
            assert len(list(face_keys(transaction, writer._databases["images"], digits.key))) == 4
        writer.add(Work(SMALL, Squares())(video))
        writer.add(unreadable(video, "it is gone"))  # in place of a whole one
        assert writer.finish()["counts"]["faces"] == 8
    assert len(keys(tmp_path / "store", "images")) == 8


def test_parts_come_in_order_and_again_after_a_crash() -> None:
    got: dict[int, list[object]] = {}
    for task, value in parallel(counting, [1, 2, 3], 2):
        got.setdefault(task, []).append("crash" if isinstance(value, Crash) else value)
    assert got[1] == [10, 11, 12, 13, 14]
    assert got[3] == [30, 31, 32, 33, 34]
    assert got[2] == [20, 21, 20, 21, "crash"], "one part is held back until the next is there"


def test_workers_make_the_same_store_of_long_videos(tmp_path: Path) -> None:
    """At the true size of a part."""
    made = [long_video(tmp_path, count) for count in (40, 41)]
    made = [Video("toy", "real", 0, "train", "v", v.path.stem, v.path, "none") for v in made]
    settings = Settings(size=256, image_format="png", sampling="every")
    assert len(list(Work(settings, Anywhere()).parts(made[0]))) > 1
    prints = {preprocess(made, tmp_path / f"store{w}", settings, workers=w, detector=Anywhere()).fingerprint for w in (1, 2)}
    assert len(prints) == 1
