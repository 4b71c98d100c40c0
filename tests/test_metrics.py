import numpy as np
import pandas as pd
import pytest

from benchmark import metrics


def test_auc_by_hand() -> None:
    # Of the 2 x 3 pairs (real, fake) five are ordered rightly and none is tied.
    labels, scores = np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.5, 0.4, 0.8, 0.9])
    assert metrics.auc(labels, scores) == pytest.approx(5 / 6)


def test_tied_scores_count_half() -> None:
    assert metrics.auc(np.array([0, 1]), np.array([0.5, 0.5])) == pytest.approx(0.5)


def test_accuracy_calls_one_half_real() -> None:
    assert metrics.accuracy(np.array([0, 1, 1]), np.array([0.5, 0.5, 0.6])) == pytest.approx(2 / 3)


def test_average_precision_by_hand() -> None:
    # Ranked fake, real, fake: precision 1 at the first fake, 2/3 at the second.
    labels, scores = np.array([1, 0, 1]), np.array([0.9, 0.8, 0.7])
    assert metrics.average_precision(labels, scores) == pytest.approx((1 + 2 / 3) / 2)


def test_equal_error_rate_is_interpolated() -> None:
    # 2 reals, 3 fakes. Thresholds downwards give (fpr, fnr): (0,1) (0,2/3) (1/2,2/3) (1/2,1/3) (1/2,0) (1,0).
    # The curves cross between (1/2,2/3) and (1/2,1/3), at fpr = 1/2.
    labels, scores = np.array([1, 0, 1, 1, 0]), np.array([0.9, 0.8, 0.7, 0.6, 0.1])
    assert metrics.equal_error_rate(labels, scores) == pytest.approx(0.5)
    # One real between 3 fakes and below: (0,1) (0,2/3) (1,2/3) (1,1/3) (1,0): between (0,2/3) and (1,2/3), where fpr = fnr = 2/3.
    labels, scores = np.array([1, 0, 1, 1]), np.array([0.9, 0.8, 0.7, 0.6])
    assert metrics.equal_error_rate(labels, scores) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("scores", "rate"), [([0.1, 0.2, 0.8, 0.9], 0.0), ([0.9, 0.8, 0.2, 0.1], 1.0)])
def test_equal_error_rate_at_the_ends(scores: list[float], rate: float) -> None:
    assert metrics.equal_error_rate(np.array([0, 0, 1, 1]), np.array(scores)) == pytest.approx(rate)


def test_log_loss_by_hand_and_bounded() -> None:
    assert metrics.log_loss(np.array([0, 1]), np.array([0.2, 0.9])) == pytest.approx(-(np.log(0.8) + np.log(0.9)) / 2)
    assert metrics.log_loss(np.array([1]), np.array([0.0])) == pytest.approx(-np.log(1e-7))


def test_one_class_is_undefined_with_a_reason() -> None:
    values, undefined = metrics.measure(np.array([1, 1]), np.array([0.2, 0.9]))
    assert values["auc"] is None
    assert undefined == {"auc": "only fake faces", "ap": "only fake faces", "eer": "only fake faces"}
    assert values["acc"] == 0.5


def test_no_faces_is_undefined() -> None:
    values, undefined = metrics.measure(np.array([], np.int64), np.array([]))
    assert set(values) == set(metrics.METRICS) == set(undefined)
    assert all(v is None for v in values.values())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.1])
def test_scores_that_are_no_probabilities_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        metrics.measure(np.array([0, 1]), np.array([0.5, bad]))


def frames(rows: list[tuple[str, str, str, int, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["dataset", "method", "video", "label", "score"])


def test_videos_of_one_name_are_not_merged() -> None:
    scores = frames(
        [("A", "FaceSwap", "000_003", 1, 0.2), ("A", "Deepfakes", "000_003", 1, 0.8), ("B", "Deepfakes", "000_003", 1, 0.4)]
    )
    assert len(metrics.per_video(scores)) == 3


def test_a_video_scores_the_mean_of_its_frames() -> None:
    videos = metrics.per_video(frames([("A", "real", "000", 0, 0.2), ("A", "real", "000", 0, 0.4)]))
    assert videos["score"].tolist() == [pytest.approx(0.3)]


def test_a_video_has_one_label() -> None:
    with pytest.raises(ValueError, match="A/real/000 has frames of both labels"):
        metrics.per_video(frames([("A", "real", "000", 0, 0.2), ("A", "real", "000", 1, 0.4)]))
