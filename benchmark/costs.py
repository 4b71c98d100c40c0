"""How long a cell will take, as far as anything was measured; and in which order cells are best begun."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean

from benchmark.config import Cell
from benchmark.specs import Named
from optimizers import OPTIMIZERS
from results.files import RecordError
from results.record import Record


def recorded_seconds(cells: Iterable[Cell], folder: Path) -> dict[str, float]:
    """Seconds of each cell, from the records of `folder` (runs/<grid>) that are most like it; cells without any are left out.

    A record of the same detector, optimizer and data counts as it is, whatever its seed; one of the same detector and data, by the
    ratio of the two rules' passes, as counted in records, else as the rules say themselves (which is the least).
    """
    same: dict[str, list[float]] = {}
    alike: dict[str, list[float]] = {}
    counted: dict[str, float] = {}
    records = [seen for path in sorted(folder.glob("*/record.json")) if (seen := _read(path, path.stat().st_mtime_ns)) is not None]
    for r in records:
        if r.passes is not None:
            counted[r.optimizer] = r.passes

    def per_step(name: str, settings: Mapping[str, object], domains: int) -> float:
        return counted.get(name) or least_passes(name, settings, domains)

    for r in records:
        same.setdefault(f"{r.key} {r.optimizer}", []).append(r.seconds)
        alike.setdefault(r.key, []).append(r.seconds / per_step(r.optimizer, r.settings, r.domains))
    found = {}
    for cell in cells:
        protocol = cell.protocol.model_dump(mode="json", exclude={"diagnostics_every"})
        key = _key(cell.detector.name, cell.detector.settings, cell.train.model_dump(mode="json"), protocol)
        if f"{key} {cell.optimizer.name}" in same:
            found[cell.id] = fmean(same[f"{key} {cell.optimizer.name}"])
        elif key in alike:
            found[cell.id] = fmean(alike[key]) * per_step(cell.optimizer.name, cell.optimizer.settings, len(cell.train.methods))
    return found


@dataclass(frozen=True)
class _Seen:
    """Of a record what tells of the cost of others; `passes` of a step, None where they were not counted."""

    key: str
    optimizer: str
    settings: Mapping[str, object]
    domains: int
    seconds: float
    passes: float | None


@lru_cache(maxsize=4096)
def _read(path: Path, changed: int) -> _Seen | None:
    """Remembered: a launcher asks after every cell."""
    try:
        r = Record.load(path)
    except RecordError:
        return None
    key = _key(r.detector.name, r.detector.settings, r.data["train"], r.protocol)
    passes = r.provenance.passes / r.steps if r.provenance.passes and r.steps else None
    domains = len(r.data["train"]["methods"])
    return _Seen(key, r.optimizer.name, r.optimizer.settings, domains, r.provenance.seconds, passes)


def least_passes(name: str, settings: Mapping[str, object], domains: int) -> float:
    """The least passes of one step of a rule; 1 of one that is not known here (a plug-in's that is not loaded)."""
    try:
        return float(OPTIMIZERS.build(name, **settings).passes(domains))
    except ValueError:
        return 1.0


def longest_first(cells: Iterable[Cell], seconds: Mapping[str, float]) -> list[Cell]:
    """The order in which cells are begun: those of unknown cost first (what is unknown may be long), then the longest.

    Longest first leaves the least idle time at a grid's end (Graham, Bounds on Multiprocessing Timing Anomalies, 1969: at most 4/3
    of the best order's).
    """
    return sorted(cells, key=lambda cell: -seconds.get(cell.id, float("inf")))


def _key(name: str, settings: Mapping[str, object], train: Mapping[str, object], protocol: Mapping[str, object]) -> str:
    return json.dumps([Named(name=name, **settings).model_dump(mode="json"), train, protocol], sort_keys=True, default=str)
