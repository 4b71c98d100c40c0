"""A paper's table as it is printed, before any renderer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from results.papers.layout import PaperTable
from results.printed import marker


@dataclass(frozen=True)
class PaperEntry:
    """One cell.

    Attributes:
        text: without marks; a dash where there is no number, never nothing.
        notes: sentences that its marks refer to: its trail, or why it has no number.
        number: what the best of a column is found by: the number as printed; None for a dash.
        bold, underlined: the best, and the second best where the paper marks it.
        measured, sd, seeds, reported: what is behind it, in the unit of the table, for the tidy file; "" or 0 where there is none.
    """

    text: str
    notes: tuple[str, ...] = ()
    number: float | None = None
    bold: bool = False
    underlined: bool = False
    measured: float | None = None
    sd: float | None = None
    seeds: int = 0
    reported: str = ""


@dataclass(frozen=True)
class PrintedPaper:
    """A paper's table as printed.

    Attributes:
        layout: which table.
        mode: "reported", "measured" or "beside".
        title: what stands above it.
        stubs: rows x stub columns.
        entries: rows x columns.
        trail: sentences beneath the notes.
    """

    layout: PaperTable
    mode: str
    title: str
    stubs: list[tuple[str, ...]]
    entries: list[list[PaperEntry]]
    trail: list[str]

    @property
    def notes(self) -> list[str]:
        """Each note once, in the order in which a reader meets their marks."""
        return list(dict.fromkeys(note for line in self.entries for entry in line for note in entry.notes))

    def marks(self, entry: PaperEntry) -> str:
        """The footnote letters of an entry, such as "a,c"."""
        order = self.notes
        return ",".join(marker(order.index(note)) for note in entry.notes)

    def shown_stubs(self, row: int) -> tuple[str, ...]:
        """A row's names, a group's own only in its first row, as the papers merge them."""
        depth = 0 if row == 0 or self.starts_group(row) else self.layout.groups
        return tuple("" if at < depth else text for at, text in enumerate(self.stubs[row]))

    def starts_group(self, row: int) -> bool:
        """Whether a rule stands above this row."""
        depth = self.layout.groups
        return row > 0 and depth > 0 and self.stubs[row][:depth] != self.stubs[row - 1][:depth]


def competitions(layout: PaperTable, entries: list[list[PaperEntry]]) -> Iterator[tuple[int, list[int]]]:
    """(column, rows) whose numbers compete: those of a column, or of each group in it; two at least. Column by column."""
    if not layout.numbers:
        return
    depth = len(layout.stubs) - 1 if layout.best == "group" else 0
    keys = [row.key[:depth] for row in layout.rows]
    for at in range(len(layout.columns)):
        for key in dict.fromkeys(keys):
            rows = [i for i, other in enumerate(keys) if other == key and entries[i][at].number is not None]
            if len(rows) > 1:
                yield at, rows


def emphasize(layout: PaperTable, entries: list[list[PaperEntry]]) -> list[list[PaperEntry]]:
    """The best of each column (or of each group in it) in bold, the second best underlined where the layout says so.

    Ties are ties as printed.
    """
    found = [list(line) for line in entries]
    for at, rows in competitions(layout, entries):
        ranked = _ranked((entries[i][at].number for i in rows), layout.columns[at].lower)
        for i in rows:
            number = entries[i][at].number
            second = layout.second and len(ranked) > 1 and number == ranked[1]
            found[i][at] = replace(entries[i][at], bold=number == ranked[0], underlined=second)
    return found


def emphasis(layout: PaperTable) -> list[str]:
    """The sentence that explains what `emphasize` marks, or nothing."""
    if not layout.numbers:
        return []
    return [f"Bold: best of its {layout.numbers}{'; underlined: second best' if layout.second else ''}."]


def _ranked(numbers: Iterable[float | None], lower: bool) -> list[float]:
    """The different numbers, the best first."""
    return sorted({n for n in numbers if n is not None}, reverse=not lower)
