"""Optimizers compared: pairs on the same videos and seeds, and average ranks over test sets and backbones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
import pandas as pd

from results.files import RecordError
from results.index import GridIndex
from results.printed import LOWER_IS_BETTER, METRIC_TITLES, Column
from results.record import Level, Metric
from results.resampled import Drawn, Resampled
from results.statistics import ALPHA, Difference, Ranks, average_ranks, holm, paired_difference, wilcoxon


@dataclass(frozen=True)
class Pair:
    """Two optimizers in one column of a table.

    Attributes:
        first, second: titles, in the grid's order.
        difference: of the first minus the second; None where they cannot be compared.
        corrected: p by Holm's correction over the column's pairs; None without a difference.
        reason: why there is no difference; else "".
    """

    first: str
    second: str
    difference: Difference | None
    corrected: float | None
    reason: str = ""

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below `ALPHA`."""
        return self.corrected is not None and self.corrected < ALPHA


class Comparison:
    """Pairwise tests of one grid (or part of one) under one selection rule.

    Args:
        resampled: the draws of the grid's cells.
    """

    def __init__(self, resampled: Resampled) -> None:
        self.resampled = resampled
        self._cells: dict[tuple[str, str], dict[int, str]] = {}
        for cell in resampled.index.grid.cells:
            self._cells.setdefault((cell.optimizer, cell.detector), {})[cell.seed] = cell.id

    @property
    def index(self) -> GridIndex:
        """The grid."""
        return self.resampled.index

    def seeds(self, optimizer: str, column: Column) -> dict[int, Drawn | str]:
        """Seed -> the number of its cell with its draws, or why there is none."""
        found: dict[int, Drawn | str] = {}
        for seed, cell in self._cells.get((optimizer, column.detector), {}).items():
            try:
                found[seed] = self.resampled.of(cell, column.test, column.level, column.metric)
            except RecordError as error:
                found[seed] = str(error)
        return found

    def lacking(self, optimizer: str, column: Column) -> str:
        """Why a seed that has a number has no draws, the first such seed's reason; "" where none lacks them."""
        cells, where = self._cells.get((optimizer, column.detector), {}), (column.test, column.level, column.metric)
        found = self.seeds(optimizer, column)
        reasons = (d for seed, d in found.items() if isinstance(d, str) and self.resampled.measured(cells[seed], *where))
        return next(reasons, "")

    def interval(self, optimizer: str, column: Column) -> tuple[float, float] | None:
        """95% interval of the mean over the seeds that were measured, over videos; None where one of them has no draws."""
        drawn = [d for d in self.seeds(optimizer, column).values() if isinstance(d, Drawn)]
        if not drawn or len({d.videos for d in drawn}) > 1 or self.lacking(optimizer, column):
            return None
        low, high = np.quantile(np.mean([d.draws for d in drawn], axis=0), [0.025, 0.975])
        return float(low), float(high)

    def pairs(self, column: Column, optimizers: Sequence[str] | None = None) -> list[Pair]:
        """Every pair of optimizers in one column, with p values corrected for the number of pairs that could be compared.

        Args:
            column: detector, test set, level and metric.
            optimizers: titles; None takes the grid's.
        """
        return pairs_of({name: self.seeds(name, column) for name in optimizers or self.index.grid.optimizers})

    def best(self, column: Column) -> tuple[str | None, str]:
        """The optimizer that is best in a column and significantly better than the runner-up, or None and why.

        Where a number has no draws nobody is: what is printed would not be what is tested.
        """
        lacking = next(filter(None, (self.lacking(name, column) for name in self.index.grid.optimizers)), "")
        if lacking:
            return None, f"not tested: {lacking}"
        found = leading({name: self.seeds(name, column) for name in self.index.grid.optimizers}, column.metric in LOWER_IS_BETTER)
        return found.best, found.reason


NOT_SIGNIFICANT = "the best does not differ significantly from the runner-up"

Seeds = Mapping[int, Drawn | str]
"""Seed -> a number with its draws, or why there is none."""


def pairs_of(*groups: Mapping[str, Seeds]) -> list[Pair]:
    """Every pair of competitors, with p values corrected (Holm) for the number of pairs that could be compared.

    Args:
        groups: name -> its seeds; pairs are made within a group and corrected over all.
    """
    differences = [(a, b, _difference(found[a], found[b])) for found in groups for a, b in combinations(found, 2)]
    corrected = iter(holm([d.p for _, _, d in differences if isinstance(d, Difference)]))
    return [Pair(a, b, None, None, d) if isinstance(d, str) else Pair(a, b, d, next(corrected)) for a, b, d in differences]


@dataclass(frozen=True)
class Leading:
    """Who leads among competitors by more than chance.

    Attributes:
        best: it is significantly better than the runner-up; None where it is not or that cannot be tested.
        second: the runner-up, where there is a `best` and a third that the runner-up is significantly better than; else None.
        reason: why there is no `best`; else "".
    """

    best: str | None
    second: str | None = None
    reason: str = ""


def leading(found: Mapping[str, Seeds], lower_is_better: bool = False, tested: Sequence[Pair] | None = None) -> Leading:
    """Test the best against the runner-up, and that one against the third.

    Their pairs are corrected with all pairs, since which of them are at the top was seen in the same numbers.

    Args:
        found: name -> its seeds.
        lower_is_better: for error rates and losses.
        tested: `pairs_of` them and of more that they are corrected with; None: of them alone.
    """
    numbers = {name: [d.value for d in of.values() if isinstance(d, Drawn)] for name, of in found.items()}
    means = {name: fmean(values) for name, values in numbers.items() if values}
    if len(means) < 2:
        reasons = [d for of in found.values() for d in of.values() if isinstance(d, str)]
        return Leading(None, reason=f"not tested: {reasons[0]}" if reasons else "nothing to compare with")
    sign = -1 if lower_is_better else 1
    top = sorted(means, key=lambda name: -sign * means[name])[:3]
    pairs = {frozenset((p.first, p.second)): p for p in (pairs_of(found) if tested is None else tested)}

    def beats(first: str, second: str) -> str:
        pair = pairs[frozenset((first, second))]
        if pair.difference is None:
            return f"not tested: {pair.reason}"
        ahead = sign * pair.difference.value * (1 if pair.first == first else -1) > 0
        return "" if pair.significant and ahead else NOT_SIGNIFICANT

    reason = beats(*top[:2])
    if reason:
        return Leading(None, reason=reason)
    return Leading(top[0], top[1] if len(top) > 2 and not beats(*top[1:]) else None)


def _difference(first: Seeds, second: Seeds) -> Difference | str:
    """Paired over the seeds that both have on the same videos, or why there are none."""
    points, draws, why = [], [], ""
    for seed, a in first.items():
        b = second.get(seed, f"no seed {seed}")
        if isinstance(a, str) or isinstance(b, str):
            why = why or (a if isinstance(a, str) else str(b))
        elif a.videos != b.videos:
            why = "they were not scored on the same videos"
        else:
            points.append(a.value - b.value)
            draws.append(a.draws - b.draws)
    return paired_difference(np.array(points), np.array(draws)) if points else why or "not in the grid"


@dataclass(frozen=True)
class Ranking:
    """Average ranks over the columns of one metric at one level, and Wilcoxon's test of each pair over the same columns.

    Attributes:
        ranks: of the optimizers.
        pairs: (first, second, p, p by Holm's correction over the pairs).
        columns: ranked over; a detector on a test set each.
        left_out: columns in which an optimizer has no number.
    """

    ranks: Ranks
    pairs: list[tuple[str, str, float, float]]
    columns: list[Column]
    left_out: list[Column]


def ranking(index: GridIndex, measured: pd.DataFrame, columns: Iterable[Column]) -> Ranking:
    """Rank optimizers on every (detector, test set), by the mean over seeds.

    Args:
        index: of a grid of one part.
        measured: `results.tidy.tidy` of it.
        columns: of one level and metric.

    Raises:
        RecordError: fewer than three optimizers, or fewer than two columns in which every one has a number.
    """
    names, used, left_out, rows = index.grid.optimizers, [], [], []
    keys = ["detector", "test", "level", "metric"]
    means = measured.groupby([*keys, "optimizer"], sort=False)["value"].mean()
    for column in columns:
        row = [means.get((column.detector, column.test, column.level, column.metric, name), np.nan) for name in names]
        if np.isnan(row).any():
            left_out.append(column)
        else:
            used.append(column)
            rows.append(row)
    if not used:
        raise RecordError("average ranks need test sets on which every optimizer has a number; there is none")
    values = np.array(rows, np.float64)
    ranks = average_ranks(names, values, used[0].metric in LOWER_IS_BETTER)
    pairs = list(combinations(range(len(names)), 2))
    p = [wilcoxon(values[:, a].tolist(), values[:, b].tolist()) for a, b in pairs]
    tested = [(names[a], names[b], one, both) for (a, b), one, both in zip(pairs, p, holm(p), strict=True)]
    return Ranking(ranks, tested, used, left_out)


PAIR_COLUMNS = (
    *("detector", "test", "role", "level", "metric", "first", "second"),
    *("difference", "ci_low", "ci_high", "p", "p_holm", "seeds", "reason"),
)


def pair_table(comparison: Comparison, columns: Iterable[Column]) -> pd.DataFrame:
    """Every pair of every column as tidy rows, columns `PAIR_COLUMNS`; numbers in the metric's own unit, NaN with a reason."""
    rows = []
    for c in columns:
        for p in comparison.pairs(c):
            d = p.difference
            numbers = (d.value, d.low, d.high, d.p, p.corrected, d.seeds) if d else (np.nan,) * 5 + (0,)
            rows.append((c.detector, c.test, c.role, c.level, c.metric, p.first, p.second, *numbers, p.reason))
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))


def title(level: Level, metric: Metric) -> str:
    """`frame AUC`."""
    return f"{level} {METRIC_TITLES[metric]}"
