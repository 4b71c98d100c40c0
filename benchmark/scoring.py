"""Scores of several evaluation sets at once: a face of a store that is in several of them goes through the detector once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.evaluate import SCORE_COLUMNS, EvaluationSet, score
from benchmark.self_blended import SelfBlendedFrames
from detectors.base import Detector


def score_sets(
    detector: Detector,
    sets: Sequence[EvaluationSet],
    batch_size: int = 64,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[pd.DataFrame]:
    """What `score` says of each set.

    Test sets of one store share its real faces. The first set that holds a face has it scored, in the batches that it would be
    scored in alone, and the others take that score; a set that shares no face is scored as if it were alone, to the bit.

    Args:
        detector: on its device.
        sets: those whose `frames.images` are the same array are of one store.
        batch_size: faces in a forward pass.
        progress: called with (name of a set, faces done, faces of this set that no earlier one has).

    Raises:
        Diverged: a score is not a number.
    """
    known: dict[int, NDArray[np.float32]] = {}
    scored = []
    for s in sets:
        frames, tell = s.frames, partial(progress, s.name) if progress else None
        if isinstance(frames, SelfBlendedFrames):  # its fakes are nowhere in the store
            scored.append(score(detector, frames, batch_size, tell))
            continue
        scores = known.setdefault(id(frames.images), np.full(len(frames.images), np.nan, np.float32))
        index = frames.rows["index"].to_numpy()
        new = frames.rows[np.isnan(scores[index])].reset_index(drop=True)
        scores[new["index"].to_numpy()] = score(detector, replace(frames, rows=new), batch_size, tell)["score"].to_numpy()
        scored.append(frames.rows.assign(score=scores[index])[SCORE_COLUMNS])
    return scored
