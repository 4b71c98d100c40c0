"""Two grids of one name: told apart before one overwrites what the other wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmark.config import Cell, ConfigError
from benchmark.heartbeat import read_beat
from benchmark.reading import read_yaml
from benchmark.study import Study
from results.files import RecordError, read_model
from results.index import GridFile, WantedCell

SHOWN = 3


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


def begun(folder: Path) -> bool:
    """Whether a cell's folder holds work, or a process works at it."""
    beat = read_beat(folder)
    return (folder / "record.json").exists() or (folder / "checkpoint.pt").exists() or (beat is not None and beat.alive)


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
    told = [f"{key} is {then.get(key, 'not there')} there and {new.get(key, 'not there')} here" for key in keys[:SHOWN]]
    return ", ".join(told) + (f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


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
