"""`dfgrid grid plan`: what a grid will cost and which stores it needs, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import filesize
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console, counted, progress
from benchmark.cli.options import Data, Device, Only, Threads, Workers, check_device, chosen
from benchmark.cli.reference import Plugins

if TYPE_CHECKING:
    from benchmark.plan import CellPlan, GridPlan, Need

UNKNOWN = "?"


def grid_plan(
    grid: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a grid that comes with dfgrid (see: dfgrid list grids).")
    ],
    data: Data = Path("data"),
    device: Device = "cpu",
    workers: Workers = 1,
    threads: Threads = 1,
    only: Only = None,
    plugin: Plugins = None,
) -> None:
    """Before anything runs: cells, passes, faces, hours on this machine, disk, and the stores that are missing.

    Hours are an estimate from a few timed passes of each detector; the stores need not be there.
    """
    from benchmark.cli.running import look_at_fit
    from benchmark.config import ConfigError
    from benchmark.mini import WORD
    from benchmark.plan import plan_grid
    from benchmark.study import load_grid

    if data == Path(WORD):
        raise ConfigError("--data mini draws what it needs and takes minutes; plan the grid itself, without --data mini")
    check_device(device)
    study = load_grid(grid, plugins=[str(p) for p in plugin or []])
    cells = chosen(study.cells(), only)
    look_at_fit(cells, weights=False)
    with progress() as bar:
        task = bar.add_task("time detectors", total=len({c.detector.title for c in cells}), unit="detector")

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        plan = plan_grid(cells, data, device, threads, show)
    console.print(f"[bold]{escape(study.title or study.name)}[/]: {counted(len(cells), 'cell')}", soft_wrap=True)
    console.print(_cells(plan.cells))
    console.print(_stores(plan.needs))
    for sentence in [*_totals(plan, device, workers, threads), *plan.uncertain]:
        console.print(sentence, markup=False, soft_wrap=True)
    for need in plan.needs:
        if not need.there:
            _how_to_get(need)
    console.print(
        f"Then: dfgrid grid run {grid}" + ("" if data == Path("data") else f" --data {data}"), markup=False, soft_wrap=True
    )


def _cells(cells: list[CellPlan]) -> Table:
    """A row for the seeds of one part, detector and optimizer."""
    groups: dict[tuple[str, str, str], list[CellPlan]] = {}
    for c in cells:
        groups.setdefault((c.cell.part, c.cell.detector.title, c.cell.optimizer.title), []).append(c)
    table = Table(title="Cells (estimates)", title_justify="left")
    for name in ("part", "detector", "optimizer"):
        table.add_column(name, overflow="fold")
    for name in (
        "seeds",
        "passes\na step",
        "work, in\nplain steps",
        "steps\na cell",
        "faces trained\na cell",
        "faces scored\na cell",
    ):
        table.add_column(name, justify="right")
    table.add_column("time\nall seeds", justify="right")
    for who, of in groups.items():
        one = of[0]
        numbers = (str(len(of)), f"{one.passes.count:.3g}", f"{one.passes.work:.2f}")
        counts = (_count(one.steps), _count(one.faces), _count(one.scored))
        time = UNKNOWN if one.hours is None else _time(sum(c.hours or 0 for c in of))
        table.add_row(*(escape(w) for w in who), *numbers, *counts, time)
    return table


def _stores(needs: list[Need]) -> Table:
    from benchmark.plan import STORE_BYTES

    table = Table(title="Stores", title_justify="left")
    for name in ("store", "state", "faces", "disk (estimate)"):
        table.add_column(name, justify="left" if name in ("store", "state") else "right", overflow="fold")
    for need in needs:
        state = "[green]there[/]" if need.there else "[red]missing[/]"
        faces = ("" if need.there else "about ") + _count(need.faces)
        table.add_row(escape(str(need.path)), state, faces, UNKNOWN if need.faces is None else _bytes(need.faces * STORE_BYTES))
    return table


def _totals(plan: GridPlan, device: str, workers: int, threads: int) -> list[str]:
    here = f"{device}, {threads} thread{'s' * (threads > 1)} a cell"
    if plan.hours is None:
        known = [c.hours for c in plan.cells if c.hours is not None]
        cells = f"{len(known)} of {counted(len(plan.cells), 'cell')}"
        time = f"Time: {_time(sum(known)) if known else UNKNOWN} for {cells}, of the others unknown"
    else:
        time = f"Time: {_time(plan.hours)} of cells one after the other"
        time += f", {_time(plan.hours / workers)} with {workers} workers if each has a core of its own" if workers > 1 else ""
    scores = [c.scores for c in plan.cells]
    weights = [c.weights for c in plan.cells]
    parts = [f"checkpoints, two a cell, {_bytes(sum(2 * c.checkpoint for c in plan.cells))}"]
    parts.append(
        f"weights to be tested, while a cell runs, up to {UNKNOWN if None in weights else _bytes(max(w or 0 for w in weights))}"
    )
    parts.append(f"scores {UNKNOWN if None in scores else _bytes(sum(s or 0 for s in scores))}")
    parts += [f"decoded faces, kept once for all cells, {_bytes(plan.cache)}", f"stores that are missing {_bytes(plan.missing)}"]
    return [
        f"{time} (estimate: a few timed passes of each detector on this machine, {here}; reading, augmentation, a detector's own "
        "loss, checkpoints and the start of processes are not timed: cells of seconds take two to three times as long).",
        f"Disk (estimate): {', '.join(parts)}.",
    ]


def _how_to_get(need: Need) -> None:
    console.print(f"[bold]{escape(str(need.path))}[/] is missing.", soft_wrap=True)
    if need.layout is None:
        said = ["  no dataset that dfgrid knows has this name (dfgrid list datasets)"]
    else:
        said = [f"  get {need.layout.title} from {need.layout.url}", f"  terms: {need.layout.terms}"]
    for line in [*said, f"  then: {need.command}"]:
        console.print(line, markup=False, soft_wrap=True)


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def _bytes(number: int) -> str:
    return filesize.decimal(number)


def _time(hours: float) -> str:
    minutes, seconds = 60 * hours, 3600 * hours
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 2 else f"{max(1, seconds):.0f} s"
