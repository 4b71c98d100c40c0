"""Figures that need the trained detectors and the faces: Grad-CAM, t-SNE and UMAP of a grid's cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

from benchmark.config import ConfigError
from benchmark.embedding import Kind, embedding
from benchmark.gradcam import gradcam
from benchmark.opened import Opened, open_trained
from results.figures import Drawn, draw
from results.figures.kept import Entry, Family, Kept, picture_digest
from results.figures.source import Source
from results.figures.style import Drawing
from results.index import GridIndex

PICTURES = ("gradcam", "tsne", "umap")


def write_pictures(
    index: GridIndex,
    data: Path,
    out_dir: Path,
    only: Sequence[str],
    optimizers: Sequence[str] | None = None,
    device: str = "cpu",
    seed: int = 0,
    tell: Callable[[str], None] = lambda name: None,
) -> Drawn:
    """Draw them for every backbone and test set: NAME.png and NAME.pdf each.

    Args:
        index: read from a folder.
        data: folder that relative store names belong to.
        out_dir: made if it is not there.
        only: of `PICTURES`.
        optimizers: which are compared, baseline first; None takes the grid's first and last.
        device: torch's name of the device.
        seed: of the choice of faces and of the embeddings; cells are those of the grid's first seed.
        tell: called with a figure's name before it is drawn.

    Returns:
        What was drawn; these figures are always drawn anew, since faces and weights are not hashed.

    Raises:
        ConfigError: an optimizer that the grid has not, or no finished cell; what is missing.
    """
    drawn = Drawn()
    kept = Kept.read(out_dir)
    for name in index.grid.parts:
        part = index.part(name)
        names = list(optimizers or dict.fromkeys((part.grid.optimizers[0], part.grid.optimizers[-1])))
        for wanted in names:
            if wanted not in part.grid.optimizers:
                raise ConfigError(f"grid '{part.grid.name}' has no optimizer '{wanted}'; it has {', '.join(part.grid.optimizers)}")
        out_dir.mkdir(parents=True, exist_ok=True)
        found: dict[str, list[Entry]] = {kind: [] for kind in only}
        for detector in part.grid.detectors:
            cells = _open(part, detector, names, data, device)
            for kind in only:
                taken = kept.names(but=[f"{name}/{kind}" for kind in only]) | {e.name for of in found.values() for e in of}
                found[kind] += draw(_drawings(part, cells, kind, seed), kind, name, out_dir, tell, taken)
        drawn_from = picture_digest(part)
        families = {f"{name}/{kind}": Family(drawn_from=drawn_from, figures=tuple(of)) for kind, of in found.items()}
        kept = kept.replaced(out_dir, families)
        drawn.entries += [entry for of in found.values() for entry in of]
    drawn.files += [out_dir / f"{f.name}.{ending}" for f in drawn.entries for ending in f.sums]
    return drawn


def _drawings(part: GridIndex, cells: dict[str, Opened], kind: str, seed: int) -> Iterator[Drawing]:
    source = Source(part)
    for test in next(iter(cells.values())).tests:
        drawing = gradcam(cells, test, seed) if kind == "gradcam" else embedding(cells, test, cast(Kind, kind), seed)
        yield drawing._replace(caption=source.caption(drawing.caption, checkpoint=False, seeds=part.grid.seeds[:1]))


def _open(part: GridIndex, detector: str, names: Sequence[str], data: Path, device: str) -> dict[str, Opened]:
    """Optimizer -> its cell of the grid's first seed."""
    assert part.folder is not None
    found = {}
    for name in names:
        ids = [c.id for c in part.grid.cells if (c.detector, c.optimizer, c.seed) == (detector, name, part.grid.seeds[0])]
        if not ids or ids[0] not in part.records:
            why = part.reasons.get(ids[0], "not run yet") if ids else "not in the grid"
            raise ConfigError(f"{detector} with {name}, seed {part.grid.seeds[0]}, has no record to draw: {why}")
        found[name] = open_trained(part.folder / ids[0] / "checkpoint.pt", data, device)
    return found
