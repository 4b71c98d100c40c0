"""Ratios of what was measured in turns, and whether they reach a target in spite of the machine's noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

CONFIDENCE = 0.95

Verdict = Literal["met", "NOT met", "undecided"]


@dataclass(frozen=True)
class Median:
    """A median with its interval.

    Attributes:
        value: the median.
        low, high: an interval that holds the true median with the asked confidence at least.
    """

    value: float
    low: float
    high: float

    def at_least(self, target: float) -> Verdict:
        """Whether the whole interval reaches the target, or none of it does."""
        return "met" if self.low >= target else "NOT met" if self.high < target else "undecided"

    def at_most(self, target: float) -> Verdict:
        """Whether the whole interval keeps to the target, or none of it does."""
        return "met" if self.high <= target else "NOT met" if self.low > target else "undecided"

    def below(self, target: float) -> Verdict:
        """Whether the whole interval lies below the target, or none of it does."""
        return "met" if self.high < target else "NOT met" if self.low >= target else "undecided"

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def median(values: Sequence[float], confidence: float = CONFIDENCE) -> Median:
    """The median of independent rounds, and the order statistics around it that hold the true one, whatever the distribution.

    These are those of the sign test (Conover 1999, section 3.2). With too few rounds (5 for a confidence of 0.95) none have the
    confidence, and the interval has no ends.
    """
    value = statistics.median(values)
    ends = stats.quantile_test(values, q=value, p=0.5).confidence_interval(confidence)
    low, high = float(ends.low), float(ends.high)
    return Median(value, -math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high)
