"""A detector's scores on faces, and what they measure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark import metrics
from benchmark.ahead import ahead
from benchmark.data import FaceFrames
from benchmark.levels import as_floats
from benchmark.memory import OutOfMemory, ran_out
from benchmark.protocol import Protocol
from detectors.base import Detector
from detectors.layout import for_scoring
from results.record import Level, Measure, Role, Split

SCORE_COLUMNS = ["dataset", "method", "video", "frame", "key", "label", "score"]


class Diverged(RuntimeError):
    """Training left the finite numbers; the cell fails with this sentence and the grid goes on."""


@dataclass(frozen=True)
class ScoredSet:
    """What is judged together: the validation split, or one test set.

    Attributes:
        name, split, role: as in `Measure`.
        missing: columns dataset, method, video, label: its videos without any face.
    """

    name: str
    split: Split
    role: Role
    missing: pd.DataFrame


@dataclass(frozen=True)
class EvaluationSet(ScoredSet):
    """A set with its faces."""

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
    scores: list[Tensor] = []
    parts = (np.arange(start, min(start + batch_size, len(frames))) for start in range(0, len(frames), batch_size))
    # A GPU is sent bytes and divides them itself; beside a CPU that computes, the thread that reads does it.
    wanted = frames.pixels if device.type == "cpu" else frames.levels
    with closing(ahead(map(wanted, parts))) as read, for_scoring(detector, device) as order:
        try:
            for number, faces in enumerate(read, start=1):
                scores.append(detector(as_floats(faces.to(device, non_blocking=True)).contiguous(memory_format=order)).fake.float())
                if progress:
                    progress(min(number * batch_size, len(frames)), len(frames))
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            raise OutOfMemory(
                f"out of memory while {min(batch_size, len(frames))} faces are scored at once, without gradients; take smaller "
                "faces or a device with more memory"
            ) from error
    detector.train(training)
    values = torch.cat(scores).cpu().numpy() if scores else np.empty(0, np.float32)
    if not np.isfinite(values).all():
        raise Diverged(f"the detector's scores are not finite ({np.isnan(values).sum()} of {len(values)} are NaN)")
    return frames.rows.assign(score=values)[SCORE_COLUMNS]


def measures(scores: pd.DataFrame, of: ScoredSet, epoch: float, step: int, protocol: Protocol) -> list[Measure]:
    """Every metric per frame and per video, as the protocol defines a video and the equal error rate.

    Raises:
        ConfigError: a video whose faces disagree about the label, where the protocol refuses that.
    """
    found = []
    levels: tuple[tuple[Level, pd.DataFrame], ...] = (("frame", scores), ("video", video_level(scores, of.missing, protocol)))
    for level, rows in levels:
        labels = rows["label"].to_numpy(np.int64)
        values, undefined = metrics.measure(labels, rows["score"].to_numpy(np.float64), protocol.eer)
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


def video_level(scores: pd.DataFrame, missing: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Label and score of each video, or of each example where the protocol takes these for videos (`clip_average: of_frames`)."""
    added = missing if protocol.missing_face == "half" else None
    if protocol.clip_average == "of_videos":
        return metrics.per_video(scores, protocol.video_key, protocol.mixed_label, added)
    columns = ["label", "score"]
    return scores[columns] if added is None else pd.concat([scores[columns], added.assign(score=0.5)[columns]], ignore_index=True)
