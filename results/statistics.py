"""Whether a difference is more than chance: paired tests, correction for many comparisons, average ranks.

Arithmetic is scipy's where scipy has it. The tests over datasets are those that Demsar recommends (Statistical comparisons of
classifiers over multiple data sets, JMLR 7, 2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from results.files import RecordError

Array = NDArray[np.float64]

ALPHA = 0.05
"""Significant means a corrected p value below it."""


@dataclass(frozen=True)
class Difference:
    """A paired difference of two optimizers on the same videos and seeds.

    Attributes:
        value: mean over the seeds of the first minus the second.
        low, high: 95% interval.
        error: standard error.
        p: two-sided, not corrected.
        freedom: degrees of freedom of the t distribution behind both; infinite with one seed.
        seeds: compared.
    """

    value: float
    low: float
    high: float
    error: float
    p: float
    freedom: float
    seeds: int


def paired_difference(points: Array, draws: Array) -> Difference:
    """Test a difference over videos and, where there are several, over seeds.

    The variance over videos is that of the bootstrap draws of the mean over seeds; the variance over seeds is s^2 / S of the seeds'
    differences on the whole set. Their sum is compared with Student's t, degrees of freedom by Satterthwaite's formula. With one
    seed this is the bootstrap test of Robin et al. (pROC, 2011): the difference over its bootstrap standard error, against the
    normal distribution. It then speaks of two trained detectors, not of the optimizers that trained them.

    Args:
        points: (S,) difference on the whole set, a seed each.
        draws: (S, B) difference on each draw of videos.
    """
    value = float(points.mean())
    videos = float(draws.mean(axis=0).var(ddof=1))
    seeds = float(points.var(ddof=1)) / len(points) if len(points) > 1 else 0.0
    variance = videos + seeds
    if variance == 0:
        # The draws never moved: nothing is known beyond their number.
        p = 1.0 if value == 0 else 2 / (draws.shape[1] + 1)
        return Difference(value, value, value, 0.0, p, math.inf, len(points))
    freedom = (len(points) - 1) * (variance / seeds) ** 2 if seeds > 0 else math.inf
    error = math.sqrt(variance)
    against = stats.norm() if math.isinf(freedom) else stats.t(freedom)
    reach = float(against.ppf(0.975)) * error
    p = 2 * float(against.sf(abs(value) / error))
    return Difference(value, value - reach, value + reach, error, p, freedom, len(points))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): p values that keep the chance of any false alarm among all of them below alpha."""
    order = sorted(range(len(values)), key=lambda at: values[at])
    corrected, least = [0.0] * len(values), 0.0
    for rank, at in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[at]))
        corrected[at] = least
    return corrected


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test over datasets; 1 where no pair differs. Pairs that do not differ are dropped."""
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    # Sums of decimals tie in their last bits or not at all; ten digits are more than any score has.
    differences = np.round(differences, 10)
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


@dataclass(frozen=True)
class Ranks:
    """Average ranks over datasets; 1 is best.

    Attributes:
        names: of the optimizers, best first.
        mean: average rank of each.
        datasets: ranked over.
        statistic, p: Friedman's chi squared (corrected for ties) and its p value: whether any ranks differ.
        f, f_p: Iman and Davenport's F of it, less conservative, and its p value.
        critical: Nemenyi's critical difference at alpha 0.05: average ranks that are closer are not told apart.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    datasets: int
    statistic: float
    p: float
    f: float
    f_p: float
    critical: float

    def cliques(self) -> list[tuple[int, int]]:
        """Runs of two or more neighbours (first, last) that are closer than the critical difference; none lies within another."""
        found: list[tuple[int, int]] = []
        for first in range(len(self.mean)):
            last = max(at for at in range(len(self.mean)) if self.mean[at] - self.mean[first] <= self.critical)
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return found


def average_ranks(names: Sequence[str], values: Array, lower_is_better: bool = False) -> Ranks:
    """Rank optimizers on each dataset, ties in the middle, and test whether the averages differ.

    Args:
        names: k optimizers.
        values: (N, k), a row a dataset.
        lower_is_better: for error rates and losses.

    Raises:
        RecordError: fewer than three optimizers or two datasets, with which Friedman's test says nothing.
    """
    count, k = values.shape
    if k < 3 or count < 2:
        raise RecordError(
            f"average ranks compare three or more optimizers over two or more datasets; "
            f"there are {k} optimizers and {count} datasets"
        )
    ranks = stats.rankdata(np.round(values if lower_is_better else -values, 10), axis=1)
    mean = ranks.mean(axis=0)
    if (ranks == ranks[0, 0]).all():
        statistic, p = 0.0, 1.0
    else:
        statistic, p = (float(x) for x in stats.friedmanchisquare(*ranks.T))
    rest = count * (k - 1) - statistic
    f = (count - 1) * statistic / rest if rest > 1e-9 else math.inf
    f_p = float(stats.f.sf(f, k - 1, (k - 1) * (count - 1)))
    order = np.argsort(mean, kind="stable")
    return Ranks(
        tuple(names[at] for at in order),
        tuple(float(mean[at]) for at in order),
        count,
        statistic,
        p,
        f,
        f_p,
        critical_difference(k, count),
    )


def critical_difference(k: int, datasets: int, alpha: float = ALPHA) -> float:
    """Nemenyi's, q sqrt(k (k + 1) / (6 N)), where q is the studentized range of k means over sqrt(2) (Demsar, section 3.2.2)."""
    q = float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)
    return q * math.sqrt(k * (k + 1) / (6 * datasets))
