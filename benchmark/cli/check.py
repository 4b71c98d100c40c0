"""`dfgrid check`: does a detector or an optimizer, your own too, keep the contract?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from benchmark.cli.console import console
from benchmark.cli.reference import Plugins, load

if TYPE_CHECKING:
    from detectors.outcome import Outcome

check_app = typer.Typer(help="Put a detector or an optimizer through the contract; exit code 1 if it fails.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A registered name; see dfgrid list.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, KEY=VALUE with the value in YAML; may be given often.")
]


@check_app.command()
def detector(
    name: Name,
    plugin: Plugins = None,
    setting: Settings = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile's default backend build it too, not only trace it.")
    ] = False,
) -> None:
    """Shapes, number formats, gradients, state, learning, torch.compile, and one step of every optimizer.

    Small faces make it fast: --set size=32.
    """
    from benchmark.contract import check_detector

    load(plugin)
    _report(name, check_detector(name, _parsed(setting), "inductor" if compile else "eager"))


@check_app.command()
def optimizer(name: Name, plugin: Plugins = None, setting: Settings = None) -> None:
    """Settings, gradient, what it leaves behind, memory, waiting for the device, and learning."""
    from benchmark.contract import check_optimizer

    load(plugin)
    _report(name, check_optimizer(name, _parsed(setting)))


def _parsed(settings: list[str] | None) -> dict[str, Any]:
    from benchmark.reading import ConfigError, parse_yaml

    found = {}
    for text in settings or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {text}: write KEY=VALUE, e.g. --set size=64")
        found[key] = parse_yaml(value, f"--set {text}")
    return found


def _report(name: str, outcomes: Iterator[Outcome]) -> None:
    failed = total = 0
    for found in outcomes:
        total += 1
        if found.problems:
            failed += 1
            console.print(f"[red]fail[/]  {escape(found.title)}", soft_wrap=True)
            for problem in found.problems:
                console.print(f"      {escape(problem)}", soft_wrap=True)
        elif found.skipped:
            console.print(f"[yellow]skip[/]  {escape(found.title)}: {escape(found.skipped)}", soft_wrap=True)
        else:
            console.print(f"[green]pass[/]  {escape(found.title)}", soft_wrap=True)
    console.print(f"{escape(name)}: {total - failed} of {total} checks without a problem", soft_wrap=True)
    if failed:
        raise typer.Exit(1)
