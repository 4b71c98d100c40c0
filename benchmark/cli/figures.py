"""`dfgrid figures`: a grid as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from benchmark.cli.console import console, progress
from benchmark.cli.experiments import Runs


def figures(
    grid: Annotated[str, typer.Argument(help="Name of a grid that was started.")],
    runs: Runs = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Folder for the files. Default: figures/ in the grid's folder.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="roc, det, histogram, training, heatmap, ranks, sensitivity, conflict or sharpness; may be given often."),
    ] = None,
    selection: Annotated[
        str, typer.Option(help="Which checkpoint is drawn: last, source_val, or the oracles best_per_test and top3_per_test.")
    ] = "source_val",
    seed: Annotated[int, typer.Option(min=0, help="Of whatever is drawn at random.")] = 0,
) -> None:
    """Figures at print size as PNG and PDF, readable in grey and by the colour-blind; the same grid gives the same files."""
    from results.figures import write_figures
    from results.index import GridIndex
    from results.record import RecordError

    if Path(grid).name != grid:
        raise RecordError(f"'{grid}' is no name of a grid; give the folder that holds it with --runs")
    folder = out or runs / grid / "figures"
    with progress() as bar:
        task = bar.add_task("draw", total=None, unit="figure")

        def tell(name: str) -> None:
            bar.update(task, description=f"draw {name}", advance=1)

        files, missing = write_figures(GridIndex.read(runs / grid), folder, only, selection, seed, tell)
    console.print(f"wrote {len(files) // 2} figures as PNG and PDF to {escape(str(folder))}", soft_wrap=True)
    for name, needs in missing.items():
        console.print(f"[dim]no figure '{name}': it needs {escape(needs)}[/]", soft_wrap=True)
