"""Metrics per frame and per video: pure functions of labels (0 real, 1 fake) and scores P(fake).

A metric that is not defined (one class only, no faces) is None with a reason, never NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics as sk

from benchmark.reading import ConfigError
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
    """The rate at which as many reals as fakes are misjudged, interpolated between the two points of the ROC curve around it."""
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    gap = fpr - (1 - tpr)  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    before = max(after - 1, 0)
    span = gap[after] - gap[before]
    weight = 0.0 if span == 0 else -gap[before] / span
    return float(fpr[before] + weight * (fpr[after] - fpr[before]))


def nearest_error_rate(labels: Labels, scores: Array) -> float:
    """DeepfakeBench's equal error rate: the false positive rate at the point of the ROC curve where the two rates differ least.

    Of sklearn's curve without the points that lie on a line between others, as there: the rest could be nearer.
    """
    fpr, tpr, _ = sk.roc_curve(labels, scores)
    return float(fpr[np.argmin(np.abs(1 - tpr - fpr))])


def log_loss(labels: Labels, scores: Array) -> float:
    """Mean cross entropy in nats, scores clipped to [1e-7, 1 - 1e-7] (float32's resolution near 1)."""
    return float(sk.log_loss(labels, np.clip(scores, 1e-7, 1 - 1e-7), labels=[0, 1]))


BOTH_CLASSES: dict[Metric, Callable[[Labels, Array], float]] = {"auc": auc, "ap": average_precision, "eer": equal_error_rate}
ANY_CLASS: dict[Metric, Callable[[Labels, Array], float]] = {"acc": accuracy, "log_loss": log_loss}
METRICS: tuple[Metric, ...] = (*BOTH_CLASSES, *ANY_CLASS)


ERROR_RATES: dict[str, Callable[[Labels, Array], float]] = {"interpolated": equal_error_rate, "nearest": nearest_error_rate}
"""Definitions of the equal error rate, as the protocol's switch `eer` names them."""


def measure(labels: Labels, scores: Array, eer: str = "interpolated") -> tuple[dict[Metric, float | None], dict[Metric, str]]:
    """Every metric, and for those that are not defined the reason.

    Args:
        labels: (N,) 0 real, 1 fake.
        scores: (N,) P(fake).
        eer: key of `ERROR_RATES`.

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
    both = {**BOTH_CLASSES, "eer": ERROR_RATES[eer]}
    return values | {name: metric(labels, scores) for name, metric in both.items()}, {}


def per_video(
    frames: pd.DataFrame, video_key: str = "full", mixed_label: str = "refuse", missing: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Mean score of each video.

    Args:
        frames: columns dataset, method, video, label, score; a row a frame.
        video_key: "full": a video is (dataset, method, video); FaceForensics++ gives four forgeries one folder name, which must not
            be averaged together. "basename": DeepfakeBench's key, the last part of the video's name alone.
        mixed_label: of a video whose frames disagree about the label: "refuse", or "real" as soon as one of them is.
        missing: columns dataset, method, video, label; videos without a scored frame, which are judged with the score 0.5.

    Returns:
        Columns dataset, method, video, label, score; a row a video.

    Raises:
        ConfigError: a video whose frames disagree about the label, where that is refused.
    """
    if missing is not None and len(missing):
        key = ["dataset", "method", "video"] if video_key == "full" else ["video"]
        there = frames[key].agg("/".join, axis=1).map(_name(video_key))
        absent = ~missing[key].agg("/".join, axis=1).map(_name(video_key)).isin(set(there))
        added = missing.loc[absent, ["dataset", "method", "video", "label"]].assign(score=0.5)
        frames = pd.concat([frames[list(added.columns)].astype({"score": "float64"}), added], ignore_index=True)
    by: list[Any] = ["dataset", "method", "video"] if video_key == "full" else [frames["video"].astype(str).map(_name(video_key))]
    groups = frames.groupby(by, sort=True, observed=True)
    found = groups.agg(label=("label", "min"), labels=("label", "nunique"), score=("score", "mean"))
    if video_key != "full":
        found = found.join(groups[["dataset", "method"]].first())
    videos = found.reset_index()[["dataset", "method", "video", "label", "labels", "score"]]
    mixed = videos[videos["labels"] > 1]
    if len(mixed) and mixed_label == "refuse":
        name = "/".join(mixed.iloc[0][["dataset", "method", "video"] if video_key == "full" else ["video"]])
        raise ConfigError(f"video {name} has frames of both labels; mend the data, or say protocol.mixed_label: real")
    return videos.drop(columns="labels")


def _name(video_key: str) -> Callable[[str], str]:
    return (lambda name: name) if video_key == "full" else (lambda name: name.rsplit("/", 1)[-1])
