"""A paper's table on the terminal, as Markdown, as LaTeX, and as CSV: as printed, and tidy."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from results.files import write_atomically
from results.latex import escape
from results.papers.printed import PaperEntry, PrintedPaper
from results.printed import marker
from results.render import _plain, _row

GAP = 3
"""Spaces around a column of the terminal's table."""

TIDY_COLUMNS = ("column", "printed", "measured", "sd", "seeds", "reported", "notes")


class PaperTerminal:
    """Rich renderable. Where the terminal is too narrow, columns are cut into panels and the rows' names repeated.

    Args:
        table: what to print.
    """

    def __init__(self, table: PrintedPaper) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The title, the panels, and beneath them notes and trail."""
        yield Text(self.table.title, style="bold")
        for columns in self.panels(options.max_width):
            yield self._panel(columns)
        for number, note in enumerate(self.table.notes):
            yield Text(f"[{marker(number)}] {note}")
        for sentence in self.table.trail:
            yield Text(sentence, style="dim")

    def panels(self, width: int) -> list[list[int]]:
        """Columns of each panel, so that each is at most `width` wide (or holds one column)."""
        layout = self.table.layout
        stubs = sum(max(cell_len(name), *(cell_len(s[i]) for s in self.table.stubs)) + GAP for i, name in enumerate(layout.stubs))
        panels: list[list[int]] = [[]]
        used = stubs
        for at, column in enumerate(layout.columns):
            cells = [cell_len(self._text(line[at], self._room(at)).plain) for line in self.table.entries]
            need = max([*(cell_len(part) for part in column.heading), *cells]) + GAP
            if panels[-1] and used + need > width:
                panels.append([])
                used = stubs
            panels[-1].append(at)
            used += need
        return panels

    def _room(self, at: int) -> int:
        """Width of a column's widest marks. They have a place of their own, so that the numbers stand beneath each other."""
        return max(cell_len(self._marks(line[at])) for line in self.table.entries)

    def _marks(self, entry: PaperEntry) -> str:
        return f"[{self.table.marks(entry)}]" if entry.notes else ""

    def _text(self, entry: PaperEntry, room: int) -> Text:
        style = "bold" if entry.bold else "underline" if entry.underlined else ""
        return Text.assemble((entry.text, style), (self._marks(entry).ljust(room), "dim"))

    def _panel(self, columns: list[int]) -> Table:
        layout = self.table.layout
        panel = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 1))
        for name in layout.stubs:
            panel.add_column(Text(name), no_wrap=True)
        for at in columns:
            panel.add_column(Text("\n".join(layout.columns[at].heading)), justify="right", no_wrap=True)
        for row, entries in enumerate(self.table.entries):
            if self.table.starts_group(row):
                panel.add_section()
            panel.add_row(
                *(Text(s) for s in self.table.shown_stubs(row)), *(self._text(entries[at], self._room(at)) for at in columns)
            )
        return panel


def paper_markdown(table: PrintedPaper) -> str:
    """GitHub's Markdown; the second best is underlined by HTML, since Markdown cannot."""
    layout = table.layout
    headings = ["<br>".join(_plain(part) for part in column.heading) for column in layout.columns]
    lines = [f"### {_plain(table.title)}", "", _row([*(_plain(s) for s in layout.stubs), *headings])]
    lines.append(_row([*(["---"] * len(layout.stubs)), *(["---:"] * len(headings))]))
    for row, entries in enumerate(table.entries):
        cells = []
        for entry in entries:
            text = f"**{entry.text}**" if entry.bold else f"<u>{entry.text}</u>" if entry.underlined else entry.text
            cells.append(text + (f"<sup>{table.marks(entry)}</sup>" if entry.notes else ""))
        lines.append(_row([*(_plain(s) for s in table.shown_stubs(row)), *cells]))
    lines.append("")
    lines += [f"- <sup>{marker(number)}</sup> {_plain(note)}" for number, note in enumerate(table.notes)]
    lines += [f"- {_plain(sentence)}" for sentence in table.trail]
    return "\n".join(lines) + "\n"


def paper_latex(table: PrintedPaper) -> str:
    r"""A `table` environment; the preamble needs \usepackage{booktabs} and \usepackage{graphicx}."""
    layout = table.layout
    body: list[str] = []
    for row, entries in enumerate(table.entries):
        if table.starts_group(row):
            body.append(r"\midrule")
        # Braces: a row that begins with a bracket would be read as an option of the line break before it.
        body.append(
            " & ".join([*(f"{{{escape(s)}}}" for s in table.shown_stubs(row)), *(_cell(table, e) for e in entries)]) + r" \\"
        )
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage{graphicx}",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape(table.title)}}}",
        rf"\label{{tab:{layout.name.replace('/', '-')}-{table.mode}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{'l' * len(layout.stubs)}{'r' * len(layout.columns)}}}",
        r"\toprule",
        *_heading(table),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}%",
        "}",
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
        *(rf"\textsuperscript{{{marker(number)}}}~{escape(note)}\par" for number, note in enumerate(table.notes)),
        *(rf"{escape(sentence)}\par" for sentence in table.trail),
        r"\end{minipage}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _heading(table: PrintedPaper) -> list[str]:
    """The heading lines; equal neighbours of every line but the last are merged, with a rule beneath."""
    layout = table.layout
    depth = max(len(column.heading) for column in layout.columns)
    lines = []
    for level in range(depth):
        last = level == depth - 1
        cells = [f"{{{escape(name)}}}" if last else "" for name in layout.stubs]
        rules, at = [], len(layout.stubs) + 1
        for _, group in groupby(enumerate(layout.columns), key=lambda c: (c[1].heading[: level + 1], c[0] if last else 0)):
            members = [column for _, column in group]
            cells.append(rf"\multicolumn{{{len(members)}}}{{c}}{{{escape(members[0].heading[level])}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + len(members) - 1}}}")
            at += len(members)
        lines.append(" & ".join(cells) + r" \\")
        if not last:
            lines.append("".join(rules))
    return lines


def _cell(table: PrintedPaper, entry: PaperEntry) -> str:
    text = escape(entry.text)
    if entry.bold:
        text = rf"\textbf{{\boldmath {text}}}"
    elif entry.underlined:
        text = rf"\underline{{{text}}}"
    return text + (rf"\textsuperscript{{{table.marks(entry)}}}" if entry.notes else "")


def paper_printed_csv(table: PrintedPaper) -> str:
    """The printed cells, under the column names of the reported table; a reason stands in its cell, in brackets."""
    layout = table.layout
    cells = [
        [*stubs, *(e.text if e.number is not None else f"{e.text} ({'; '.join(e.notes)})" for e in entries)]
        for stubs, entries in zip(table.stubs, table.entries, strict=True)
    ]
    return pd.DataFrame(cells, columns=[*layout.stubs, *(c.csv for c in layout.columns)]).to_csv(index=False, lineterminator="\n")


def paper_tidy_csv(table: PrintedPaper) -> str:
    """One cell a row: what is printed, measured (unrounded, in the table's unit) and reported, and its notes."""
    layout = table.layout
    rows = [
        [*stubs, c.csv, e.text, e.measured, e.sd, e.seeds, e.reported, "; ".join(e.notes)]
        for stubs, entries in zip(table.stubs, table.entries, strict=True)
        for c, e in zip(layout.columns, entries, strict=True)
    ]
    return pd.DataFrame(rows, columns=[*layout.stubs, *TIDY_COLUMNS]).to_csv(index=False, lineterminator="\n")


def write_paper_table(table: PrintedPaper, folder: str | Path) -> list[Path]:
    """Write NAME-MODE.csv, -tidy.csv, .md and .tex into a folder, which is made if it is not there; returns the files."""
    stem = f"{table.layout.name.replace('/', '-')}-{table.mode}"
    contents = {
        f"{stem}.csv": paper_printed_csv(table),
        f"{stem}-tidy.csv": paper_tidy_csv(table),
        f"{stem}.md": paper_markdown(table),
        f"{stem}.tex": paper_latex(table),
    }
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(target / name, content.encode())
    return [target / name for name in contents]
