"""A table as it is printed, before any renderer: headings, cells, footnotes and what stands beneath."""

from __future__ import annotations

from dataclasses import dataclass

from results.record import Level, Metric, Role

METRIC_TITLES: dict[Metric, str] = {"auc": "AUC", "acc": "ACC", "ap": "AP", "eer": "EER", "log_loss": "log loss"}

LOWER_IS_BETTER: frozenset[Metric] = frozenset({"eer", "log_loss"})

DASH = "–"


@dataclass(frozen=True)
class Column:
    """One measured column of a table."""

    detector: str
    test: str
    role: Role
    level: Level
    metric: Metric

    @property
    def heading(self) -> tuple[str, str, str, str]:
        """Lines above the column, outermost first: detector, test set, its role, level and metric."""
        return (self.detector, self.test, self.role, f"{self.level} {METRIC_TITLES[self.metric]}")


@dataclass(frozen=True)
class Entry:
    """One cell of a table.

    Attributes:
        text: as printed, without markers; a dash where there is no number.
        best: whether it is printed bold.
        reason: why there is a dash, or why the mean is over fewer seeds than the grid wants; else "".
        mean: the number behind the text, rounded as printed, or None.
    """

    text: str
    best: bool = False
    reason: str = ""
    mean: float | None = None


@dataclass(frozen=True)
class Table:
    """A table as printed, before any renderer.

    Attributes:
        title: of the grid.
        corner: heading of the row names; names the selection rule.
        headings: per column four lines, outermost first.
        rows: names of the optimizers, in the grid's order.
        entries: rows x columns.
        notes: reasons, in order of their markers.
        trail: sentences beneath the table: what was measured, how, from which data, by which code.
    """

    title: str
    corner: str
    headings: list[tuple[str, str, str, str]]
    rows: list[str]
    entries: list[list[Entry]]
    notes: list[str]
    trail: list[str]

    def marker(self, entry: Entry) -> str:
        """The footnote letter of an entry (a, b, ..., z, aa, ...), or ""."""
        return marker(self.notes.index(entry.reason)) if entry.reason else ""


def marker(number: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa."""
    letters = ""
    while number >= 0:
        letters = chr(ord("a") + number % 26) + letters
        number = number // 26 - 1
    return letters
