"""`dfgrid preprocess --check`: what is wrong with a dataset's folder, before hours are spent on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from benchmark.cli.console import console, progress

if TYPE_CHECKING:
    from preprocessing.settings import Settings

COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


def run_check(source: Path, layout: str, compression: str, name: str | None, out: Path | None, settings: Settings) -> None:
    """Print what the doctor finds; exit code 1 where anything is wrong."""
    from preprocessing.doctor import check

    with progress() as bar:
        task = bar.add_task(f"look at {escape(source.resolve().name)}", total=None, unit="file")
        findings = check(
            source,
            layout,
            compression,
            name=name,
            out=out,
            settings=settings,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for finding in findings:
        console.print(f"[{COLOURS[finding.severity]}]{finding.severity}[/] {escape(finding.sentence)}", soft_wrap=True)
        for line in finding.examples:
            console.print(f"          {line}", style="dim", markup=False, soft_wrap=True)
    wrong = [f for f in findings if f.severity != "note"]
    if wrong:
        errors = sum(f.severity == "error" for f in wrong)
        console.print(
            f"{source}: {errors} errors, {len(wrong) - errors} warnings; nothing was written", markup=False, soft_wrap=True
        )
        raise typer.Exit(1)
    console.print(f"{source}: nothing wrong; nothing was written", markup=False, soft_wrap=True)
