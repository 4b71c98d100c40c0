"""A store's faces decoded once for all processes: a memory map beside the store, or a face at a time where there can be none."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich import filesize

from preprocessing.store import FaceStore

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class DecodedImages:
    """Faces of a store at one size, in the order of its manifest, decoded each time that they are asked for.

    Args:
        store: the store.
        size: side of the faces in pixels.

    Attributes:
        shape: (M, S, S, 3).

    Raises:
        PreprocessingError: a face that cannot be read, here and wherever one is asked for.
    """

    def __init__(self, store: FaceStore, size: int) -> None:
        self._store, self._keys = store, store.manifest["key"].to_numpy()
        self.shape = (len(self._keys), size, size, 3)
        if len(self):
            self[0]  # opens the store's file, once for all threads that read faces later

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """One face: (S, S, 3) uint8 RGB."""
        return resize(self._store.image(self._keys[index]), self.shape[1])


SPOTS = 8
"""Faces of a cache that are compared with the store whenever it is opened."""

Images: TypeAlias = NDArray[np.uint8] | DecodedImages
"""Faces of a whole store, (M, S, S, 3) uint8 RGB."""


class CachedImages:
    """Decoded faces of a store at one size, in the order of its manifest: a memory map that all processes share.

    The file is made once per store, content and size, in the store's folder, and made again where it does not hold the store's
    faces (some are looked at; `cache_problems` looks at all). Where it can be neither found nor made there (no room,
    or a read-only disk), faces are decoded from the store each time that they are asked for: the same ones to the bit.

    Args:
        store: the store.
        size: side of the faces in pixels.
        progress: called while the file is being made.
        tell: told, in a sentence, that there is no file and why, or that it was wrong.

    Attributes:
        images: the faces.
    """

    def __init__(
        self, store: FaceStore, size: int, progress: Progress | None = None, tell: Callable[[str], object] = warnings.warn
    ) -> None:
        count = len(store.manifest)
        shape = (count, size, size, 3)
        folder = Path(store.path) / "cache"
        path = _cache(store, size)
        self.images: Images
        was_open = store.is_open
        try:
            if not _is_sound(store, path, shape):
                folder.mkdir(exist_ok=True)
                with FileLock(path.with_suffix(".lock")):
                    if not _is_sound(store, path, shape):
                        if _is_whole(path, shape):
                            tell(f"{path} does not hold its store's faces and is made again: it is damaged, or of another OpenCV")
                        self._fill(store, path, shape, progress)
            self.images = np.memmap(path, dtype=np.uint8, mode="r", shape=shape) if count else np.empty(shape, np.uint8)
        except OSError as error:
            tell(
                f"{folder} cannot hold decoded faces ({error.strerror or error}): they are decoded from the store whenever they "
                "are read, which takes longer and changes no number; make room there, or let it be written to"
            )
            self.images = DecodedImages(store, size)
            return
        if not was_open:
            store.close()

    @staticmethod
    def _fill(store: FaceStore, path: Path, shape: tuple[int, int, int, int], progress: Progress | None) -> None:
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)  # of a process that was killed; it takes room
        need, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
        if need > free:
            raise OSError(errno.ENOSPC, f"{filesize.decimal(need)} are needed and {filesize.decimal(free)} free")
        try:
            with part.open("wb") as file:
                for done, key in enumerate(store.manifest["key"], start=1):
                    file.write(resize(store.image(key), shape[1]).tobytes())
                    if progress:
                        progress(done, shape[0])
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.replace(path)


def cache_problems(store: FaceStore, progress: Progress | None = None) -> Iterator[str]:
    """One sentence for each cache of the store that does not hold its faces; every face is compared."""
    files = [
        path
        for path in sorted((Path(store.path) / "cache").glob(f"*px-{store.fingerprint[:16]}.u8"))
        if path.name.partition("px-")[0].isdecimal()
    ]
    count = len(store.manifest)
    for number, path in enumerate(files):
        size = int(path.name.partition("px-")[0])
        shape = (count, size, size, 3)
        if not count or not _is_whole(path, shape):
            continue  # nothing reads it

        def onwards(done: int, before: int = number * count) -> None:
            if progress:
                progress(before + done, len(files) * count)

        wrong = _foreign(store, path, shape, range(count), onwards)
        if wrong:
            yield (
                f"{path}: {len(wrong)} of {count} decoded faces are not the store's, the first is "
                f"{store.manifest['key'].iloc[wrong[0]]}; delete the file (it is made again), and run again what was made with it"
            )


def _cache(store: FaceStore, size: int) -> Path:
    return Path(store.path) / "cache" / f"{size}px-{store.fingerprint[:16]}.u8"


def _is_whole(path: Path, shape: tuple[int, int, int, int]) -> bool:
    """Whether a cache is there. It takes its name when it is whole, so no lock is needed to see it."""
    return path.exists() and path.stat().st_size == int(np.prod(shape))


def _is_sound(store: FaceStore, path: Path, shape: tuple[int, int, int, int]) -> bool:
    """Whether a cache is there, and some faces in it, evenly spread, are the store's."""
    spots = sorted({shape[0] * spot // SPOTS for spot in range(SPOTS)}) if shape[0] else []
    return _is_whole(path, shape) and not (spots and _foreign(store, path, shape, spots))


def _foreign(
    store: FaceStore,
    path: Path,
    shape: tuple[int, int, int, int],
    places: Sequence[int],
    onwards: Callable[[int], None] = lambda done: None,
) -> list[int]:
    """The places at which a cache has another face than the store; `onwards` is told how many were looked at."""
    cached, decoded = np.memmap(path, dtype=np.uint8, mode="r", shape=shape), DecodedImages(store, shape[1])
    wrong = []
    for done, place in enumerate(places, start=1):
        if not np.array_equal(cached[place], decoded[place]):
            wrong.append(place)
        onwards(done)
    return wrong


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 -> (size, size, 3) uint8; INTER_AREA to shrink, INTER_CUBIC to enlarge, untouched where the size fits."""
    if image.shape[:2] == (size, size):
        return image
    shrink = image.shape[0] > size
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC), np.uint8)
