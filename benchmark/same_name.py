"""Two grids of one name: told apart before one overwrites what the other wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmark.config import Cell, ConfigError
from benchmark.heartbeat import read_beat
from benchmark.provenance import file_hash
from benchmark.reading import read_yaml
from benchmark.recorded import fingerprint
from benchmark.study import Study
from results.files import RecordError, read_model
from results.index import GridFile, WantedCell
from results.record import Record
from results.rows import SHOWN, cell_settings, in_words, settings_of, what_differs


def check_same_grid(study: Study, folder: Path) -> list[str]:
    """Compare a study with the grid.json that is in its folder already.

    More cells are no other grid. Cells that are wanted no more are warned about; their records stay.

    Args:
        study: what is to be run.
        folder: `runs/<grid>`.

    Returns:
        Warnings.

    Raises:
        ConfigError: a cell of the same detector, optimizer and seed was begun under other settings; says which.
    """
    try:
        before: GridFile = read_model(GridFile, folder / "grid.json", "grid", "run it again")
    except RecordError:
        return []  # none, or one that cannot be read: there is nothing to keep
    ids = {cell.id for cell in study.wanted()}
    gone = [cell for cell in before.cells if cell.id not in ids and begun(folder / cell.id)]
    now = {_title(cell): cell for cell in study.wanted()}
    for cell in gone:
        other = now.get((cell.part, cell.detector, cell.optimizer, cell.seed))
        if other is not None:
            raise ConfigError(
                f"{folder} holds another grid of the name '{study.name}': {_what_differs(folder / cell.id, other)}; give this one "
                "another name, run it with another --runs, or take --replace (records stay, the table shows the new cells)"
            )
    if not gone:
        return []
    names = ", ".join(cell.id for cell in gone[:SHOWN]) + (f" and {len(gone) - SHOWN} more" if len(gone) > SHOWN else "")
    return [f"{folder} has cells that this grid does not want any more: {names}; their records stay, the table leaves them out"]


def join(cell: Cell, before: GridFile, folder: Path) -> GridFile:
    """What a grid of single cells wants beside this cell, once that is added.

    Args:
        cell: to be added.
        before: what the grid wants by now. A cell in this one's place (row, column and seed) that has no record and is not at
            work gives way, and goes on if it is started again.
        folder: `runs/<grid>`.

    Raises:
        ConfigError: a cell there would be a seed of the same row though it was begun under other settings, or has a test set of
            the same name on other faces.
    """
    here = _set(cell)
    kept = []
    for other in before.cells:
        in_row = other.id != cell.id and _title(other)[:3] == _title(cell)[:3]
        in_place = in_row and other.seed == cell.seed
        if in_place and not (folder / other.id / "record.json").exists() and not at_work(folder / other.id):
            continue
        kept.append(other)
        if not begun(folder / other.id):
            continue
        there = _begun_with(folder / other.id)
        found = what_differs(there, here) if in_row else ""
        if in_place and not found:
            found = "they differ in where their files lie, in which test sets they have, or in the version that began them"
        if found:
            raise ConfigError(
                f"{folder} has {cell.optimizer.title} on {cell.detector.title} already, and a row of its table is of one setting: "
                f"{found}; give this cell a row of its own with --label, or a table of its own with --name"
            )
        if found := what_differs(there, here, tuple(f"tests.{test.name}." for test in cell.tests)):
            raise ConfigError(
                f"{folder} has a test set of that name already, and a column of its table is of one: {found}; give this cell a "
                "table of its own with --name"
            )
    return before.model_copy(update={"cells": tuple(kept)})


def _set(cell: Cell) -> dict[str, str]:
    content = cell.model_dump(mode="json", exclude={"protocol": {"diagnostics_every"}})
    detector, optimizer = ({"name": s.name, **s.settings} for s in (cell.detector, cell.optimizer))
    if (file := cell.detector.weights_file) is not None and file.is_file():
        detector["weights"] = file_hash(file)[:12]
    known = {name: found for name in cell.stores() if (found := fingerprint(Path(name))) is not None}
    given = cell_settings(detector, optimizer, content["base"], content["protocol"], content["train"], content["tests"], known)
    lost = [name for name in cell.stores() if name not in known]
    return {key: value for key, value in given.items() if not (key.endswith(".store") and value in lost)}


def _begun_with(folder: Path) -> dict[str, str]:
    """What a cell that is there was set to: by its record, which knows its stores as they were then, or as it was begun."""
    if (folder / "record.json").exists():
        return settings_of(Record.load(folder / "record.json"))
    return _set(Cell.model_validate(read_yaml(folder / "cell.yaml")))


def begun(folder: Path) -> bool:
    """Whether a cell's folder holds work, or a process works at it."""
    return (folder / "record.json").exists() or (folder / "checkpoint.pt").exists() or at_work(folder)


def at_work(folder: Path) -> bool:
    """Whether a process works at a cell."""
    beat = read_beat(folder)
    return beat is not None and beat.alive


def _title(cell: Cell | WantedCell) -> tuple[str, str, str, int]:
    if isinstance(cell, Cell):
        return cell.part, cell.detector.title, cell.optimizer.title, cell.seed
    return cell.part, cell.detector, cell.optimizer, cell.seed


def _what_differs(folder: Path, now: Cell) -> str:
    try:
        then = flat(read_yaml(folder / "cell.yaml"))
    except (ConfigError, AttributeError):
        return f"its cell {folder.name} has other settings"
    new = flat(now.model_dump(mode="json"))
    keys = [key for key in dict.fromkeys([*then, *new]) if then.get(key) != new.get(key) and not key.startswith("plugins")]
    return in_words(keys, then, new)


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one: `{"a": {"b": [1]}}` is `{"a.b.0": 1}`."""
    return dict(_leaves(content, prefix))


def _leaves(content: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    pairs = content.items() if isinstance(content, Mapping) else enumerate(content)
    for key, value in pairs:
        name = f"{prefix}{key}"
        if isinstance(value, Mapping | list | tuple):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value
