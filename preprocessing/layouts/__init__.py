"""Datasets on disk -> Video(dataset, method, label, split, identity, path): one file a dataset, one table of names."""

from __future__ import annotations

from pathlib import Path

from preprocessing.errors import PreprocessingError, did_you_mean
from preprocessing.layouts.base import (
    METADATA,
    NO_COMPRESSION,
    SPLITS,
    Doubt,
    Layout,
    Note,
    Video,
    check_unique,
    ignore,
    need_folder,
)
from preprocessing.layouts.celebdf import CelebDF, CelebDFv1
from preprocessing.layouts.deeperforensics import DeeperForensics, DeeperForensicsSource
from preprocessing.layouts.deepfakedetection import DeepFakeDetection
from preprocessing.layouts.dfdc import DFDC, DFDCP
from preprocessing.layouts.faceforensics import FaceForensics
from preprocessing.layouts.folder import Folder
from preprocessing.layouts.uadfv import UADFV
from preprocessing.layouts.wilddeepfake import WildDeepfake

__all__ = [
    "LAYOUTS",
    "METADATA",
    "NO_COMPRESSION",
    "SPLITS",
    "Doubt",
    "Layout",
    "Note",
    "Video",
    "check_unique",
    "find_layout",
    "read_layout",
]

# In the order in which "auto" asks them; "folder" matches everything and stays last.
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        FaceForensics(),
        DeepFakeDetection(),
        CelebDFv1(),
        CelebDF(),
        DFDCP(),
        DFDC(),
        DeeperForensics(),
        DeeperForensicsSource(),
        UADFV(),
        WildDeepfake(),
        Folder(),
    )
}


def find_layout(folder: Path, layout: str = "auto", note: Note = ignore) -> Layout:
    """The layout of that name, or with "auto" the first that matches the tree.

    Raises:
        PreprocessingError: unknown layout, or a folder above a dataset.
    """
    if layout == "auto":
        chosen = next(candidate for candidate in LAYOUTS.values() if candidate.matches(folder))
        if isinstance(chosen, Folder):
            _refuse_parent(folder)
        note(f"{folder} is read as layout '{chosen.name}'")
        return chosen
    if layout not in LAYOUTS:
        raise PreprocessingError(f"unknown layout '{layout}': {did_you_mean(layout, [*LAYOUTS, 'auto'])}")
    return LAYOUTS[layout]


def read_layout(
    root: str | Path,
    layout: str = "auto",
    name: str | None = None,
    compression: str = "c23",
    note: Note = ignore,
) -> list[Video]:
    """Every video of a dataset, sorted by its key.

    Args:
        root: the dataset's folder.
        layout: a name in `LAYOUTS`, or "auto" to take the first that matches the tree.
        name: overrides the dataset's name (and so the first part of every key).
        compression: level to read, where the dataset has several.
        note: takes sentences about what was found, for the command line to print.

    Raises:
        PreprocessingError: unknown layout, missing folder, split list or videos, two files with one name.
    """
    folder = need_folder(Path(root).expanduser())
    chosen = find_layout(folder, layout, note)
    videos = sorted(chosen.videos(folder, dataset=name, compression=compression, note=note), key=lambda v: v.key)
    check_unique(videos)
    return videos


def _refuse_parent(folder: Path) -> None:
    # The folder above a dataset would otherwise be read as a folder of one's own, and every forgery in it as something else.
    for below in sorted(p for p in folder.iterdir() if p.is_dir()):
        for layout in LAYOUTS.values():
            if not isinstance(layout, Folder) and layout.matches(below):
                raise PreprocessingError(f"{folder} holds the {layout.title} folder '{below.name}'; give {below} itself")
