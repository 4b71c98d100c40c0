"""Figures of a grid from its records, scores, diagnostics and probes; a file here is a family of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

from results.figures.curves import det, histograms, roc
from results.figures.gradients import conflict, sharpness
from results.figures.kept import Entry, Family, Kept, digest
from results.figures.settings import heatmap, ranks, sensitivity
from results.figures.source import Source
from results.figures.style import Drawing, plain, save, styled, words
from results.figures.training import training
from results.files import RecordError
from results.index import GridIndex

FIGURES: dict[str, Callable[[Source], Iterator[Drawing]]] = {
    "heatmap": heatmap,
    "ranks": ranks,
    "roc": roc,
    "det": det,
    "histogram": histograms,
    "training": training,
    "sensitivity": sensitivity,
    "conflict": conflict,
    "sharpness": sharpness,
}

TITLES = {
    "heatmap": "Optimizers and backbones",
    "ranks": "Average ranks",
    "roc": "ROC curves",
    "det": "DET curves",
    "histogram": "Scores by method",
    "training": "Training, and what each selection rule picks",
    "sensitivity": "Sensitivity to a rule's settings",
    "conflict": "Conflict of gradients",
    "sharpness": "Sharpness",
    "gradcam": "Grad-CAM",
    "tsne": "t-SNE of features",
    "umap": "UMAP of features",
}
"""Also of those that need detectors and faces."""

NEEDS = {
    "ranks": "three optimizers and two columns in which all have a number",
    "sensitivity": "optimizers of one rule that differ in one setting",
    "conflict": "two forgeries to train on, and protocol.diagnostics_every a number of steps (auto leaves short runs out)",
    "sharpness": "`dfgrid probe sharpness`",
}
"""What a figure needs beside records and scores."""


@dataclass
class Drawn:
    """What `write_figures` did.

    Attributes:
        entries: of the figures, those that were there unchanged among them.
        files: of the figures, two each.
        unchanged: so many figures were not drawn again.
        missing: family, with "PART: " in front where the grid has parts -> what it needs, or why it could not be drawn.
    """

    entries: list[Entry] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    unchanged: int = 0
    missing: dict[str, str] = field(default_factory=dict)


def write_figures(
    index: GridIndex,
    out_dir: str | Path,
    only: Sequence[str] | None = None,
    selection: str = "source_val",
    seed: int = 0,
    tell: Callable[[str], None] = lambda name: None,
    forgive: bool = False,
) -> Drawn:
    """Draw a grid's figures, NAME.png and NAME.pdf each; of a grid in parts, the part's name is in front.

    Figures that lie in the folder already and follow from the same records, files, code, selection and seed are left as they are.

    Args:
        index: read from a folder.
        out_dir: made if it is not there.
        only: keys of `FIGURES`; None draws all that there is something for.
        selection: key of `SELECTIONS`: the checkpoints.
        seed: of whatever is drawn at random.
        tell: called with a figure's name before it is drawn.
        forgive: a family whose cells cannot be read is missing with the reason, where it is an error otherwise.

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
    kept = Kept.read(folder)
    drawn = Drawn()
    for part in index.grid.parts:
        source = Source(index.part(part), selection, seed)
        drawn_from = digest(source.index, selection, seed)
        for name in only or FIGURES:
            key, shown = f"{part}/{name}", f"{part}: {name}" if part else name
            family = kept.unchanged(key, drawn_from, folder)
            drawn.unchanged += len(family.figures) if family else 0
            try:
                if family is None:
                    figures = draw(FIGURES[name](source), name, part, folder, tell, kept.names(but=[key]))
                    family = Family(drawn_from=drawn_from, figures=figures)
            except RecordError as error:
                if not forgive:
                    raise
                drawn.missing[shown] = f"cells that can be read: {str(error).replace(f'{source.folder}/', '')}"
                continue
            kept = kept.replaced(folder, {key: family})
            drawn.entries += family.figures
            drawn.files += [folder / f"{f.name}.{ending}" for f in family.figures for ending in f.sums]
            if not family.figures:
                drawn.missing[shown] = NEEDS.get(name, "records with scores")
    return drawn


def draw(
    drawings: Iterator[Drawing],
    family: str,
    part: str,
    folder: Path,
    tell: Callable[[str], None] = lambda name: None,
    taken: Iterable[str] = (),
) -> tuple[Entry, ...]:
    """Draw and write one family's figures of one part; a figure whose name is `taken`, or another's of them, gets a number.

    Names that differ in punctuation alone (FF and FF++) are the same in a file's name, those that differ in case on some disks.
    """
    entries = []
    used = {name.casefold() for name in taken}
    with styled():
        for drawing in drawings:
            name = f"{plain(part)}-{drawing.name}" if part else drawing.name
            free = (n for n in chain([name], (f"{name}-{number}" for number in count(2))) if n.casefold() not in used)
            named = drawing._replace(name=next(free))
            used.add(named.name.casefold())
            tell(named.name)
            sums = save(named, folder)
            about = {"caption": named.caption, "words": words(named.figure)}
            entries.append(Entry(name=named.name, family=family, part=part, sums=sums, **about))
    return tuple(entries)
