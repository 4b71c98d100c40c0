"""Writing a store so that it can be killed at any moment.

A video's record appears in the LMDB transaction that brings the last of its faces. A long video comes in parts, a transaction each;
until its record is there a mark says that it was begun, and what is marked is dropped when the store is opened for writing again. A
store without store.json is unfinished and is continued by opening it so.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from preprocessing.begun import drop_some, is_there, mark, marked
from preprocessing.errors import PreprocessingError
from preprocessing.layouts import METADATA, Video
from preprocessing.notes import notes
from preprocessing.pages import check_length, fill_up
from preprocessing.store import (
    DATABASES,
    FACES,
    FORMAT,
    INFO,
    TABLES,
    Record,
    check_version,
    face_key,
    fingerprint,
    is_open_for_reading,
    table_rows,
)
from preprocessing.versions import library_versions
from preprocessing.work import STATUSES, VideoFaces

LOCK = "preprocess.lock"
ALMOST_NOTHING = 1 << 20
"""A disk with fewer bytes free is full: one video's faces do not fit."""

Result = TypeVar("Result")


class StoreWriter:
    """A store that is being written; use as a context manager. Only one process may hold it.

    Args:
        out: the store's folder; made where it does not exist.
        settings: `Settings.recorded`; a store is continued only under the same.
        map_size: LMDB's first limit on the file, bytes; it doubles whenever it is reached.

    Raises:
        PreprocessingError: if the folder cannot be written, another process writes it, or the store in it has another format
            version or other settings.
    """

    def __init__(self, out: Path, settings: dict[str, Any], map_size: int = 1 << 26) -> None:
        self.out, self.settings, self._map_size = out, settings, map_size

    def __enter__(self) -> StoreWriter:
        file = os.path.realpath(self.out / FACES)
        new = not os.path.lexists(self.out / FACES)
        made = next((folder for folder in reversed((self.out, *self.out.parents)) if not folder.exists()), None)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.out / LOCK)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise PreprocessingError(f"another process is writing to {self.out}; wait for it or give another folder") from None
        except OSError as error:
            _remove_folders(self.out, made)
            raise PreprocessingError(f"cannot write to {self.out}: {error.strerror}; give another folder") from error
        try:
            if is_open_for_reading(file):
                raise PreprocessingError(f"store {self.out} is open for reading in this process; close it first")
            try:
                self._env = lmdb.open(file, subdir=False, max_dbs=len(DATABASES), map_size=self._map_size)
                self._databases = {name: self._env.open_db(name.encode()) for name in DATABASES}
            except lmdb.Error as error:
                raise PreprocessingError(
                    f"{self.out / FACES} cannot be opened for writing: {reason(self.out, error)}; make room or give another folder"
                ) from error
            self._check_length()
            self._check_settings()
            self._drop_begun()
        except BaseException:
            if hasattr(self, "_env"):
                self._env.close()
            if new:
                _remove(self.out, made)
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if hasattr(self, "_env"):
            self._env.close()
        self._lock.release()

    def _check_length(self) -> None:
        if (self.out / INFO).exists():
            check_length(self.out / FACES, self._env)
        else:
            fill_up(self.out / FACES, self._env)

    def _check_settings(self) -> None:
        wanted = {"format": FORMAT, "settings": self.settings}
        with self._env.begin(db=self._databases["meta"]) as transaction:
            known = transaction.get(b"store")
        if known is None:
            self._write(lambda t: t.put(b"store", json.dumps(wanted).encode(), db=self._databases["meta"]))
            return
        found = json.loads(known)
        check_version(self.out, found["format"])
        # A setting that one of the two does not have stands for what the first stores did.
        for name in {**self.settings, **found["settings"]}:
            begun, value = (of.get(name, "its default") for of in (found["settings"], self.settings))
            if begun != value:
                raise PreprocessingError(f"store {self.out} was begun with {name} = {begun}, not {value}; give another folder")

    def records(self) -> Iterator[Record]:
        """What is in the store, one record per video, in order of keys."""
        with self._env.begin(db=self._databases["videos"]) as transaction:
            for _, value in transaction.cursor():
                yield json.loads(value)

    def begin(self) -> None:
        """Mark the store as unfinished; call before the first `add`."""
        (self.out / INFO).unlink(missing_ok=True)

    def add(self, done: VideoFaces) -> None:
        """Put one video into the store, or a part of it, in one transaction. A video that is already there is replaced.

        Until its last part is there, a video counts as not done: `records` does not have it.
        """
        key = done.video.key
        if done.part == 0:
            self._drop(key)

        def put(transaction: lmdb.Transaction) -> None:
            for face in done.faces:
                at = face_key(key, face.frame).encode()
                transaction.put(at, face.image, db=self._databases["images"])
                transaction.put(at, face.landmarks, db=self._databases["landmarks"])
                if face.mask is not None:
                    transaction.put(at, face.mask, db=self._databases["masks"])
            if done.more:
                transaction.put(mark(key), b"", db=self._databases["meta"])
            else:
                transaction.put(key.encode(), json.dumps(to_record(done)).encode(), db=self._databases["videos"])
                transaction.delete(mark(key), db=self._databases["meta"])

        self._write(put)

    def _drop(self, key: str) -> None:
        """Forget a video that is there, whole or in part."""
        with self._env.begin() as transaction:
            dropping = is_there(transaction, self._databases, key)
        while dropping:
            dropping = self._write(lambda t: drop_some(t, self._databases, key))

    def _drop_begun(self) -> None:
        with self._env.begin() as transaction:
            keys = marked(transaction, self._databases)
        for key in keys:
            self._drop(key)

    def finish(self) -> dict[str, Any]:
        """Write the tables and, last and atomically, store.json. Returns its content."""
        info = {
            "format": FORMAT,
            "fingerprint": fingerprint(self.settings, self.records()),
            "settings": self.settings,
            "counts": count(self.records()),
            "notes": notes(self.records()),
            "libraries": library_versions(),
        }
        try:
            fill_up(self.out / FACES, self._env)
            for name, columns in TABLES.items():
                write_table(_beside(self.out / name), columns, self.records())
            _beside(self.out / INFO).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
            for name in (*TABLES, INFO):
                with _beside(self.out / name).open("rb+") as file:
                    os.fsync(file.fileno())
                os.replace(_beside(self.out / name), self.out / name)
        except OSError as error:
            for name in (*TABLES, INFO):
                _beside(self.out / name).unlink(missing_ok=True)
            raise PreprocessingError(
                f"cannot write to {self.out}: {reason(self.out, error)}; what is done is kept: make room and run preprocess again"
            ) from error
        return info

    def _write(self, put: Callable[[lmdb.Transaction], Result]) -> Result:
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    return put(transaction)
            except lmdb.MapFullError:
                # The aborted transaction left nothing behind: enlarge the map and do it again.
                self._enlarge(2 * int(self._env.info()["map_size"]))
            except (lmdb.Error, OSError) as error:
                raise PreprocessingError(
                    f"cannot write to {self.out / FACES}: {reason(self.out, error)}; what is done is kept: make room and run"
                    " preprocess again"
                ) from error

    def _enlarge(self, size: int) -> None:
        try:
            self._env.set_mapsize(size)
        except lmdb.Error as error:
            raise PreprocessingError(
                f"{self.out / FACES} cannot grow: this process may not map {size >> 20} MB of addresses ({error}); what is done is"
                " kept: lift the limit on its virtual memory (ulimit -v) and run preprocess again"
            ) from error


def reason(folder: Path, error: Exception) -> str:
    """Why writing failed, in words that help: LMDB reports a full disk as an input/output error."""
    free = shutil.disk_usage(folder).free
    if free < ALMOST_NOTHING or getattr(error, "errno", None) == errno.ENOSPC:
        return f"its disk is full ({free / 1e6:.1f} MB free)"
    said = getattr(error, "strerror", None) or str(error)
    if isinstance(error, lmdb.Error):
        return f"{said} ({free / 1e6:.0f} MB are free; a quota or a limit on file sizes may be reached, or the disk fails)"
    return said


def _remove(out: Path, made: Path | None) -> None:
    """Leave nothing of a store that could not be begun: its files and, where folders were made for it, those."""
    for name in (FACES, f"{FACES}-lock", *((LOCK,) if made else ())):
        with contextlib.suppress(OSError):
            (out / name).unlink()
    _remove_folders(out, made)


def _remove_folders(out: Path, made: Path | None) -> None:
    for folder in (out, *out.parents) if made else ():
        with contextlib.suppress(OSError):  # it was not made after all, or somebody else uses it
            folder.rmdir()
        if folder == made:
            return


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp")


def to_record(done: VideoFaces) -> Record:
    """What a store knows of one video."""
    frames = [[row.frame, row.status, row.reason, row.digest] for row in done.rows]
    # Only where it is so: the records of other stores stay what they were.
    given = {"aligned": False} if done.video.kind == "crops" else {}
    sized = {} if done.size is None else {"size": done.size}
    return {**describe(done.video), **given, **sized, "error": done.error, "frames": frames}


def describe(video: Video) -> dict[str, Any]:
    """The metadata of a video that a store keeps: METADATA, no paths."""
    return {field: getattr(video, field) for field in METADATA}


def count(records: Iterable[Record]) -> dict[str, Any]:
    """Totals of a store: videos, unreadable videos, faces, sampled frames by status."""
    videos = unreadable = 0
    statuses: Counter[str] = Counter()
    for record in records:
        videos += 1
        unreadable += record["error"] is not None
        statuses.update(status for _, status, _, _ in record["frames"])
    frames = {status: statuses[status] for status in STATUSES}
    return {"videos": videos, "unreadable_videos": unreadable, "faces": statuses["face"], "frames": frames}


def write_table(file: Path, columns: list[str], records: Iterable[Record]) -> None:
    """The manifest or the ledger as parquet, a thousand videos at a time: all rows of a big dataset need not fit into memory."""
    schema = pa.schema([(c, pa.int64() if c in ("label", "frame") else pa.string()) for c in columns])
    remaining = iter(records)
    with pq.ParquetWriter(file, schema) as writer:
        while part := list(islice(remaining, 1000)):
            rows = [dict(zip(columns, row, strict=True)) for record in part for row in table_rows(record, columns)]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
