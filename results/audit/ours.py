"""Our own tables audited: records against the kept scores, printed digits against both, and what is called best."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import cast

import pandas as pd

from results.audit.claim import Claim, Evidence, Finding
from results.compare import Comparison
from results.files import RecordError
from results.index import GridIndex
from results.printed import METRIC_TITLES, Column
from results.record import METRICS, Level, Metric, Record, Role
from results.resampled import SAME, Resampled
from results.resampling import Rules, evaluate, sample
from results.scores import load_scores
from results.selection import SELECTIONS, select

OF_TITLE = {name: metric for metric, name in METRIC_TITLES.items()}
NUMBER = re.compile(r"^(?P<mean>\d+\.?\d*)(±(?P<spread>\d+\.?\d*))?( \[(?P<low>[\d.]+), (?P<high>[\d.]+)\])?(?P<note> \(.*\))?$")

TIE = 1e-9


def audit_records(index: GridIndex, tell: Callable[[str], None] = lambda what: None) -> list[Finding]:
    """Check a grid's records against the scores in its folder; `tell` is called with the id of each cell, before it is checked."""
    says = "Every measure in the records follows from the kept scores"
    return [_finding(index, "scores", says, partial(_records, index, tell))]


def audit_tables(index: GridIndex) -> list[Finding]:
    """Check a grid's own tables, part by part, against the scores in its folder."""
    findings = []
    for name in index.grid.parts:
        part, end = index.part(name), f"-{name}" if name else ""
        for kind, says, check in OF_TABLES:
            findings.append(_finding(index, f"{kind}{end}", f"{says} (table{end})", partial(check, part, end)))
    return findings


def _finding(index: GridIndex, kind: str, says: str, decide: Callable[[Evidence], None]) -> Finding:
    evidence = Evidence()
    decide(evidence)
    return Finding(Claim(f"{index.grid.name}-{kind}", index.grid.name, says, decide), tuple(evidence.checks))


def _records(index: GridIndex, tell: Callable[[str], None], evidence: Evidence) -> None:
    """Every metric of every evaluation, cell by cell."""
    for cell, record in index.records.items():
        tell(cell)
        statement = f"{cell}: every measure can be recomputed from its scores"
        try:
            recomputed = recompute(record, _scores(index, cell))
        except RecordError as error:
            evidence.check(statement, str(error), None if "does not exist" in str(error) else False)
            continue
        wrong = [name for name, (kept, found) in recomputed.items() if not _same(kept, found)]
        apart = [abs(a - b) for a, b in recomputed.values() if a is not None and b is not None]
        agree = f"{len(recomputed) - len(wrong)} of {len(recomputed)} agree, largest difference {max(apart, default=0.0):.1g}"
        evidence.check(statement, agree + "".join(f"; not {name}" for name in wrong[:3]), not wrong)
    if index.reasons:
        missing = f"{len(index.reasons)} have none, such as {next(iter(index.reasons.items()))}"
        evidence.check(f"all {len(index.grid.cells)} cells have a record", missing, None)


def _scores(index: GridIndex, cell: str) -> pd.DataFrame:
    assert index.folder is not None
    return load_scores(index.folder / cell / "scores.parquet")


def _same(kept: float | None, found: float | None) -> bool:
    return kept is found is None or (kept is not None and found is not None and abs(kept - found) <= SAME)


def recompute(record: Record, scores: pd.DataFrame) -> dict[str, tuple[float | None, float | None]]:
    """Every number of a record beside the same number from its scores; None where a metric is not defined.

    Returns:
        "frame auc of mini-b at step 60" -> (recorded, recomputed); the counts of examples are among them.
    """
    groups = dict(iter(scores.groupby(["step", "split", "test"], sort=False, observed=True)))
    found: dict[str, tuple[float | None, float | None]] = {}
    for m in record.measures:
        where = f"of {m.test} at step {m.step}"
        rows = groups.get((m.step, m.split, m.test), scores.iloc[:0])
        examples = sample(rows, m.level, Rules.of(record, m.test)) if len(rows) else None
        fakes = int(examples.labels.sum()) if examples else 0
        found[f"{m.level}s {where}: fake"] = (m.n_fake, fakes)
        found[f"{m.level}s {where}: real"] = (m.n_real, len(examples.labels) - fakes if examples else 0)
        for metric in METRICS:
            value = None
            if examples:
                try:
                    value = float(evaluate(examples, metric)[0])
                except RecordError:
                    value = None
            found[f"{m.level} {metric} {where}"] = (m.value(metric), value)
    return found


class Printed:
    """A printed table read back from its files.

    Args:
        index: of a grid of one part.
        end: of the file's name: "" or "-PART".

    Raises:
        RecordError: there is no table, or it is not one of ours.
    """

    def __init__(self, index: GridIndex, end: str) -> None:
        assert index.folder is not None
        path = index.folder / "tables" / f"table{end}.csv"
        if not path.is_file():
            raise RecordError(f"tables/{path.name} does not exist; run `dfgrid table {index.grid.name}`")
        self.again = f"run `dfgrid table {index.grid.name}` again"
        try:
            self.cells = pd.read_csv(path, header=[0, 1, 2, 3], index_col=0, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise RecordError(f"tables/{path.name} is no table of ours; {self.again}") from error
        rule = re.search(r"checkpoint: (\w+)", str(self.cells.index.name))
        if rule is None or rule[1] not in SELECTIONS:
            raise RecordError(f"tables/{path.name} does not say by which rule its checkpoints were selected")
        self.selection = rule[1]
        self.columns: dict[int, Column] = {}
        for at, heading in enumerate(self.cells.columns):
            detector, test, role, measure = tuple(heading)
            level, _, title = measure.partition(" ")
            if detector in index.grid.detectors and title in OF_TITLE:
                self.columns[at] = Column(detector, test, cast(Role, role), cast(Level, level), OF_TITLE[title])
        self.markdown = path.with_suffix(".md")

    def bold(self) -> list[tuple[str, Column]]:
        """(optimizer, column) of every bold number in the Markdown file, which lists the same rows and columns.

        Raises:
            RecordError: it is not there, or it does not.
        """
        try:
            text = self.markdown.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise RecordError(f"tables/{self.markdown.name} cannot be read; {self.again}") from error
        lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
        split = [re.split(r"(?<!\\) \| ", line.strip("| "))[1:] for line in lines]
        if len(split) != len(self.cells) or any(len(cells) <= max(self.columns, default=-1) for cells in split):
            raise RecordError(f"tables/{self.markdown.name} has other rows or columns than the CSV file; {self.again}")
        found = []
        for row, cells in zip(self.cells.index, split, strict=True):
            found += [(str(row), column) for at, column in self.columns.items() if cells[at].startswith("**")]
        return found


def _printed(index: GridIndex, end: str, evidence: Evidence) -> Printed | None:
    try:
        return Printed(index, end)
    except RecordError as error:
        evidence.check("there is a printed table", str(error), None)
        return None


def _digits(index: GridIndex, end: str, evidence: Evidence) -> None:
    """Column by column: the printed text against the text made from the scores of the selected checkpoints."""
    printed = _printed(index, end, evidence)
    if printed is None:
        return
    known: dict[str, dict[tuple[str, Level, Metric], float | str]] = {
        c: selected(index, c, printed.selection) for c in index.records
    }
    comparison = Comparison(Resampled(index, printed.selection))
    for at, column in printed.columns.items():
        wrong, unknown, right = [], [], 0
        for row, text in printed.cells.iloc[:, at].items():
            match = NUMBER.match(str(text))
            if match is None:
                continue  # a dash with its reason
            of = [c.id for c in index.grid.cells if (c.optimizer, c.detector) == (row, column.detector) and c.id in known]
            values = [known[c].get((column.test, column.level, column.metric), "no such evaluation") for c in of]
            numbers = [v for v in values if isinstance(v, float)]
            if not numbers or any("scores.parquet does not exist" in v for v in values if isinstance(v, str)):
                unknown.append(f"{row} {text}")
                continue
            scale = 1 if column.metric == "log_loss" else 100
            interval = comparison.interval(str(row), column)
            ends = None if interval is None else (scale * interval[0], scale * interval[1])
            expected = numbers_of([scale * number for number in numbers], ends)
            off = [name for name in match.groupdict() if name != "note" and not rounds(expected.get(name), match[name])]
            right += not off
            shown = str(text).removesuffix(match["note"] or "")
            wrong += [f"{row}: {shown} printed, {name} {expected.get(name, 'not there')} recomputed" for name in off]
        statement = f"{column.detector}, {column.test}, {column.level} {METRIC_TITLES[column.metric]}: digits"
        text = f"{right} numbers agree" + "".join(f"; {w}" for w in wrong) + f"; {len(unknown)} without scores" * bool(unknown)
        evidence.check(statement, text, False if wrong else None if unknown else True)


def selected(index: GridIndex, cell: str, selection: str) -> dict[tuple[str, Level, Metric], float | str]:
    """What the scores of one cell give at the checkpoints that the rule selects, or why nothing."""
    record = index.records[cell]
    found: dict[tuple[str, Level, Metric], float | str] = {}
    try:
        chosen = select(record.measures, SELECTIONS[selection])
    except RecordError:
        return {}
    try:
        scores = _scores(index, cell)
    except RecordError as error:
        return {(c.test, c.level, metric): str(error) for c in chosen for metric in METRICS}
    tests = scores[scores["split"] != "val"]
    for c in chosen:
        rows = tests[tests["test"] == c.test]
        samples = [sample(rows[rows["epoch"] == epoch], c.level, Rules.of(record, c.test)) for epoch in c.epochs]
        for metric in METRICS:
            if c.metrics[metric] is not None and all(len(s.labels) for s in samples):
                found[c.test, c.level, metric] = fmean(float(evaluate(s, metric)[0]) for s in samples)
    return found


def numbers_of(values: list[float], interval: tuple[float, float] | None = None) -> dict[str, float]:
    """Mean, deviation and interval, under the names of `NUMBER`'s groups."""
    found = {"mean": fmean(values)} | ({"spread": stdev(values)} if len(values) > 1 else {})
    return found | (dict(zip(("low", "high"), interval, strict=True)) if interval else {})


def rounds(value: float | None, printed: str | None) -> bool:
    """Whether a number is printed as it rounds; of two neighbours equally near, which the last bit decides, either will do."""
    if printed is None:
        return True
    places = len(printed.partition(".")[2])
    return value is not None and abs(value - float(printed)) <= 0.5 * 10**-places + TIE


def _means(index: GridIndex, end: str, evidence: Evidence) -> None:
    """The mean of the seeds in tidy.csv against the printed mean, column by column."""
    printed = _printed(index, end, evidence)
    if printed is None:
        return
    path = Path(str(index.folder)) / "tables" / "tidy.csv"
    if not path.is_file():
        evidence.check("there are tidy rows", f"tables/{path.name} does not exist", None)
        return
    # A row may be called NA or 1.50.
    titles = dict.fromkeys(("part", "optimizer", "detector", "test"), str)
    rows = pd.read_csv(path, keep_default_na=False, na_values={"value": [""]}, dtype=titles)
    rows = rows[rows["part"] == end.removeprefix("-")]
    for at, c in printed.columns.items():
        wrong, right = [], 0
        of = rows[(rows["detector"] == c.detector) & (rows["test"] == c.test) & (rows["level"] == c.level)]
        of = of[of["metric"] == c.metric]
        for row, text in printed.cells.iloc[:, at].items():
            match = NUMBER.match(str(text))
            values = of[of["optimizer"] == row]["value"].dropna()
            if match is None:
                continue
            mean = (1 if c.metric == "log_loss" else 100) * float(values.mean())
            right += rounds(mean, match["mean"])
            if not rounds(mean, match["mean"]):
                wrong.append(f"{row}: {match['mean']} printed, {mean:.6g} from {len(values)} seeds")
        statement = f"{c.detector}, {c.test}, {c.level} {METRIC_TITLES[c.metric]}: averages"
        evidence.check(statement, f"{right} add up" + "".join(f"; {w}" for w in wrong), not wrong)


def _best(index: GridIndex, end: str, evidence: Evidence) -> None:
    """Every bold number against the paired test of its column."""
    printed = _printed(index, end, evidence)
    if printed is None:
        return
    comparison = Comparison(Resampled(index, printed.selection))
    try:
        bold = printed.bold()
    except RecordError as error:
        evidence.check("what is bold can be told", str(error), None)
        return
    for row, column in bold:
        found = comparison.leading(column)
        statement = f"{row} is best in {column.detector}, {column.test}, {column.level} {METRIC_TITLES[column.metric]}"
        undecided = found.reason.startswith("not tested")
        evidence.check(statement, f"it is {found.best}" if found.best else found.reason, None if undecided else found.best == row)
    if not bold:
        evidence.check("nothing is called best", "no bold number", True)


OF_TABLES: tuple[tuple[str, str, Callable[[GridIndex, str, Evidence], None]], ...] = (
    ("digits", "Every printed number is the mean and deviation over seeds of what the scores give", _digits),
    ("means", "The averages over seeds in the printed table add up from tidy.csv", _means),
    ("best", "What is bold is the best, and differs from the runner-up by more than chance", _best),
)
