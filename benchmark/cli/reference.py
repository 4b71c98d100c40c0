"""`dfgrid list`: what can be named in a grid or on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console

list_app = typer.Typer(help="List detectors, optimizers, datasets and grids.", no_args_is_help=True)

Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="A Python file that registers more names; may be given often.")
]


def load(plugins: list[Path] | None) -> list[str]:
    """Load plug-ins; returns their absolute paths."""
    from benchmark.config import load_plugins

    files = [str(p.resolve()) for p in plugins or []]
    load_plugins(files)
    return files


def _summary(cls: type) -> str:
    return (cls.__doc__ or "").strip().split("\n")[0]


def _settings(registry: Any, name: str) -> str:
    shown = ((k, "required" if v is registry.NO_DEFAULT else v) for k, v in registry.settings(name).items())
    return ", ".join(f"{key}={value}" for key, value in shown)


@list_app.command()
def detectors(plugin: Plugins = None) -> None:
    """Detectors, with their settings."""
    from detectors import DETECTORS

    load(plugin)
    table = Table(title="Detectors", title_justify="left")
    for column in ("name", "what it is", "settings", "shallow modules (PIM)"):
        table.add_column(column, overflow="fold")
    for name in DETECTORS.names():
        cls: Any = DETECTORS.get(name)
        table.add_row(name, _summary(cls), _settings(DETECTORS, name), ", ".join(cls.shallow) or "none")
    console.print(table)


@list_app.command()
def optimizers(plugin: Plugins = None) -> None:
    """Optimizers, with their settings, and the base optimizers that spend their gradients."""
    from optimizers import OPTIMIZERS
    from optimizers.bases import BASES

    load(plugin)
    table = Table(title="Optimizers", title_justify="left")
    for column in ("name", "what it is", "settings", "base"):
        table.add_column(column, overflow="fold")
    for name in OPTIMIZERS.names():
        cls: Any = OPTIMIZERS.get(name)
        table.add_row(name, _summary(cls), _settings(OPTIMIZERS, name), cls.base)
    console.print(table)
    console.print(f"Base optimizers: {', '.join(sorted(BASES))}")


@list_app.command()
def datasets() -> None:
    """Dataset layouts that `dfgrid preprocess` reads: where to get them and which folders they must have."""
    from preprocessing.layouts import LAYOUTS

    for name, layout in LAYOUTS.items():
        console.print(f"[bold]{name}[/]  {layout.title}")
        console.print(f"  {layout.url}" if layout.url else "  (no download)", f"  terms: {layout.terms}", sep="\n", soft_wrap=True)
        console.print(f"  has: {layout.counts}", f"  splits: {layout.splits}", sep="\n", markup=False, soft_wrap=True)
        for word, said in (("counts from", layout.sources), ("uncertain", layout.uncertain)):
            if said:
                console.print(f"  {word}: {said}", markup=False, soft_wrap=True)
        for line in layout.tree.strip("\n").splitlines():
            console.print(f"    {line}", style="dim", markup=False, soft_wrap=True)
        console.print()


@list_app.command()
def grids() -> None:
    """Grids that come with dfgrid."""
    from benchmark.config import ConfigError
    from benchmark.study import grid_names, load_grid

    table = Table(title="Grids", title_justify="left")
    for column in ("name", "what it is", "cells"):
        table.add_column(column, overflow="fold")
    for name in grid_names():
        grid = load_grid(name)
        try:
            table.add_row(name, grid.title, str(len(grid.cells())))
        except ConfigError as error:  # a detector that only a plug-in brings must not hide the other grids
            table.add_row(name, grid.title, escape(str(error)))
    console.print(table)
