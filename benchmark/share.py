"""Grids out and in as archives: what leaves was checked, and what comes is checked again."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from benchmark.config import NAME, ConfigError
from benchmark.recorded import cell_of
from benchmark.share_readme import readme
from benchmark.verify import check_diagnostics, check_measures
from results.archive import CELL_FILES, check_suffix, pack, unpack
from results.diagnostics import FILE as DIAGNOSTICS
from results.files import RecordError, read_model, write_atomically
from results.index import GridFile, GridIndex, WantedCell, check_seeds
from results.record import METRICS, Record
from results.rows import check_rows
from results.scores import check_scores, load_scores
from results.selection import common_selection
from results.tables import write_tables

Progress = Callable[[int, int], None]

ANOTHER_MACHINE = 1e-6
"""Measures are computed from float32 scores; another machine's or library's last digits are no contradiction."""


def export_grid(folder: Path, out: Path, progress: Progress = lambda done, total: None) -> int:
    """Pack a grid's records, scores and tables into one archive, after checking every cell.

    Args:
        folder: `runs/<grid>`.
        out: file to write, .tar.gz or .zip.
        progress: told (cells checked, cells).

    Returns:
        How many cells are in it.

    Raises:
        RecordError: no record yet, one that cannot be read, or a cell that is not what it claims.
    """
    check_suffix(out)
    index = GridIndex.read(folder)
    name = index.grid.name
    for id_, reason in index.reasons.items():
        if (folder / id_ / "record.json").exists():
            raise RecordError(f"grid '{name}' is not exported: cell {id_}: {reason}")
    if not index.records:
        raise RecordError(f"no cell of grid '{name}' has a record yet; run `dfgrid grid run {name}`")
    files = {"grid.json": (folder / "grid.json").read_bytes()}
    for number, (id_, record) in enumerate(index.records.items()):
        _check_claims(record, load_scores(folder / id_ / "scores.parquet"), folder / id_ / DIAGNOSTICS)
        files |= {f"{id_}/{file}": (folder / id_ / file).read_bytes() for file in CELL_FILES if (folder / id_ / file).is_file()}
        progress(number + 1, len(index.records))
    same_stores(index.records.values())
    selection = common_selection(index.records.values())
    with TemporaryDirectory() as scratch:
        for table in write_tables(index, scratch, selection):
            files[f"tables/{table.name}"] = table.read_bytes()
    files["README.md"] = readme(index, selection).encode()
    pack(out, name, files)
    return len(index.records)


def same_stores(records: Iterable[Record]) -> None:
    """Refuse records whose numbers would stand in one table though a store of one name had different content.

    Raises:
        RecordError: names the store and two cells.
    """
    seen: dict[str, tuple[str, str]] = {}
    for record in records:
        for store, fingerprint in record.provenance.stores.items():
            known, cell = seen.setdefault(store, (fingerprint, record.cell))
            if known != fingerprint:
                raise RecordError(
                    f"store {store} has the fingerprint {known[:12]} in cell {cell} and {fingerprint[:12]} in cell {record.cell}; "
                    "cells on different faces are not compared: put them into different grids, or run one of them again"
                )


@dataclass
class Merged:
    """What an import did: cells that came in, and cells that were there already with the same content."""

    folder: Path
    added: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Received:
    archive: Path
    grid: GridFile
    records: dict[str, Record]
    files: dict[str, bytes]


def import_archives(archives: Sequence[Path], runs: Path, progress: Progress = lambda done, total: None) -> list[Merged]:
    """Merge archives into `runs/<grid>`, each grid of them; nothing is written unless everything can be.

    Raises:
        RecordError: an archive that is damaged or not what it claims; a cell that is there with other numbers; stores of one name
            with different content; grids of one name that want different test sets, or in which a row would be of two settings.
            One sentence names it.
    """
    received = []
    for number, archive in enumerate(archives):
        received.append(_receive(archive))
        progress(number + 1, len(archives))
    by_grid: dict[str, list[_Received]] = {}
    for r in received:
        by_grid.setdefault(r.grid.name, []).append(r)
    plans = [_plan(runs / name, of) for name, of in by_grid.items()]
    return [_write(folder, grid, files, merged) for folder, grid, files, merged in plans]


def _receive(archive: Path) -> _Received:
    files = unpack(archive)
    with TemporaryDirectory() as scratch:
        grid: GridFile = _read(archive, GridFile, files, "grid.json", "grid", Path(scratch))
        if not re.fullmatch(NAME, grid.name):
            raise RecordError(f"{archive}: '{grid.name}' is no name of a grid")
        wanted = {c.id: c for c in grid.cells}
        cells = sorted({path.split("/")[0] for path in files if path.count("/") == 1 and not path.startswith("tables/")})
        records = {}
        for id_ in cells:
            if id_ not in wanted:
                raise RecordError(f"{archive}: {id_} is no cell of its grid.json")
            record: Record = _read(archive, Record, files, f"{id_}/record.json", "record", Path(scratch))
            records[id_] = _checked(archive, record, wanted[id_], files, Path(scratch))
    unknown = [p for p in files if "/" in p and p.split("/")[0] in records and p.split("/", 1)[1] not in CELL_FILES]
    if unknown:
        raise RecordError(f"{archive}: {unknown[0]} is no file of a cell")
    _within(archive, lambda: same_stores(records.values()))
    return _Received(archive, grid, records, files)


def _read(archive: Path, model: type, files: Mapping[str, bytes], path: str, what: str, scratch: Path) -> Any:
    if path not in files:
        raise RecordError(f"{archive} has no {path}; ask for the archive again")
    file = scratch / Path(path).name
    file.write_bytes(files[path])
    try:
        return read_model(model, file, what, "ask for the archive again")
    except RecordError as error:
        raise RecordError(f"{archive}: {str(error).replace(str(file), path)}") from error


def _within(archive: Path, check: Callable[[], object]) -> None:
    try:
        check()
    except RecordError as error:
        raise RecordError(f"{archive}: {error}") from error


def _checked(archive: Path, record: Record, wanted: WantedCell, files: Mapping[str, bytes], scratch: Path) -> Record:
    """The record, if it is the cell that grid.json wants, its id follows from its settings, and its measures from its scores."""
    path = f"{wanted.id}/scores.parquet"
    claims = (record.cell, record.detector.title, record.optimizer.title, record.seed)
    if claims != (wanted.id, wanted.detector, wanted.optimizer, wanted.seed):
        raise RecordError(f"{archive}: {wanted.id}/record.json is of cell {record.cell}, not of the cell that grid.json names")
    if path not in files:
        raise RecordError(f"{archive}: {path} is missing; without scores a cell cannot be checked")
    try:
        scores = pd.read_parquet(io.BytesIO(files[path]))
    except (OSError, ValueError) as error:
        raise RecordError(f"{archive}: {path} is no parquet file ({str(error).splitlines()[0]})") from error

    seen = scratch / DIAGNOSTICS
    seen.unlink(missing_ok=True)
    if f"{wanted.id}/{DIAGNOSTICS}" in files:
        seen.write_bytes(files[f"{wanted.id}/{DIAGNOSTICS}"])

    def check() -> None:
        check_scores(scores, path)
        _check_claims(record, scores, seen)

    _within(archive, check)
    return record


def _check_claims(record: Record, scores: pd.DataFrame, diagnostics: Path) -> None:
    """Refuse a record whose settings do not give its id, or whose numbers its scores and diagnostics do not give.

    Raises:
        RecordError: the first thing that does not fit.
    """
    try:
        given = cell_of(record).id
    except ConfigError as error:
        raise RecordError(str(error)) from error
    if given != record.cell:
        raise RecordError(
            f"cell {record.cell}: the settings in its record are those of cell {given}, not those that it was run with"
        )
    for sentence in (*check_measures(record, scores, ANOTHER_MACHINE), *check_diagnostics(record, diagnostics)):
        raise RecordError(f"cell {record.cell}: {sentence}")


def _plan(folder: Path, received: Sequence[_Received]) -> tuple[Path, GridFile, dict[str, bytes], Merged]:
    grid: GridFile | None = None
    records: dict[str, tuple[Record, str]] = {}
    if (folder / "grid.json").exists():
        index = GridIndex.read(folder)
        grid = index.grid
        records = {id_: (record, str(folder)) for id_, record in index.records.items()}
        broken = [id_ for id_ in index.reasons if (folder / id_ / "record.json").exists()]
        if broken:
            raise RecordError(f"nothing is merged into {folder}: {index.reasons[broken[0]]}")
    merged = Merged(folder)
    files: dict[str, bytes] = {}
    for r in received:
        grid = r.grid if grid is None else _joined(grid, r.grid, r.archive, folder)
        for id_, record in r.records.items():
            if id_ in records:
                _same_cell(record, records[id_][0], str(r.archive), records[id_][1])
                merged.same.append(id_)
                continue
            records[id_] = (record, str(r.archive))
            merged.added.append(id_)
            files |= {path: content for path, content in r.files.items() if path.startswith(f"{id_}/")}
    same_stores(record for record, _ in records.values())
    assert grid is not None
    check_rows(
        ((c.part, c.detector, c.optimizer), f"{c.id} ({records[c.id][1]})", records[c.id][0]) for c in grid.cells if c.id in records
    )
    check_seeds(grid, folder / "grid.json")
    return folder, grid, files, merged


def _joined(ours: GridFile, theirs: GridFile, archive: Path, folder: Path) -> GridFile:
    """Both grids' cells in one. Their test sets must be the same: else one table would mix two questions."""
    if set(ours.tests) != set(theirs.tests):
        names = sorted(f"{t.name} ({t.role})" for t in set(ours.tests) ^ set(theirs.tests))
        raise RecordError(
            f"{archive}: its grid '{theirs.name}' has other test sets than the one in {folder} "
            f"({', '.join(names)} in one of them only); give one of the grids another name"
        )
    known = {(c.part, c.id) for c in ours.cells}
    return ours.model_copy(update={"cells": (*ours.cells, *(c for c in theirs.cells if (c.part, c.id) not in known))})


def _same_cell(new: Record, old: Record, archive: str, where: str) -> None:
    if new == old:
        return
    for a, b in zip(new.measures, old.measures, strict=False):
        if a != b:
            values = next(
                (f"{m} {a.value(m)} and {b.value(m)}" for m in METRICS if a.value(m) != b.value(m)),
                "",
            )
            said = f"{a.test}, {a.level} level, step {a.step}: {values}" if values else f"their evaluations at step {a.step} differ"
            break
    else:
        fields = [k for k in type(new.provenance).model_fields if getattr(new.provenance, k) != getattr(old.provenance, k)]
        said = f"the numbers are the same, but not {', '.join(fields) or 'the rest of the record'}: it was run twice"
    raise RecordError(f"cell {new.cell} is in {archive} and in {where} with different content ({said}); keep one of the two")


def _write(folder: Path, grid: GridFile, files: Mapping[str, bytes], merged: Merged) -> Merged:
    folder.mkdir(parents=True, exist_ok=True)
    grid.save(folder / "grid.json")
    # A record last: its existence means that the cell is done.
    for path, content in sorted(files.items(), key=lambda item: item[0].endswith("record.json")):
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        write_atomically(target, content)
    return merged
