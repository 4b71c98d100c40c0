"""`dfgrid figures`: a grid as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from benchmark.cli.console import console, progress
from benchmark.cli.options import Data, Device, Runs, check_device
from benchmark.cli.reference import Plugins, load

PICTURES = ("gradcam", "tsne", "umap")
"""Those that `benchmark.pictures` draws; named here so that other figures do not wait for torch."""


def figures(
    grid: Annotated[str, typer.Argument(help="Name of a grid that was started.")],
    runs: Runs = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Folder for the files. Default: figures/ in the grid's folder.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="heatmap, ranks, roc, det, histogram, training, sensitivity, conflict, sharpness; or gradcam, tsne, umap, "
            "which need the checkpoints and the faces and are drawn only when they are named. May be given often."
        ),
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(
            help="Which checkpoint is drawn: last, source_val, best_per_test or top3_per_test (oracles). Default: by protocol."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of whatever is drawn at random.")] = 0,
    optimizer: Annotated[
        list[str] | None,
        typer.Option(help="For gradcam, tsne, umap: which are compared, baseline first. Default: the grid's first and last."),
    ] = None,
    data: Data = Path("data"),
    device: Device = "cpu",
    plugin: Plugins = None,
) -> None:
    """Figures at print size as PNG and PDF, readable in grey and by the colour-blind; the same grid gives the same files."""
    from results.figures import FIGURES, write_figures
    from results.files import RecordError
    from results.index import GridIndex
    from results.selection import protocol_selection

    if Path(grid).name != grid:
        raise RecordError(f"'{grid}' is no name of a grid; give the folder that holds it with --runs")
    for name in only or ():
        if name not in FIGURES and name not in PICTURES:
            raise RecordError(f"there is no figure '{name}'; there are {', '.join((*FIGURES, *PICTURES))}")
    folder = out or runs / grid / "figures"
    with progress() as bar:
        task = bar.add_task("draw", total=None, unit="figure")

        def tell(name: str) -> None:
            bar.update(task, description=f"draw {name}", advance=1)

        index = GridIndex.read(runs / grid)
        selection = selection or protocol_selection(index.records.values())
        pictures = [name for name in only or () if name in PICTURES]
        done = []
        if len(pictures) < len(only or ()) or not only:
            done.append(write_figures(index, folder, [n for n in only or () if n not in PICTURES] or None, selection, seed, tell))
        if pictures:
            done.append(_pictures(index, data, folder, pictures, optimizer, device, seed, tell, plugin))
    count, unchanged = sum(len(d.entries) for d in done), sum(d.unchanged for d in done)
    said = f" ({unchanged} of them unchanged since they were drawn)" if unchanged else ""
    console.print(f"wrote {count} figures as PNG and PDF to {escape(str(folder))}{said}", soft_wrap=True)
    for name, needs in (pair for d in done for pair in d.missing.items()):
        console.print(f"[dim]no figure '{name}': it needs {escape(needs)}[/]", soft_wrap=True)


def _pictures(
    index: Any,
    data: Path,
    folder: Path,
    names: list[str],
    optimizers: list[str] | None,
    device: str,
    seed: int,
    tell: Any,
    plugin: list[Path] | None,
) -> Any:
    from benchmark.pictures import write_pictures

    load(plugin)
    check_device(device)
    return write_pictures(index, data, folder, names, optimizers, device, seed, tell)
