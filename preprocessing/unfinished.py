"""Looking at a store that is not done: what a run that was ended, by a full disk say, has put into it so far."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import lmdb
import pandas as pd
from filelock import FileLock, Timeout

from preprocessing.errors import PreprocessingError
from preprocessing.pages import check_length, fill_up
from preprocessing.store import (
    DATABASES,
    FACES,
    INFO,
    LEDGER_COLUMNS,
    MANIFEST_COLUMNS,
    FaceStore,
    check_version,
    fingerprint,
    read_info,
    table_rows,
)
from preprocessing.writer import LOCK, count


class UnfinishedStore(FaceStore):
    """The whole videos of a store without store.json, read as if they were all. Training on it is not meant: `FaceStore` refuses.

    Its lock is held until `close`, so that no run writes to it meanwhile.

    Args:
        path: the store's folder.

    Raises:
        PreprocessingError: if there is no store, a run is writing to it, nothing is in it yet, or its format version is another.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._counted = False
        if not (self.path / FACES).exists():
            read_info(self.path)  # says what is missing
        self._lock: FileLock | None = FileLock(self.path / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise PreprocessingError(f"another process is writing to {self.path}; look at it when that is done") from None
        except OSError:
            self._lock = None  # a disk that cannot be written to is not being written to
        self._file = str((self.path / FACES).resolve())
        try:
            begun = self._begun()
            if begun is None:
                raise PreprocessingError(f"store {self.path} was begun and holds nothing yet; run preprocess again")
            check_version(self.path, begun["format"])
            self.info = {
                "format": begun["format"],
                "fingerprint": fingerprint(begun["settings"], self.records()),
                "settings": begun["settings"],
                "counts": count(self.records()),
            }
        except lmdb.Error as error:
            self.close()
            raise PreprocessingError(f"{self.path / FACES} cannot be opened: {error}; run preprocess again") from error
        except BaseException:
            self.close()
            raise

    def _begun(self) -> dict[str, Any] | None:
        """Format and settings, unless the run ended before it wrote them."""
        with lmdb.open(self._file, subdir=False, readonly=True, lock=False, max_dbs=len(DATABASES)) as env:
            if self._lock is not None:
                fill_up(self._file, env)
            check_length(self._file, env)
            try:
                with env.begin(db=env.open_db(b"meta", create=False)) as transaction:
                    value = transaction.get(b"store")
            except lmdb.NotFoundError:
                return None
        return None if value is None else dict(json.loads(value))

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """See `FaceStore.manifest`; of the videos that are there."""
        return self._rows(MANIFEST_COLUMNS)

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """See `FaceStore.ledger`; of the videos that are there."""
        return self._rows(LEDGER_COLUMNS)

    def close(self) -> None:
        """Give LMDB and the lock back."""
        super().close()
        lock = getattr(self, "_lock", None)  # a pickled copy has none
        if lock is not None:
            lock.release()

    def _rows(self, columns: list[str]) -> pd.DataFrame:
        return pd.DataFrame([row for record in self.records() for row in table_rows(record, columns)], columns=columns)


def open_store(path: str | Path) -> FaceStore:
    """A finished store, or what there is of an unfinished one; for looking at.

    Raises:
        PreprocessingError: as `FaceStore` and `UnfinishedStore`.
    """
    folder = Path(path).expanduser()
    if (folder / FACES).exists() and not (folder / INFO).exists():
        return UnfinishedStore(folder)
    return FaceStore(folder)
