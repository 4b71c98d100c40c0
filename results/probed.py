"""What `dfgrid probe` found in a grid's cells, held against their records; of its scores also bootstrap draws."""

from __future__ import annotations

import math
from hashlib import sha256
from typing import Literal

import pandas as pd

from results.files import RecordError, file_sum
from results.index import GridIndex
from results.record import Level, Measure, Metric, Record
from results.resampled import SAME, Drawn, Resampled
from results.resampling import Rules, Sample, evaluate, sample
from results.shallow import Effect, StatisticsReport
from results.sharpness import SharpnessReport

Changed = Literal["before", "after"]

MEASURED: dict[tuple[Metric, Changed], str] = {
    (metric, when): f"{metric}_{when}" for metric in ("acc", "log_loss") for when in ("before", "after")
}
"""What the probe measures -> the field of `Effect`."""


class Probed:
    """The probe's numbers of a grid, cell by cell.

    Args:
        index: of a folder; one without has no probes.
        resampled: draws; None where no draws are asked for.
    """

    def __init__(self, index: GridIndex, resampled: Resampled | None = None) -> None:
        self.index, self.resampled = index, resampled
        self._reports: dict[str, StatisticsReport | str] = {}
        self._scores: dict[str, pd.DataFrame] = {}

    def report(self, cell: str) -> StatisticsReport:
        """What was found in a cell.

        Raises:
            RecordError: no record, no probe of it, or a probe of other weights or faces than the record's.
        """
        if cell not in self._reports:
            try:
                self._reports[cell] = self._read(cell)
            except RecordError as error:
                self._reports[cell] = str(error)
        found = self._reports[cell]
        if isinstance(found, str):
            raise RecordError(found)
        return found

    def _read(self, cell: str) -> StatisticsReport:
        record, folder = self.index.records.get(cell), self.index.folder
        if record is None:
            raise RecordError(self.index.reasons.get(cell, "not in the grid"))
        if folder is None:
            raise RecordError("no probes at hand")
        path = folder / cell / "probes" / "statistics.json"
        if not path.is_file():
            raise RecordError(f"not probed yet; run `dfgrid probe statistics {folder.name}`")
        try:
            report = StatisticsReport.load(path)
        except RecordError as error:
            # Tables are published: they name the file relative to the grid's folder.
            raise RecordError(str(error).replace(f"{folder}/", "")) from error
        source, again = f"{cell}/probes/{path.name}", f"run `dfgrid probe statistics {folder.name}` again"
        _check(report, record, source, again)
        for effect in report.effects:
            kept = _measure(record, effect)
            # Of one forgery of several the record has no number.
            whole = effect is report.effect(effect.test, effect.level)
            if whole and kept and kept.acc is not None and abs(kept.acc - effect.acc_before) * (kept.n_real + kept.n_fake) > 1:
                raise RecordError(
                    f"{source} does not match the record: acc of {effect.test} ({effect.level} level) is {effect.acc_before:.6f} "
                    f"by the probe and {kept.acc:.6f} by the record; {again}"
                )
        return report

    def number(self, cell: str, test: str, level: Level, metric: Metric, when: Changed) -> float:
        """One number of the report, in the metric's own unit.

        Raises:
            RecordError: as `report`; a test set, level or metric that was not probed.
        """
        effect = self.report(cell).effect(test, level)
        if effect is None or (metric, when) not in MEASURED:
            raise RecordError(f"the probe has no {level}-level {metric} of {test}; run `dfgrid probe statistics` again")
        return float(getattr(effect, MEASURED[metric, when]))

    def computed(self, cell: str, test: str, level: Level, metric: Metric, when: Changed) -> tuple[float, Sample]:
        """One number computed from the probe's scores, with the examples that it is of.

        Raises:
            RecordError: as `report`; no scores, or other ones than the report was made from.
        """
        scores = self._of(cell)
        rows = scores[(scores["test"] == test) & (scores["changed"] == when)]
        examples = sample(rows, level, Rules.of(self.index.records[cell], test))
        return (float(evaluate(examples, metric)[0]) if len(rows) else math.nan), examples

    def drawn(self, cell: str, test: str, level: Level, metric: Metric, when: Changed) -> Drawn:
        """One number with its draws.

        Raises:
            RecordError: as `number` and `computed`; scores that do not match the report, or too few videos.
        """
        assert self.resampled is not None
        reported = self.number(cell, test, level, metric, when)
        value, examples = self.computed(cell, test, level, metric, when)
        if not abs(value - reported) <= SAME:
            raise RecordError(
                f"{cell}/probes/statistics.parquet does not match the report: {metric} of {test} {when} the change is {value:.6f} "
                f"by the scores and {reported:.6f} by the report; run `dfgrid probe statistics` again"
            )
        return self.resampled.drawn([examples], metric, value)

    def _of(self, cell: str) -> pd.DataFrame:
        if cell not in self._scores:
            report, folder = self.report(cell), self.index.folder
            assert folder is not None
            path, name = folder / cell / "probes" / "statistics.parquet", f"{cell}/probes/statistics.parquet"
            if not path.is_file():
                raise RecordError(f"{name} does not exist; run `dfgrid probe statistics {folder.name}` again")
            if sha256(path.read_bytes()).hexdigest() != report.scores:
                raise RecordError(f"{name} is not the file that the report was made from; run `dfgrid probe statistics` again")
            self._scores[cell] = pd.read_parquet(path)
        return self._scores[cell]

    def behind(self, cell: str) -> str:
        """The trail of a cell's probe: what was changed where, in which weights, by what."""
        r = self.report(cell)
        s = r.settings
        return (
            f"probe: mean x {s.mean:g}, variance x {s.variance:g} at {', '.join(r.modules)}; checkpoint {r.checkpoint[:12]}; "
            f"on {r.device}, code {r.code[:12]}"
        )

    def otherwise(self, cell: str) -> str:
        """What to say of a probe with other factors than the paper's; "" of one with the paper's."""
        s, (mean, variance) = self.report(cell).settings, PAPERS
        if (s.mean, s.variance) == PAPERS:
            return ""
        return (
            f"CHANGED OTHERWISE than in the paper: mean x {s.mean:g}, variance x {s.variance:g} instead of {mean:g}, {variance:g}"
        )


PAPERS = (1.2, 0.65)
"""Factors of mean and variance in PIM's tables 2 and 3."""


def sharpness_of(index: GridIndex, cell: str) -> SharpnessReport | None:
    """What `dfgrid probe sharpness` found in a cell that has a record; None where it did not look.

    Raises:
        RecordError: a report that cannot be read, or of other weights or faces than the record's.
    """
    folder, record = index.folder, index.records[cell]
    assert folder is not None
    path, again = folder / cell / "probes" / "sharpness.json", f"run `dfgrid probe sharpness {folder.name}` again"
    if not path.is_file():
        return None
    try:
        report = SharpnessReport.load(path)
    except RecordError as error:
        raise RecordError(str(error).replace(f"{folder}/", "")) from error
    source, weights = f"{cell}/probes/{path.name}", folder / cell / "checkpoint.pt"
    _check(report, record, source, again)
    # Imported cells have no checkpoint; a cell that was trained again for as many steps has another one.
    if weights.is_file() and file_sum(weights) != report.checkpoint:
        raise RecordError(f"{source} is of other weights than {cell}/{weights.name}; {again}")
    return report


def _check(report: StatisticsReport | SharpnessReport, record: Record, source: str, again: str) -> None:
    for what, probed, recorded in (
        ("cell", report.cell, record.cell),
        ("step", report.step, record.steps),
        ("face stores", report.stores, record.provenance.stores),
    ):
        if probed != recorded:
            raise RecordError(f"{source} is of the {what} {probed}, the record of {recorded}; {again}")


def _measure(record: Record, effect: Effect) -> Measure | None:
    """The record's last measure of the probed set."""
    of = [m for m in record.measures if (m.test, m.level, m.step) == (effect.test, effect.level, record.steps)]
    return of[0] if of else None
