"""Which faces of a video are taken where their number is limited."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from benchmark.reading import ConfigError
from optimizers.registry import did_you_mean


def pick_frames(rows: pd.DataFrame, frames: int, pick: str = "uniform") -> pd.DataFrame:
    """At most `frames` faces of each video.

    Args:
        rows: of a manifest; each video's in order of frames.
        frames: how many.
        pick: "uniform": evenly spread over the video's faces. "first": the first ones; DeepfakeBench's loader means to spread them,
            but its step is always 1.

    Raises:
        ConfigError: an unknown pick.
    """
    if pick not in FRAME_PICKS:
        raise ConfigError(f"unknown frame_pick '{pick}', {did_you_mean(pick, FRAME_PICKS)}")
    groups = rows.groupby(["dataset", "method", "video"], sort=False, observed=True)
    return rows[FRAME_PICKS[pick](groups.cumcount(), groups["key"].transform("size"), frames)]


def _uniform(order: pd.Series[int], size: pd.Series[int], frames: int) -> pd.Series[bool]:
    # Row i of n is one of the m evenly spread picks if floor(i m / n) changes there.
    return (size <= frames) | ((order * frames) // size != ((order - 1) * frames) // size)


def _first(order: pd.Series[int], size: pd.Series[int], frames: int) -> pd.Series[bool]:
    return order < frames


FRAME_PICKS: dict[str, Callable[[pd.Series[int], pd.Series[int], int], pd.Series[bool]]] = {"uniform": _uniform, "first": _first}
"""Name -> (a face's place in its video, the video's faces, how many are wanted) -> whether it is picked."""
