"""What is bold in a measured table: the best where it beats the runner-up by more than chance, as in a grid's own tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import groupby
from typing import Any

import numpy as np

from results.compare import NOT_SIGNIFICANT, Leading, Pair, Seeds, leading, on_fewer_seeds, pairs_of
from results.papers.evidence import Evidence
from results.papers.layout import PaperColumn, PaperRow, Where
from results.papers.printed import PaperEntry, competitions
from results.resampled import Drawn
from results.statistics import ALPHA

Entries = list[list[PaperEntry]]


def significant(evidence: Evidence, entries: Entries) -> tuple[Entries, list[str]]:
    """Mark only what is more than chance; the sentence says what the marks mean and where there are none.

    In every column (or group in it) the best is tested against the runner-up: paired over the same videos and seeds, corrected by
    Holm's method over all pairs of rows that compete in the column. Where that holds and the table underlines the second best, that
    is underlined if the same test tells it from the third.
    """
    results: list[Leading] = []
    found = [list(line) for line in entries]
    for at, rows, result in leaders(evidence, entries):
        results.append(result)
        for row in rows:
            bold, second = result.best == str(row), evidence.layout.second and result.second == str(row)
            found[row][at] = replace(entries[row][at], bold=bold, underlined=second)
    return found, _sentence(evidence, results, any(e.bold for line in found for e in line))


def leaders(evidence: Evidence, entries: Entries) -> Iterator[tuple[int, list[int], Leading]]:
    """(column, rows that compete, who leads: a row's number as text) of every competition of two or more numbers."""
    layout = evidence.layout
    for at, group in groupby(competitions(layout, entries), key=lambda found: found[0]):
        column = layout.columns[at]
        competing = [rows for _, rows in group]
        numbers = [{str(row): drawn(evidence, layout.rows[row], column) for row in rows} for rows in competing]
        pairs = pairs_of(*numbers)
        for rows, of in zip(competing, numbers, strict=True):
            yield at, rows, _tested(of, {str(row): entries[row][at].measured for row in rows}, column.lower, pairs)


def _tested(numbers: dict[str, Seeds], printed: dict[str, float | None], lower: bool, pairs: list[Pair]) -> Leading:
    """Who leads, unless some printed number has no draws: what it is the mean of would not be what is tested."""
    lacking = [d for of in numbers.values() for d in of.values() if isinstance(d, str)]
    if lacking:
        return Leading(None, reason=f"not tested: {lacking[0]}")
    # Rows with other seeds than the rest are tested on the common ones; the order is that of what is printed.
    result = leading(numbers, lower, pairs)
    best = (min if lower else max)(n for n in printed.values() if n is not None)
    if result.best is not None and printed[result.best] != best:
        return replace(result, best=None, second=None, reason=NOT_SIGNIFICANT)
    return result


def drawn(evidence: Evidence, row: PaperRow, column: PaperColumn) -> Seeds:
    """Seed -> the number of a cell with its draws, or why there are none."""
    if not column.mean_of:
        where: dict[str, Any] = {**row.where, **column.where}
        return evidence.drawn(Where(**where))
    by_name = {c.csv: c for c in evidence.layout.columns}
    parts = [drawn(evidence, row, by_name[name]) for name in column.mean_of]
    return {seed: _mean([part[seed] for part in parts]) for seed in parts[0] if all(seed in part for part in parts)}


def _mean(parts: list[Drawn | str]) -> Drawn | str:
    """The mean over test sets, draw by draw.

    Sets with the same real videos (FaceForensics++'s forgeries of one test split) are drawn together; others by themselves, for
    which each takes its draws from another place of the same sequence.
    """
    found: list[Drawn] = []
    for part in parts:
        if isinstance(part, str):
            return part
        found.append(part)
    place = {reals: at for at, reals in enumerate(dict.fromkeys(d.reals for d in found))}
    draws = np.mean([np.roll(d.draws, place[d.reals]) for d in found], axis=0)
    videos = sha256("\n".join(d.videos for d in found).encode()).hexdigest()
    return Drawn(float(np.mean([d.value for d in found])), draws, videos)


def _sentence(evidence: Evidence, results: list[Leading], marked: bool) -> list[str]:
    layout = evidence.layout
    of = layout.numbers
    if not of:
        return ["Nothing is marked as best: the rows do not compete."]
    if not results:
        return []
    there = len({record.seed for record in evidence.index.records.values()})
    one = (max(r.seeds for r in results) or there) < 2
    over = f"videos, which says nothing of other seeds{', since there is one' * (there < 2)}" if one else "videos and seeds"
    test = (
        f"the best of its {of}, significantly better than the runner-up (p < {ALPHA:g}, paired over {over}; Holm's correction over "
        "the pairs of a column)"
    )
    second = "; underlined: the second best of those, where it is in turn significantly better than the third" * layout.second
    said = f"Bold: {test}{second}" if marked else f"Nothing is bold, which would mean: {test}"
    what = of.split(" ")[0]
    ordered = sorted(Counter(r.reason for r in results if r.reason).items(), key=lambda item: item[0] != NOT_SIGNIFICANT)
    reasons = "".join(f"; in {n} of {len(results)} {what}s {reason}" for reason, n in ordered)
    return [said + reasons + on_fewer_seeds(results, what) + "."]
