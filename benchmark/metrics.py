"""Metrics per frame and per video: pure functions of labels (0 real, 1 fake) and scores P(fake).

A metric that is not defined (one class only, no faces) is None with a reason, never NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics as sk

from results.record import Metric

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

THRESHOLD = 0.5
"""Accuracy's threshold: P(fake) above it is called fake."""


def auc(labels: Labels, scores: Array) -> float:
    """Area under the ROC curve."""
    return float(sk.roc_auc_score(labels, scores))


def accuracy(labels: Labels, scores: Array) -> float:
    """Share of faces on the right side of 0.5 (DeepfakeBench's rule: a score of exactly 0.5 is called real)."""
    return float(np.mean((scores > THRESHOLD) == (labels == 1)))


def average_precision(labels: Labels, scores: Array) -> float:
    """Average precision of the fake class."""
    return float(sk.average_precision_score(labels, scores))


def equal_error_rate(labels: Labels, scores: Array) -> float:
    """The rate at which as many reals as fakes are misjudged, interpolated between the two points of the ROC curve around it.

    DeepfakeBench takes the nearest point instead, without interpolation.
    """
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    gap = fpr - (1 - tpr)  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    before = max(after - 1, 0)
    span = gap[after] - gap[before]
    weight = 0.0 if span == 0 else -gap[before] / span
    return float(fpr[before] + weight * (fpr[after] - fpr[before]))


def log_loss(labels: Labels, scores: Array) -> float:
    """Mean cross entropy in nats, scores clipped to [1e-7, 1 - 1e-7] (float32's resolution near 1)."""
    return float(sk.log_loss(labels, np.clip(scores, 1e-7, 1 - 1e-7), labels=[0, 1]))


BOTH_CLASSES: dict[Metric, Callable[[Labels, Array], float]] = {"auc": auc, "ap": average_precision, "eer": equal_error_rate}
ANY_CLASS: dict[Metric, Callable[[Labels, Array], float]] = {"acc": accuracy, "log_loss": log_loss}
METRICS: tuple[Metric, ...] = (*BOTH_CLASSES, *ANY_CLASS)


def measure(labels: Labels, scores: Array) -> tuple[dict[Metric, float | None], dict[Metric, str]]:
    """Every metric, and for those that are not defined the reason.

    Raises:
        ValueError: scores that are not finite or lie outside [0, 1].
    """
    if not np.all((scores >= 0) & (scores <= 1)):
        raise ValueError("scores must be finite and lie in [0, 1]")
    values: dict[Metric, float | None] = dict.fromkeys(METRICS)
    if len(labels) == 0:
        return values, dict.fromkeys(METRICS, "no faces")
    values |= {name: metric(labels, scores) for name, metric in ANY_CLASS.items()}
    if labels.min() == labels.max():
        return values, dict.fromkeys(BOTH_CLASSES, f"only {'fake' if labels[0] else 'real'} faces")
    return values | {name: metric(labels, scores) for name, metric in BOTH_CLASSES.items()}, {}


def per_video(frames: pd.DataFrame) -> pd.DataFrame:
    """Mean score of each video.

    A video is (dataset, method, video): FaceForensics++ gives four forgeries one folder name, which must not be averaged together.

    Args:
        frames: columns dataset, method, video, label, score; a row a frame.

    Returns:
        Columns dataset, method, video, label, score; a row a video.

    Raises:
        ValueError: a video whose frames disagree about the label.
    """
    groups = frames.groupby(["dataset", "method", "video"], sort=True, observed=True)
    videos = groups.agg(label=("label", "first"), labels=("label", "nunique"), score=("score", "mean")).reset_index()
    mixed = videos[videos["labels"] > 1]
    if len(mixed):
        raise ValueError(f"video {'/'.join(mixed.iloc[0][['dataset', 'method', 'video']])} has frames of both labels")
    return videos.drop(columns="labels")
