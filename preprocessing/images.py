"""Sequences of numbered images, in a folder or in a tar archive: which there are, and reading some of them."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocessing.codec import read_image
from preprocessing.errors import PreprocessingError

ARCHIVES = (".tar.gz", ".tgz", ".tar")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

Image = NDArray[np.uint8]


def is_archive(path: Path) -> bool:
    """Whether the name is that of a tar archive."""
    return path.name.lower().endswith(ARCHIVES) and path.is_file()


def has_images(folder: Path) -> bool:
    """Whether an image lies anywhere below a folder."""
    return any(_is_image(file) for _, _, files in os.walk(folder, followlinks=True) for file in files)


def find_sequences(source: Path) -> list[str]:
    """Every folder below `source` (a folder or an archive) that holds images, relative with slashes ("." for the top), sorted.

    Raises:
        OSError, EOFError, tarfile.TarError: if an archive cannot be read to its end.
    """
    if source.is_dir():
        found = set()
        for here, folders, files in os.walk(source, followlinks=True):
            folders[:] = [f for f in folders if not f.startswith(".")]
            if any(_is_image(f) for f in files):
                found.add(Path(here).relative_to(source).as_posix())
        return sorted(found)
    with tarfile.open(source) as archive:
        return sorted({PurePosixPath(m.name).parent.as_posix() for m in archive if m.isfile() and _is_image(m.name)})


def list_images(path: Path, inside: str) -> dict[int, str]:
    """Frame number -> file name, of one sequence, in order.

    Args:
        path: a folder, or an archive.
        inside: the sequence's folder in the archive; "" for a folder.

    Raises:
        OSError, EOFError, tarfile.TarError: if it cannot be read.
        PreprocessingError: if an image's name is no number, or two have one number.
    """
    if inside:
        with tarfile.open(path) as archive:
            names = [m.name for m in archive if m.isfile() and PurePosixPath(m.name).parent.as_posix() == inside]
    else:
        names = [entry.name for entry in os.scandir(path) if entry.is_file()]
    table: dict[int, str] = {}
    for name in filter(_is_image, names):
        stem = PurePosixPath(name).stem
        if not stem.isdecimal():
            raise PreprocessingError(f"image name '{PurePosixPath(name).name}' is no frame number")
        if int(stem) in table:
            raise PreprocessingError(f"two images have the frame number {int(stem)}")
        table[int(stem)] = name
    return dict(sorted(table.items()))


def read_images(path: Path, inside: str, names: Iterable[str]) -> Iterator[tuple[str, Image | None]]:
    """The named images of a sequence: (name, RGB (H, W, 3) or None where it cannot be decoded), in the order of the archive."""
    if not inside:
        for name in names:
            try:
                yield name, _decode((path / name).read_bytes())
            except OSError:
                yield name, None
        return
    missing = set(names)
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name in missing:
                missing.discard(member.name)
                file = archive.extractfile(member)
                yield member.name, _decode(file.read()) if file is not None else None
                if not missing:
                    return


def _is_image(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.lower().endswith(SUFFIXES) and not base.startswith(".")


def _decode(data: bytes) -> Image | None:
    image = read_image(data, cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
