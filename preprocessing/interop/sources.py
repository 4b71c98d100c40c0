"""Where the faces of a JSON lie: a folder of PNG files, or an LMDB. Matched by the tail of their paths.

What may be cut from a path is what all paths of a dataset share, so that no two of them can meet in one file.
"""

from __future__ import annotations

import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import lmdb

from preprocessing.errors import PreprocessingError
from preprocessing.interop.index import Entry, Place, parts_of

PROBES = 64
"""Frames with which the place of a dataset is found."""
SEPARATORS = ("mixed", "\\", "/")


class Source(ABC):
    """A place with frames, landmarks and masks of one dataset. Picklable, so that worker processes can be given one."""

    @abstractmethod
    def read(self, place: Place) -> bytes | None:
        """The bytes at `place`, or None where there is nothing."""

    @abstractmethod
    def below(self, place: Place) -> Iterator[Place]:
        """The places two levels below `place` ("frames" -> video, file)."""


class Folder(Source):
    """PNG and NPY files.

    Args:
        root: what the first part that is kept lies in.
        cut: parts of a place to leave out.
    """

    def __init__(self, root: Path, cut: int) -> None:
        self.root, self.cut = root, cut

    def read(self, place: Place) -> bytes | None:
        """See `Source`."""
        tail = os.path.join(*place[self.cut :])
        for name in dict.fromkeys((tail, unicodedata.normalize("NFC", tail), unicodedata.normalize("NFD", tail))):
            try:
                return (self.root / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                return None
        return None

    def below(self, place: Place) -> Iterator[Place]:
        """See `Source`."""
        for file in sorted(self.root.joinpath(*place[self.cut :]).glob("*/*.png")):
            yield (*place, file.parent.name, file.name)


class Lmdb(Source):
    """An LMDB whose keys are paths, with slashes, back-slashes, or a back-slash after the dataset's name and slashes elsewhere.

    Args:
        file: the LMDB's folder, or its data file.
        before: parts to put before a place.
        cut: parts of a place to leave out.
        separator: the way to write keys that is tried first.
    """

    def __init__(self, file: Path, before: Place, cut: int, separator: str) -> None:
        self.file, self.before, self.cut, self.separator = file, before, cut, separator

    def read(self, place: Place) -> bytes | None:
        """See `Source`."""
        parts = (*self.before, *place[self.cut :])
        with open_lmdb(self.file).begin() as transaction:
            for separator in (self.separator, *(s for s in SEPARATORS if s != self.separator)):
                value: bytes | None = transaction.get(key_of(parts, separator))
                if value is not None:
                    return value
        return None

    def below(self, place: Place) -> Iterator[Place]:
        """See `Source`."""
        parts = (*self.before, *place[self.cut :])
        seen = set()
        with open_lmdb(self.file).begin() as transaction:
            for separator in SEPARATORS:
                start = key_of((*parts, ""), separator)
                cursor = transaction.cursor()
                if start in seen or not cursor.set_range(start):
                    continue
                seen.add(start)
                for key in cursor.iternext(values=False):
                    if not bytes(key).startswith(start):
                        break
                    tail = parts_of(bytes(key)[len(start) :].decode(errors="replace"))
                    if len(tail) == 2:
                        yield (*place, *tail)


def key_of(parts: Place, separator: str) -> bytes:
    """The key of a place in an LMDB."""
    if separator == "mixed":
        return "\\".join((parts[0], "/".join(parts[1:]))).encode() if len(parts) > 1 else parts[0].encode()
    return separator.join(parts).encode()


_OPEN: dict[str, lmdb.Environment] = {}


def open_lmdb(file: Path) -> lmdb.Environment:
    """An LMDB to read from, never written to, not even its lock; opened once per process, as LMDB demands.

    Raises:
        PreprocessingError: if it cannot be opened.
    """
    name = os.path.realpath(file)
    if name not in _OPEN:
        _OPEN[name] = _open(file)
    return _OPEN[name]


def close_lmdbs() -> None:
    """Close what `open_lmdb` opened in this process."""
    while _OPEN:
        _OPEN.popitem()[1].close()


def _open(file: Path) -> lmdb.Environment:
    try:
        return lmdb.open(str(file), subdir=file.is_dir(), readonly=True, lock=False, readahead=False, create=False)
    except lmdb.Error as error:
        raise PreprocessingError(f"{file} cannot be opened as an LMDB: {error}") from error


def shared(entries: Sequence[Entry]) -> int:
    """How many leading parts all places share; the last three (frames, video, file) never count."""
    places = [place for entry in entries for place in (next(iter(entry.frames.values())), next(reversed(entry.frames.values())))]
    least = min(len(place) for place in places)
    length = 0
    while length < least - 3 and len({place[length] for place in places}) == 1:
        length += 1
    return length


def probes(entries: Sequence[Entry]) -> list[Place]:
    """Some places, evenly spread over the videos."""
    step = max(1, len(entries) // PROBES)
    return [next(iter(entry.frames.values())) for entry in entries[::step]]


def find_folder(root: Path, entries: Sequence[Entry]) -> Source:
    """Where in `root` the frames of a dataset lie.

    Args:
        root: the folder of all datasets, the dataset's own, or any folder that all its frames share.
        entries: the dataset's videos, all with frames.

    Raises:
        PreprocessingError: if the folder is missing or has none of the frames.
    """
    if not root.is_dir():
        raise PreprocessingError(f"{root} is {'no folder' if root.exists() else 'missing'}; give the folder with the PNG frames")
    asked = probes(entries)
    candidates = [
        Folder(base, cut)
        for base in (root, root / entries[0].home, root / "rgb", root / "datasets" / "rgb")
        for cut in range(shared(entries) + 1)
    ]
    best = max(candidates, key=partial(_hits, asked=asked))
    if _hits(best, asked) == 0:
        name, example = entries[0].dataset, "/".join(asked[0])
        raise PreprocessingError(
            f"{root} has none of the frames that the JSON lists for {name}, e.g. {example}; give the folder that holds "
            f"'{asked[0][0]}' or one below it"
        )
    return best


def find_lmdb(root: Path, entries: Sequence[Entry]) -> Source:
    """Which LMDB at `root` holds the frames of a dataset, and how its keys are written.

    Args:
        root: an LMDB's folder (or data file), or the folder that holds "<dataset>_lmdb".
        entries: the dataset's videos, all with frames.

    Raises:
        PreprocessingError: if there is no LMDB, or it has none of the frames.
    """
    home, asked = entries[0].home, probes(entries)
    candidates = (root, root / f"{entries[0].dataset}_lmdb", root / f"{home}_lmdb")
    file = next((c for c in candidates if c.is_file() or (c / "data.mdb").is_file()), None)
    if file is None:
        raise PreprocessingError(f"{root} holds no LMDB (data.mdb) and no folder {home}_lmdb with one; give the LMDB's folder")
    best: tuple[int, Lmdb | None] = (0, None)
    for before in ((), (home,)):
        for cut in range(shared(entries) + 1):
            for separator in SEPARATORS:
                candidate = Lmdb(file, before, cut, separator)
                hits = _hits(candidate, asked, limit=best[0])
                if hits > best[0]:
                    best = (hits, candidate)
    if best[1] is None:
        raise PreprocessingError(
            f"{file} has none of the frames that the JSON lists for {entries[0].dataset}: the JSON asks for "
            f"'{'/'.join(asked[0])}', the LMDB has keys like {_example(file)}; give the JSON and the LMDB of one dataset"
        )
    return best[1]


def _hits(source: Source, asked: list[Place], limit: int = 0) -> int:
    found = 0
    for number, place in enumerate(asked):
        if found + len(asked) - number <= limit:
            return found
        found += source.read(place) is not None
    return found


def _example(file: Path) -> str:
    with open_lmdb(file).begin() as transaction:
        keys = [bytes(key) for key in islice(transaction.cursor().iternext(values=False), 1000)]
    best = next((key for key in keys if key.endswith(b".png")), keys[0] if keys else None)
    return "none at all" if best is None else f"'{best.decode(errors='replace')}'"
