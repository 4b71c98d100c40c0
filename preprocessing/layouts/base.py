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

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
SPLITS = ("train", "val", "test", "none")
NO_COMPRESSION = "none"
"""Stands for the compression level in keys of datasets that have only one."""

Note = Callable[[str], None]
"""Takes one sentence about what a layout found and the user should know; the command line prints it."""


def ignore(sentence: str) -> None:
    """A `Note` for callers who do not listen."""


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
        assert self.label in (0, 1)

    @property
    def key(self) -> str:
        """The video's place in a store: "<dataset>/<compression>/<method>/<video>"."""
        return f"{self.dataset}/{self.compression}/{self.method}/{self.video}"


MAX_KEY_BYTES = 511  # LMDB's own limit
METADATA = ("dataset", "compression", "method", "video", "label", "split", "identity")
"""The fields of a Video that a store keeps."""


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


def find_videos(folder: Path, suffixes: tuple[str, ...] = VIDEO_SUFFIXES) -> list[Path]:
    """Every video (or other file by suffix) below `folder`, sorted, links followed, hidden files (macOS's "._000.mp4") left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [Path(here, f) for f in files if f.lower().endswith(suffixes) and not f.startswith(".")]
    return sorted(found)


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
