"""Optimizers compared: pairs on the same videos and seeds, and average ranks over test sets and backbones."""

from __future__ import annotations

from collections import Counter
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
        reason: why there is no difference, or which seeds are not in it; else "".
        seeds: that either has; `difference.seeds` of them are compared.
    """

    first: str
    second: str
    difference: Difference | None
    corrected: float | None
    reason: str = ""
    seeds: int = 0

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

    def leading(self, column: Column) -> Leading:
        """The optimizer that is best in a column and significantly better than the runner-up, or why there is none.

        Where a number has no draws there is none: what is printed would not be what is tested.
        """
        lacking = next(filter(None, (self.lacking(name, column) for name in self.index.grid.optimizers)), "")
        if lacking:
            return Leading(None, reason=f"not tested: {lacking}")
        return leading({name: self.seeds(name, column) for name in self.index.grid.optimizers}, column.metric in LOWER_IS_BETTER)


NOT_SIGNIFICANT = "the best does not differ significantly from the runner-up"

Seeds = Mapping[int, Drawn | str]
"""Seed -> a number with its draws, or why there is none."""


def pairs_of(*groups: Mapping[str, Seeds]) -> list[Pair]:
    """Every pair of competitors, with p values corrected (Holm) for the number of pairs that could be compared.

    Args:
        groups: name -> its seeds; pairs are made within a group and corrected over all.
    """
    found = [(a, b, *_difference(of[a], of[b])) for of in groups for a, b in combinations(of, 2)]
    corrected = iter(holm([d.p for _, _, d, *_ in found if d is not None]))
    return [Pair(a, b, d, None if d is None else next(corrected), reason, seeds) for a, b, d, reason, seeds in found]


@dataclass(frozen=True)
class Leading:
    """Who leads among competitors by more than chance.

    Attributes:
        best: it is significantly better than the runner-up; None where it is not or that cannot be tested.
        second: the runner-up, where there is a `best` and a third that the runner-up is significantly better than; else None.
        reason: why there is no `best`; else "".
        seeds, of: on how many seeds the best was tested against the runner-up, and how many either has; 0 where it was not.
    """

    best: str | None
    second: str | None = None
    reason: str = ""
    seeds: int = 0
    of: int = 0


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

    reason, decides = beats(*top[:2]), pairs[frozenset(top[:2])]
    seeds, of = (decides.difference.seeds, decides.seeds) if decides.difference else (0, 0)
    if reason:
        return Leading(None, None, reason, seeds, of)
    return Leading(top[0], top[1] if len(top) > 2 and not beats(*top[1:]) else None, "", seeds, of)


def on_fewer_seeds(results: Sequence[Leading], what: str) -> str:
    """`; in 2 of 3 columns tested on 1 of 2 seeds, which says nothing of others`; "" where every test took all seeds there are."""
    found = Counter((r.seeds, r.of) for r in results if r.seeds < r.of)
    return "".join(
        f"; in {n} of {len(results)} {what}s tested on {seeds} of {of} seeds{', which says nothing of others' * (seeds == 1)}"
        for (seeds, of), n in sorted(found.items())
    )


def _difference(first: Seeds, second: Seeds) -> tuple[Difference | None, str, int]:
    """Paired over the seeds that both have on the same videos; which seeds are not in it, and why; how many either has."""
    points, draws = [], []
    why: dict[str, list[str]] = {}
    seeds = list(dict.fromkeys([*first, *second]))
    for seed in seeds:
        a, b = (of.get(seed, f"no seed {seed}") for of in (first, second))
        if isinstance(a, str) or isinstance(b, str):
            why.setdefault(a if isinstance(a, str) else str(b), []).append(str(seed))
        elif a.videos != b.videos:
            why.setdefault("they were not scored on the same videos", []).append(str(seed))
        else:
            points.append(a.value - b.value)
            draws.append(a.draws - b.draws)
    if not points:
        return None, next(iter(why), "not in the grid"), len(seeds)
    each = "; ".join(f"seed{'s' * (len(of) > 1)} {', '.join(of)}: {reason}" for reason, of in why.items())
    reason = f"over {len(points)} of {len(seeds)} seeds; {each}" if why else ""
    return paired_difference(np.array(points), np.array(draws)), reason, len(seeds)


@dataclass(frozen=True)
class Ranking:
    """Average ranks over the columns of one metric at one level, and Wilcoxon's test of each pair over the same columns.

    Attributes:
        ranks: of the optimizers.
        pairs: (first, second, p, p by Holm's correction over the pairs).
        columns: ranked over; a detector on a test set each.
        left_out: columns in which no seed has a number of every optimizer.
        fewer: columns ranked over the seeds that every optimizer has a number of, where some have more.
    """

    ranks: Ranks
    pairs: list[tuple[str, str, float, float]]
    columns: list[Column]
    left_out: list[Column]
    fewer: list[Column]


def ranking(index: GridIndex, measured: pd.DataFrame, columns: Iterable[Column]) -> Ranking:
    """Rank optimizers on every (detector, test set), by the mean over the seeds that all of them have a number of.

    Args:
        index: of a grid of one part.
        measured: `results.tidy.tidy` of it.
        columns: of one level and metric.

    Raises:
        RecordError: fewer than three optimizers, or fewer than two columns in which every one has a number of one seed.
    """
    names, used, left_out, fewer, rows = index.grid.optimizers, [], [], [], []
    keys = ["detector", "test", "level", "metric"]
    groups = dict(iter(measured.dropna(subset="value").groupby(keys, sort=False)))
    for column in columns:
        of = groups.get((column.detector, column.test, column.level, column.metric), measured.iloc[:0])
        seeds = {name: set(of.loc[of["optimizer"] == name, "seed"]) for name in names}
        common = set.intersection(*seeds.values())
        if not common:
            left_out.append(column)
            continue
        means = of[of["seed"].isin(common)].groupby("optimizer")["value"].mean()
        used.append(column)
        rows.append([means[name] for name in names])
        if any(has > common for has in seeds.values()):
            fewer.append(column)
    if not used:
        raise RecordError("average ranks need test sets on which every optimizer has a number of the same seed; there is none")
    values = np.array(rows, np.float64)
    ranks = average_ranks(names, values, used[0].metric in LOWER_IS_BETTER)
    pairs = list(combinations(range(len(names)), 2))
    p = [wilcoxon(values[:, a].tolist(), values[:, b].tolist()) for a, b in pairs]
    tested = [(names[a], names[b], one, both) for (a, b), one, both in zip(pairs, p, holm(p), strict=True)]
    return Ranking(ranks, tested, used, left_out, fewer)


PAIR_COLUMNS = (
    *("detector", "test", "role", "level", "metric", "first", "second"),
    *("difference", "ci_low", "ci_high", "p", "p_holm", "seeds", "reason"),
)


def pair_table(comparison: Comparison, columns: Iterable[Column]) -> pd.DataFrame:
    """Every pair of every column as tidy rows, columns `PAIR_COLUMNS`; numbers in the metric's own unit, NaN with a reason.

    The reason also says which seeds a number is not of.
    """
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
