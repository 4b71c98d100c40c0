"""`dfgrid table`: records to a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.experiments import Runs


def show_table(folder: Path) -> None:
    """Print a grid's table and write it to the grid's `tables/`."""
    raise SystemExit


def table(grid: Annotated[str, typer.Argument(help="Name of a grid that was started.")], runs: Runs = Path("runs")) -> None:
    """Optimizers as rows, backbones and metrics as columns; also written as CSV, LaTeX and Markdown."""
    show_table(runs / grid)
