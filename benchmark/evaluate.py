"""A detector's scores on faces, and what they measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from benchmark import metrics
from benchmark.data import FaceFrames
from benchmark.memory import OutOfMemory, ran_out
from detectors.base import Detector
from results.record import Level, Measure, Role, Split

SCORE_COLUMNS = ["dataset", "method", "video", "frame", "key", "label", "score"]


class Diverged(RuntimeError):
    """Training left the finite numbers; the cell fails with this sentence and the grid goes on."""


@dataclass(frozen=True)
class EvaluationSet:
    """Faces that are scored together: the validation split, or one test set."""

    name: str
    split: Split
    role: Role
    frames: FaceFrames


@torch.no_grad()
def score(
    detector: Detector, frames: FaceFrames, batch_size: int = 64, progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """P(fake) of every face, in the order of the rows.

    Returns:
        Columns of `SCORE_COLUMNS`, a row a frame; score is float32, as the detector gave it.

    Raises:
        Diverged: a score is not a number.
        OutOfMemory: the faces of one batch do not fit.
    """
    device = next(detector.parameters()).device
    training = detector.training
    detector.eval()
    scores = []
    for start in range(0, len(frames), batch_size):
        positions = np.arange(start, min(start + batch_size, len(frames)))
        try:
            scores.append(detector(frames.pixels(positions).to(device)).fake.float().cpu().numpy())
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            raise OutOfMemory(
                f"out of memory while {len(positions)} faces are scored at once, without gradients; take smaller faces or a device "
                "with more memory"
            ) from error
        if progress:
            progress(int(positions[-1]) + 1, len(frames))
    detector.train(training)
    values = np.concatenate(scores) if scores else np.empty(0, np.float32)
    if not np.isfinite(values).all():
        raise Diverged(f"the detector's scores are not finite ({np.isnan(values).sum()} of {len(values)} are NaN)")
    return frames.rows.assign(score=values)[SCORE_COLUMNS]


def measures(scores: pd.DataFrame, of: EvaluationSet, epoch: float, step: int) -> list[Measure]:
    """Every metric per frame and per video."""
    found = []
    levels: tuple[tuple[Level, pd.DataFrame], ...] = (("frame", scores), ("video", metrics.per_video(scores)))
    for level, rows in levels:
        labels = rows["label"].to_numpy(np.int64)
        values, undefined = metrics.measure(labels, rows["score"].to_numpy(np.float64))
        found.append(
            Measure(
                epoch=epoch,
                step=step,
                split=of.split,
                test=of.name,
                role=of.role,
                level=level,
                n_real=int((labels == 0).sum()),
                n_fake=int((labels == 1).sum()),
                undefined=undefined,
                **values,
            )
        )
    return found
