"""`dfgrid table`: records to a table."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

from benchmark.cli.console import console
from benchmark.cli.options import Runs
from benchmark.cli.papers import Mini, Mode, Out, show_paper_table


class Bold(str, Enum):
    """What a table prints bold; typer of every version shows the choices of an Enum."""

    significant = "significant"
    best = "best"


def show_table(
    folder: Path,
    selection: str | None = None,
    metrics: list[str] | None = None,
    tests: list[str] | None = None,
    digits: int = 2,
    beside: bool = False,
    bold: Literal["significant", "best"] = "significant",
    interval: bool = False,
    out: Path | None = None,
) -> None:
    """Print a grid's table and write it to `out`, else the grid's `tables/`; the selection is the protocol's unless it is said."""
    from results.files import RecordError
    from results.index import GridIndex
    from results.render import TerminalTable
    from results.selection import protocol_selection
    from results.side_by_side import ALL, build_side_by_side, write_side_by_side
    from results.tables import build_table, write_tables

    index = GridIndex.read(folder)
    target = out or folder / "tables"
    if selection == ALL:
        if beside:
            raise RecordError("--beside goes with one selection; leave out --selection all")
        for part in index.grid.parts:
            console.print(TerminalTable(build_side_by_side(index.part(part), metrics, tests, digits, bold, interval)))
            console.print()
        files = write_side_by_side(index, target, metrics, tests, digits, bold, interval)
        console.print(f"wrote {', '.join(str(f) for f in files)}", soft_wrap=True)
        return
    selection = selection or protocol_selection(index.records.values())
    for part in index.grid.parts:
        console.print(TerminalTable(build_table(index.part(part), selection, metrics, tests, digits, beside, bold, interval)))
        console.print()
    files = write_tables(index, target, selection, metrics, tests, digits, beside, bold, interval)
    console.print(f"wrote {', '.join(str(f) for f in files)}", soft_wrap=True)


def table(
    grid: Annotated[
        str,
        typer.Argument(help="Name of a grid that was started, or of a paper's table, such as roga/4 (see: dfgrid list tables)."),
    ],
    runs: Runs = Path("runs"),
    selection: Annotated[
        str | None,
        typer.Option(
            help="Which checkpoint is reported: last, source_val, the oracles best_per_test and top3_per_test, or all side by side."
            " Default: what the protocol says."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="auc, 'frame auc', 'video eer', ...; may be given often. Default: by role.")
    ] = None,
    test: Annotated[list[str] | None, typer.Option("--test", help="Only this test set; may be given often.")] = None,
    digits: Annotated[int | None, typer.Option(min=0, max=6, help="Decimals. Default: 2.")] = None,
    beside: Annotated[bool, typer.Option(help="Add the numbers that the RoGA paper reports for these optimizers.")] = False,
    mode: Mode = None,
    mini: Mini = False,
    out: Out = None,
    bold: Annotated[
        Bold,
        typer.Option(help="significant: the best where it beats the runner-up by more than chance; best: whatever is highest."),
    ] = Bold.significant,
    interval: Annotated[bool, typer.Option("--interval", help="Print 95% intervals over videos (cluster bootstrap).")] = False,
) -> None:
    """A grid's table: optimizers as rows, backbones and metrics as columns; or a paper's table in its own layout (roga/4).

    Also written as CSV, LaTeX and Markdown.
    """
    from results.files import RecordError
    from results.index import never_started
    from results.papers import looks_like_a_paper_table, nearest_paper_tables

    if looks_like_a_paper_table(grid):
        own = {"--metric": metric, "--test": test, "--digits": digits is not None, "--beside": beside, "--interval": interval}
        given = [option for option, value in own.items() if value]
        if given:
            raise RecordError(
                f"{given[0]} is for a grid's own table; {grid} has the paper's columns and decimals, and --mode beside puts the "
                "paper's numbers beside ours"
            )
        show_paper_table(grid, mode or "reported", runs, mini, selection, out, bold.value)
        return
    if Path(grid).name != grid:
        raise RecordError(f"'{grid}' is no name of a grid; give the folder that holds it with --runs")
    if mode is not None or mini:
        option = "--mini" if mini else f"--mode {mode}"
        raise RecordError(f"{option} is for a paper's table, such as roga/4; '{grid}' is taken for a grid's name")
    if not (runs / grid).is_dir() and (near := nearest_paper_tables(grid)):
        raise RecordError(f"{never_started(runs / grid)}; papers' tables are named as {', '.join(near)} (dfgrid list tables)")
    show_table(runs / grid, selection, metric, test, 2 if digits is None else digits, beside, bold.value, interval, out)
