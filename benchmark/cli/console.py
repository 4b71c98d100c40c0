"""What every command shows its user: one console, one kind of progress bar."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Into a file or a pipe there is no width to ask for; tables of the usual size fit into this.
WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120

console = Console(highlight=False, width=WIDTH)
errors = Console(stderr=True, highlight=False)


def warn(sentence: str, bar: Progress | None = None) -> None:
    """Say something to stderr that does not stop the command; on a terminal that shows `bar`, above it."""
    onto = bar.console if bar is not None and bar.console.is_terminal else errors
    onto.print(f"[yellow]warning[/] {escape(sentence)}", soft_wrap=True)


def counted(number: int, word: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number} {word}{'s' * (number != 1)}"


class RateColumn(ProgressColumn):
    """Items per second, over the last half minute."""

    def render(self, task: Task) -> Text:
        """The rate, in the task's unit."""
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit", "")
        return Text("" if not speed else f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}", style="dim")


def progress(transient: bool = False, auto_refresh: bool = True) -> Progress:
    """A progress display with count, rate, elapsed time and ETA. Tasks take a field `unit`.

    Args:
        transient: whether it is gone when it is left.
        auto_refresh: whether a thread redraws it; else it is drawn where `refresh` is called.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=30,
        transient=transient,
        auto_refresh=auto_refresh,
    )
