"""Papers' tables that were measured here, audited like our others: digits, averages, and what is called best."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from statistics import fmean

import pandas as pd

from results.audit.claim import Claim, Evidence, Finding
from results.audit.ours import NUMBER, numbers_of, rounds, selected
from results.files import RecordError
from results.index import GridIndex
from results.papers import PAPER_TABLES
from results.papers.build import measured
from results.papers.evidence import Evidence as Behind
from results.papers.layout import PaperColumn, PaperRow, PaperTable, Where
from results.papers.significance import leaders
from results.probed import Probed
from results.selection import SELECTIONS

DIFFERENCE = re.compile(r" \((?P<by>[+-]\d+\.\d+)\)$")


@dataclass(frozen=True)
class PrintedHere:
    """A paper's table as it lies in the grid's folder.

    Attributes:
        layout, mode: which.
        cells: (rows, columns) as printed, with reasons in place of numbers.
        tidy: its tidy rows by (row, column's name).
        bold: (row, column) of what is bold.
        selection: the rule that its checkpoints were selected by.
    """

    layout: PaperTable
    mode: str
    cells: pd.DataFrame
    tidy: Mapping[tuple[int, str], Mapping[str, str]]
    bold: frozenset[tuple[int, int]]
    selection: str

    def mean(self, row: int, column: PaperColumn) -> str | None:
        """The printed mean; None for a dash."""
        match = NUMBER.match(DIFFERENCE.sub("", str(self.cells.iloc[row][column.csv])))
        return match["mean"] if match else None


def printed_here(index: GridIndex) -> list[tuple[PaperTable, str, Path]]:
    """(table, mode, its CSV file) of every measured paper's table in a grid's folder."""
    assert index.folder is not None
    names = {index.grid.name, index.grid.name.removesuffix("-mini")}
    files = [
        (layout, mode, index.folder / "tables" / f"{layout.name.replace('/', '-')}-{mode}.csv")
        for layout in PAPER_TABLES.values()
        if layout.grid in names
        for mode in ("measured", "beside")
    ]
    return [(layout, mode, path) for layout, mode, path in files if path.is_file()]


def audit_papers(index: GridIndex) -> list[Finding]:
    """Check the papers' tables in a grid's folder against its scores."""
    findings = []
    for layout, mode, path in printed_here(index):
        for kind, says, check in OF_PAPERS:
            if kind == "means" and not any(column.mean_of for column in layout.columns):
                continue
            decide, evidence = partial(_decide, layout, mode, path, partial(check, index)), Evidence()
            decide(evidence)
            id_ = f"{index.grid.name}-{path.stem}-{kind}"
            findings.append(Finding(Claim(id_, index.grid.name, f"{says} ({layout.name} {mode})", decide), tuple(evidence.checks)))
    return findings


def _decide(layout: PaperTable, mode: str, path: Path, check: Callable[[PrintedHere, Evidence], None], evidence: Evidence) -> None:
    try:
        printed = read_printed(layout, mode, path)
    except RecordError as error:
        evidence.check("there is a printed table", str(error), None)
        return
    check(printed, evidence)


def read_printed(layout: PaperTable, mode: str, path: Path) -> PrintedHere:
    """A table read back from its files.

    Raises:
        RecordError: one is missing or not as this version writes it.
    """
    mini = " --mini" if path.parent.parent.name == layout.folder(mini=True) else ""
    again = f"run `dfgrid table {layout.name} --mode {mode}{mini}` again"
    stem = path.with_suffix("")
    try:
        cells = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = pd.read_csv(f"{stem}-tidy.csv", dtype=str, keep_default_na=False).to_dict("records")
        page = Path(f"{stem}.md").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RecordError(f"tables/{path.stem}: its files cannot be read ({error}); {again}") from error
    names = [column.csv for column in layout.columns]
    rule = re.search(r"^- Checkpoint: (\w+),", page.replace("\\_", "_"), re.MULTILINE)
    lines = [line for line in page.splitlines() if line.startswith("| ")][2:]
    whole = len(cells) == len(lines) == len(layout.rows) and len(rows) == len(cells) * len(names)
    if not whole or list(cells.columns) != [*layout.stubs, *names] or rule is None or rule[1] not in SELECTIONS:
        raise RecordError(f"tables/{path.stem}: its files are not as this version writes them; {again}")
    tidy = {(at // len(names), names[at % len(names)]): {str(k): str(v) for k, v in row.items()} for at, row in enumerate(rows)}
    bold = set()
    for row, line in enumerate(lines):
        texts = re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |"))[len(layout.stubs) :]
        bold |= {(row, at) for at, text in enumerate(texts) if text.startswith("**")}
    return PrintedHere(layout, mode, cells, tidy, frozenset(bold), rule[1])


class FromScores:
    """Numbers of a table's cells computed from scores alone.

    Args:
        index: of a folder.
        selection: key of `SELECTIONS`.
    """

    def __init__(self, index: GridIndex, selection: str) -> None:
        self.index, self.probed = index, Probed(index)
        self.known = {cell: selected(index, cell, selection) for cell in index.records}

    def of(self, layout: PaperTable, row: PaperRow, column: PaperColumn) -> dict[int, float | str]:
        """Seed -> the number, or why it cannot be computed; only seeds with a record."""
        if column.mean_of:
            by_name = {c.csv: c for c in layout.columns}
            parts = [self.of(layout, row, by_name[name]) for name in column.mean_of]
            return {seed: _mean([part[seed] for part in parts]) for seed in parts[0] if all(seed in part for part in parts)}
        where = Where(**{**row.where, **column.where})  # type: ignore[arg-type]
        found: dict[int, float | str] = {}
        for c in self.index.grid.cells:
            if (c.part, c.detector, c.optimizer) != (where.part, where.detector, where.optimizer) or c.id not in self.known:
                continue
            if not where.changed:
                found[c.seed] = self.known[c.id].get((where.test, where.level, where.metric), "no such evaluation")
                continue
            try:
                found[c.seed], _ = self.probed.computed(c.id, where.test, where.level, where.metric, where.changed)
            except RecordError as error:
                found[c.seed] = str(error)
        return found


def _mean(parts: list[float | str]) -> float | str:
    texts = [part for part in parts if isinstance(part, str)]
    return texts[0] if texts else fmean(part for part in parts if not isinstance(part, str))


def _digits(index: GridIndex, printed: PrintedHere, evidence: Evidence) -> None:
    """Column by column: the printed text against what the scores of the selected checkpoints give."""
    layout, scores = printed.layout, FromScores(index, printed.selection)
    for column in layout.columns:
        wrong, unknown, right = [], [], 0
        for at, row in enumerate(layout.rows):
            text = str(printed.cells.iloc[at][column.csv])
            shown, by = DIFFERENCE.sub("", text), DIFFERENCE.search(text)
            match = NUMBER.match(shown)
            if match is None:
                continue  # a dash with its reason
            name = ", ".join(row.key)
            found = scores.of(layout, row, column)
            numbers = [column.scale * n for n in found.values() if not isinstance(n, str)]
            if not numbers or any("does not exist" in n for n in found.values() if isinstance(n, str)):
                unknown.append(name)
                continue
            expected = numbers_of(numbers)
            off = [part for part in ("mean", "spread") if not rounds(expected.get(part), match[part])]
            wrong += [f"{name}: {shown} printed, {part} {expected.get(part, 'not there')} recomputed" for part in off]
            if by is not None:
                reported = printed.tidy[at, column.csv]["reported"]
                gap = Decimal(match["mean"]) - Decimal(reported)
                if gap != Decimal(by["by"]):
                    off.append("difference")
                    wrong.append(f"{name}: {by['by']} printed, {match['mean']} - {reported} = {gap:+}")
            right += not off
        said = f"{right} numbers agree" + "".join(f"; {w}" for w in wrong) + f"; {len(unknown)} without scores" * bool(unknown)
        evidence.check(f"{column.csv}: digits", said, False if wrong else None if unknown else True)


def _means(_index: GridIndex, printed: PrintedHere, evidence: Evidence) -> None:
    """Averages against the printed columns that they are of, as the papers' are checked: to one unit of the last place."""
    by_name = {c.csv: c for c in printed.layout.columns}
    for column in (c for c in printed.layout.columns if c.mean_of):
        wrong, apart, right = [], [], 0
        for at, row in enumerate(printed.layout.rows):
            text, parts = printed.mean(at, column), [printed.mean(at, by_name[name]) for name in column.mean_of]
            if text is None:
                continue
            if len({printed.tidy[at, name]["seeds"] for name in (column.csv, *column.mean_of)}) > 1 or None in parts:
                apart.append(row.key)  # an average over the seeds that all its columns have
                continue
            mean = sum((Decimal(part) for part in parts if part), Decimal(0)) / len(parts)
            holds = abs(mean - Decimal(text)) <= Decimal(1).scaleb(-column.decimals)
            right += holds
            if not holds:
                wrong.append(f"{', '.join(row.key)}: {text} printed, {mean:.4f} computed")
        said = f"{right} add up" + "".join(f"; {w}" for w in wrong) + f"; {len(apart)} over fewer seeds than a column" * bool(apart)
        evidence.check(
            f"{column.csv} is the mean of {', '.join(column.mean_of)}", said, False if wrong else None if apart else True
        )


def _best(index: GridIndex, printed: PrintedHere, evidence: Evidence) -> None:
    """Every bold number against the paired test of its column or group."""
    layout = printed.layout
    behind = Behind(layout, index, printed.selection)
    found = {(row, at): result for at, rows, result in leaders(behind, measured(behind)) for row in rows}
    for row, at in sorted(printed.bold):
        result = found.get((row, at))
        statement = f"{', '.join(layout.rows[row].key)} is best in {layout.columns[at].csv}"
        if result is None:
            evidence.check(statement, "it competes with none", False)
            continue
        said = f"it is {', '.join(layout.rows[int(result.best)].key)}" if result.best else result.reason
        undecided = result.reason.startswith("not tested")
        evidence.check(statement, said, None if undecided else result.best == str(row))
    if not printed.bold:
        evidence.check("nothing is called best", "no bold number", True)


OF_PAPERS: tuple[tuple[str, str, Callable[[GridIndex, PrintedHere, Evidence], None]], ...] = (
    ("digits", "Every printed number is the mean and deviation over seeds of what the scores give", _digits),
    ("means", "Every average is the mean of its columns", _means),
    ("best", "What is bold is the best, and differs from the runner-up by more than chance", _best),
)
