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
from preprocessing.quiet import no_stderr

ARCHIVES = (".tar.gz", ".tgz", ".tar")
LAST_NUMBER = 10**9
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


def list_images(path: Path, inside: str) -> tuple[dict[int, str], list[str]]:
    """The images of one sequence: frame number -> file name, in order; and a sentence for each image without a number of its own.

    Args:
        path: a folder, or an archive.
        inside: the sequence's folder in the archive; "" for a folder.

    Raises:
        OSError, EOFError, tarfile.TarError: if it cannot be read.
    """
    if inside:
        with tarfile.open(path) as archive:
            names = [m.name for m in archive if m.isfile() and PurePosixPath(m.name).parent.as_posix() == inside]
    else:
        names = [entry.name for entry in os.scandir(path) if entry.is_file()]
    table: dict[int, str] = {}
    odd: list[str] = []
    for name in sorted({name for name in names if _is_image(name)}):
        base, stem = PurePosixPath(name).name, PurePosixPath(name).stem
        # Names of any bytes are legal; the ledger holds text.
        said = base.encode(errors="backslashreplace").decode()
        if not stem.isdecimal() or int(stem) > LAST_NUMBER:
            odd.append(f"image name '{said}' is no frame number")
        elif table.setdefault(int(stem), name) != name:
            odd.append(f"image '{said}' has the frame number of '{PurePosixPath(table[int(stem)]).name}'")
    return dict(sorted(table.items())), odd


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
    with no_stderr():
        image = read_image(data, cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
