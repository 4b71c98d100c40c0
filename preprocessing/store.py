"""The face store: what it looks like on disk, and reading it.

A store is a folder:

    faces.lmdb        images, landmarks and masks under one POSIX key per face, and one record per video
    manifest.parquet  one row per face
    ledger.parquet    one row per sampled frame, with its status; frame -1 stands for a video that gives no frame
    store.json        format, fingerprint, settings, library versions, counts; written last, so its existence means done

The fingerprint is a SHA-256 over the settings that change content, every video's metadata, every sampled frame's status and every
face's decoded content, in order of keys. It knows nothing of paths, page layout, image format, workers or the order of completion.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import lmdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preprocessing import codec
from preprocessing.errors import PreprocessingError
from preprocessing.layouts import METADATA
from preprocessing.pages import check_length

FORMAT = 1
FACES, MANIFEST, LEDGER, INFO = "faces.lmdb", "manifest.parquet", "ledger.parquet", "store.json"
DATABASES = ("images", "landmarks", "masks", "videos", "meta")
MANIFEST_COLUMNS = ["dataset", "method", "label", "split", "identity", "video", "frame", "key", "compression"]
LEDGER_COLUMNS = ["dataset", "method", "label", "split", "identity", "video", "frame", "status", "reason", "compression"]
TABLES = {MANIFEST: MANIFEST_COLUMNS, LEDGER: LEDGER_COLUMNS}
NOT_CONTENT = ("image_format", "json_sha256")
"""Settings that do not change a face's content, and so not the fingerprint."""

Record = dict[str, Any]
"""What a store knows of one video: METADATA, "error", "frames": a list of [frame, status, reason, digest], and "aligned": False
where the dataset came as cut-out faces, "size": bytes of the file where it is one; neither is part of the fingerprint."""


def face_key(video_key: str, frame: int) -> str:
    """The key of one face: "<dataset>/<compression>/<method>/<video>/<frame:06d>"."""
    return f"{video_key}/{frame:06d}"


def video_key(record: Record) -> str:
    """The key of one video: "<dataset>/<compression>/<method>/<video>"."""
    return "/".join(record[field] for field in ("dataset", "compression", "method", "video"))


def table_rows(record: Record, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """A video's rows in the manifest (where `columns` has "key": faces only) or in the ledger."""
    for frame, status, reason, _ in record["frames"]:
        if status == "face" or "key" not in columns:
            row = {**record, "frame": frame, "status": status, "reason": reason, "key": face_key(video_key(record), frame)}
            yield tuple(row[column] for column in columns)


def lacks_frames(record: Record) -> bool:
    """Whether a video, or a frame sampled from it, could not be read."""
    return any(status == "unreadable" for _, status, _, _ in record["frames"])


def fingerprint(settings: dict[str, Any], records: Iterable[Record]) -> str:
    """SHA-256 of a store's content; `records` in order of their keys' bytes, which is LMDB's order."""
    total = hashlib.sha256()
    total.update(_canonical({"format": FORMAT, **{k: v for k, v in settings.items() if k not in NOT_CONTENT}}))
    for record in records:
        # Reasons are left out: their wording may change with a library's version.
        frames = [[frame, status, digest] for frame, status, _, digest in record["frames"]]
        total.update(_canonical({**{field: record[field] for field in METADATA}, "frames": frames}))
    return total.hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


@dataclass
class _Environment:
    """An open LMDB file. LMDB forbids a second opening in one process, so readers in one process share it."""

    pid: int
    env: lmdb.Environment
    databases: dict[str, Any]
    users: int


_ENVIRONMENTS: dict[str, _Environment] = {}
_OPENING = threading.RLock()
"""Held while one is opened or closed: by several threads, or by the garbage collector in the midst of an opening."""


def open_for_reading(file: str) -> _Environment:
    """The shared environment of `file` in this process; opened anew in a forked child, which must not use its parent's."""
    with _OPENING:
        return _open_for_reading(file)


def _open_for_reading(file: str) -> _Environment:
    known = _ENVIRONMENTS.get(file)
    if known is not None and known.pid == os.getpid():
        return known
    if known is not None:
        known.env.close()
    # Without locks: a finished store is never written to while it has readers, and it may lie on a read-only disk.
    env = lmdb.open(file, subdir=False, readonly=True, lock=False, readahead=False, max_dbs=len(DATABASES))
    try:
        check_length(file, env)
        databases = {name: env.open_db(name.encode(), create=False) for name in DATABASES}
    except BaseException:
        env.close()
        raise
    _ENVIRONMENTS[file] = _Environment(os.getpid(), env, databases, known.users if known else 0)
    return _ENVIRONMENTS[file]


def is_open_for_reading(file: str) -> bool:
    """Whether this process holds `file` open."""
    return file in _ENVIRONMENTS


class FaceStore:
    """A finished store, for reading. Cheap to open and to pickle; LMDB is opened at the first face, once per process.

    Args:
        path: the store's folder.

    Raises:
        PreprocessingError: if there is no store, it is unfinished, or its format version is another.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self.info: dict[str, Any] = read_info(self.path)
        self._file = os.path.realpath(self.path / FACES)
        self._counted = False

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content, as recorded; `verify` computes it anew."""
        return str(self.info["fingerprint"])

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """One row per face: dataset, method, label, split, identity, video, frame, key, compression; sorted by key."""
        return self._table(MANIFEST)

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """One row per sampled frame: as the manifest, with status and reason instead of key; frame -1 is a whole video."""
        return self._table(LEDGER)

    def image(self, key: str) -> NDArray[np.uint8]:
        """The aligned face under `key`: RGB (S, S, 3) uint8.

        Raises:
            PreprocessingError: if the store has no such face, or its bytes are damaged.
        """
        return codec.decode_image(self._need("images", key))

    def landmarks(self, key: str) -> NDArray[Any]:
        """The landmarks under `key`: (L, 2) float32, x and y in pixels of the image; L is 0 where a crop came without any.

        Raises:
            PreprocessingError: if the store has no such face.
        """
        return codec.decode_array(self._need("landmarks", key))

    def mask(self, key: str) -> NDArray[np.uint8] | None:
        """The mask of the forged region under `key`: (S, S) uint8, 0 or 255; None where there is none."""
        data = self._get("masks", key)
        return None if data is None else codec.decode_mask(data)

    def records(self) -> Iterator[Record]:
        """Everything known of each video, in order of keys."""
        with self._reading("videos") as transaction:
            for _, value in transaction.cursor():
                yield json.loads(value)

    def verify(self, on_progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Decode every face and compute the fingerprint anew.

        Args:
            on_progress: called with (faces done, all faces) after each video.

        Returns:
            One sentence per problem; empty for a sound store.
        """
        from preprocessing.verify import problems

        return list(problems(self, on_progress))

    @property
    def is_open(self) -> bool:
        """Whether the store has read a face and not given LMDB back since."""
        return self._counted

    def close(self) -> None:
        """Give LMDB back; the store opens it again when asked for a face."""
        with _OPENING:
            known = _ENVIRONMENTS.get(self._file)
            if self._counted and known is not None:
                known.users -= 1
                if known.users <= 0:
                    del _ENVIRONMENTS[self._file]
                    known.env.close()
            self._counted = False

    def __enter__(self) -> FaceStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_counted", False):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        # Tables and LMDB handles are opened again where they are needed.
        return {"path": self.path, "info": self.info, "_file": self._file, "_counted": False}

    def __repr__(self) -> str:
        return f"FaceStore({str(self.path)!r}, faces={self.info['counts']['faces']}, fingerprint={self.fingerprint[:12]})"

    def _counted_in(self) -> _Environment:
        """The shared environment, which stays open as long as this store."""
        with _OPENING:
            while True:
                shared = open_for_reading(self._file)
                shared.users += 1
                if _ENVIRONMENTS.get(self._file) is shared:  # else its last user was collected just before it was counted up
                    self._counted = True
                    return shared

    @contextmanager
    def _reading(self, database: str) -> Iterator[Any]:
        try:
            shared = self._counted_in() if not self._counted else open_for_reading(self._file)
        except lmdb.Error as error:
            raise PreprocessingError(f"{self.path / FACES} cannot be opened: {error}; preprocess into another folder") from error
        try:
            with shared.env.begin(db=shared.databases[database]) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise PreprocessingError(f"{self.path / FACES} is damaged: {error}; copy it again, or preprocess anew") from error

    def _get(self, database: str, key: str) -> bytes | None:
        with self._reading(database) as transaction:
            value: bytes | None = transaction.get(key.encode())
            return value

    def _need(self, database: str, key: str) -> bytes:
        value = self._get(database, key)
        if value is None:
            raise PreprocessingError(f"store {self.path} has no face '{key}' in its {database}; take keys from its manifest")
        return value

    def _table(self, name: str) -> pd.DataFrame:
        try:
            return pd.read_parquet(self.path / name)
        except (OSError, ValueError) as error:
            raise PreprocessingError(f"{self.path / name} cannot be read; run preprocess again: {error}") from error


def read_info(path: Path) -> dict[str, Any]:
    """The content of store.json.

    Raises:
        PreprocessingError: if there is no store at `path`, it is unfinished, damaged, or of another format version.
    """
    file = path / INFO
    if not file.is_file():
        if (path / FACES).exists():
            raise PreprocessingError(f"store {path} is unfinished; run preprocess again with the same settings to complete it")
        raise PreprocessingError(f"no face store at {path}; make one with preprocess")
    try:
        info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = info["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise PreprocessingError(f"{file} is damaged; delete it and run preprocess again to write it anew") from error
    check_version(path, version)
    return info


def check_version(path: Path, version: object) -> None:
    """Refuse a store of another format version.

    Raises:
        PreprocessingError: naming both versions.
    """
    if version != FORMAT:
        raise PreprocessingError(
            f"store {path} has format version {version}, this program reads version {FORMAT}; preprocess it anew"
        )
