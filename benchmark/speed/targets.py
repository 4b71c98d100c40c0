"""What the optimizers should cost at most, and when a noisy ratio shows that they do."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.speed.paired import Median, median

REAL = "x ideal of 32 x 256 px"
"""Column: a step of 32 faces of 256 px over its ideal, as grids train."""

LIMITS: dict[str, dict[str, float]] = {
    "x plain step": {"pim": 1.75},
    REAL: {"sam": 1.01, "gnp": 1.01, "sagm": 1.01, "roga": 1.03},
    "launches": dict.fromkeys(("sgd", "adam", "sam", "asam", "gnp", "sagm", "pim", "dualflat"), 30.0) | {"roga": 70.0},
    "waits": dict.fromkeys(("sgd", "adam", "sam", "asam", "gnp", "sagm", "roga", "pim", "dualflat"), 0.0),
    "copies of the weights": {"sam": 1, "sagm": 2},
}
"""What we want each method to stay within, by column; RoGA's with four domains."""

ASIDE = {"copies of the weights": 0.1}
"""What a figure may lie above its target: peak memory holds losses and norms, too, which are no copy of the weights but count
where these are as few as Meso4's."""

LOOKS = (9, 18, 36, 72)
"""Rounds after which it is asked whether a target is met or missed."""

CONFIDENCE = 1 - 0.05 / len(LOOKS)
"""Of each look's interval, so that all of them together err once in twenty times at most."""


def looked_at(ratios: Sequence[float]) -> Median:
    """The ratios' median, with the interval of one look."""
    return median(ratios, CONFIDENCE)


def verdict(column: str, method: str, value: float, ratios: Sequence[float] = ()) -> str:
    """Whether the figure, or the median of the ratios, is within its target, where it has one."""
    limit = LIMITS.get(column, {}).get(method)
    if limit is None:
        return ""
    kept = "met" if value <= limit + ASIDE.get(column, 0.0) else "NOT met"
    return f" (target {limit:g} {looked_at(ratios).at_most(limit) if ratios else kept})"
