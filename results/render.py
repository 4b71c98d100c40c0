"""A table on the terminal, as Markdown, and as a CSV file that looks as it is printed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import pandas as pd
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from results.printed import Entry, Table

GAP = 2
"""Spaces between columns; one more between detectors."""


class TerminalTable:
    """Rich renderable. Where the terminal is too narrow, the table is cut between detectors, else between test sets, into panels.

    Args:
        table: what to print.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self._texts = [[e.text for e in line] for line in table.entries]
        self._markers = [[f"[{table.marker(e)}]" if e.reason else "" for e in line] for line in table.entries]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The title, the panels, and beneath them notes and trail, wrapped to the width."""
        yield Text(self.table.title, style="bold")
        yield Text(self.table.corner, style="dim")
        for columns in self.panels(options.max_width):
            yield Text()
            yield from self._panel(columns)
        yield Text()
        for note in self.table.notes:
            yield Text(f"[{self.table.marker(Entry('', reason=note))}] {note}")
        for sentence in self.table.trail:
            yield Text(sentence, style="dim")

    def panels(self, width: int) -> list[list[int]]:
        """Columns of each panel, so that each is at most `width` wide (or holds one column)."""
        panels: list[list[int]] = [[]]
        self._pack(list(range(len(self.table.headings))), 0, width, panels)
        return [panel for panel in panels if panel]

    def _pack(self, columns: list[int], level: int, width: int, panels: list[list[int]]) -> None:
        """Fill panels with whole groups of a heading level (0 detector, 1 test set, ...); split one that is too wide."""
        for _, group in groupby(columns, key=lambda at: self.table.headings[at][: level + 1]):
            unit = list(group)
            if self._width(panels[-1] + unit) <= width:
                panels[-1].extend(unit)
            elif self._width(unit) <= width or len(unit) == 1:
                panels.append(unit)
            else:
                panels.append([])
                self._pack(unit, min(level + 1, 3), width, panels)

    def _width(self, columns: list[int]) -> int:
        return self._stub() + sum(self._gaps(columns)) + sum(self._widths(columns))

    def _stub(self) -> int:
        return max([cell_len(row) for row in self.table.rows], default=0)

    def _gaps(self, columns: list[int]) -> list[int]:
        """Spaces in front of each column."""
        detectors = [self.table.headings[at][0] for at in columns]
        return [GAP + (here != before) for here, before in zip(detectors, [None, *detectors], strict=False)]

    def _widths(self, columns: list[int]) -> list[int]:
        """Width of each column: its cells, its own heading, and its share of headings that are wider than what they span."""
        headings = [self.table.headings[at] for at in columns]
        widths = [max(cell_len(heading[3]), sum(self._parts(at))) for heading, at in zip(headings, columns, strict=True)]
        for level in (2, 1, 0):
            start = 0
            for heading, group in groupby(h[: level + 1] for h in headings):
                count = len(list(group))
                lacking = cell_len(heading[level]) - sum(widths[start : start + count]) - GAP * (count - 1)
                for i in range(max(lacking, 0)):
                    widths[start + i % count] += 1
                start += count
        return widths

    def _parts(self, at: int) -> tuple[int, int]:
        """Widths of a column's widest text and widest marker."""
        text = max([cell_len(line[at]) for line in self._texts], default=0)
        return text, max([cell_len(line[at]) for line in self._markers], default=0)

    def _panel(self, columns: list[int]) -> Iterator[Text]:
        gaps, widths, stub = self._gaps(columns), self._widths(columns), self._stub()
        headings = [self.table.headings[at] for at in columns]
        for level in range(4):
            line, start, rule = Text(" " * stub), 0, Text(" " * stub)
            for heading, group in groupby(h[: level + 1] for h in headings):
                count = len(list(group))
                span = sum(widths[start : start + count]) + sum(gaps[start + 1 : start + count])
                text = Text(heading[level], style="bold" if level == 0 else "")
                text.align("center" if level < 3 else "right", span)
                line.append(" " * gaps[start]).append_text(text)
                rule.append(" " * gaps[start] + "─" * span)
                start += count
            line.rstrip()
            yield line
            if level in (0, 2):
                yield rule
        yield Text("─" * (stub + sum(gaps) + sum(widths)))
        for name, entries, texts, markers in zip(self.table.rows, self.table.entries, self._texts, self._markers, strict=True):
            row = Text(name + " " * (stub - cell_len(name)))
            for at, gap, width in zip(columns, gaps, widths, strict=True):
                # Markers have a place of their own, so that the numbers stand beneath each other.
                room = self._parts(at)[1]
                row.append(" " * (gap + width - room - cell_len(texts[at])))
                row.append(texts[at], style="bold" if entries[at].best else "")
                row.append(markers[at] + " " * (room - cell_len(markers[at])), style="dim")
            row.rstrip()
            yield row


def markdown(table: Table) -> str:
    """GitHub's Markdown: the four heading lines in one cell, bold for the best, footnotes and trail as a list beneath."""
    lines = [
        f"### {_plain(table.title)}",
        "",
        _row([_plain(table.corner), *("<br>".join(_plain(part) for part in h) for h in table.headings)]),
        _row(["---", *(["---:"] * len(table.headings))]),
    ]
    for name, entries in zip(table.rows, table.entries, strict=True):
        cells = [f"**{e.text}**" if e.best else e.text for e in entries]
        cells = [c + (f"<sup>{table.marker(e)}</sup>" if e.reason else "") for c, e in zip(cells, entries, strict=True)]
        lines.append(_row([_plain(name), *cells]))
    lines.append("")
    lines += [f"- <sup>{table.marker(Entry('', reason=note))}</sup> {_plain(note)}" for note in table.notes]
    lines += [f"- {_plain(sentence)}" for sentence in table.trail]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text in which Markdown sees no markup (code spans in backticks stay)."""
    return "".join("\\" + c if c in "\\*_|<>[]#" else c for c in text)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def printed_csv(table: Table) -> str:
    """The printed cells as CSV with four header rows; a reason stands in its cell, in brackets.

    Read it with `pandas.read_csv(path, header=[0, 1, 2, 3], index_col=0, keep_default_na=False)`.
    """
    cells = [[e.text + (f" ({e.reason})" if e.reason else "") for e in line] for line in table.entries]
    columns = pd.MultiIndex.from_tuples(table.headings, names=["detector", "test", "role", "metric"])
    return pd.DataFrame(cells, index=pd.Index(table.rows, name=table.corner), columns=columns).to_csv(lineterminator="\n")
