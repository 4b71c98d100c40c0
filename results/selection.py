"""Which checkpoint is reported: pure functions of one record's measures, each named.

A rule that looks at the test set to choose is an oracle: nobody who deploys a detector can follow it, and its numbers are too
high by construction. The field's published tables are made by such rules, so they are here, and `Selection.oracle` marks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from results.files import RecordError
from results.record import METRICS, Level, Measure, Metric, Record, Role


@dataclass(frozen=True)
class Chosen:
    """What is reported of one test set at one level.

    Attributes:
        test, role, level, n_real, n_fake: as in `Measure`.
        metrics: metric -> value, or None where it is not defined.
        undefined: metric -> why its value is None.
        epochs: of the evaluations that the numbers come from; more than one where the rule takes a mean.
    """

    test: str
    role: Role
    level: Level
    n_real: int
    n_fake: int
    metrics: dict[Metric, float | None]
    undefined: dict[Metric, str]
    epochs: tuple[float, ...]

    @property
    def n(self) -> int:
        """Examples of both classes together."""
        return self.n_real + self.n_fake


def last(measures: Sequence[Measure]) -> list[Chosen]:
    """The last evaluation. No set is looked at to choose it."""
    tests = _tests(measures)
    step = max(m.step for m in tests)
    return [_mean([m]) for m in tests if m.step == step]


def source_val(measures: Sequence[Measure], level: Level = "video") -> list[Chosen]:
    """The checkpoint with the highest AUC on the source's validation part; the earliest of those that tie.

    Where there is more than one validation set, their AUCs are averaged.

    Raises:
        RecordError: no evaluation has such an AUC, or the best one has no test measures.
    """
    tests = _tests(measures)
    best = source_val_step(measures, level)
    chosen = [_mean([m]) for m in tests if m.step == best]
    if not chosen:
        raise RecordError(f"no test set was evaluated at step {best}, which the source-validation AUC selects")
    return chosen


def source_val_step(measures: Sequence[Measure], level: Level = "video") -> int:
    """The step that `source_val` chooses; it needs no measure of a test set.

    Raises:
        RecordError: no evaluation has such an AUC.
    """
    validation = [m for m in measures if m.role == "source-val" and m.level == level]
    if not validation:
        raise RecordError(f"no source-validation measures at {level} level to select by")
    reasons = [m.undefined["auc"] for m in validation if m.auc is None]
    steps = sorted({m.step for m in validation} - {m.step for m in validation if m.auc is None})
    if not steps:
        raise RecordError(f"the source-validation AUC to select by is not defined: {reasons[0]}")
    # `max` keeps the first of equals, and the steps rise: ties go to the earliest.
    return max(steps, key=lambda step: fmean(m.auc for m in validation if m.step == step and m.auc is not None))


def best_per_test(measures: Sequence[Measure]) -> list[Chosen]:
    """Oracle: each test set and level keeps the evaluation with its own highest test AUC; the earliest of those that tie.

    DeepfakeBench's training log keeps its best checkpoints this way, at frame level.
    """
    return _top_per_test(measures, 1)


def top3_per_test(measures: Sequence[Measure]) -> list[Chosen]:
    """Oracle: each test set and level reports the mean over the three evaluations with its own highest test AUCs.

    The rule of DeepfakeBench's published tables, at frame level. Other metrics are averaged over the same evaluations. With fewer
    than three evaluations it is the mean of those that there are.
    """
    return _top_per_test(measures, 3)


@dataclass(frozen=True)
class Selection:
    """A rule with its name.

    Attributes:
        name: key of `SELECTIONS`.
        rule: measures of one record -> what is reported.
        oracle: whether the rule looks at the test set to choose.
        sentence: what a table's footnote says of it.
        evaluations: how many evaluations a reported number is the mean of, where there are so many.
    """

    name: str
    rule: Callable[[Sequence[Measure]], list[Chosen]]
    oracle: bool
    sentence: str
    evaluations: int = 1

    @property
    def label(self) -> str:
        """The name, with a mark on an oracle."""
        return f"{self.name} (oracle)" if self.oracle else self.name


_BIAS = "ORACLE: it looks at the test set to choose, so the numbers are too high by construction"

SELECTIONS: dict[str, Selection] = {
    s.name: s
    for s in (
        Selection("last", last, False, "the last checkpoint"),
        Selection(
            "source_val", source_val, False, "the checkpoint with the highest video-level AUC on the source's validation data"
        ),
        Selection("best_per_test", best_per_test, True, f"each test set's and level's own best checkpoint by test AUC; {_BIAS}"),
        Selection("top3_per_test", top3_per_test, True, f"mean of each test set's and level's three highest test AUCs; {_BIAS}", 3),
    )
}


def _tests(measures: Sequence[Measure]) -> list[Measure]:
    """The measures on test sets.

    Raises:
        RecordError: there are none.
    """
    tests = [m for m in measures if m.role != "source-val"]
    if not tests:
        raise RecordError("no test set was evaluated")
    return tests


def _top_per_test(measures: Sequence[Measure], count: int) -> list[Chosen]:
    groups: dict[tuple[str, Level], list[Measure]] = {}
    for m in sorted(_tests(measures), key=lambda m: m.step):
        groups.setdefault((m.test, m.level), []).append(m)
    chosen = []
    for group in groups.values():
        # Where the AUC is never defined (a set of one class) there is nothing to choose by; the last evaluation says why.
        ranked = sorted((m for m in group if m.auc is not None), key=lambda m: -(m.auc or 0.0)) or group[-1:]
        chosen.append(_mean(ranked[:count]))
    return chosen


def _mean(measures: Sequence[Measure]) -> Chosen:
    """Mean over evaluations of one test set at one level; a metric that one of them lacks is lacking."""
    first = measures[0]
    values: dict[Metric, float | None] = {}
    undefined: dict[Metric, str] = {}
    for metric in METRICS:
        found = [m.value(metric) for m in measures]
        values[metric] = fmean(v for v in found if v is not None) if None not in found else None
        reasons = [m.undefined[metric] for m in measures if metric in m.undefined]
        if reasons:
            undefined[metric] = reasons[0]
    return Chosen(
        test=first.test,
        role=first.role,
        level=first.level,
        n_real=first.n_real,
        n_fake=first.n_fake,
        metrics=values,
        undefined=undefined,
        epochs=tuple(m.epoch for m in measures),
    )


def select(measures: Iterable[Measure], selection: Selection) -> list[Chosen]:
    """Apply a rule.

    Raises:
        RecordError: the measures do not allow it; the sentence says why.
    """
    return selection.rule(list(measures))


def protocol_selection(records: Iterable[Record]) -> str:
    """The rule that the records' protocols ask for; `source_val` where they say nothing.

    Raises:
        RecordError: they ask for different ones.
    """
    asked = sorted({str(r.protocol.get("selection", "source_val")) for r in records} or {"source_val"})
    if len(asked) > 1:
        raise RecordError(f"the cells' protocols ask for different selections ({', '.join(asked)}); say one with --selection")
    return asked[0]


def common_selection(records: Iterable[Record]) -> str:
    """`protocol_selection`, for what shows all of a grid and cannot ask: `source_val` where the records ask for different ones."""
    try:
        return protocol_selection(records)
    except RecordError:
        return "source_val"


def selection_named(name: str) -> Selection:
    """The rule called `name`.

    Raises:
        RecordError: no such rule; the sentence names those there are.
    """
    if name not in SELECTIONS:
        raise RecordError(f"unknown selection '{name}'; known are {', '.join(SELECTIONS)}")
    return SELECTIONS[name]
