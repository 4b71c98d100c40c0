"""One table with every selection rule side by side: how far the choice of the checkpoint alone moves the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from results.files import write_atomically
from results.index import GridIndex
from results.latex import latex
from results.printed import Table
from results.render import markdown, printed_csv
from results.selection import SELECTIONS
from results.tables import Bold, build_table
from results.tidy import tidy

ALL = "all"
"""What a user says in place of a rule's name."""


def build_side_by_side(
    index: GridIndex,
    metrics: Sequence[str] | None = None,
    tests: Sequence[str] | None = None,
    digits: int = 2,
    bold: Bold = "significant",
    interval: bool = False,
) -> Table:
    """The table of `build_table` with a column for each rule of `SELECTIONS` in place of each column; oracles are called so.

    Args:
        index: a grid of one part.
        metrics, tests, digits, bold, interval: as in `build_table`.

    Raises:
        RecordError: unknown metric or test set.
    """
    tables = [build_table(index, name, metrics, tests, digits, bold=bold, interval=interval) for name in SELECTIONS]
    first = tables[0]
    headings = [
        (detector, test, f"{metric} ({role})", rule.label)
        for detector, test, role, metric in first.headings
        for rule in SELECTIONS.values()
    ]
    columns = range(len(first.headings))
    entries = [[table.entries[row][at] for at in columns for table in tables] for row in range(len(first.rows))]
    return Table(
        title=first.title,
        corner="optimizer (checkpoint: every rule; an oracle looks at the test set to choose)",
        headings=headings,
        rows=first.rows,
        entries=entries,
        notes=list(dict.fromkeys(entry.reason for line in entries for entry in line if entry.reason)),
        # Sentence by sentence, so that what is said of one rule stands beside what is said of the others.
        trail=list(dict.fromkeys(sentence for of in zip_longest(*(t.trail for t in tables)) for sentence in of if sentence)),
    )


def write_side_by_side(
    index: GridIndex,
    out_dir: str | Path,
    metrics: Sequence[str] | None = None,
    tests: Sequence[str] | None = None,
    digits: int = 2,
    bold: Bold = "significant",
    interval: bool = False,
) -> list[Path]:
    """Write selections.csv, .tex and .md (of a grid in parts, one selections-PART for each) and selections-tidy.csv.

    Args:
        index: the grid.
        out_dir: folder, made if it is not there.
        metrics, tests, digits, bold, interval: as in `build_table`.

    Returns:
        The files.

    Raises:
        RecordError: unknown metric or test set.
    """
    contents: dict[str, str] = {}
    for part in index.grid.parts:
        table = build_side_by_side(index.part(part), metrics, tests, digits, bold, interval)
        suffix = f"-{part}" if part else ""
        contents[f"selections{suffix}.csv"] = printed_csv(table)
        contents[f"selections{suffix}.tex"] = latex(table, label=f"tab:{index.grid.name}{suffix}-selections")
        contents[f"selections{suffix}.md"] = markdown(table)
    rows = pd.concat([tidy(index, name) for name in SELECTIONS], ignore_index=True)
    contents["selections-tidy.csv"] = rows.to_csv(index=False, lineterminator="\n")
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content.encode())
    return [folder / name for name in contents]
