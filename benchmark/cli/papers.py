"""`dfgrid table roga/4` and `dfgrid list tables`: the papers' tables, as reported, as measured, or both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from benchmark.cli.console import console

Mode = Annotated[
    str | None,
    typer.Option(
        "--mode", help="Of a paper's table: reported (the default), measured, or beside (measured, and how far from reported)."
    ),
]
Mini = Annotated[
    bool, typer.Option("--mini", help="Of a paper's table: take the run on drawn mini data (dfgrid grid run GRID --data mini).")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder to write to; where nothing is said, measured tables go to the run's tables/."),
]


def show_paper_table(
    name: str,
    mode: str,
    runs: Path,
    mini: bool = False,
    selection: str | None = None,
    out: Path | None = None,
    bold: Literal["significant", "best"] = "significant",
) -> None:
    """Print a paper's table; write it as CSV (as printed and tidy), Markdown and LaTeX.

    Raises:
        RecordError: unknown table (the nearest are named), mode or selection; no records (what to run).
    """
    from typing import get_args

    from results.files import RecordError
    from results.index import GridIndex
    from results.papers import paper_table_named
    from results.papers.build import Mode as Modes
    from results.papers.build import build_paper_table
    from results.papers.render import PaperTerminal, write_paper_table
    from results.selection import protocol_selection

    layout = paper_table_named(name)
    if mode not in get_args(Modes):
        raise RecordError(f"--mode {mode}: unknown; say {', '.join(get_args(Modes))}")
    if mode == "reported" and (mini or selection is not None):
        option = "--mini" if mini else "--selection"
        raise RecordError(f"{option} is for measured numbers; say --mode measured or --mode beside with it")
    folder = runs / layout.folder(mini)
    index = None
    if mode != "reported":
        if not folder.is_dir():
            drawn = not mini and (runs / layout.folder(mini=True)).is_dir()
            there = ", or add --mini for the run on drawn data that is there" if drawn else ""
            raise RecordError(f"{name} has no records in {runs} yet; run `{layout.command(mini)}`{there}")
        index = GridIndex.read(folder)
    if selection is None and index and index.records and not layout.probed:
        selection = protocol_selection(index.records.values())
    table = build_paper_table(layout, mode, index, selection, bold)  # type: ignore[arg-type]
    console.print(PaperTerminal(table))
    target = out or (folder / "tables" if index else None)
    if target is not None:
        files = write_paper_table(table, target)
        console.print(f"wrote {', '.join(str(f) for f in files)}", soft_wrap=True)


def tables() -> None:
    """Tables of the papers that `dfgrid table` knows, and what fills each with numbers of your own."""
    from results.papers import PAPER_TABLES

    shown = Table(title="Tables of the papers", title_justify="left")
    for column in ("name", "what it shows", "measured by"):
        shown.add_column(column, overflow="fold")
    for name, layout in PAPER_TABLES.items():
        shown.add_row(name, layout.title, layout.command())
    console.print(shown)
