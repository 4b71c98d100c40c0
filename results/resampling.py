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
from sklearn.metrics import roc_curve

from results.files import RecordError
from results.record import Level, Metric, Record

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
        eer: definition of the equal error rate; see `Rules`.
    """

    labels: NDArray[np.int64]
    scores: Array
    videos: NDArray[np.int64]
    n_real: int
    n_fake: int
    names: tuple[str, ...]
    eer: str = "interpolated"


@dataclass(frozen=True)
class Rules:
    """How a record's protocol makes examples of faces, as far as scores can tell; the defaults are the strict protocol's.

    Attributes:
        video_key: "full": a video is (dataset, method, video). "basename": the last part of the video's name alone.
        mixed_label: of a video whose faces disagree about the label: "refuse", or "real" as soon as one of them is.
        clip_average: "of_videos": a video's score is the mean of its faces'. "of_frames": faces are taken for videos.
        eer: "interpolated", or "nearest": the false positive rate at the point of the ROC curve where the rates differ least.
        missing: (dataset, method, video, label) of videos without a face that are judged with the score 0.5.
    """

    video_key: str = "full"
    mixed_label: str = "refuse"
    clip_average: str = "of_videos"
    eer: str = "interpolated"
    missing: tuple[tuple[str, str, str, int], ...] = ()

    @classmethod
    def of(cls, record: Record, test: str) -> Rules:
        """Those of a record, for one of its sets ("val" or a test's name)."""
        p = record.protocol
        named = {key: str(p[key]) for key in ("video_key", "mixed_label", "clip_average", "eer") if key in p}
        absent = (record.data.get("missing") or {}).get(test, ()) if p.get("missing_face") == "half" else ()
        return cls(**named, missing=tuple((str(d), str(m), str(v), int(label)) for d, m, v, label in absent))


STRICT = Rules()


def sample(rows: pd.DataFrame, level: Level, rules: Rules = STRICT) -> Sample:
    """The scores of one set at one evaluation point as examples of one level.

    Args:
        rows: columns dataset, method, video, label, score; a row a face.
        level: "video" takes the mean score of each video's faces.
        rules: of the protocol.

    Raises:
        RecordError: a video whose faces disagree about the label, where that is refused.
    """
    plain = rows[[*VIDEO, "label", "score"]].astype(dict.fromkeys(VIDEO, "str") | {"score": "float64"})
    averaged = level == "video" and rules.clip_average == "of_videos"
    by_name = averaged and rules.video_key != "full"
    if by_name:
        plain["video"] = plain["video"].map(_last_part)
    key = ["video"] if by_name else VIDEO
    if level == "video":
        plain = _with_missing(plain, rules, key, averaged)
    # Faces that are examples themselves are drawn with the faces of their video and class.
    groups = plain.groupby(key if averaged else [*key, "label"], sort=True, observed=True)
    found = {"label": ("label", "min"), "labels": ("label", "nunique"), "score": ("score", "mean")}
    videos = groups.agg(**found).reset_index(level=key).reset_index(drop=True)
    if rules.mixed_label == "refuse" and (videos["labels"] > 1).any():
        raise RecordError(f"video {'/'.join(videos[videos['labels'] > 1].iloc[0][key])} has faces of both labels")
    order = videos["label"].to_numpy().argsort(kind="stable")  # real first, by name within
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    videos = videos.iloc[order]
    names = tuple("/".join(name) for name in videos[key].itertuples(index=False))
    n_fake = int(videos["label"].sum())
    of = videos if averaged else plain
    where = np.arange(len(videos)) if averaged else number[groups.ngroup().to_numpy()]
    labels, scores = of["label"].to_numpy(np.int64), of["score"].to_numpy(np.float64)
    return Sample(labels, scores, where, len(videos) - n_fake, n_fake, names, rules.eer)


def _with_missing(plain: pd.DataFrame, rules: Rules, key: list[str], averaged: bool) -> pd.DataFrame:
    """Videos without a face, one row each at 0.5; of averaged videos only those whose key no face has."""
    if not rules.missing:
        return plain
    added = pd.DataFrame(list(rules.missing), columns=[*VIDEO, "label"]).assign(score=0.5)
    if averaged:
        if key != VIDEO:
            added["video"] = added["video"].map(_last_part)
        there = set(plain[key].itertuples(index=False, name=None))
        added = added[[name not in there for name in added[key].itertuples(index=False, name=None)]]
    return pd.concat([plain, added], ignore_index=True)


def _last_part(name: str) -> str:
    return name.rsplit("/", 1)[-1]


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
    if metric == "eer" and of.eer == "nearest":
        return np.array([_nearest(of, row) for row in copies])
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


def _nearest(of: Sample, copies: NDArray[np.int64]) -> float:
    """DeepfakeBench's equal error rate of one draw, on scikit-learn's curve without the points on a line between others."""
    fpr, tpr, _ = roc_curve(of.labels, of.scores, sample_weight=copies[of.videos])
    return float(fpr[np.argmin(np.abs(1 - tpr - fpr))])


def interval(values: Array, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of a metric's draws (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3)."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
