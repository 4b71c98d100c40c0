"""What came of one check of a contract suite."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One check: what it looks at, what is wrong (a sentence each), and why it was skipped, if it was."""

    title: str
    problems: tuple[str, ...] = ()
    skipped: str = ""


class Skipped(Exception):
    """A check cannot be made here; the message is the reason."""


def outcome(title: str, run: Callable[[], Iterable[str]]) -> Outcome:
    """Make one check. It may fail in any way, and the others still have something to say."""
    problems = []
    try:
        for problem in run():
            problems.append(problem)  # one at a time: those before an exception are kept
    except Skipped as reason:
        return Outcome(title, tuple(problems), str(reason))
    except (Exception, SystemExit) as error:
        first = str(error).splitlines()[0] if str(error) else ""
        problems.append(f"{type(error).__name__}: {first}")
    return Outcome(title, tuple(problems))
