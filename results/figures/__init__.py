"""Figures of a grid from its records, scores, diagnostics and probes; a file here is a family of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from results.figures.curves import det, histograms, roc
from results.figures.gradients import conflict, sharpness
from results.figures.settings import heatmap, ranks, sensitivity
from results.figures.source import Source
from results.figures.style import Drawing, plain, save, styled
from results.figures.training import training
from results.files import RecordError
from results.index import GridIndex

FIGURES: dict[str, Callable[[Source], Iterator[Drawing]]] = {
    "roc": roc,
    "det": det,
    "histogram": histograms,
    "training": training,
    "heatmap": heatmap,
    "ranks": ranks,
    "sensitivity": sensitivity,
    "conflict": conflict,
    "sharpness": sharpness,
}

NEEDS = {
    "ranks": "three optimizers and two columns in which all have a number",
    "sensitivity": "optimizers of one rule that differ in one setting",
    "conflict": "cells that were run with protocol.diagnostics_every other than 0, and two forgeries to train on",
    "sharpness": "`dfgrid probe sharpness`",
}
"""What a figure needs beside records and scores."""


def write_figures(
    index: GridIndex,
    out_dir: str | Path,
    only: Sequence[str] | None = None,
    selection: str = "source_val",
    seed: int = 0,
    tell: Callable[[str], None] = lambda name: None,
) -> tuple[list[Path], dict[str, str]]:
    """Draw a grid's figures, NAME.png and NAME.pdf each; of a grid in parts, the part's name is in front.

    Args:
        index: read from a folder.
        out_dir: made if it is not there.
        only: keys of `FIGURES`; None draws all that there is something for.
        selection: key of `SELECTIONS`: the checkpoints.
        seed: of whatever is drawn at random.
        tell: called with a figure's name before it is drawn.

    Returns:
        The files, and for every family without a figure what it needs.

    Raises:
        RecordError: unknown figure or selection; scores that cannot be read; no records yet.
    """
    for name in only or ():
        if name not in FIGURES:
            raise RecordError(f"there is no figure '{name}'; there are {', '.join(FIGURES)}")
    if not index.records:
        raise RecordError(f"no cell of grid '{index.grid.name}' has a record yet; run `dfgrid grid run {index.grid.name}`")
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    missing: dict[str, str] = {}
    for part in index.grid.parts:
        source = Source(index.part(part), selection, seed)
        for name in only or FIGURES:
            before = len(files)
            with styled():
                for drawing in FIGURES[name](source):
                    named = drawing._replace(name=f"{plain(part)}-{drawing.name}" if part else drawing.name)
                    tell(named.name)
                    files += save(named, folder)
            if len(files) == before:
                missing[f"{part}: {name}" if part else name] = NEEDS.get(name, "records with scores")
    return files, missing
