"""Ratios of what was measured in turns, and whether they reach a target in spite of the machine's noise."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binom

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Median:
    """A median with its interval.

    Attributes:
        value: the median.
        low, high: an interval that holds the true median with a confidence of `CONFIDENCE` at least.
    """

    value: float
    low: float
    high: float

    def verdict(self, at_least: float | None = None, below: float | None = None) -> str:
        """ "met" or "NOT met" where the whole interval says so, else "undecided"."""
        if at_least is not None:
            return "met" if self.low >= at_least else "NOT met" if self.high < at_least else "undecided"
        assert below is not None
        return "met" if self.high < below else "NOT met" if self.low >= below else "undecided"

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def median(values: Sequence[float]) -> Median:
    """The median of independent rounds, and the order statistics around it that the sign test's binomial law gives.

    With fewer than 6 rounds no interval has the confidence, and it has no end.
    """
    ordered, n = sorted(values), len(values)
    # P(the true median lies below the (k+1)-th of n) = P(Binomial(n, 1/2) <= k).
    k = int(binom.ppf((1 - CONFIDENCE) / 2, n, 0.5))
    k -= binom.cdf(k, n, 0.5) > (1 - CONFIDENCE) / 2
    low, high = (ordered[k], ordered[n - 1 - k]) if k >= 0 else (float("-inf"), float("inf"))
    return Median(statistics.median(ordered), low, high)
