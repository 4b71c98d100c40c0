"""The switches of the evaluation, on numbers that can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark import metrics
from benchmark.evaluate import ScoredSet, measures
from benchmark.protocol import Protocol
from benchmark.reading import ConfigError

NONE = pd.DataFrame(columns=["dataset", "method", "video", "label"])


def frames(*rows: tuple[str, str, float]) -> pd.DataFrame:
    """(method, video, score) of a face each."""
    table = pd.DataFrame(rows, columns=["method", "video", "score"])
    return table.assign(dataset="FF", label=(table["method"] != "real").astype("int64"))


def video_auc(scores: pd.DataFrame, missing: pd.DataFrame = NONE, **said: Any) -> tuple[float | None, int]:
    """AUC at video level, and how many videos there are."""
    protocol = Protocol.model_validate({"epochs": 1, "batch_size": 8, **said})
    found = measures(scores, ScoredSet("t", "test", "held-out", missing), 1.0, 1, protocol)
    return found[1].auc, found[1].n


PAIRS = frames(
    ("real", "001", 0.3),
    ("real", "003", 0.4),
    *(("Deepfakes", "001_002", 0.9), ("Deepfakes", "003_004", 0.9)),
    *(("Face2Face", "001_002", 0.2), ("Face2Face", "003_004", 0.35)),
)
"""Two forgeries of the same two pairs, one found and one missed."""


def test_forgeries_of_one_name_are_one_video_for_the_peer() -> None:
    # Full: of the 4 x 2 pairs of a fake and a real, 0.9 wins all four, 0.35 wins against 0.3, 0.2 wins none.
    assert video_auc(PAIRS) == (5 / 8, 6)
    # Basename: (0.9 + 0.2) / 2 and (0.9 + 0.35) / 2 both win against both.
    assert video_auc(PAIRS, video_key="basename") == (1.0, 4)


def test_the_basename_is_the_last_part_of_a_name() -> None:
    nested = frames(("real", "x/1", 0.2), ("A", "a/2", 0.1), ("A", "b/2", 0.5))
    assert video_auc(nested) == (1 / 2, 3)
    assert video_auc(nested, video_key="basename") == (1.0, 2)


def test_a_video_of_both_labels_is_refused_or_real() -> None:
    mixed = frames(("real", "1", 0.1), ("A", "1", 0.9), ("A", "2", 0.4))
    with pytest.raises(ConfigError, match=r"video 1 has frames of both labels; .* protocol.mixed_label: real"):
        video_auc(mixed, video_key="basename")
    # The group (0.1 + 0.9) / 2 is real and beats the only fake.
    assert video_auc(mixed, video_key="basename", mixed_label="real") == (0.0, 2)


def test_videos_without_a_face_are_left_out_or_judged_with_a_half() -> None:
    scores = frames(("real", "1", 0.6), ("A", "2", 0.9))
    missing = pd.DataFrame([("FF", "A", "3", 1), ("FF", "B", "2", 1)], columns=NONE.columns)
    assert video_auc(scores, missing) == (1.0, 2)
    assert video_auc(scores, missing, missing_face="half") == (1 / 3, 4)
    # Under its folder name the second one is a video that has faces.
    assert video_auc(scores, missing, missing_face="half", video_key="basename") == (1 / 2, 3)
    assert video_auc(scores, missing, missing_face="half", clip_average="of_frames") == (1 / 3, 4)


def test_examples_by_themselves_may_be_called_videos() -> None:
    scores = frames(("real", "1", 0.5), ("A", "2", 0.9), ("A", "2", 0.4))
    assert video_auc(scores) == (1.0, 2)
    assert video_auc(scores, clip_average="of_frames") == (1 / 2, 3)


@pytest.mark.parametrize(
    ("labels", "scores", "interpolated", "nearest"),
    [
        # ROC (fpr, fnr): (0, 1), (0, 1/3), (1/2, 1/3), (1/2, 0), (1, 0): the rates cross at 1/3; nearest is the third, with 1/2.
        ([0, 0, 1, 1, 1], [0.1, 0.7, 0.3, 0.8, 0.9], 1 / 3, 1 / 2),
        # (0, 1), (0, 1/2), (1/3, 1/2), (1/3, 0), (1, 0): the gaps are 1, 1/2, 1/6, 1/3, 1.
        ([0, 0, 0, 1, 1], [0.1, 0.2, 0.7, 0.3, 0.9], 1 / 3, 1 / 3),
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], 0.0, 0.0),
    ],
)
def test_equal_error_rates(labels: list[int], scores: list[float], interpolated: float, nearest: float) -> None:
    for eer, expected in (("interpolated", interpolated), ("nearest", nearest)):
        values, _ = metrics.measure(np.array(labels), np.array(scores), eer)
        assert values["eer"] == pytest.approx(expected), eer
