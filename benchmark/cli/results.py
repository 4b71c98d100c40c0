"""`dfgrid table`: records to a table."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

from benchmark.cli.console import console
from benchmark.cli.experiments import Runs


class Bold(str, Enum):
    """What a table prints bold; typer of every version shows the choices of an Enum."""

    significant = "significant"
    best = "best"


def show_table(
    folder: Path,
    selection: str = "source_val",
    metrics: list[str] | None = None,
    tests: list[str] | None = None,
    digits: int = 2,
    beside: bool = False,
    bold: Literal["significant", "best"] = "significant",
    interval: bool = False,
) -> None:
    """Print a grid's table and write it to the grid's `tables/`."""
    from results.index import GridIndex
    from results.render import TerminalTable
    from results.tables import build_table, write_tables

    index = GridIndex.read(folder)
    for part in index.grid.parts:
        console.print(TerminalTable(build_table(index.part(part), selection, metrics, tests, digits, beside, bold, interval)))
        console.print()
    files = write_tables(index, folder / "tables", selection, metrics, tests, digits, beside, bold, interval)
    console.print(f"wrote {', '.join(str(f) for f in files)}", soft_wrap=True)


def table(
    grid: Annotated[str, typer.Argument(help="Name of a grid that was started.")],
    runs: Runs = Path("runs"),
    selection: Annotated[
        str, typer.Option(help="Which checkpoint is reported: last, source_val, or the oracles best_per_test and top3_per_test.")
    ] = "source_val",
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="auc, 'frame auc', 'video eer', ...; may be given often. Default: by role.")
    ] = None,
    test: Annotated[list[str] | None, typer.Option("--test", help="Only this test set; may be given often.")] = None,
    digits: Annotated[int, typer.Option(min=0, max=6, help="Decimals.")] = 2,
    beside: Annotated[bool, typer.Option(help="Add the numbers that the RoGA paper reports for these optimizers.")] = False,
    bold: Annotated[
        Bold,
        typer.Option(help="significant: the best where it beats the runner-up by more than chance; best: whatever is highest."),
    ] = Bold.significant,
    interval: Annotated[bool, typer.Option("--interval", help="Print 95% intervals over videos (cluster bootstrap).")] = False,
) -> None:
    """Optimizers as rows, backbones and metrics as columns; also written as CSV, LaTeX and Markdown."""
    from results.record import RecordError

    if Path(grid).name != grid:
        raise RecordError(f"'{grid}' is no name of a grid; give the folder that holds it with --runs")
    show_table(runs / grid, selection, metric, test, digits, beside, bold.value, interval)
