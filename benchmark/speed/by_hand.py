"""What measurements that somebody starts and waits for share: a bar, whole numbers, and an end in one sentence."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmark.cli.console import console, progress
from benchmark.launch import MISTAKES
from benchmark.memory import ran_out

REDRAWN = 0.2
"""Seconds from one drawing of the bar to the next."""


@contextmanager
def shown(what: str, total: int, unit: str) -> Iterator[Callable[[], None]]:
    """A bar that the yielded call moves on by one. It is gone at the end, and nothing of it goes into a file or a pipe.

    It is drawn in that call alone: a thread that redraws it by itself would take its time from what is measured.
    """
    if not console.is_terminal:  # rich would print an empty line for each bar
        yield lambda: None
        return
    with progress(transient=True, auto_refresh=False) as bar:
        task = bar.add_task(what, total=total, unit=unit)
        bar.refresh()
        drawn = time.monotonic()

        def one_more() -> None:
            nonlocal drawn
            bar.advance(task)
            if time.monotonic() - drawn > REDRAWN:
                bar.refresh()
                drawn = time.monotonic()

        yield one_more


def at_least(least: int) -> Callable[[str], int]:
    """What argparse reads a whole number with, of at least so many."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least {least}")
        return int(text)

    return read


def in_sentences(main: Callable[[], None]) -> None:
    """Call `main`. What a user can mend, and Ctrl-C or SIGTERM before anything is measured, end in one sentence and exit code 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped before anything was measured.")
    except MISTAKES as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"Error: {where}{error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        sys.exit("Error: out of memory; take a smaller --batch-size or --size")
