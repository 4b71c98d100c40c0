"""From a paper's layout, its reported numbers and a grid's records to the table that is printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any, Literal, get_args

from results.files import RecordError
from results.index import GridIndex
from results.papers.evidence import Evidence
from results.papers.layout import PaperColumn, PaperTable, Where
from results.papers.printed import PaperEntry, PrintedPaper, emphasis, emphasize
from results.papers.significance import significant
from results.printed import DASH
from results.reported import reported

Mode = Literal["reported", "measured", "beside"]

NOT_PRINTED = "the paper prints no number here"


def build_paper_table(
    layout: PaperTable,
    mode: Mode = "reported",
    index: GridIndex | None = None,
    selection: str | None = None,
    bold: Literal["significant", "best"] = "significant",
) -> PrintedPaper:
    """A paper's table.

    Args:
        layout: which; see `PAPER_TABLES`.
        mode: "reported": the paper's digits. "measured": ours. "beside": ours, with the difference to the paper's.
        index: the grid's records; not needed for "reported".
        selection: key of `SELECTIONS`: which checkpoint is reported. None: source_val; of what was probed, the last.
        bold: of measured numbers; "significant" as in `results.tables`, or "best": whatever is highest, as the paper marks.

    Raises:
        RecordError: an unknown mode or selection, or records that are needed and not given.
    """
    if mode not in get_args(Mode):
        raise RecordError(f"unknown mode '{mode}'; say {', '.join(get_args(Mode))}")
    table = reported(layout.csv)
    keys = [tuple(line) for line in table[list(layout.stubs)].itertuples(index=False, name=None)]
    if keys != [row.key for row in layout.rows]:
        raise RecordError(f"the rows of the layout {layout.name} are not those of reported/{layout.csv}.csv")
    digits = [[str(table[column.csv].iloc[row]) for column in layout.columns] for row in range(len(keys))]
    if mode == "reported":
        remarks = list(table[layout.note]) if layout.note else [""] * len(keys)
        entries = [[_printed(text, remark) for text in line] for line, remark in zip(digits, remarks, strict=True)]
        trail = [f"As printed in {layout.source}. Nothing in this table was measured by dfgrid.", *emphasis(layout)]
        return PrintedPaper(layout, mode, f"{layout.name}: {layout.title} (reported)", keys, emphasize(layout, entries), trail)
    if index is None:
        raise RecordError(f"{layout.name} has no records yet; run `{layout.command()}`")
    evidence = Evidence(layout, index, selection_of(layout, selection))
    entries = measured(evidence)
    if bold == "best":
        entries, meaning = emphasize(layout, entries), [f"{s} It may be chance." for s in emphasis(layout)]
    else:
        entries, meaning = significant(evidence, entries)
    entries = [
        [replace(entry, reported=text) for entry, text in zip(line, texts, strict=True)]
        for line, texts in zip(entries, digits, strict=True)
    ]
    if mode == "beside":
        entries = [[_with_difference(e, column) for e, column in zip(line, layout.columns, strict=True)] for line in entries]
    title = index.grid.title or f"{layout.name}: {layout.title}"
    if index.grid.title and layout.probed:  # two tables share its grid
        title = f"{layout.name}: {title}"
    return PrintedPaper(layout, mode, f"{title} ({mode})", keys, entries, evidence.trail(mode, meaning))


def selection_of(layout: PaperTable, selection: str | None) -> str:
    """The rule that a table goes by.

    Raises:
        RecordError: one that does not fit what was probed.
    """
    if layout.probed and selection not in (None, "last"):
        raise RecordError(
            f"{layout.name} shows the weights of the last step, which `dfgrid probe statistics` opens, not those of '{selection}'; "
            "leave out --selection"
        )
    return selection or ("last" if layout.probed else "source_val")


def _printed(text: str, remark: str) -> PaperEntry:
    """A reported cell; every digit stays."""
    if not text:
        return PaperEntry(DASH, (NOT_PRINTED,))
    return PaperEntry(text, (remark,) if remark else (), float(text), reported=text)


def measured(evidence: Evidence) -> list[list[PaperEntry]]:
    """Every cell from its records, or a dash with the reason; cells under another protocol than most are marked."""
    layout = evidence.layout
    entries: list[list[PaperEntry]] = []
    protocols: list[list[str]] = []
    for row in layout.rows:
        of: dict[str, dict[int, float]] = {}
        line: list[PaperEntry] = []
        labels: list[str] = []
        for column in layout.columns:
            if row.reason:
                line.append(PaperEntry(DASH, (row.reason,)))
                labels.append("")
                continue
            if column.mean_of:
                entry = _average(column, of, line[-1])
                label = labels[-1] if entry.number is not None else ""
            else:
                where: dict[str, Any] = {**row.where, **column.where}
                values, notes, label = evidence.of(Where(**where))
                of[column.csv] = values
                entry = _entry(values, column, notes)
            line.append(entry)
            labels.append(label)
        entries.append(line)
        protocols.append(labels)
    usual = Counter(label for labels in protocols for label in labels if label)
    if len(usual) > 1:
        most = usual.most_common(1)[0][0]
        for line, labels in zip(entries, protocols, strict=True):
            for at, label in enumerate(labels):
                if label and label != most:
                    line[at] = replace(line[at], notes=(*line[at].notes, evidence.differing(label, most)))
    return entries


def _average(column: PaperColumn, of: dict[str, dict[int, float]], neighbour: PaperEntry) -> PaperEntry:
    """The mean of other columns, seed by seed; what is behind it is what is behind its neighbour."""
    parts = [of[name] for name in column.mean_of]
    seeds = set.intersection(*(set(part) for part in parts))
    if not seeds:
        return PaperEntry(DASH, ("a column of this average has no number",))
    values = {seed: fmean(part[seed] for part in parts) for seed in sorted(seeds)}
    return _entry(values, column, neighbour.notes)


def _entry(values: dict[int, float], column: PaperColumn, notes: Sequence[str]) -> PaperEntry:
    """Mean ± sample standard deviation over seeds."""
    if not values:
        return PaperEntry(DASH, tuple(notes))
    scaled = [column.scale * value for value in values.values()]
    text = f"{fmean(scaled):.{column.decimals}f}"
    sd = stdev(scaled) if len(scaled) > 1 else None
    spread = "" if sd is None else f"±{sd:.{column.decimals}f}"
    return PaperEntry(text + spread, tuple(notes), float(text), measured=fmean(scaled), sd=sd, seeds=len(scaled))


def _with_difference(entry: PaperEntry, column: PaperColumn) -> PaperEntry:
    """`93.10 (-0.53)`: measured, and how far that is from what the paper reports, both as printed."""
    if entry.number is None:
        return entry
    if not entry.reported:
        return replace(entry, notes=(*entry.notes, NOT_PRINTED))
    return replace(entry, text=f"{entry.text} ({entry.number - float(entry.reported):+.{column.decimals}f})")
