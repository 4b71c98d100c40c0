"""An LMDB in DeepfakeBench's form."""

from __future__ import annotations

from pathlib import Path

import lmdb

from preprocessing.errors import PreprocessingError


class LmdbWriter:
    """An LMDB whose keys are paths with back-slashes; it grows as it must.

    Args:
        folder: the LMDB's folder; made where it does not exist.

    Raises:
        PreprocessingError: if it cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        try:
            self.env = lmdb.open(str(folder), map_size=1 << 26)
        except lmdb.Error as error:
            raise PreprocessingError(f"{folder} cannot be opened for writing: {error}; give another folder") from error

    def put(self, values: dict[str, bytes]) -> None:
        """Files under their paths, with back-slashes, in one transaction."""
        while True:
            try:
                with self.env.begin(write=True) as transaction:
                    for path, data in values.items():
                        transaction.put(path.replace("/", "\\").encode(), data)
                return
            except lmdb.MapFullError:
                self.env.set_mapsize(2 * int(self.env.info()["map_size"]))
            except lmdb.Error as error:
                raise PreprocessingError(f"cannot write to {self.folder}: {error}; make room and export again") from error

    def close(self) -> None:
        """Finish the file."""
        self.env.close()
