"""Tasks for worker processes, in a module that costs nothing to import."""

from __future__ import annotations

import sys
from collections.abc import Iterator


def counting(task: int) -> Iterator[int]:
    """Parts 0 to 4; the task 2 ends its process in between."""
    for number in range(5):
        if task == 2 and number == 3:
            sys.exit(5)
        yield 10 * task + number
