"""Cells run with progress bars, everything that can be checked being checked before the first step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from benchmark.cli.console import console, counted, errors, progress, warn
from benchmark.cli.options import check_device, chosen


def look_ahead(cells: list[Any], data: Path) -> tuple[dict[str, int], list[str], dict[str, int]]:
    """Optimizer steps of each cell by its id, every warning about its data, its domains; a missing store or split is told here."""
    from benchmark.data import FaceFrames
    from benchmark.reads import cell_warnings, open_stores, select
    from benchmark.self_blended import training_batches

    empty: Any = None  # the pixels do not matter for counting steps
    known: dict[str, tuple[int, int]] = {}
    steps: dict[str, int] = {}
    warnings: dict[str, None] = {}
    domains: dict[str, int] = {}
    for cell in cells:
        p = cell.protocol
        same = f"{cell.train} {cell.tests} {p.batch_size} {p.class_balance} {p.duplicates}"
        if same not in known:
            stores = open_stores(cell, data)
            (rows, methods), _ = select(cell, stores)
            known[same] = training_batches(cell.train, p, FaceFrames(rows, methods, empty), 0, None).steps, len(methods)
            warnings |= dict.fromkeys(cell_warnings(cell, stores))
        steps[cell.id], domains[cell.id] = known[same][0] * p.all_epochs, known[same][1]
    return steps, list(warnings), domains


def look_at_fit(cells: list[Any], weights: bool = True) -> None:
    """`check_fit` with a progress bar, as a large detector takes some seconds; says which first weights it read."""
    from benchmark.fitting import check_fit

    with progress() as bar:
        task = bar.add_task("look at detectors", total=None, unit="detector")
        loaded = check_fit(cells, weights, lambda done, total: bar.update(task, completed=done, total=total))
        bar.update(task, visible=False)
    for sentence in loaded:
        console.print(f"[dim]{escape(sentence)}[/]", soft_wrap=True)


def too_short(cells: list[Any], steps: dict[str, int], domains: dict[str, int]) -> list[str]:
    """A sentence if cells are too short for a look at gradients that costs next to nothing, as `diagnostics_every: auto` has it."""
    from benchmark.diagnostics import schedule
    from optimizers import OPTIMIZERS

    count = 0
    for cell in cells:
        rule = OPTIMIZERS.build(cell.optimizer.name, **cell.optimizer.settings)
        count += schedule(cell.protocol.diagnostics_every, steps[cell.id], rule, domains[cell.id]).short
    cells_are = "the only cell is" if count == len(cells) == 1 else f"{count} of {len(cells)} cells {'is' if count == 1 else 'are'}"
    return [
        f"{cells_are} too short to look at gradients and sharpness beside training within one hundredth of its time; "
        "set protocol.diagnostics_every to a number of steps if you want that"
    ] * bool(count)


def run_grid(
    study: Any,
    runs: Path,
    data: Path,
    device: str,
    workers: int,
    only: list[str] | None = None,
    threads: int = 1,
    add: bool = False,
    launcher: str = "local",
    address: str | None = None,
    replace: bool = False,
    fit: bool = False,
) -> Any:
    """Check everything that can be checked before the first step, then run with progress bars; returns the outcome.

    `fit` says that the caller has done `look_at_fit`.
    """
    from benchmark.config import ConfigError
    from benchmark.launch import check_launcher, finished, write_index
    from benchmark.mishaps import place_to_write
    from benchmark.same_name import check_same_grid

    check_launcher(launcher, address)
    if launcher == "local":  # elsewhere, another machine's devices count
        check_device(device)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, one talks and writes
    console.quiet = not first
    cells = chosen(study.cells(), only)
    if not fit:
        look_at_fit(cells)  # a size, a weights file or an optimizer that does not fit is told now, not by every cell
    steps, warnings, domains = look_ahead(cells, data)
    for sentence in warnings if first else []:
        warn(sentence)
    for sentence in too_short(cells, steps, domains) if first else []:
        console.print(f"[dim]{sentence}[/]", soft_wrap=True)
    folder = runs / study.name
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose another folder with --runs")
    done = finished(cells, folder, data)
    todo = [c for c in cells if c.id not in done]
    if first:
        place_to_write(folder)
        for sentence in [] if add or replace else check_same_grid(study, folder):
            warn(sentence)
        tell_of_lost_scores(todo, folder)
        write_index(study, folder, add)
    if not todo:
        console.print(f"{folder}: nothing to run, {_all_are(len(cells))} done")
        return None
    outcome = run_study_cells(study.name, todo, folder, data, device, workers, threads, launcher, address, steps)
    if done:
        console.print(f"{counted(len(done), 'cell')} {'was' if len(done) == 1 else 'were'} done already")
    return outcome


def tell_of_lost_scores(todo: list[Any], folder: Path) -> None:
    """Say which of a grid's cells have a record whose scores are lost, and from what they are made anew."""
    from benchmark.anew import what_is_made_anew

    for sentence in filter(None, (what_is_made_anew(folder / c.id) for c in todo)):
        warn(sentence)


def run_study_cells(
    name: str,
    todo: list[Any],
    folder: Path,
    data: Path,
    device: str,
    workers: int,
    threads: int,
    launcher: str,
    address: str | None,
    steps: dict[str, int] | None = None,
) -> Any:
    """Run cells with progress bars and say what became of them; returns the outcome."""
    from benchmark.launch import WARNING, Event, run_cells

    steps = steps if steps is not None else look_ahead(todo, data)[0]
    names = {c.id: " / ".join(filter(None, (c.part, c.detector.title, c.optimizer.title, f"seed {c.seed}"))) for c in todo}
    with progress() as bar:
        whole = bar.add_task(f"{name}: {counted(len(todo), 'cell')}", total=sum(steps[c.id] for c in todo), unit="step")
        tasks: dict[str, Any] = {}
        trained: dict[str, int] = {}

        def on_event(event: Event) -> None:
            if event.stage == WARNING:
                warn(f"{names[event.cell]}: {event.reason}", bar)
            elif event.stage in ("finished", "failed", "stopped", "busy"):
                if event.cell in tasks:
                    bar.remove_task(tasks.pop(event.cell))
                if event.stage == "finished":
                    bar.console.print(f"[green]done[/]    {escape(names[event.cell])}")
                    trained[event.cell] = steps[event.cell]
                elif event.stage == "failed":
                    bar.console.print(
                        f"[red]failed[/]  {escape(names[event.cell])}: {escape(' '.join(event.reason.split()))}", soft_wrap=True
                    )
                else:
                    bar.console.print(f"[yellow]{event.stage:8}[/]{escape(names[event.cell])}")
            else:
                if event.cell not in tasks:
                    tasks[event.cell] = bar.add_task("", total=steps[event.cell], unit="step")
                unit = "step" if event.stage == "train" else "face"
                bar.update(
                    tasks[event.cell],
                    description=f"  {names[event.cell]}: {event.stage}",
                    completed=event.done,
                    total=event.total,
                    unit=unit,
                )
                if event.stage == "train":
                    trained[event.cell] = event.done
            bar.update(whole, completed=sum(trained.values()))

        outcome = run_cells(todo, folder, data, device, workers, threads, on_event, launcher, address)
    if outcome.busy and not console.quiet:
        busy = len(outcome.busy)
        errors.print(f"[yellow]{counted(busy, 'cell')} {'is' if busy == 1 else 'are'} being run by another process[/]")
    if outcome.failed and not console.quiet:
        count = f"{len(outcome.failed)} of {counted(len(todo), 'cell')} failed"
        errors.print(f"[red]{count}[/]; failure.json in a cell's folder in {escape(str(folder))} says why", soft_wrap=True)
    if outcome.stopped and not console.quiet:
        errors.print(f"Stopped{_kept(outcome.stopped, folder)}. Run the same command to go on.", soft_wrap=True)
    return outcome


def _kept(stopped: list[str], folder: Path) -> str:
    """What the stopped cells go on from, in words."""
    count = sum((folder / cell / "checkpoint.pt").exists() for cell in stopped)
    if not count:
        return " before a checkpoint was written"
    if count == len(stopped):
        return "; its checkpoint is kept" if count == 1 else "; checkpoints are kept"
    return f"; of {len(stopped)} cells that are left, {count} {'has' if count == 1 else 'have'} a checkpoint"


def _all_are(cells: int) -> str:
    return "its only cell is" if cells == 1 else f"all {cells} cells are"


def finish(outcome: Any) -> None:
    """Exit code of a command that ran cells: 130 if stopped, 1 if a cell failed."""
    if outcome is not None and outcome.stopped:
        raise typer.Exit(130)
    if outcome is not None and (outcome.failed or outcome.busy):
        raise typer.Exit(1)
