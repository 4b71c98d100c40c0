"""Which faces of a video are taken where their number is limited, and what a video is."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from benchmark.reading import ConfigError
from optimizers.registry import did_you_mean

VIDEO = ["dataset", "method", "video"]
"""The columns of a manifest, and of scores, that name a video."""


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
    groups = rows.groupby(VIDEO, sort=False, observed=True)
    return rows[FRAME_PICKS[pick](groups.cumcount(), groups["key"].transform("size"), frames)]


def check_levels(rows: pd.DataFrame, store: str) -> None:
    """Refuse a video at several compression levels: to whatever picks its faces or averages their scores it is one video.

    Args:
        rows: of a manifest; those that are wanted.
        store: the store's name, for messages.

    Raises:
        ConfigError: naming the video and its levels.
    """
    if rows["compression"].nunique() < 2:
        return
    levels = rows.groupby(VIDEO, observed=True)["compression"].unique()
    several = levels[levels.map(len) > 1]
    if len(several):
        video, found = "/".join(several.index[0]), " and ".join(sorted(several.iloc[0]))
        raise ConfigError(
            f"store {store} has faces of {video} at the compression levels {found}, which would count as one video; make a store"
            " of one level with --compression (dfgrid import, dfgrid preprocess)"
        )


def _uniform(order: pd.Series[int], size: pd.Series[int], frames: int) -> pd.Series[bool]:
    # Row i of n is one of the m evenly spread picks if floor(i m / n) changes there.
    return (size <= frames) | ((order * frames) // size != ((order - 1) * frames) // size)


def _first(order: pd.Series[int], size: pd.Series[int], frames: int) -> pd.Series[bool]:
    return order < frames


FRAME_PICKS: dict[str, Callable[[pd.Series[int], pd.Series[int], int], pd.Series[bool]]] = {"uniform": _uniform, "first": _first}
"""Name -> (a face's place in its video, the video's faces, how many are wanted) -> whether it is picked."""
