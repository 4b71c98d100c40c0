"""A grid's figures as a page: drawn into the site, or left there where nothing has changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import PIL.Image

from results.figures import FIGURES, TITLES, Drawn, write_figures
from results.figures.kept import FILE, Entry, Kept, picture_digest
from results.index import GridIndex
from results.report.board import ReadGrid, page_name
from results.selection import common_selection

PICTURES = tuple(name for name in TITLES if name not in FIGURES)
"""Of detectors and faces: a report cannot draw them, and takes those that `dfgrid figures` has drawn."""
PIXELS_PER_INCH = 100
"""Of a page at usual size; the pictures have twice as many."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page: its files without an ending, and the size at which letters have their printed size."""

    entry: Entry
    place: str
    width: int
    height: int


@dataclass
class GridFigures:
    """What a grid's page of figures shows.

    Attributes:
        page: relative to the site's folder.
        selection: by which rule checkpoints were chosen.
        families: name, title and pictures of each.
        missing: family -> why there is no figure.
        unchanged: so many figures were not drawn again.
    """

    page: str
    selection: str
    families: list[dict[str, object]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    unchanged: int = 0
    count: int = 0


def slug(grid: str) -> str:
    """Name of a grid's page and folder, without an ending."""
    return page_name(grid, "figures").removesuffix(".html")


def clear(site: Path, grids: Iterable[str]) -> None:
    """Remove pages of figures, and the pictures of all grids but these."""
    kept = {slug(grid) for grid in grids}
    for path in (site / "figures").glob("*"):
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def figures_of(read: ReadGrid, site: Path, tell: Callable[[str], None]) -> GridFigures:
    """Draw what has changed, take what was drawn of detectors and faces, and remove what belongs to neither.

    Args:
        read: a grid with a record.
        site: the report's folder.
        tell: called with the name of each figure before it is drawn.
    """
    index = read.index
    selection = common_selection(index.records.values())
    name = slug(index.grid.name)
    folder = site / "figures" / name
    drawn = write_figures(index, folder, selection=selection, tell=tell, forgive=True)
    _take(index, read.folder / "figures", folder, drawn)
    wanted = {FILE, *(f"{e.name}.{ending}" for e in drawn.entries for ending in e.sums)}
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()
    shown = GridFigures(f"figures/{name}.html", selection, missing=drawn.missing, unchanged=drawn.unchanged)
    for family, title in TITLES.items():
        pictures = [_picture(e, folder, name) for e in drawn.entries if e.family == family]
        shown.count += len(pictures)
        if pictures:
            shown.families.append({"name": family, "title": title, "pictures": pictures})
    return shown


def _picture(entry: Entry, folder: Path, name: str) -> Picture:
    with PIL.Image.open(folder / f"{entry.name}.png") as image:
        width, height = image.size
        dpi = round(image.info.get("dpi", (2 * PIXELS_PER_INCH, 0))[0])
    return Picture(entry, f"{name}/{entry.name}", width * PIXELS_PER_INCH // dpi, height * PIXELS_PER_INCH // dpi)


def _take(index: GridIndex, source: Path, folder: Path, drawn: Drawn) -> None:
    """Copy pictures of detectors and faces; those that were drawn beside other records are missing with the reason."""
    kept = Kept.read(source)
    for part in index.grid.parts:
        drawn_from = picture_digest(index.part(part))
        for name in PICTURES:
            shown = f"{part}: {name}" if part else name
            again = f"`dfgrid figures {index.grid.name} --only {name}`, which needs its checkpoints and faces"
            family = kept.families.get(f"{part}/{name}")
            if family is None:
                drawn.missing[shown] = again
            elif kept.unchanged(f"{part}/{name}", drawn_from, source) is None:
                drawn.missing[shown] = f"{again}: the records or the files have changed since it was drawn"
            else:
                drawn.entries += family.figures
                for file in (f"{e.name}.{ending}" for e in family.figures for ending in e.sums):
                    shutil.copyfile(source / file, folder / file)
