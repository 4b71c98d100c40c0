"""Bootstrap, paired tests, Holm and ranks against textbook examples, other formulas and simulated data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from results_grids import record
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from benchmark import metrics
from results.files import RecordError
from results.record import METRICS
from results.resampling import Rules, draws, evaluate, interval, sample
from results.statistics import average_ranks, critical_difference, holm, paired_difference, wilcoxon

# Demsar 2006, table 6: AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 data sets. In the row before the last the paper prints
# 0.975 twice but ranks the first of them second and the other third: its digits were cut after ranking.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.97501, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")


def rows(
    generator: np.random.Generator, videos: int = 12, frames: int = 5, apart: float = 1.0, spread: float = 1.0
) -> pd.DataFrame:
    """Videos of both classes whose frames share most of their score; scores are rounded, so that some tie."""
    label = np.repeat([0, 1], videos)
    level = generator.normal(apart * label, spread)
    each = np.repeat(level, frames) + 0.5 * generator.normal(size=2 * videos * frames)
    names = [f"v{at % videos}" for at in range(2 * videos)]
    return pd.DataFrame(
        {
            "dataset": "d",
            "method": np.repeat(np.where(label == 1, "fake", "real"), frames),
            "video": np.repeat(names, frames),
            "label": np.repeat(label, frames),
            "score": np.round(1 / (1 + np.exp(-each)), 2),
        }
    )


def test_the_set_itself_gives_the_metrics_of_the_benchmark() -> None:
    table = rows(np.random.default_rng(0)).sample(frac=1, random_state=1)
    for level, of in (("frame", table), ("video", metrics.per_video(table))):
        expected, _ = metrics.measure(of["label"].to_numpy(np.int64), of["score"].to_numpy(np.float64))
        for metric in METRICS:
            assert evaluate(sample(table, level), metric)[0] == pytest.approx(expected[metric], abs=1e-12)


def test_a_draw_is_the_set_with_its_videos_copied() -> None:
    """Against the benchmark's metrics on rows that were really repeated."""
    table = rows(np.random.default_rng(2), videos=7)
    of = sample(table, "frame")
    copies = draws(7, 7, 4, seed=5)
    assert (copies[:, :7].sum(axis=1) == 7).all()
    assert (copies[:, 7:].sum(axis=1) == 7).all()
    assert np.array_equal(copies, draws(7, 7, 4, seed=5))
    assert not np.array_equal(copies, draws(7, 7, 4, seed=6))
    for at, row in enumerate(copies):
        taken = np.repeat(np.arange(len(of.labels)), row[of.videos])
        expected, _ = metrics.measure(of.labels[taken], of.scores[taken])
        for metric in METRICS:
            assert evaluate(of, metric, copies)[at] == pytest.approx(expected[metric], abs=1e-12)


def test_one_class_and_mixed_videos_are_refused() -> None:
    table = rows(np.random.default_rng(0))
    with pytest.raises(RecordError, match="only fake faces"):
        evaluate(sample(table[table["label"] == 1], "frame"), "auc")
    assert 0 <= evaluate(sample(table[table["label"] == 1], "frame"), "acc")[0] <= 1
    table.loc[0, "label"] = 1
    with pytest.raises(RecordError, match="d/real/v0 has faces of both labels"):
        sample(table, "video")


def table_of(*videos: tuple[str, str, int, tuple[float, ...]]) -> pd.DataFrame:
    faces = [("d", method, video, label, score) for method, video, label, scores in videos for score in scores]
    return pd.DataFrame(faces, columns=["dataset", "method", "video", "label", "score"])


def test_examples_follow_the_protocol_of_the_record() -> None:
    table = table_of(
        ("real", "a/1", 0, (0.1, 0.3)), ("real", "a/2", 0, (0.4,)), ("fake", "b/1", 1, (0.9,)), ("fake", "b/3", 1, (0.35,))
    )
    strict = sample(table, "video")
    assert (strict.names, strict.scores.tolist()) == (
        ("d/real/a/1", "d/real/a/2", "d/fake/b/1", "d/fake/b/3"),
        [0.2, 0.4, 0.9, 0.35],
    )
    with pytest.raises(RecordError, match="video 1 has faces of both labels"):
        sample(table, "video", Rules(video_key="basename"))
    merged = sample(table, "video", Rules(video_key="basename", mixed_label="real"))
    assert (merged.names, merged.labels.tolist()) == (("1", "2", "3"), [0, 0, 1])
    assert merged.scores == pytest.approx([1.3 / 3, 0.4, 0.35])
    frames = sample(table, "video", Rules(clip_average="of_frames"))
    assert (len(frames.labels), len(frames.names)) == (5, 4)
    absent = Rules(missing=(("d", "real", "a/1", 0), ("d", "fake", "b/9", 1)))
    judged = sample(table, "video", absent)
    assert (judged.names[-1], judged.scores[-1], len(judged.names)) == ("d/fake/b/9", 0.5, 5)  # the other one has faces
    assert len(sample(table, "frame", absent).labels) == 5


def test_rules_are_read_from_a_record() -> None:
    protocol = {"name": "x", "video_key": "basename", "mixed_label": "real", "missing_face": "half", "eer": "nearest"}
    made = record("c", 0.8, protocol=protocol, data={"missing": {"mini-b": [["d", "real", "v", 0]]}})
    assert Rules.of(made, "mini-b") == Rules("basename", "real", "of_videos", "nearest", (("d", "real", "v", 0),))
    assert Rules.of(made, "other").missing == ()
    assert Rules.of(record("c", 0.8), "mini-b") == Rules()


def test_deepfakebench_takes_the_nearest_error_rate() -> None:
    table = rows(np.random.default_rng(4), videos=9)
    of = sample(table, "frame", Rules(eer="nearest"))
    copies = draws(9, 9, 5, seed=0)
    for row, found in zip(copies, evaluate(of, "eer", copies), strict=True):
        taken = np.repeat(np.arange(len(of.labels)), row[of.videos])
        fpr, tpr, _ = roc_curve(of.labels[taken], of.scores[taken])
        assert found == pytest.approx(fpr[np.nanargmin(np.absolute((1 - tpr) - fpr))])


def test_intervals_cover_the_true_auc_and_frames_do_not_count_as_videos() -> None:
    """200 drawn test sets of 30 + 30 videos: 95% intervals hold the true AUC in about 95% of them; over frames they would not."""
    truth = stats.norm.cdf(1.0 / np.sqrt(2 * (1 + 0.25)))
    inside = {"videos": 0, "frames": 0}
    copies = draws(30, 30, 200, seed=0)
    alone = draws(120, 120, 200, seed=0)
    for at in range(200):
        table = rows(np.random.default_rng(at), videos=30, frames=4)
        low, high = interval(evaluate(sample(table, "frame"), "auc", copies))
        inside["videos"] += low <= truth <= high
        if at < 60:
            single = sample(table.assign(video=[str(i) for i in range(len(table))]), "frame")
            low, high = interval(evaluate(single, "auc", alone))
            inside["frames"] += low <= truth <= high
    assert 0.90 <= inside["videos"] / 200 <= 0.98
    assert inside["frames"] / 60 < 0.8


def delong(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Standard error of the difference of two AUCs on the same examples (DeLong et al. 1988)."""
    parts = []
    for scores in (first, second):
        real, fake = scores[labels == 0], scores[labels == 1]
        wins = (fake[:, None] > real[None]) + 0.5 * (fake[:, None] == real[None])
        parts.append((wins.mean(axis=1), wins.mean(axis=0)))
    of_fake = np.cov([p[0] for p in parts])
    of_real = np.cov([p[1] for p in parts])
    each = of_fake / (labels == 1).sum() + of_real / (labels == 0).sum()
    return float(np.sqrt(each[0, 0] + each[1, 1] - 2 * each[0, 1]))


def test_a_paired_difference_has_delongs_error() -> None:
    """At video level, where every example is a video of its own, DeLong's formula is what the bootstrap estimates."""
    generator = np.random.default_rng(3)
    one = rows(generator, videos=80, frames=1)
    other = one.assign(score=np.clip(one["score"] + generator.normal(0, 0.15, len(one)), 0, 1))
    copies = draws(80, 80, 4000, seed=1)
    first, second = (sample(table, "video") for table in (one, other))
    difference = evaluate(first, "auc", copies) - evaluate(second, "auc", copies)
    point = evaluate(first, "auc") - evaluate(second, "auc")
    found = paired_difference(point, difference[None])
    expected = delong(first.labels, first.scores, second.scores)
    assert found.error == pytest.approx(expected, rel=0.06)
    auc = roc_auc_score(one["label"], one["score"]) - roc_auc_score(other["label"], other["score"])
    assert found.value == pytest.approx(auc)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(auc) / expected), abs=0.03)
    assert (found.low, found.high) == pytest.approx((auc - 1.96 * expected, auc + 1.96 * expected), abs=0.004)


def test_seeds_add_their_own_variance() -> None:
    """Where videos add nothing, it is Student's paired t test over the seeds."""
    points = np.array([0.02, 0.05, 0.01, 0.04])
    found = paired_difference(points, np.repeat(points[:, None], 100, axis=1))
    expected = stats.ttest_1samp(points, 0)
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.freedom == pytest.approx(3)
    noisy = points[:, None] + np.random.default_rng(0).normal(0, 0.03, 500)
    assert paired_difference(points, noisy).p > found.p
    assert paired_difference(points, noisy).freedom > 3


def test_one_difference_a_seed_is_students_sleep_data() -> None:
    """Student, The probable error of a mean, Biometrika 6 (1908): hours of sleep gained by one drug over another, ten patients.

    t = 4.0621 on 9 degrees of freedom, p = 0.00283, 95% interval 0.70 to 2.46 (as R's help page of `sleep` gives it).
    """
    sleep = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    found = paired_difference(sleep, np.repeat(sleep[:, None], 50, axis=1))
    assert found.value / found.error == pytest.approx(4.0621, abs=5e-5)
    assert (found.freedom, found.p) == (pytest.approx(9), pytest.approx(0.00283, abs=5e-6))
    assert (found.low, found.high) == pytest.approx((0.70, 2.46), abs=5e-3)


def test_the_bootstrap_is_that_of_the_mouse_data() -> None:
    """Efron and Tibshirani 1993, table 2.2: the bootstrap's standard error of the treated mice's mean survival is 23.36 days.

    Each mouse is a video whose log loss is its days; that a video has several faces, all alike, changes nothing.
    """
    days = np.array([94, 197, 16, 38, 99, 141, 23]) / 100
    for faces in (1, 4):
        mice = table_of(*((f"fake{i}", f"m{i}", 1, (float(np.exp(-d)),) * faces) for i, d in enumerate(days)))
        of = sample(mice, "frame")
        assert evaluate(of, "log_loss")[0] == pytest.approx(0.8686, abs=5e-5)
        drawn = evaluate(of, "log_loss", draws(0, 7, 20000, seed=0))
        assert drawn.std() == pytest.approx(0.2336, abs=0.003)


def test_equal_detectors_do_not_differ() -> None:
    same = paired_difference(np.zeros(1), np.zeros((1, 99)))
    assert (same.value, same.p) == (0, 1)
    assert paired_difference(np.full(1, 0.5), np.full((1, 99), 0.5)).p == 0.02  # the draws can say no more


def test_holm() -> None:
    """Wikipedia's example (Holm-Bonferroni method): 0.005 x 4, 0.01 x 3, 0.03 x 2, and no step down; two of four are rejected."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []
    # Demsar 2006, section 3.2.2: against C4.5, p = 0.016, 0.019, 0.607; at 0.05 the first two hypotheses are rejected.
    assert [p < 0.05 for p in holm([0.016, 0.019, 0.607])] == [True, True, False]


def test_ranks_are_those_of_demsar() -> None:
    found = average_ranks(NAMES, DEMSAR)
    assert dict(zip(found.names, np.round(found.mean, 3), strict=True)) == {
        "C4.5": 3.143,
        "C4.5+m": 2.0,
        "C4.5+cf": 2.893,
        "C4.5+m+cf": 1.964,
    }
    assert found.names[0] == "C4.5+m+cf"
    # The paper's chi squared is without the correction for ties, which scipy makes.
    k, n = 4, 14
    mean = np.array(found.mean)
    plain = 12 * n / (k * (k + 1)) * ((mean**2).sum() - k * (k + 1) ** 2 / 4)
    assert plain == pytest.approx(9.28, abs=0.01)
    assert found.statistic >= plain
    assert found.f == pytest.approx((n - 1) * found.statistic / (n * (k - 1) - found.statistic))
    assert (n - 1) * plain / (n * (k - 1) - plain) == pytest.approx(3.69, abs=0.01)
    assert found.p < 0.05
    # "the critical difference is 2.569 sqrt(4 x 5 / (6 x 14)) = 1.25", and 1.12 at 0.10
    assert found.critical == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=0.005)
    # "not powerful enough": the extremes differ by 1.18, so that all four hang together.
    assert found.cliques() == [(0, 3)]
    lower = average_ranks(NAMES, 1 - DEMSAR, lower_is_better=True)
    assert (lower.names, lower.mean) == (found.names, found.mean)


def test_cliques() -> None:
    values = np.tile([4.0, 3.0, 2.0, 1.0], (12, 1))
    found = average_ranks(("a", "b", "c", "d"), values)
    assert found.mean == (1, 2, 3, 4)
    assert 1 < found.critical < 2
    assert found.cliques() == [(0, 1), (1, 2), (2, 3)]
    with pytest.raises(RecordError, match="there are 2 optimizers and 12 datasets"):
        average_ranks(("a", "b"), values[:, :2])
    equal = average_ranks(("a", "b", "c"), np.ones((4, 3)))
    assert (equal.p, equal.statistic) == (1, 0)


def test_wilcoxon_of_demsar() -> None:
    """Demsar 2006, section 3.1.3: C4.5 against C4.5+m on the same data sets; R+ = 93 and R- = 12, rejected at 0.05."""
    found = wilcoxon(DEMSAR[:, 1], DEMSAR[:, 0])
    assert found < 0.05
    z = (12 - 14 * 15 / 4) / np.sqrt(14 * 15 * 29 / 24)
    assert found == pytest.approx(2 * stats.norm.cdf(z), abs=0.02)
    assert wilcoxon([0.1, 0.2], [0.1, 0.2]) == 1
