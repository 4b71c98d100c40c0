"""Selection rules against numbers worked out by hand."""

from __future__ import annotations

import pytest
from results_grids import measure

from results.files import RecordError
from results.record import Measure
from results.selection import SELECTIONS, Chosen, select, selection_named

# step            1     2     3     4     5
VALIDATION = (0.70, 0.90, 0.80, 0.90, 0.60)  # video level; ties at 2 and 4
VALIDATION_FRAMES = (0.50, 0.60, 0.95, 0.60, 0.50)  # frame level would choose step 3
FRAMES = (0.55, 0.50, 0.80, 0.70, 0.60)
VIDEOS = (0.90, 0.40, 0.60, 0.95, 0.85)
DOMAIN = (0.97, 0.99, 0.98, 0.96, 0.95)


def run() -> list[Measure]:
    found = []
    for step in range(1, 6):
        found += [
            measure(VALIDATION[step - 1], "val", "source-val", "video", step),
            measure(VALIDATION_FRAMES[step - 1], "val", "source-val", "frame", step),
            measure(FRAMES[step - 1], "NT", "held-out", "frame", step),
            measure(VIDEOS[step - 1], "NT", "held-out", "video", step),
            measure(DOMAIN[step - 1], "in", "in-domain", "frame", step),
        ]
    return found


def chosen(name: str, measures: list[Measure]) -> dict[tuple[str, str], Chosen]:
    return {(c.test, c.level): c for c in select(measures, SELECTIONS[name])}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("name", "frame", "video", "domain"),
    [
        ("last", 0.60, 0.85, 0.95),
        ("source_val", 0.50, 0.40, 0.99),  # step 2: the earliest of the two best
        ("best_per_test", 0.80, 0.95, 0.99),
        ("top3_per_test", (0.80 + 0.70 + 0.60) / 3, (0.95 + 0.90 + 0.85) / 3, (0.99 + 0.98 + 0.97) / 3),
    ],
)
def test_against_hand(name: str, frame: float, video: float, domain: float, reverse: bool) -> None:
    found = chosen(name, run()[::-1] if reverse else run())
    assert set(found) == {("NT", "frame"), ("NT", "video"), ("in", "frame")}
    assert found["NT", "frame"].metrics["auc"] == pytest.approx(frame, abs=1e-12)
    assert found["NT", "video"].metrics["auc"] == pytest.approx(video, abs=1e-12)
    assert found["in", "frame"].metrics["auc"] == pytest.approx(domain, abs=1e-12)


def test_other_metrics_come_from_the_same_evaluations() -> None:
    top = chosen("top3_per_test", run())["NT", "frame"]
    assert top.metrics["acc"] == pytest.approx((0.70 + 0.60 + 0.50) / 3)
    assert top.metrics["eer"] == pytest.approx((0.20 + 0.30 + 0.40) / 3)
    assert top.epochs == (0.3, 0.4, 0.5)
    assert (top.role, top.n) == ("held-out", 16)


def test_fewer_than_three_evaluations() -> None:
    top = chosen("top3_per_test", [measure(0.5, step=1), measure(0.7, step=2)])["NeuralTextures", "frame"]
    assert top.metrics["auc"] == pytest.approx(0.6)


def test_ties_of_the_oracle_go_to_the_earliest() -> None:
    best = chosen("best_per_test", [measure(0.7, step=3), measure(0.7, step=2), measure(0.6, step=1)])
    assert best["NeuralTextures", "frame"].epochs == (0.2,)


@pytest.mark.parametrize("name", ["last", "best_per_test", "top3_per_test"])
def test_a_set_of_one_class_has_a_reason_and_keeps_its_accuracy(name: str) -> None:
    found = chosen(name, [measure(None, step=1), measure(None, step=2)])["NeuralTextures", "frame"]
    assert found.metrics["auc"] is None
    assert found.undefined == {"auc": "only fake faces", "ap": "only fake faces", "eer": "only fake faces"}
    assert found.metrics["acc"] == 1.0
    assert found.epochs == (0.2,)


def test_validation_that_cannot_choose_says_why() -> None:
    held_out = measure(0.9, step=1)
    with pytest.raises(RecordError, match="no source-validation measures at video level"):
        chosen("source_val", [held_out])
    with pytest.raises(RecordError, match="is not defined: only fake faces"):
        chosen("source_val", [held_out, measure(None, "val", "source-val", "video", 1)])
    with pytest.raises(RecordError, match="no test set was evaluated at step 2"):
        chosen("source_val", [held_out, measure(0.9, "val", "source-val", "video", 2)])
    with pytest.raises(RecordError, match="no test set was evaluated"):
        chosen("last", [measure(0.9, "val", "source-val", "video", 2)])


def test_a_step_with_an_undefined_validation_is_passed_over() -> None:
    sets = [
        measure(0.99, "val-a", "source-val", "video", 1),
        measure(None, "val-b", "source-val", "video", 1),
        measure(0.60, "val-a", "source-val", "video", 2),
        measure(0.70, "val-b", "source-val", "video", 2),
        measure(0.80, "val-a", "source-val", "video", 3),
        measure(0.40, "val-b", "source-val", "video", 3),
        *(measure(0.5, step=step) for step in (1, 2, 3)),
    ]
    assert chosen("source_val", sets)["NeuralTextures", "frame"].epochs == (0.2,)


def test_oracles_are_labelled() -> None:
    assert {name for name, s in SELECTIONS.items() if s.oracle} == {"best_per_test", "top3_per_test"}
    for selection in SELECTIONS.values():
        assert ("oracle" in selection.label) == ("ORACLE" in selection.sentence) == selection.oracle
    with pytest.raises(RecordError, match="unknown selection 'best'; known are last, source_val, best_per_test, top3_per_test"):
        selection_named("best")
