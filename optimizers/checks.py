"""What a rule's hyper-parameters must fulfil; the registry puts the rule's name in front of the sentence."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from optimizers.registry import did_you_mean

LARGEST = float(2**1023)
"""Python's integers have no end, and torch's numbers do: what is not below this counts as infinite."""


def number(name: str, value: Any, low: float = 0.0, high: float = math.inf, below: float = math.inf) -> None:
    """`value` must be a finite number from `low` to `high`, and smaller than `below`.

    Raises:
        ValueError: anything else.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < LARGEST or not low <= value <= high or not value < below:
        upper = f"below {below:g}" if below < math.inf else f"{high:g}"
        bounds = f"of at least {low:g}" if upper == "inf" else f"from {low:g} to {upper}"
        raise ValueError(f"{name} must be a finite number {bounds}, not {shown(value)}")


def shown(value: Any) -> str:
    """The value as a sentence quotes it: its beginning, if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def choice(name: str, value: Any, known: Collection[str]) -> None:
    """`value` must be one of `known`.

    Raises:
        ValueError: anything else; the sentence holds the nearest.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} must be one of {', '.join(sorted(known))}, not {shown(value)}")
    if value not in known:
        raise ValueError(f"unknown {name} {shown(value)}: {did_you_mean(value, known)}")


def flag(name: str, value: Any) -> None:
    """`value` must be true or false.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {shown(value)}")
