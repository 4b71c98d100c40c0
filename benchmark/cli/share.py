"""`dfgrid export` and `dfgrid import-results`: a grid's results out and in as one archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from benchmark.cli.console import console, counted, progress
from benchmark.cli.options import Runs


def grid_folder(grid: str, runs: Path) -> Path:
    """The folder of a grid that was started; an unknown name is told its neighbours."""
    from optimizers.registry import did_you_mean
    from results.files import RecordError

    if Path(grid).name != grid:
        raise RecordError(f"'{grid}' is no name of a grid; give the folder that holds it with --runs")
    known = sorted(p.parent.name for p in runs.glob("*/grid.json"))
    if grid not in known and not (runs / grid).is_dir():
        raise RecordError(
            f"no grid '{grid}' was started in {runs}: {did_you_mean(grid, known)}"
            if known
            else f"{runs} holds no grid; run `dfgrid grid run {grid}`, or name another folder with --runs"
        )
    return runs / grid


def export(
    grid: Annotated[str, typer.Argument(help="Name of a grid that was started.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .tar.gz or .zip.")],
    runs: Runs = Path("runs"),
) -> None:
    """Check every cell, then pack records, scores and tables into one archive with checksums and a README."""
    from benchmark.share import export_grid
    from results.files import RecordError

    folder = grid_folder(grid, runs)
    if not out.parent.is_dir():
        raise RecordError(f"--out {out}: the folder {out.parent} does not exist")
    with progress() as bar:
        task = bar.add_task("check", total=None, unit="cell")
        count = export_grid(folder, out, lambda done, total: bar.update(task, completed=done, total=total))
    console.print(f"wrote {out}: {counted(count, 'cell')}, {decimal(out.stat().st_size)}", soft_wrap=True, markup=False)


def import_results(
    archives: Annotated[list[Path], typer.Argument(help="Archives of `dfgrid export`, of one or several grids.")],
    runs: Runs = Path("runs"),
) -> None:
    """Merge archives of several machines; refuses one that is not what it claims. Nothing is written unless all can be."""
    from benchmark.share import import_archives

    with progress() as bar:
        task = bar.add_task("check", total=len(archives), unit="archive")
        merged = import_archives(archives, runs, lambda done, total: bar.update(task, completed=done, total=total))
    for m in merged:
        console.print(
            f"{m.folder}: {counted(len(m.added), 'cell')} added, {len(m.same)} there already", soft_wrap=True, markup=False
        )
