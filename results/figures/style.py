"""How every figure looks, and how it is saved: readable in grey and by the colour-blind, the same file each time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from results.files import write_atomically

# Okabe and Ito's palette without its yellow, which vanishes on white; its black comes first.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")

ONE_COLUMN, TWO_COLUMNS = 3.5, 7.16
"""Inches: widths of a column and of a page of an IEEE journal. Figures are printed without scaling, letters are 7 to 8 points."""

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes along with matplotlib: the same letters on every machine
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "pdf.fonttype": 42,  # letters stay letters
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "axes.grid": False,
    "grid.linewidth": 0.4,
    "grid.color": "#d0d0d0",
}


class Drawing(NamedTuple):
    """A figure, what its files are called, without an ending, and what a reader must know of it.

    `caption`: what is drawn, under which protocol, from which checkpoints and seeds.
    """

    name: str
    figure: Figure
    caption: str


def look(at: int) -> dict[str, Any]:
    """Colour, dashes and marker of the series with this number; no two of the first 35 share colour and dashes."""
    return {
        "color": COLOURS[at % len(COLOURS)],
        "linestyle": DASHES[(at + at // len(COLOURS)) % len(DASHES)],
        "marker": MARKERS[at % len(MARKERS)],
    }


@contextmanager
def styled() -> Iterator[None]:
    """Figures that are made in here look as `STYLE` says, whatever the user's matplotlibrc does."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def panels(count: int, width: float = TWO_COLUMNS, height: float = 2.4, across: int = 3, **more: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in rows of at most `across`.

    Args:
        count: panels.
        width: of the figure in inches; one panel takes a column of the page.
        height: of a row in inches.
        across: panels in a row at most.
        more: to matplotlib's `subplots`.
    """
    columns = min(count, across)
    rows = -(-count // columns)
    figure = Figure(figsize=(width if columns > 1 else min(width, ONE_COLUMN), height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, **more)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def legend_below(figure: Figure, axes: Axes, columns: int = 5) -> None:
    """One legend for all panels, beneath them, in as many columns as its words leave room for, `columns` at most."""
    handles, labels = axes.get_legend_handles_labels()
    for count in range(min(columns, len(labels)), 0, -1):
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=count, handlelength=3.2)
        if count == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def save(drawing: Drawing, folder: Path) -> dict[str, str]:
    """Write NAME.png and NAME.pdf without dates or versions, so that equal figures are equal files.

    Returns:
        Ending -> SHA-256 of the file.
    """
    sums = {}
    with styled():
        for ending, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Creator": None, "Producer": None})):
            buffer = io.BytesIO()
            drawing.figure.savefig(buffer, format=ending, metadata=metadata)
            write_atomically(folder / f"{drawing.name}.{ending}", buffer.getvalue())
            sums[ending] = sha256(buffer.getvalue()).hexdigest()
    return sums


def words(figure: Figure) -> str:
    """A figure for those who cannot see it: its panels, axes and series."""
    axes = [a for a in figure.axes if a.get_title() or a.get_xlabel() or a.get_ylabel()]
    said = [
        (name, list(dict.fromkeys(" ".join(text.split()) for text in texts if text)))
        for name, texts in (
            ("panels", [a.get_title() for a in axes]),
            ("x", [a.get_xlabel() for a in axes]),
            ("y", [a.get_ylabel() for a in axes] + [figure.get_supylabel()]),
            ("series", [text.get_text() for legend in figure.legends for text in legend.get_texts()]),
        )
    ]
    return "; ".join(f"{name}: {', '.join(texts)}" for name, texts in said if texts)


def plain(text: str) -> str:
    """A name as part of a file's name."""
    return "".join(c if c.isalnum() or c in "._=" else "-" for c in text).strip("-") or "figure"
