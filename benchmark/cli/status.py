"""`dfgrid grid status` and `grid retry`: how far a grid is, and its failed cells once more."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from benchmark.cli.console import console, counted, warn
from benchmark.cli.experiments import grid_app
from benchmark.cli.options import Address, Data, Device, Launcher, Runs, Threads, Workers, check_device
from benchmark.cli.reference import Plugins, load
from benchmark.cli.running import finish, run_study_cells, tell_of_lost_scores

PATIENCE = 20
"""Looks at a grid of which nothing runs and something waits, before `--watch` takes it for stopped."""

STYLES = {"done": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "waiting": "dim"}


@grid_app.command("status")
def grid_status(
    grid: Annotated[str, typer.Argument(help="Name of a grid that was started.")],
    runs: Runs = Path("runs"),
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look again every second until nothing runs; Ctrl-C ends it.")
    ] = False,
) -> None:
    """Which cells are done, running (where, how fast), failed (why) or waiting, and when all will be done."""
    from benchmark.standing import standing
    from results.index import grid_folder

    folder = grid_folder(runs, grid)
    if not watch:
        console.print(_view(standing(folder)))
        return
    quiet = 0
    with Live(console=console, auto_refresh=False) as live:
        while True:
            now = standing(folder)
            live.update(_view(now), refresh=True)
            # Nothing runs from one cell to the next, or while the first process starts.
            quiet = quiet + 1 if now.over else 0
            if quiet > (PATIENCE if now.count("waiting") else 0):
                return
            time.sleep(1)


def _view(standing: Any) -> Group:
    from benchmark.standing import STATES

    table = Table("cell", "state", "", "time")
    for cell in standing.cells:
        seconds = f"{cell.seconds:.0f} s" if cell.state == "done" else _left(cell.seconds) if cell.state == "running" else ""
        table.add_row(cell.id, f"[{STYLES[cell.state]}]{cell.state}[/]", escape(cell.detail), seconds)
    others = ", ".join(f"{standing.count(state)} {state}" for state in STATES[1:] if standing.count(state))
    eta = f"; {_left(standing.left)}" if standing.left else ""
    return Group(
        table,
        Text(f"{standing.count('done')} of {counted(len(standing.cells), 'cell')} done" + (f", {others}" if others else "") + eta),
    )


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, hours = seconds / 60, seconds / 3600
    return "ETA " + (f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s")


@grid_app.command("retry")
def grid_retry(
    grid: Annotated[str, typer.Argument(help="Name of a grid that was started.")],
    failed: Annotated[bool, typer.Option("--failed", help="Only failed cells, not those that were interrupted.")] = False,
    runs: Runs = Path("runs"),
    data: Data = Path("data"),
    device: Device = "cpu",
    workers: Workers = 1,
    threads: Threads = 1,
    launcher: Launcher = "local",
    address: Address = None,
    plugin: Plugins = None,
) -> None:
    """Run the cells again that failed, were interrupted or lost their scores, from their own settings, without the grid's file."""
    from benchmark.config import ConfigError, load_plugins
    from benchmark.launch import check_launcher
    from benchmark.standing import cells_to_retry
    from results.index import grid_folder

    check_launcher(launcher, address)
    if launcher == "local":
        check_device(device)
    load(plugin)
    folder = grid_folder(runs, grid)
    cells, unread = cells_to_retry(folder, failed)
    if unread and not cells:
        raise ConfigError(unread[0])
    for sentence in unread:
        warn(sentence)
    if not cells:
        console.print(f"{folder}: nothing to retry")
        return
    load_plugins(dict.fromkeys(file for cell in cells for file in cell.plugins))
    tell_of_lost_scores(cells, folder)
    finish(run_study_cells(folder.name, cells, folder, data, device, workers, threads, launcher, address))
    if unread:
        raise typer.Exit(1)
