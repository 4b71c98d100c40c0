"""The videos that a cell judges worst and best, and the ROC curves of the evaluation that is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from results.files import RecordError
from results.record import Level, Measure, Record
from results.report.curves import VIDEO, Chart, per_video, roc_chart, roc_points
from results.selection import SELECTIONS, select

FRAMES = 6
"""Faces of a video that are shown, evenly spread."""


@dataclass(frozen=True)
class Video:
    """A video with some of its faces: `keys` in the store, `scores` of each face, `score` of the video."""

    test: str
    dataset: str
    method: str
    video: str
    label: int
    score: float
    keys: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def error(self) -> float:
        """How far the score is from the label."""
        return abs(self.label - self.score)


@dataclass(frozen=True)
class TestLook:
    """One test set at one evaluation.

    Attributes:
        name, role: of the set.
        roc: the curves, or None with the reason in `undefined`.
        otherwise: how the protocol defines the video level, where that is not the mean score of a video's faces, so that no curve
            is drawn of it; else empty.
        worst, best: videos by the distance of score and label; no video is in both.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name
    name: str
    role: str
    roc: Chart | None
    undefined: str
    otherwise: str
    worst: tuple[Video, ...]
    best: tuple[Video, ...]


def look_at(record: Record) -> tuple[int, str]:
    """The step whose scores are looked at, and which rule chose it: source_val, or last where that cannot choose."""
    for name in ("source_val", "last"):
        try:
            epochs = {epoch for c in select(record.measures, SELECTIONS[name]) for epoch in c.epochs}
        except RecordError:
            continue
        return next(m.step for m in record.measures if m.epoch in epochs and m.role != "source-val"), name
    raise RecordError("no test set was evaluated")


def looks(record: Record, scores: pd.DataFrame, count: int = 3) -> list[TestLook]:
    """Each test set at the evaluation that `look_at` names.

    Args:
        record: of the cell.
        scores: its scores, as `results.scores.load_scores` gives them.
        count: so many worst videos at most, and as many best.

    Raises:
        RecordError: the scores do not match the record; the sentence names the set, the level and both values.
    """
    step, _ = look_at(record)
    at = scores[(scores["step"] == step) & (scores["split"] == "test")]
    found = []
    for test, role in dict.fromkeys((m.test, m.role) for m in record.measures if m.step == step and m.role != "source-val"):
        rows = at[at["test"] == test]
        videos = per_video(rows)
        curves: list[tuple[str, NDArray[np.float64], NDArray[np.float64]]] = []
        undefined = ""
        otherwise = _otherwise(record)
        levels: list[tuple[Level, pd.DataFrame]] = [("frame", rows)]
        if not otherwise:
            levels.append(("video", videos))
        for level, table in levels:
            (measure,) = (m for m in record.measures if (m.step, m.test, m.level) == (step, test, level) and m.role == role)
            labels = table["label"].to_numpy(np.int64)
            _same_examples(measure, labels)
            if len(np.unique(labels)) < 2:
                undefined = measure.undefined.get("auc", "one class only")
                continue
            fpr, tpr, area = roc_points(labels, table["score"].to_numpy(np.float64))
            if measure.auc is None or abs(area - measure.auc) > 1e-6:
                raise RecordError(
                    f"the scores do not match the record: {level} AUC of {test} at step {step} is {area:.6f} by scores.parquet, "
                    f"{'undefined' if measure.auc is None else f'{measure.auc:.6f}'} by record.json; run the cell again"
                )
            curves.append((f"{level} AUC {100 * area:.2f}", fpr, tpr))
        worst, best = _extremes(test, rows, videos, count)
        drawn = roc_chart(test, curves) if curves else None
        found.append(TestLook(test, role, drawn, undefined, otherwise, worst, best))
    return found


PLAIN = {"clip_average": "of_videos", "video_key": "full"}
"""Switches of a protocol under which a video is (dataset, method, video) and its score the mean of its faces'."""


def _otherwise(record: Record) -> str:
    said = [f"{name} {record.protocol[name]}" for name, value in PLAIN.items() if record.protocol.get(name, value) != value]
    return ", ".join([*said, *(["missing_face half"] if record.protocol.get("missing_face") == "half" else [])])


def _same_examples(measure: Measure, labels: NDArray[np.int64]) -> None:
    real, fake = int((labels == 0).sum()), int((labels == 1).sum())
    if (real, fake) != (measure.n_real, measure.n_fake):
        raise RecordError(
            f"the scores do not match the record: {measure.test} has {real} real + {fake} fake {measure.level}s in scores.parquet, "
            f"{measure.n_real} + {measure.n_fake} in record.json (step {measure.step}); run the cell again"
        )


def _extremes(test: str, rows: pd.DataFrame, videos: pd.DataFrame, count: int) -> tuple[tuple[Video, ...], tuple[Video, ...]]:
    errors = (videos["label"] - videos["score"]).abs().to_numpy()
    ranked = np.argsort(-errors, kind="stable").tolist()
    few = min(count, len(ranked) // 2) if len(ranked) > 1 else len(ranked)
    text = {name: rows[name].astype(str).to_numpy() for name in (*VIDEO, "key")}
    frames, scores = rows["frame"].to_numpy(), rows["score"].to_numpy(np.float64)

    def shown(at: int) -> Video:
        row = videos.iloc[at]
        dataset, method, name = (str(row[column]) for column in VIDEO)
        mine = np.flatnonzero(np.logical_and.reduce([text["dataset"] == dataset, text["method"] == method, text["video"] == name]))
        mine = mine[np.argsort(frames[mine], kind="stable")]
        mine = mine[np.unique(np.linspace(0, len(mine) - 1, min(len(mine), FRAMES)).round().astype(int))]
        keys, each = tuple(text["key"][mine].tolist()), tuple(scores[mine].tolist())
        return Video(test, dataset, method, name, int(row["label"]), float(row["score"]), keys, each)

    return tuple(map(shown, ranked[:few])), tuple(map(shown, ranked[max(few, len(ranked) - few) :][::-1]))
