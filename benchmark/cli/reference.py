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
def detectors(
    plugin: Plugins = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a Markdown table.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Build the detectors that plug-ins add, to count their parameters and operations.")
    ] = False,
) -> None:
    """Detectors: paper, backbone, size, cost, what training must give them, and where their weights come from."""
    from benchmark.docs import millions, table
    from detectors import DETECTORS
    from detectors.cards import read_cards

    if plugin:
        load(plugin)
    cards = read_cards()
    others = [name for name in DETECTORS.names() if name not in cards]
    if measure:
        from detectors.measure import card

        cards |= {name: card(name, device="cpu") for name in others}
        others = []
    if markdown:
        typer.echo(table(cards), nl=False)
        return
    shown = Table(title="Detectors", title_justify="left")
    for column in ("name", "detector", "backbone", "parameters", "GFLOPs", "input", "needs", "weights"):
        shown.add_column(column, overflow="fold", justify="right" if column in ("parameters", "GFLOPs", "input") else "left")
    for name, found in cards.items():
        title = f"{found.title} ({found.year})" if found.year else found.title
        cost = millions(found.parameters), f"{found.gflops:.3g}", f"{found.size} px"
        shown.add_row(name, title, found.backbone, *cost, ", ".join(found.needs) or "–", ", ".join(found.weights) or "–")
    for name in others:
        shown.add_row(name, _summary(DETECTORS.get(name)), "", "", "", "", "", "")
    console.print(shown)
    console.print("Besides these: timm/<model>, every model of timm. A path is always a source of weights too, dfb is dfb:PATH.")
    console.print("Papers, pooling, normalisation, settings and PIM's insertion points: docs/detectors.md")
    if others:
        console.print("The size and cost of a plug-in's detectors: --measure")


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
