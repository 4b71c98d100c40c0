"""Figures that need the trained detectors and the faces: Grad-CAM, t-SNE and UMAP of a grid's cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

from benchmark.config import ConfigError
from benchmark.embedding import Kind, embedding
from benchmark.gradcam import gradcam
from benchmark.opened import Opened, open_trained
from results.figures.style import Drawing, plain, save, styled
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
) -> list[Path]:
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
        The files.

    Raises:
        ConfigError: an optimizer that the grid has not, or no finished cell; what is missing.
    """
    files: list[Path] = []
    for name in index.grid.parts:
        part = index.part(name)
        names = list(optimizers or dict.fromkeys((part.grid.optimizers[0], part.grid.optimizers[-1])))
        for wanted in names:
            if wanted not in part.grid.optimizers:
                raise ConfigError(f"grid '{part.grid.name}' has no optimizer '{wanted}'; it has {', '.join(part.grid.optimizers)}")
        for drawing in _drawings(part, names, data, only, device, seed):
            named = drawing._replace(name=f"{plain(name)}-{drawing.name}" if name else drawing.name)
            tell(named.name)
            out_dir.mkdir(parents=True, exist_ok=True)
            files += save(named, out_dir)
    return files


def _drawings(part: GridIndex, names: Sequence[str], data: Path, only: Sequence[str], device: str, seed: int) -> Iterator[Drawing]:
    for detector in part.grid.detectors:
        cells = _open(part, detector, names, data, device)
        for test in next(iter(cells.values())).tests:
            with styled():
                for kind in only:
                    yield gradcam(cells, test, seed) if kind == "gradcam" else embedding(cells, test, cast(Kind, kind), seed)


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
