"""Metrics over resampled videos: the cluster bootstrap, in which a video is drawn with all its frames or not at all.

Frames of one video are no independent examples. Videos are drawn with replacement, the real ones and the fake ones by themselves,
so that every draw has as many of each class as the set. The draws are numbers of copies, the same ones for every detector that
scored the set: what two detectors have in common falls out of their difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from results.record import Level, Metric, RecordError

Array = NDArray[np.float64]

VIDEO = ["dataset", "method", "video"]
FEWEST = 5
"""Videos of each class below which the bootstrap says nothing: too few different draws."""
AT_ONCE = 4_000_000
"""Numbers that are held at a time where a metric needs the whole curve."""
CLIP = 1e-7
"""Scores keep so far from 0 and 1 in the log loss."""


@dataclass(frozen=True)
class Sample:
    """Scored examples of one set, and the video that each belongs to.

    Attributes:
        labels: (N,) 0 real, 1 fake.
        scores: (N,) P(fake).
        videos: (N,) number of each example's video; the real videos first.
        n_real, n_fake: videos of each class.
        names: dataset/method/video of every video, in order of their numbers.
    """

    labels: NDArray[np.int64]
    scores: Array
    videos: NDArray[np.int64]
    n_real: int
    n_fake: int
    names: tuple[str, ...]


def sample(rows: pd.DataFrame, level: Level) -> Sample:
    """The scores of one set at one evaluation point as examples of one level.

    Args:
        rows: columns dataset, method, video, label, score; a row a face.
        level: "video" takes the mean score of each video's faces.

    Raises:
        RecordError: a video whose faces disagree about the label.
    """
    plain = rows[[*VIDEO, "label", "score"]].astype(dict.fromkeys(VIDEO, "str") | {"score": "float64"})
    groups = plain.groupby(VIDEO, sort=True, observed=True)
    videos = groups.agg(label=("label", "first"), labels=("label", "nunique"), score=("score", "mean")).reset_index()
    if (videos["labels"] > 1).any():
        raise RecordError(f"video {'/'.join(videos[videos['labels'] > 1].iloc[0][VIDEO])} has faces of both labels")
    order = videos["label"].to_numpy().argsort(kind="stable")  # real first, by name within
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    videos = videos.iloc[order]
    names = tuple("/".join(name) for name in videos[VIDEO].itertuples(index=False))
    n_fake = int(videos["label"].sum())
    of = videos if level == "video" else plain
    where = np.arange(len(videos)) if level == "video" else number[groups.ngroup().to_numpy()]
    return Sample(of["label"].to_numpy(np.int64), of["score"].to_numpy(np.float64), where, len(videos) - n_fake, n_fake, names)


def draws(n_real: int, n_fake: int, count: int, seed: int) -> NDArray[np.int64]:
    """Copies of each video in each draw, (count, n_real + n_fake); by the seed and the numbers of videos alone."""
    generator = np.random.Generator(np.random.Philox(seed))
    return np.concatenate(
        [generator.multinomial(n, np.full(n, 1 / n), size=count) for n in (n_real, n_fake) if n], axis=1, dtype=np.int64
    )


def evaluate(of: Sample, metric: Metric, copies: NDArray[np.int64] | None = None) -> Array:
    """A metric of every draw, as `Measure` defines it.

    Args:
        of: the scored examples.
        metric: which.
        copies: (B, videos) from `draws`; None: the set itself, once.

    Returns:
        (B,)

    Raises:
        RecordError: AUC, AP or EER of a set of one class.
    """
    if copies is None:
        copies = np.ones((1, len(of.names)), np.int64)
    if metric in ("acc", "log_loss"):
        return _mean(of, metric, copies)
    if not of.n_real or not of.n_fake:
        raise RecordError(f"only {'fake' if of.n_fake else 'real'} faces")
    if metric == "auc":
        return _auc(of, copies)
    step = max(1, AT_ONCE // len(of.labels))
    return np.concatenate([_of_curve(of, metric, copies[at : at + step]) for at in range(0, len(copies), step)])


def _mean(of: Sample, metric: Metric, copies: NDArray[np.int64]) -> Array:
    """Accuracy at 0.5 and cross entropy are means over examples: sums of videos, weighted."""
    if metric == "acc":
        each = ((of.scores > 0.5) == (of.labels == 1)).astype(np.float64)
    else:
        p = np.clip(of.scores, CLIP, 1 - CLIP)
        each = -np.log(np.where(of.labels == 1, p, 1 - p))
    count = len(of.names)
    sums, sizes = np.bincount(of.videos, each, count), np.bincount(of.videos, minlength=count)
    found: Array = (copies @ sums) / (copies @ sizes)
    return found


def _auc(of: Sample, copies: NDArray[np.int64]) -> Array:
    """The share of (real, fake) pairs in the right order, ties half; pairs are counted once for all draws, by video."""
    fake = of.labels == 1
    scores, videos = of.scores[fake], of.videos[fake] - of.n_real
    sizes = np.bincount(of.videos[~fake], minlength=of.n_real)
    order = np.lexsort((of.scores[~fake], of.videos[~fake]))
    wins = np.empty((of.n_real, of.n_fake))
    for at, real in enumerate(np.split(of.scores[~fake][order], np.cumsum(sizes)[:-1])):
        below = np.searchsorted(real, scores, "left") + np.searchsorted(real, scores, "right")
        wins[at] = np.bincount(videos, below / 2, of.n_fake)
    real_copies, fake_copies = copies[:, : of.n_real], copies[:, of.n_real :]
    pairs = (real_copies @ sizes) * (fake_copies @ np.bincount(videos, minlength=of.n_fake))
    found: Array = np.einsum("bf,bf->b", real_copies @ wins, fake_copies) / pairs
    return found


def _of_curve(of: Sample, metric: Metric, copies: NDArray[np.int64]) -> Array:
    """AP and EER from the ROC curve of each draw, whose points are the different scores, highest first."""
    order = np.argsort(-of.scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(of.scores[order]) != 0, True))
    weights = copies[:, of.videos[order]].astype(np.float64)
    fake = of.labels[order] == 1
    tp = np.cumsum(np.where(fake, weights, 0), axis=1)[:, ends]
    fp = np.cumsum(np.where(fake, 0, weights), axis=1)[:, ends]
    if metric == "ap":
        called = tp + fp
        precision = np.divide(tp, called, out=np.zeros_like(tp), where=called > 0)
        area: Array = (np.diff(tp, axis=1, prepend=0.0) * precision).sum(axis=1) / tp[:, -1]
        return area
    start = np.zeros((len(tp), 1))
    tpr = np.hstack([start, tp / tp[:, -1:]])
    fpr = np.hstack([start, fp / fp[:, -1:]])
    gap = fpr - (1 - tpr)  # rises from -1 to 1
    after = np.argmax(gap >= 0, axis=1)
    rows, before = np.arange(len(gap)), np.maximum(after - 1, 0)
    span = gap[rows, after] - gap[rows, before]
    share = np.divide(-gap[rows, before], span, out=np.zeros(len(gap)), where=span != 0)
    rate: Array = fpr[rows, before] + share * (fpr[rows, after] - fpr[rows, before])
    return rate


def interval(values: Array, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of a metric's draws (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3)."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
