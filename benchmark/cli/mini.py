"""`dfgrid grid run GRID --data mini`: draw what the grid needs, run it scaled down, show the paper's table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.cli.console import console, counted, progress, warn


def run_mini(
    grid: str,
    runs: Path,
    device: str,
    workers: int,
    only: list[str] | None,
    threads: int,
    plugins: list[str],
    data: Path | None = None,
    launcher: str = "local",
    address: str | None = None,
    replace: bool = False,
) -> Any:
    """Draw what is missing, run every cell that is not done, print the table; returns the outcome of the run."""
    from benchmark.cli.options import check_device
    from benchmark.cli.papers import show_paper_table
    from benchmark.cli.results import show_table
    from benchmark.cli.running import run_grid
    from benchmark.launch import check_launcher
    from benchmark.mini import FOLDER, draw, mini_study, stand_ins
    from benchmark.pool import slots
    from results.papers import PAPER_TABLES

    check_launcher(launcher, address)
    if launcher == "local":
        check_device(device)
    study = mini_study(grid, plugins)
    study.cells()  # a name that is not known is told before anything is drawn
    home, processes = data or FOLDER, len(slots(device, workers, threads))
    warn(f"everything that this run is trained and tested on is drawn (into {home}/mini); its numbers are no evidence")
    made = 0
    with progress() as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total, unit="video")
            bar.update(tasks[what], completed=done, total=total)

        wanted = stand_ins(study)
        for one in wanted:
            made += draw(one, home, processes, show)
    console.print(f"{made} of {counted(len(wanted), 'dataset')} drawn now, {len(wanted) - made} there already")
    outcome = run_grid(study, runs, home, device, workers, only, threads, launcher=launcher, address=address, replace=replace)
    if outcome is not None and outcome.stopped:
        return outcome
    layouts = [table for table in PAPER_TABLES.values() if table.folder(mini=True) == study.name]
    if not layouts:
        show_table(runs / study.name)
    for layout in layouts:
        show_paper_table(layout.name, "measured", runs, mini=True)
    return outcome
