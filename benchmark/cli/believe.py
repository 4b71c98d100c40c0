"""`dfgrid reproduce` and `dfgrid verify`: whether a record's numbers come out again."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console, counted, errors, progress
from benchmark.cli.options import Data, check_device
from benchmark.cli.reference import Plugins


def reproduce(
    record: Annotated[Path, typer.Argument(help="A record.json, or the folder that holds it.")],
    data: Data = Path("data"),
    store: Annotated[
        list[Path] | None,
        typer.Option("--store", help="A store that lies elsewhere; may be given often. Stores are known by content."),
    ] = None,
    keep: Annotated[Path | None, typer.Option("--keep", help="Folder for the new run; default: a scratch folder.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: as recorded, if it is there.")] = None,
    plugin: Plugins = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option("--weights", help="A file of first weights that lies elsewhere than the record says; known by content."),
    ] = None,
) -> None:
    """Run a cell again from its record alone, and compare scores, losses and measures to the bit. Exit code 1 if they differ."""
    from benchmark.reproduce import reproduce as run

    if device is not None:
        check_device(device)
    path = record / "record.json" if record.is_dir() else record
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dfgrid-reproduce-"))) / "cell"
        bar = stack.enter_context(progress())
        tasks: list[Any] = []  # none before there is something to count: a mistake ends the command without a bar

        def report(stage: str, done: int, total: int) -> None:
            tasks.extend([] if tasks else [bar.add_task("reproduce", total=None, unit="step")])
            bar.update(tasks[0], description=stage, completed=done, total=total, unit="step" if stage == "train" else "face")

        found = run(path, data, folder, store or (), plugin or (), weights or (), device, report)
    show(found)
    if not found.identical:
        raise typer.Exit(1)


def show(found: Any) -> None:
    """The verdict, what was different, and which numbers moved."""
    beside = "no scores to compare" if found.scores is None else "scores"
    if found.identical:
        console.print(f"[green]identical[/]: {found.measures} measures, {len(found.now.losses)} losses, {beside}, to the bit")
    for name, (then, now) in found.circumstances.items():
        console.print(f"other {name}: {escape(_short(then))} then, {escape(_short(now))} now", soft_wrap=True)
    if found.identical:
        return
    if not found.circumstances:
        errors.print("[red]not identical[/], though code, packages and machine are the same" + _why(found), soft_wrap=True)
    else:
        errors.print("[red]not identical[/]", soft_wrap=True)
    if found.loss is None:
        console.print("the losses stand at other steps")
    else:
        console.print(f"losses differ by at most {found.loss:.3g}")
    if found.scores is not None:
        console.print(
            f"scores differ by at most {found.scores:.3g}" + (", and the scored faces are others" if found.other_faces else "")
        )
    if found.moved:
        table = Table("set", "level", "step", "measure", "then", "now", "moved by")
        for m in found.moved:
            numbers = ("-" if v is None else f"{v:.6f}" for v in (m.then, m.now))
            table.add_row(m.test, m.level, str(m.step), m.metric, *numbers, f"{m.by:+.2g}")
        console.print(table)
    console.print(f"{len(found.moved)} of {found.measures} measures moved")


def _short(text: str) -> str:
    return text[:12] + "..." if len(text) == 64 else text


def _why(found: Any) -> str:
    return f": {found.now.provenance.inexact}" if found.now.provenance.inexact else ""


def verify(runs: Annotated[Path, typer.Argument(help="A folder of runs, of one grid, or of one cell.")] = Path("runs")) -> None:
    """Compute every measure of every record again from its scores, and check ids and grid files. Exit code 1 if one differs."""
    from benchmark.verify import verify as look

    found = look(runs)
    for f in found.findings:
        errors.print(f"[red]differs[/] {escape(str(f.path))}: {escape(f.sentence)}", soft_wrap=True)
    verdict = counted(len(found.findings), "finding") if found.findings else "all as recorded"
    console.print(f"{counted(found.records, 'record')}, {counted(found.numbers, 'number')} computed again: {verdict}")
    if found.findings:
        raise typer.Exit(1)
