"""A published table that remembers which of its cells were read, and arithmetic on printed digits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from results.reported import reported


@dataclass(frozen=True)
class Cell:
    """One printed cell: the table, what names its row, its column, and its text as printed."""

    table: str
    row: str
    column: str
    text: str

    def __str__(self) -> str:
        return f"{self.table} [{self.row}, {self.column}] = {self.text or 'empty'}"


@dataclass
class Published:
    """A table from `results/reported/`, read cell by cell. `read` holds every cell that was asked for, once, in order.

    Numbers are `Decimal`: differences of printed digits are exact, so 94.25 - 93.39 is .86 and no float near it.
    """

    name: str
    read: dict[Cell, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rows = [{str(key): str(text) for key, text in row.items()} for row in reported(self.name).to_dict("records")]

    def rows(self, **where: str) -> list[dict[str, str]]:
        """The rows whose columns hold the given text; a column that is no Python name as in `rows(**{"+PIM": "yes"})`."""
        return [row for row in self._rows if all(row[column] == text for column, text in where.items())]

    def row(self, **where: str) -> dict[str, str]:
        """The one row whose columns hold the given text."""
        (found,) = self.rows(**where)
        return found

    def text(self, row: dict[str, str], column: str) -> str:
        """The printed text of one cell."""
        settings = [f"{key} {text}" for key, text in row.items() if key in SETTINGS]
        words = [text for key, text in row.items() if text and not _is_number(text) and key != column]
        self.read[Cell(self.name, ", ".join(settings or words), column, row[column])] = None
        return row[column]

    def number(self, row: dict[str, str], column: str) -> Decimal | None:
        """The printed number, exactly; None for an empty cell."""
        text = self.text(row, column)
        return Decimal(text) if text else None

    def value(self, row: dict[str, str], column: str) -> Decimal:
        """The printed number of a cell that is known to hold one."""
        found = self.number(row, column)
        assert found is not None, f"{self.name}: no number in column {column}"
        return found

    def best(self, column: str, rows: Iterable[dict[str, str]] | None = None) -> tuple[dict[str, str], Decimal]:
        """The row with the highest number of a column (the first of equals), and that number. Empty cells do not count."""
        numbers = [(row, n) for row in (self._rows if rows is None else rows) if (n := self.number(row, column)) is not None]
        return max(numbers, key=lambda pair: pair[1])


SETTINGS = ("alpha", "rho", "r", "alpha+beta", "alpha:beta")
"""Columns of numbers that name a row instead of measuring something."""


def mean(numbers: Iterable[Decimal]) -> Decimal:
    """Arithmetic mean, exactly as far as `Decimal` goes."""
    values = list(numbers)
    return sum(values, Decimal(0)) / len(values)


def _is_number(text: str) -> bool:
    try:
        Decimal(text)
    except InvalidOperation:
        return False
    return True
