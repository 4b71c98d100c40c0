"""Every number of every record computed again from the scores that it came from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pandas as pd

from benchmark.config import Cell, ConfigError
from benchmark.effect import protocol_of, remeasure
from benchmark.reading import read_yaml
from benchmark.recorded import cell_of
from results.diagnostics import FILE as DIAGNOSTICS
from results.diagnostics import load_diagnostics, ranges
from results.files import RecordError, read_model
from results.index import GridFile
from results.record import METRICS, DiagnosticRange, Measure, Record
from results.scores import load_scores

TOLERANCE = 1e-12
"""Another version of numpy may add in another order; no measure that was really made from other scores is so close."""


@dataclass(frozen=True)
class Finding:
    """Something that does not fit: the file, and a sentence about it."""

    path: Path
    sentence: str


@dataclass(frozen=True)
class Verified:
    """How much was looked at, and what does not fit."""

    records: int
    numbers: int
    findings: tuple[Finding, ...]


def verify(runs: Path) -> Verified:
    """Look at a folder of runs, at one grid's, or at one cell's.

    Raises:
        ConfigError: no such folder, or no record in it.
    """
    if not runs.is_dir():
        raise ConfigError(f"{runs} is no folder; name a folder of runs, of one grid, or of one cell")
    paths = sorted({path for pattern in ("", "*/", "*/*/") for path in runs.glob(f"{pattern}record.json")})
    if not paths:
        raise ConfigError(f"{runs} holds no record; name a folder of runs, of one grid, or of one cell")
    findings: list[Finding] = []
    numbers = 0
    for path in paths:
        try:
            record = Record.load(path)
            scores = load_scores(path.parent / "scores.parquet")
        except RecordError as error:
            findings.append(Finding(path, str(error)))
            continue
        wrong = [*check_cell(record, path.parent), *check_measures(record, scores)]
        wrong += check_diagnostics(record, path.parent / DIAGNOSTICS)
        findings += [Finding(path, sentence) for sentence in wrong]
        numbers += len(record.measures) * len(METRICS)
    for folder in sorted({path.parent.parent for path in paths if (path.parent.parent / "grid.json").exists()}):
        findings += check_grid(folder)
    return Verified(len(paths), numbers, tuple(findings))


def check_diagnostics(record: Record, path: Path) -> Iterator[str]:
    """Sentences about what the record tells of its diagnostics and the file does not give; a missing file says nothing."""
    if not path.is_file():
        return
    try:
        made = {(r.name, r.domain, r.other): r for r in ranges(load_diagnostics(path))}
    except RecordError as error:
        yield str(error).replace(f"{path.parent}/", "")
        return
    claimed = {(r.name, r.domain, r.other): r for r in (record.diagnostics.ranges if record.diagnostics else ())}
    for key in dict.fromkeys((*claimed, *made)):
        if key not in claimed or key not in made or not _same_range(claimed[key], made[key]):
            yield f"{path.name} does not give what the record tells of {' '.join(filter(None, key))}"


def _same_range(one: DiagnosticRange, other: DiagnosticRange) -> bool:
    for a, b in zip(one.model_dump().values(), other.model_dump().values(), strict=True):
        if a != b and not (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-9)):
            return False
    return True


def check_measures(record: Record, scores: pd.DataFrame, tolerance: float = TOLERANCE) -> Iterator[str]:
    """Sentences about measures that the scores do not give."""
    made = {}
    for keys, rows in scores.groupby(["step", "test"], observed=True, sort=False):
        step, test = cast(tuple[int, str], keys)
        try:
            found = remeasure(record, rows, protocol_of(record))
        except (ValueError, ConfigError) as error:
            yield f"the scores of {test} at step {step} give no measures: {error}"
            continue
        made.update({(m.step, m.split, m.test, m.level): m for m in found})
    there = {(m.step, m.split, m.test, m.level): m for m in record.measures}
    for key in [k for k in made if k not in there]:
        yield f"{key[2]} has scores at step {key[0]}, but no measure per {key[3]}"
    for key, m in there.items():
        if key not in made:
            yield f"{m.test} has a measure per {m.level} at step {m.step}, but no scores"
        else:
            yield from _differences(m, made[key], tolerance)


def _differences(then: Measure, now: Measure, tolerance: float) -> Iterator[str]:
    where = f"{then.test} per {then.level} at step {then.step}"
    if (then.n_real, then.n_fake) != (now.n_real, now.n_fake):
        yield f"{where}: {then.n_real} real and {then.n_fake} fake in the record, {now.n_real} and {now.n_fake} in the scores"
    if (then.role, then.epoch) != (now.role, now.epoch):
        yield f"{where}: {then.role} at epoch {then.epoch:g} in the record, {now.role} at epoch {now.epoch:g} in the scores"
    for metric in METRICS:
        a, b = then.value(metric), now.value(metric)
        if (a is None) != (b is None) or (a is not None and b is not None and abs(a - b) > tolerance):
            yield f"{where}: {metric} is {a} in the record, {b} from the scores"


def check_cell(record: Record, folder: Path) -> Iterator[str]:
    """Sentences about settings that do not give the id under which the record stands."""
    if record.cell != folder.name:
        yield f"it belongs to cell {record.cell}, not to {folder.name}"
    try:
        cell = cell_of(record)
    except ConfigError as error:
        yield str(error)
        return
    if cell.id != record.cell:
        yield f"its settings are those of cell {cell.id}, but it says {record.cell}"
    kept = folder / "cell.yaml"
    if kept.exists():
        try:
            written = Cell.model_validate(read_yaml(kept))
        except ValueError as error:
            yield f"cell.yaml cannot be read: {str(error).splitlines()[0]}"
            return
        if written.id != record.cell:
            yield f"cell.yaml holds the settings of cell {written.id}"


def check_grid(folder: Path) -> list[Finding]:
    """What of a grid's folder its grid.json does not know, and cells that stand under another title there."""
    path = folder / "grid.json"
    try:
        grid: GridFile = read_model(GridFile, path, "grid", "run `dfgrid grid run` again")
    except RecordError as error:
        return [Finding(path, str(error))]
    wanted = {c.id: c for c in grid.cells}
    found = []
    for record_path in sorted(folder.glob("*/record.json")):
        name = record_path.parent.name
        if name not in wanted:
            found.append(Finding(record_path, "grid.json does not want this cell; its table leaves it out"))
            continue
        try:
            record = Record.load(record_path)
        except RecordError:
            continue  # told of already
        c = wanted[name]
        if (record.detector.title, record.optimizer.title, record.seed) != (c.detector, c.optimizer, c.seed):
            found.append(Finding(record_path, f"grid.json calls it {c.detector} / {c.optimizer} / seed {c.seed}"))
    return found
