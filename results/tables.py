"""From a grid's records to the table that a paper prints, with everything a reader needs to doubt it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal, get_args

from results.compare import NOT_SIGNIFICANT, Comparison, Leading, on_fewer_seeds
from results.files import RecordError, write_atomically
from results.index import GridIndex, WantedCell
from results.latex import latex
from results.printed import DASH, LOWER_IS_BETTER, Column, Entry, Table
from results.record import METRICS, Level, Metric, Role
from results.render import markdown, printed_csv
from results.reported import NOT_REPORTED, ROGA_TABLE4, Beside, reported_for
from results.resampled import Resampled
from results.selection import selection_named
from results.tidy import tidy
from results.trail import trail

Bold = Literal["significant", "best"]
"""What is bold: the best of a column where it differs significantly from the runner-up, or whatever is highest."""

# Frame level is what the field's tables compare, in-domain against held-out; video level is what a user meets.
DEFAULT_METRICS: dict[Role, list[tuple[Level, Metric]]] = {
    "in-domain": [("frame", "auc")],
    "held-out": [("frame", "auc"), ("video", "auc")],
    "cross-dataset": [("frame", "auc"), ("video", "auc")],
}


def columns_for(index: GridIndex, metrics: Sequence[str] | None = None, tests: Sequence[str] | None = None) -> list[Column]:
    """The measured columns: detectors, within them test sets, within them metrics; all in the grid's order.

    Args:
        index: the grid.
        metrics: such as ["frame auc", "video acc"], or ["auc"] for both levels; None takes `DEFAULT_METRICS` of each test's role.
        tests: names of test sets; None takes all.

    Raises:
        RecordError: no such metric or test set.
    """
    known = [t.name for t in index.grid.tests]
    for name in tests or []:
        if name not in known:
            raise RecordError(f"grid '{index.grid.name}' has no test set '{name}'; it has {', '.join(known)}")
    wanted = None if metrics is None else [pair for text in metrics for pair in _parse(text)]
    return [
        Column(detector, test.name, test.role, level, metric)
        for detector in index.grid.detectors
        for test in index.grid.tests
        if tests is None or test.name in tests
        for level, metric in (wanted or DEFAULT_METRICS.get(test.role, []))
    ]


def _parse(text: str) -> list[tuple[Level, Metric]]:
    """'auc' -> both levels; 'video auc' -> one."""
    words = text.split()
    levels = [level for level in get_args(Level) if words[:-1] in ([], [level])]
    if not words or not levels or words[-1] not in METRICS:
        raise RecordError(f"unknown metric '{text}'; say one of {', '.join(METRICS)}, or with its level as in 'frame auc'")
    return [(level, metric) for level in levels for metric in METRICS if metric == words[-1]]


def build_table(
    index: GridIndex,
    selection: str = "source_val",
    metrics: Sequence[str] | None = None,
    tests: Sequence[str] | None = None,
    digits: int = 2,
    beside: bool = False,
    bold: Bold = "significant",
    interval: bool = False,
) -> Table:
    """Optimizers as rows, detectors x test sets x metrics as columns, mean over seeds with its sample standard deviation.

    Args:
        index: a grid of one part (`GridIndex.part` gives one of several).
        selection: key of `SELECTIONS`: which checkpoint is reported.
        metrics, tests: which columns; see `columns_for`.
        digits: behind the point, of percentages; log loss has one more.
        beside: add the column that the RoGA paper reports (`ROGA_TABLE4`), labelled as not measured here.
        bold: see `Bold`; significance is tested from the cells' scores (`results.compare`).
        interval: print 95% intervals over videos in brackets.

    Raises:
        RecordError: unknown selection, metric or test set.
    """
    columns = columns_for(index, metrics, tests)
    rows = index.grid.optimizers
    cells: dict[tuple[str, str], list[WantedCell]] = {}
    for cell in index.grid.cells:
        cells.setdefault((cell.optimizer, cell.detector), []).append(cell)
    comparison = Comparison(Resampled(index, selection))
    found = tidy(index, selection)
    keys = zip(found["cell"], found["test"], found["level"], found["metric"], strict=True)
    measured = dict(zip(keys, zip(found["value"].tolist(), found["reason"].tolist(), strict=True), strict=True))

    def seeds_of(row: str, column: Column) -> list[tuple[int, float | None, str]]:
        seeds = []
        for cell in cells.get((row, column.detector), []):
            value, reason = measured[cell.id, column.test, column.level, column.metric]
            seeds.append((cell.seed, None if reason else value, reason))
        return seeds

    entries = [[_entry(seeds_of(row, column), column.metric, digits) for column in columns] for row in rows]
    if interval:
        entries = [
            [_with_interval(e, comparison.interval(row, c), c.metric, digits) for e, c in zip(line, columns, strict=True)]
            for row, line in zip(rows, entries, strict=True)
        ]
    entries = _mark_best(entries, columns)
    meaning = "bold: best of its column"
    if bold == "significant":
        entries, meaning = _significant(entries, columns, rows, comparison)
    headings = [column.heading for column in columns]
    sentences = trail(index, selection_named(selection), {(c.test, c.level) for c in columns}, {c.metric for c in columns}, meaning)
    if beside:
        headings.append(ROGA_TABLE4.heading)
        entries = [[*line, _beside(index.optimizer_name(row), ROGA_TABLE4)] for row, line in zip(rows, entries, strict=True)]
        sentences.append(ROGA_TABLE4.note)
    return Table(
        title=index.grid.title or index.grid.name,
        corner=f"optimizer (checkpoint: {selection_named(selection).label})",
        headings=headings,
        rows=rows,
        entries=entries,
        notes=list(dict.fromkeys(entry.reason for line in entries for entry in line if entry.reason)),
        trail=sentences,
    )


def _entry(seeds: list[tuple[int, float | None, str]], metric: Metric, digits: int) -> Entry:
    """Mean ± SD over (seed, value, reason why there is none)."""
    if not seeds:
        return Entry(DASH, reason="not in the grid")
    reasons: dict[str, list[str]] = {}
    for seed, _, reason in seeds:
        if reason:
            reasons.setdefault(reason, []).append(str(seed))
    values = [value for _, value, _ in seeds if value is not None]
    each = "; ".join(f"seed{'s' * (len(of) > 1)} {', '.join(of)}: {reason}" for reason, of in reasons.items())
    if not values:
        return Entry(DASH, reason=next(iter(reasons)) if len(reasons) == 1 else each)
    if metric == "log_loss":
        digits += 1
    else:
        values = [100 * value for value in values]
    text = f"{fmean(values):.{digits}f}"
    if len(values) > 1:
        text += f"±{stdev(values):.{digits}f}"
    reason = f"over {len(values)} of {len(seeds)} seeds; {each}" if reasons else ""
    return Entry(text, reason=reason, mean=float(f"{fmean(values):.{digits}f}"))


def _mark_best(entries: list[list[Entry]], columns: list[Column]) -> list[list[Entry]]:
    """Ties are ties as printed, and all bold; a number that stands alone in its column is not the best of anything."""
    bests: list[float | None] = []
    for at, column in enumerate(columns):
        means = [m for line in entries if (m := line[at].mean) is not None]
        best = min if column.metric in LOWER_IS_BETTER else max
        bests.append(best(means) if len(means) > 1 else None)
    return [
        [Entry(e.text, e.mean is not None and e.mean == best, e.reason, e.mean) for e, best in zip(line, bests, strict=True)]
        for line in entries
    ]


def _with_interval(entry: Entry, interval: tuple[float, float] | None, metric: Metric, digits: int) -> Entry:
    """`91.23 [89.10, 93.02]`; a number without an interval says why by having none."""
    if entry.mean is None or interval is None:
        return entry
    scale, places = (1, digits + 1) if metric == "log_loss" else (100, digits)
    low, high = (f"{scale * end:.{places}f}" for end in interval)
    return replace(entry, text=f"{entry.text} [{low}, {high}]")


def _significant(
    entries: list[list[Entry]], columns: list[Column], rows: list[str], comparison: Comparison
) -> tuple[list[list[Entry]], str]:
    """Keep bold only what beats the runner-up; the sentence says what bold means and where nothing is."""
    why: dict[str, int] = {}
    results: list[Leading] = []
    for at, column in enumerate(columns):
        found = comparison.leading(column) if any(line[at].best for line in entries) else Leading(None)
        if found.reason:
            why[found.reason] = why.get(found.reason, 0) + 1
        results.append(found)
    marked = [
        [replace(e, best=row == r.best) for e, r in zip(line, results, strict=True)]
        for row, line in zip(rows, entries, strict=True)
    ]
    most = max((r.seeds for r in results), default=0) or len(comparison.index.grid.seeds)
    over = "videos and seeds" if most > 1 else "videos, which says nothing of other seeds"
    test = f"best of its column and significantly better than the runner-up (p < 0.05, paired over {over}; Holm's correction"
    marks = any(r.best for r in results)
    meaning = f"bold: {test} over the column's pairs)" if marks else f"nothing is bold, which would mean: {test})"
    ordered = sorted(why.items(), key=lambda item: item[0] != NOT_SIGNIFICANT)
    reasons = "".join(f"; in {n} of {len(columns)} columns {reason}" for reason, n in ordered)
    return marked, meaning + reasons + on_fewer_seeds(results, "column")


def _beside(optimizer: str, column: Beside) -> Entry:
    digits = reported_for(optimizer, column)
    return Entry(digits) if digits else Entry(DASH, reason=NOT_REPORTED)


def write_tables(
    index: GridIndex,
    out_dir: str | Path,
    selection: str = "source_val",
    metrics: Sequence[str] | None = None,
    tests: Sequence[str] | None = None,
    digits: int = 2,
    beside: bool = False,
    bold: Bold = "significant",
    interval: bool = False,
) -> list[Path]:
    """Write table.csv (as printed), tidy.csv, table.tex and table.md; of a grid in parts, one table-PART for each and one tidy.csv.

    Args:
        index: the grid.
        out_dir: folder, made if it is not there.
        selection, metrics, tests, digits, beside, bold, interval: as in `build_table`.

    Returns:
        The files.

    Raises:
        RecordError: unknown selection, metric or test set.
    """
    contents: dict[str, str] = {}
    for part in index.grid.parts:
        table = build_table(index.part(part), selection, metrics, tests, digits, beside, bold, interval)
        suffix = f"-{part}" if part else ""
        contents[f"table{suffix}.csv"] = printed_csv(table)
        contents[f"table{suffix}.tex"] = latex(table, label=f"tab:{index.grid.name}{suffix}")
        contents[f"table{suffix}.md"] = markdown(table)
    contents["tidy.csv"] = tidy(index, selection, Resampled(index, selection)).to_csv(index=False, lineterminator="\n")
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content.encode())
    return [folder / name for name in contents]
