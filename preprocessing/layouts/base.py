"""What a layout gives (Video), what a layout is (Layout), and the file walking that layouts share."""

from __future__ import annotations

import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from preprocessing.errors import PreprocessingError
from preprocessing.images import has_images

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
SPLITS = ("train", "val", "test", "none")
KINDS = ("video", "crops")
"""What lies at a video's path: a video file, or images that are cut-out faces already."""
NO_COMPRESSION = "none"
"""Stands for the compression level in keys of datasets that have only one."""

Note = Callable[[str], None]
"""Takes one sentence about what a layout found and the user should know; the command line prints it."""


def ignore(sentence: str) -> None:
    """A `Note` for callers who do not listen."""


class Doubt(str):
    """A note about something that looks wrong (a file that the dataset's own list names is missing), not merely worth knowing."""

    __slots__ = ()


@dataclass(frozen=True)
class Video:
    """One video and what the dataset says about it. Everywhere it is named by (dataset, method, video), never by the file alone.

    Attributes:
        dataset: the dataset's name, e.g. "FaceForensics++".
        method: "real", or the forgery ("Deepfakes", ...).
        label: 0 real, 1 fake.
        split: "train", "val", "test" or "none".
        identity: "000" for a real video, "000_003" (target_source) for a forged one.
        video: the file's name without suffix; with its subfolder where the layout keeps subfolders ("monday/000").
        path: the file. It is never written to a store.
        compression: "c23", "c40", "raw", or "none" where the dataset has one level only.
        mask: the video of the forged region, or None.
        kind: "video": the path is a video file. "crops": it is a folder of images, or an archive (tar) with such a folder, and the
            images are cut-out faces already; they are resized, not aligned. An image's name is its frame number.
        inside: the images' folder inside the archive, "." for its top; "" where `path` is no archive.
    """

    dataset: str
    method: str
    label: int
    split: str
    identity: str
    video: str
    path: Path
    compression: str
    mask: Path | None = None
    kind: str = "video"
    inside: str = ""

    def __post_init__(self) -> None:
        # macOS hands out decomposed names, Linux composed ones: without this the same dataset would give two fingerprints.
        for field in ("dataset", "method", "split", "identity", "video", "compression"):
            object.__setattr__(self, field, unicodedata.normalize("NFC", getattr(self, field)))
        for field in ("dataset", "method", "compression"):
            value = getattr(self, field)
            if not value or "/" in value or "\\" in value or value in (".", ".."):
                raise PreprocessingError(f"{field} '{value}' of {self.path} must be a plain name without slashes")
        if not self.video or "\\" in self.video or any(part in ("", ".", "..") for part in self.video.split("/")):
            raise PreprocessingError(f"video name '{self.video}' of {self.path} must be a relative POSIX path without empty parts")
        if self.key.encode(errors="ignore").decode() != self.key:
            raise PreprocessingError(f"the name {self.path.name!a} is no valid UTF-8; rename the file or its folder")
        if len(f"{self.key}/000000".encode()) > MAX_KEY_BYTES:
            raise PreprocessingError(f"the name '{self.key}' is longer than {MAX_KEY_BYTES} bytes; shorten the folder or file name")
        assert self.split in SPLITS
        assert self.kind in KINDS
        assert self.label in (0, 1)

    @property
    def key(self) -> str:
        """The video's place in a store: "<dataset>/<compression>/<method>/<video>"."""
        return f"{self.dataset}/{self.compression}/{self.method}/{self.video}"


MAX_KEY_BYTES = 511  # LMDB's own limit
METADATA = ("dataset", "compression", "method", "video", "label", "split", "identity")
"""The fields of a Video that a store keeps."""


@dataclass(frozen=True)
class Part:
    """A folder that the dataset has, for the doctor.

    Attributes:
        folder: relative to the root, with slashes.
        count: videos that its authors put there, or None where that is not known.
        absent: how bad it is when it is missing: "error" (nothing can be read), "warning" or "note" (it is optional).
        also: other names under which the layout accepts it.
    """

    folder: str
    count: int | None = None
    absent: str = "error"
    also: tuple[str, ...] = ()

    def place(self, root: Path) -> Path | None:
        """Where it is below `root`, or None."""
        return next((root / name for name in (self.folder, *self.also) if (root / name).is_dir()), None)


@dataclass(frozen=True)
class Total:
    """So many videos of one label (and split, and method) the whole dataset has; `also`: what other sources count."""

    count: int
    label: int
    split: str | None = None
    method: str | None = None
    also: tuple[int, ...] = ()

    def __str__(self) -> str:
        return " ".join(x for x in (("real", "fake")[self.label], self.method, self.split and f"in {self.split}") if x)

    def found(self, videos: Iterable[Video]) -> int:
        """How many of `videos` it means."""
        return sum(v.label == self.label and self.split in (None, v.split) and self.method in (None, v.method) for v in videos)


class Layout(ABC):
    """How one dataset lies on disk. A new dataset is one subclass in one file, and one line in `LAYOUTS`."""

    name: ClassVar[str]
    """What the user types."""
    title: ClassVar[str]
    """The dataset's own name; the default of `Video.dataset`."""
    url: ClassVar[str]
    """Where to ask for the videos."""
    terms: ClassVar[str]
    """Licence, and what to sign."""
    tree: ClassVar[str]
    """The expected folders, as text to show."""
    counts: ClassVar[str] = ""
    """How many videos the whole dataset has, as text to show."""
    sources: ClassVar[str] = ""
    """Where `counts`, `totals` and `parts` are taken from, as text to show."""
    uncertain: ClassVar[str] = ""
    """Where sources disagree about them or none was found, as text to show; "" where all agree."""
    splits: ClassVar[str] = ""
    """Where the splits come from, as text to show."""
    peer: ClassVar[str] = ""
    """What DeepfakeBench's own scripts do wrong with this dataset, or "": one sentence for those who compare."""
    split_files: ClassVar[tuple[str, ...]] = ()
    """Files of the dataset without which no split is known; relative to the root."""
    totals: ClassVar[tuple[Total, ...]] = ()
    """Expected numbers of videos."""
    people_shared: ClassVar[bool] = False
    """Whether the official splits themselves share people between training and test."""
    named_by_stem: ClassVar[bool] = True
    """Whether two files of one stem in one folder would get one name."""

    @abstractmethod
    def matches(self, root: Path) -> bool:
        """Whether the tree looks like this dataset, for "auto"."""

    @abstractmethod
    def videos(self, root: Path, *, dataset: str | None = None, compression: str = "c23", note: Note = ignore) -> list[Video]:
        """Every video of the dataset.

        Args:
            root: the dataset's folder.
            dataset: overrides the dataset's name.
            compression: level to read, where the dataset has several.
            note: takes sentences about what was found.

        Raises:
            PreprocessingError: if something the layout needs is missing; the sentence names it.
        """

    def parts(self, compression: str = "c23") -> tuple[Part, ...]:
        """The folders that the dataset has, with their numbers of videos."""
        return ()


def find_videos(folder: Path, suffixes: tuple[str, ...] = VIDEO_SUFFIXES) -> list[Path]:
    """Every video (or other file by suffix) below `folder`, sorted, links followed, hidden files (macOS's "._000.mp4") left out.

    Raises:
        PreprocessingError: for a folder that may not be looked into; a missing `folder` has no videos.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, onerror=_cannot_list, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [Path(here, f) for f in files if f.lower().endswith(suffixes) and not f.startswith(".")]
    return sorted(found)


def _cannot_list(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise PreprocessingError(f"folder {error.filename} cannot be looked into: {error.strerror}")


def check_unique(videos: Iterable[Video]) -> None:
    """Refuse two files that would share one name in the store.

    Raises:
        PreprocessingError: naming both files.
    """
    seen: dict[str, Path] = {}
    for v in videos:
        other = seen.setdefault(v.key, v.path)
        if other != v.path:
            raise PreprocessingError(f"{other} and {v.path} would both be '{v.key}'; rename or remove one of them")


def need_folder(root: Path) -> Path:
    """`root`, if it is a folder.

    Raises:
        PreprocessingError: if it is not.
    """
    if not root.is_dir():
        raise PreprocessingError(f"{root} is {'no folder' if root.exists() else 'missing'}; give the folder that holds the videos")
    return root


def by_stem(folder: Path) -> dict[str, Path]:
    """Every video below `folder` by its name without suffix.

    Raises:
        PreprocessingError: if two have one name.
    """
    table: dict[str, Path] = {}
    for path in find_videos(folder):
        if path.stem in table:
            raise PreprocessingError(f"{table[path.stem]} and {path} have one name; keep only one of them in {folder}")
        table[path.stem] = path
    return table


def instead(root: Path) -> str:
    """The end of the sentence that a folder has no videos: how to read the images that it has in their place, or ""."""
    if not has_images(root):
        return ""
    return (
        " (it has images: frames that DeepfakeBench cut out are read with 'dfgrid import deepfakebench', WildDeepfake's faces"
        " with --layout wilddeepfake)"
    )


def example(names: Iterable[str]) -> str:
    """The end of a sentence: the first of some names."""
    return f"e.g. {min(names)}"


def read_text(file: Path, why: str) -> str:
    """A file that comes with the dataset; a byte order mark, as editors on Windows leave it, is dropped.

    Raises:
        PreprocessingError: if it is missing, unreadable or no text; `why` says what it is needed for.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        link = " (it is a link to nowhere)" if file.is_symlink() else ""
        raise PreprocessingError(f"{file} is missing{link}; it comes with the dataset, and without it {why}") from None
    except OSError as error:
        raise PreprocessingError(f"{file} cannot be read ({error.strerror}); without it {why}") from error
    except UnicodeDecodeError as error:
        raise PreprocessingError(f"{file} is no text file ({error.reason}); get it from the dataset again") from error
