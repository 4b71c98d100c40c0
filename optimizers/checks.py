"""What a rule's hyper-parameters must fulfil; the registry puts the rule's name in front of the sentence."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from optimizers.registry import did_you_mean


def number(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> None:
    """`value` must be a finite number from `low` to `high`.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        bounds = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be a finite number {bounds}, not {value!r}")


def choice(name: str, value: Any, known: Collection[str]) -> None:
    """`value` must be one of `known`.

    Raises:
        ValueError: anything else; the sentence holds the nearest.
    """
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}: {did_you_mean(str(value), known)}")


def flag(name: str, value: Any) -> None:
    """`value` must be true or false.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r}")
