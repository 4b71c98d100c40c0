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
    example,
    ignore,
    need_folder,
)
from preprocessing.layouts.celebdf import CelebDF, CelebDFv1
from preprocessing.layouts.deeperforensics import DeeperForensics, DeeperForensicsSource
from preprocessing.layouts.deepfakedetection import DeepFakeDetection
from preprocessing.layouts.dfdc import DFDC, DFDCP
from preprocessing.layouts.faceforensics import FaceForensics
from preprocessing.layouts.folder import Folder
from preprocessing.layouts.misplaced import refuse_misplaced, refuse_misspelt
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
_KNOWN = [layout for layout in LAYOUTS.values() if not isinstance(layout, Folder)]
_ALIKE = {DeeperForensicsSource.name: LAYOUTS[DeeperForensics.name]}


def find_layout(folder: Path, layout: str = "auto", note: Note = ignore) -> Layout:
    """The layout of that name, or with "auto" the first that matches the tree.

    Raises:
        PreprocessingError: unknown layout, or a folder above or inside a dataset, or with a dataset's folders misspelt.
    """
    if layout == "auto":
        chosen = next(candidate for candidate in LAYOUTS.values() if candidate.matches(folder))
        if isinstance(chosen, Folder):
            refuse_misplaced(folder, _KNOWN)
            if odd := UADFV().odd_names(folder):
                note(Doubt(f"but for {len(odd)} names {folder} would be UADFV, {example(odd)}; rename them or give --layout uadfv"))
        else:
            refuse_misspelt(folder, chosen)
        note(f"{folder} is read as layout '{chosen.name}'")
        return chosen
    if layout not in LAYOUTS:
        raise PreprocessingError(f"unknown layout '{layout}': {did_you_mean(layout, [*LAYOUTS, 'auto'])}")
    chosen = LAYOUTS[layout]
    like = _ALIKE.get(layout, chosen)  # what "auto" never takes cannot say whether it matches
    if not isinstance(chosen, Folder) and not like.matches(folder):
        refuse_misplaced(folder, [like])
    refuse_misspelt(folder, chosen)
    return chosen


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
