"""Sentences for a folder that is not a dataset's but lies above one, inside one, or has its folders in the wrong case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from preprocessing.errors import PreprocessingError
from preprocessing.layouts.base import Layout

DEPTH = 5
"""So many folders up a dataset is looked for: FaceForensics++'s videos lie four below it."""
PLAIN = {"real", "fake", "test", "train"}
"""Names that folders of one's own have too."""


def refuse_misplaced(folder: Path, layouts: Sequence[Layout]) -> None:
    """Say where the dataset is, if `folder` is only near it.

    Args:
        folder: what the user gave; none of `layouts` matches it.
        layouts: those to look for.

    Raises:
        PreprocessingError: naming the folder to give, or to rename. A folder that is near none of them passes.
    """
    for below in _folders(folder):
        layout = next((layout for layout in layouts if _matches(layout, below)), None)
        if layout is not None:
            raise PreprocessingError(f"{folder} holds the {layout.title} folder '{below.name}'; give {below} itself")
    place = folder.resolve()
    for above in reversed(list(place.parents)[:DEPTH]):
        for layout in layouts:
            if _tops(layout) >= {place.relative_to(above).parts[0]} and _matches(layout, above):
                raise PreprocessingError(
                    f"{folder} is a part of the {layout.title} folder {above}: give that one, with its lists and both classes,"
                    " or take this folder without them with --layout folder"
                )
    for layout in layouts:
        refuse_misspelt(folder, layout, PLAIN)


def refuse_misspelt(folder: Path, layout: Layout, spared: Iterable[str] = ()) -> None:
    """Say so where a folder of the dataset is there in another case only: its videos would silently be missing.

    Args:
        folder: the dataset's.
        layout: of the dataset.
        spared: names of folders that may be somebody's own.

    Raises:
        PreprocessingError: naming the folder to rename.
    """
    for part in layout.parts():
        if part.place(folder) is not None:
            continue
        here = folder
        for wanted in part.folder.split("/"):
            if not (here / wanted).is_dir():
                alike = [f.name for f in _folders(here) if f.name.casefold() == wanted.casefold() and wanted not in spared]
                if alike:
                    raise PreprocessingError(
                        f"{here} has the folder '{alike[0]}', which {layout.title} calls '{wanted}'; rename it"
                    )
                break
            here /= wanted


def _tops(layout: Layout) -> set[str]:
    return {name.partition("/")[0] for part in layout.parts() for name in (part.folder, *part.also)}


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir())


def _matches(layout: Layout, folder: Path) -> bool:
    try:
        return layout.matches(folder)
    except OSError:  # another's folder, which may not be looked into
        return False
