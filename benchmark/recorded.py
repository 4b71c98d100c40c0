"""From a record back to the cell that it came from, and to the stores and plug-ins that it names by their content."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from benchmark import provenance
from benchmark.config import Cell, ConfigError
from preprocessing.errors import PreprocessingError
from preprocessing.store import INFO, FaceStore
from results.record import Record

DEPTH = 5
"""So many folders below the data folder a store is looked for."""


def cell_of(record: Record, plugins: Iterable[str] = ()) -> Cell:
    """The resolved cell, without looks at the gradients, which change no number.

    Raises:
        ConfigError: the record's settings are none that this version knows.
    """
    used, rule = record.detector, record.optimizer
    content = {
        "grid": record.grid,
        "detector": {"name": used.name, "label": used.label if used.label != used.name else "", **used.settings},
        "optimizer": {"name": rule.name, "label": rule.label if rule.label != rule.name else "", **rule.settings},
        "base": {"name": rule.base, **rule.base_settings},
        "seed": record.seed,
        "train": record.data.get("train"),
        "tests": record.data.get("tests"),
        "protocol": {**record.protocol, "diagnostics_every": 0},
        "plugins": tuple(plugins),
    }
    try:
        cell = Cell.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"the record of cell {record.cell} holds settings that this version does not know: {where}") from error
    # A label that is the name is another text than none; only one of the two is what the id was made from.
    named = [cell]
    for detector in dict.fromkeys((cell.detector.label, used.label)):
        for optimizer in dict.fromkeys((cell.optimizer.label, rule.label)):
            named.append(
                cell.model_copy(
                    update={
                        "detector": cell.detector.model_copy(update={"label": detector}),
                        "optimizer": cell.optimizer.model_copy(update={"label": optimizer}),
                    }
                )
            )
    return next((c for c in named if c.id == record.cell), cell)


def matching_plugins(record: Record, files: Iterable[Path]) -> list[str]:
    """The files that are the record's plug-ins, by their content.

    Raises:
        ConfigError: a plug-in that no file is.
    """
    given: dict[str, str] = {}
    for file in files:
        if not file.is_file():
            raise ConfigError(f"plug-in file {file} does not exist")
        given[provenance.file_hash(file)] = str(file.resolve())
    for name, digest in record.provenance.plugins.items():
        if digest not in given:
            raise ConfigError(
                f"the record was made with the plug-in {name} (SHA-256 {digest[:12]}...); give that very file with --plugin"
            )
    return [given[digest] for digest in record.provenance.plugins.values()]


def with_weights(cell: Cell, record: Record, given: Iterable[Path] = ()) -> Cell:
    """The cell with the file of its first weights where it lies, known by its content: as the settings say, or among `given`.

    Raises:
        ConfigError: it is nowhere.
    """
    path = cell.detector.weights_file
    if path is None or not record.provenance.weights:
        return cell
    ((name, digest),) = record.provenance.weights.items()
    for file in (path, *given):
        if file.is_file() and provenance.file_hash(file) == digest:
            return cell.model_copy(update={"detector": cell.detector.with_weights_file(file)})
    raise ConfigError(
        f"the record's first weights are those of {name} (SHA-256 {digest[:12]}...), and {path} "
        f"{'has another content' if path.is_file() else 'is not there'}; give that very file with --weights"
    )


def find_stores(record: Record, data: Path, given: Iterable[Path] = ()) -> dict[str, Path]:
    """Where each store of the record lies, found by its fingerprint: under its own name, among `given`, or below `data`.

    Raises:
        ConfigError: a store that is nowhere; the sentence says what lies under its name instead.
    """
    wanted = dict(record.provenance.stores)
    found = {name: data / name for name, digest in wanted.items() if fingerprint(data / name) == digest}
    others: Iterator[Path] | list[Path] = [*given]
    for source in (others, _stores_below(data)):
        for path in source:
            if len(found) == len(wanted):
                return found
            digest = fingerprint(path)
            for name in wanted:
                if name not in found and wanted[name] == digest:
                    found[name] = path.resolve()
    missing = next((name for name in wanted if name not in found), None)
    if missing is None:
        return found
    there = fingerprint(data / missing)
    instead = f"; {data / missing} has {there[:12]}..., another content" if there else ""
    raise ConfigError(
        f"no store below {data} has the fingerprint {wanted[missing][:12]}... of store {missing}{instead}; "
        "give its folder with --store, or preprocess the dataset with the settings that the record holds"
    )


def moved(cell: Cell, places: dict[str, Path], data: Path) -> Cell:
    """The cell with the stores where they lie; one that lies under its own name keeps it."""
    paths = {name: name if path == data / name else str(path) for name, path in places.items()}
    return cell.model_copy(
        update={
            "train": cell.train.model_copy(update={"store": paths[cell.train.store]}),
            "tests": tuple(t.model_copy(update={"store": paths[t.store]}) for t in cell.tests),
        }
    )


def fingerprint(path: Path) -> str | None:
    """Of a face store; None where none is, or none that can be read."""
    try:
        return FaceStore(path).fingerprint if (path / INFO).is_file() else None
    except PreprocessingError:
        return None


def _stores_below(data: Path) -> Iterator[Path]:
    top = len(data.parts)
    for folder, below, files in os.walk(data):
        path = Path(folder)
        if INFO in files:
            yield path
            below.clear()
        elif len(path.parts) - top >= DEPTH:
            below.clear()
        below.sort()
