"""What a published table looks like, and which of our numbers belongs into each of its cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from results.record import Level, Metric

NOT_IN_ZOO = "not in dfgrid's zoo: the number of another paper"
"""Why a row of other people's numbers is not measured."""


@dataclass(frozen=True)
class Where:
    """Which of a grid's numbers a cell shows; detector and optimizer by the titles that the grid gives them.

    `changed`: "before" or "after" of `dfgrid probe statistics`; "" for a number of the record.
    """

    part: str = ""
    detector: str = ""
    optimizer: str = ""
    test: str = ""
    level: Level = "frame"
    metric: Metric = "auc"
    changed: Literal["", "before", "after"] = ""


@dataclass(frozen=True)
class PaperColumn:
    """A column of numbers.

    Attributes:
        csv: its name in the reported table.
        heading: lines above it, outermost first.
        where: what it adds to its rows' `Where`.
        decimals: behind the point.
        scale: 100 where the paper prints percentages of what is a fraction here, else 1.
        lower: whether lower is better.
        mean_of: the columns (by `csv`) whose mean it is; it has no number of its own then.
    """

    csv: str
    heading: tuple[str, ...]
    where: Mapping[str, str] = field(default_factory=dict)
    decimals: int = 2
    scale: float = 100
    lower: bool = False
    mean_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperRow:
    """A row: the text of its stubs as the reported table has it, and where its numbers are, or why dfgrid does not measure them."""

    key: tuple[str, ...]
    where: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class PaperTable:
    """A published table.

    Attributes:
        name: as the user types it, such as "roga/4".
        title: what it shows.
        source: the paper and the table's number in it.
        csv: name of the reported table.
        grid: name of the grid whose records fill it.
        stubs: the reported table's columns that name a row.
        columns, rows: in the paper's order.
        groups: how many leading stubs name a group of rows; groups are ruled apart.
        best: within which cells the best is bold and, with `second`, the next underlined: a "column", a column's "group" of rows
            (those that differ in their last stub alone), or "none" where the rows are no competitors.
        second: whether the second best is underlined.
        note: the reported table's column of remarks, or "".
        probed: whether its numbers are what `dfgrid probe statistics` finds in the grid's cells, at the weights of their last step.
        remark: a sentence beneath measured tables: what the paper leaves open, or "".
    """

    name: str
    title: str
    source: str
    csv: str
    grid: str
    stubs: tuple[str, ...]
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]
    groups: int = 0
    best: Literal["column", "group", "none"] = "column"
    second: bool = False
    note: str = ""
    probed: bool = False
    remark: str = ""

    def command(self, mini: bool = False) -> str:
        """What fills the table."""
        end = "-mini" if mini else ""
        run = f"dfgrid grid run {self.grid.replace('-', '/', 1)}{' --data mini' if mini else ''}"
        return f"{run} && dfgrid probe statistics {self.grid}{end}" if self.probed else run

    def folder(self, mini: bool = False) -> str:
        """Name of the grid's folder below runs/."""
        return f"{self.grid}{'-mini' if mini else ''}"

    @property
    def numbers(self) -> Literal["column", "group of rows that differ in their last name alone", ""]:
        """Within what numbers compete, in words; "" where they do not."""
        if self.best == "none":
            return ""
        return "column" if self.best == "column" else "group of rows that differ in their last name alone"
