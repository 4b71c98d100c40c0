"""`dfgrid list`: what can be named in a grid or on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console, warn

if TYPE_CHECKING:
    from detectors.cards import Card

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
    from benchmark.docs import table
    from detectors import DETECTORS
    from detectors.cards import read_cards

    if plugin:
        load(plugin)
    cards = read_cards()
    others = [name for name in DETECTORS.names() if name not in cards]
    if measure:
        cards |= _measured(others)
    if markdown:
        typer.echo(table(cards), nl=False)
        return
    rows = {name: _row(found) for name, found in cards.items()}
    rows |= {name: (_summary(DETECTORS.get(name)), *[""] * 6) for name in others if name not in cards}
    console.print(_detector_table(rows, console.width))
    console.print("Besides these: timm/<model>, any model of timm. Weights: none and PATH always, dfb is dfb:PATH.")
    console.print("Papers, pooling, normalisation, settings and PIM's insertion points: docs/detectors.md")
    if others and not measure:
        console.print("The size and cost of a plug-in's detectors: --measure")


def _measured(names: list[str]) -> dict[str, Card]:
    """The cards of the detectors that can be built and run; of each other one it is said why not."""
    from detectors.measure import card

    cards = {}
    for name in names:
        try:
            cards[name] = card(name, device="cpu")
        except (Exception, SystemExit) as error:  # a plug-in fails in any way, and the others are still to be shown
            said = " ".join(str(error).split())
            warn(f"detector '{name}' cannot be measured ({type(error).__name__}: {said}); see dfgrid check detector {name}")
    return cards


def _row(card: Card) -> tuple[str, ...]:
    from benchmark.docs import millions

    cost = millions(card.parameters), f"{card.gflops:.3g}", f"{card.size} px"
    ways = ", ".join(way for way in card.weights if way != "none")
    return card.citation or card.title, card.backbone, *cost, ", ".join(card.needs) or "–", ways or "–"


def _detector_table(rows: dict[str, tuple[str, ...]], width: int) -> Table:
    """The table for a terminal of `width` columns: no name is broken; below 100 the backbone is left out."""
    table = Table(
        title="Detectors", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("name", no_wrap=True)
    backbone = width >= 100
    # Where there is not room for whole sentences, every column is as wide as its longest word.
    words = {"paper": 11, "backbone": 20, "params": 7, "GFLOPs": 6, "input": 6, "needs": 8, "weights": 9}
    shown = [column for column in words if column != "backbone" or backbone]
    for column in shown:
        right = column in ("params", "GFLOPs", "input")
        table.add_column(column, justify="right" if right else "left", width=words[column] if width < 120 else None)
    for name, row in rows.items():
        table.add_row(name, *(text for column, text in zip(words, row, strict=True) if column in shown))
    return table


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
