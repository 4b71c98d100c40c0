"""Run a cell again from its record alone, and say whether it gives the same numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmark.anew import PREVIOUS
from benchmark.config import ConfigError
from benchmark.evaluate import Diverged
from benchmark.recorded import cell_of, find_stores, matching_plugins, moved, with_weights
from benchmark.run import run_cell
from benchmark.testing import Report
from results.files import RecordError
from results.record import METRICS, Record
from results.scores import load_scores

FACE = ["step", "split", "test", "key"]


@dataclass(frozen=True)
class Moved:
    """One measure that is another number now.

    Attributes:
        test, level, step, metric: which.
        then, now: None where it was not defined.
    """

    test: str
    level: str
    step: int
    metric: str
    then: float | None
    now: float | None

    @property
    def by(self) -> float:
        """now - then; infinite where only one of them is defined."""
        return float("inf") if self.then is None or self.now is None else self.now - self.then


@dataclass(frozen=True)
class Reproduction:
    """What came out of running a cell again.

    Attributes:
        now: the new record.
        circumstances: what is different from then: name -> (then, now).
        moved: measures that are other numbers, in the record's order.
        measures: how many numbers were compared.
        loss: largest difference between training losses of the same step; None where the steps are others.
        scores: largest difference between scores of the same face; None where the record has no scores beside it.
        other_faces: whether the scored faces are others.
    """

    now: Record
    circumstances: dict[str, tuple[str, str]]
    moved: tuple[Moved, ...]
    measures: int
    loss: float | None
    scores: float | None
    other_faces: bool

    @property
    def identical(self) -> bool:
        """Whether every measure, loss and score that can be compared is the same to the bit."""
        return not self.moved and self.loss == 0 and not self.scores and not self.other_faces


def reproduce(
    path: Path,
    data: Path,
    folder: Path,
    stores: Iterable[Path] = (),
    plugins: Iterable[Path] = (),
    weights: Iterable[Path] = (),
    device: str | None = None,
    report: Report = lambda stage, done, total: None,
) -> Reproduction:
    """Run the cell of a record once more, under the record's number of threads.

    Args:
        path: record.json; scores.parquet beside it is compared too.
        data: folder below which the stores are looked for by their fingerprints.
        folder: for the new run; empty.
        stores: folders of stores that lie elsewhere.
        plugins: the record's plug-in files, recognised by content.
        weights: files of first weights that lie elsewhere than the record says, recognised by content.
        device: torch's name of it; None takes a GPU if the record was made on one and there is one.
        report: as in `run_cell`.

    Raises:
        RecordError: no record.
        ConfigError: settings, a store, a plug-in or first weights that are not to be had, a folder that holds another run, or a run
            that fails.
    """
    try:
        then = Record.load(path)
    except RecordError as error:
        if path.name in ("record.json", PREVIOUS):
            raise
        raise ConfigError(f"{path} is no record of a cell; give a cell's record.json, or the folder that holds it") from error
    cell = cell_of(then, matching_plugins(then, plugins))
    if cell.id != then.cell:
        raise ConfigError(
            f"{path} says that it is cell {then.cell}, but its settings are those of {cell.id}: it was changed by hand, or made "
            "by a version that named cells otherwise"
        )
    if (folder / "record.json").exists() or (folder / "checkpoint.pt").exists():
        raise ConfigError(f"{folder} holds a run already; name an empty folder")
    placed = with_weights(moved(cell, find_stores(then, data, stores), data), then, weights)
    device = device or ("cuda" if then.provenance.device != "cpu" and torch.cuda.is_available() else "cpu")
    try:
        now = run_cell(placed, folder, data, device, then.provenance.threads, report)
    except Diverged as error:
        raise ConfigError(f"the record's run came to its end, but this one did not: {error}") from error
    kept = path.parent / "scores.parquet"
    scores = _scores(load_scores(kept), load_scores(folder / "scores.parquet")) if kept.exists() else None
    found = _measures(then, now)
    return Reproduction(
        now,
        circumstances(then, now),
        tuple(m for m in found if m.then != m.now),
        len(found),
        _losses(then, now),
        None if scores is None else scores[0],
        scores is not None and scores[1],
    )


def circumstances(then: Record, now: Record) -> dict[str, tuple[str, str]]:
    """What of code, packages and machine is different; name -> (then, now)."""
    a, b = then.provenance, now.provenance
    found = {
        "code": (a.code, b.code),
        "commit": (str(a.commit), str(b.commit)),
        "python": (a.python, b.python),
        "platform": (a.platform, b.platform),
        "cpu": (a.cpu, b.cpu),
        "device": (a.device, b.device),
        "arithmetic": (a.arithmetic or "not told", b.arithmetic or "not told"),
        "threads": (str(a.threads), str(b.threads)),
        "processes": (str(a.processes), str(b.processes)),
    }
    # By content: the file may have another name here.
    found["first weights"] = (next(iter(a.weights.values()), "not told"), next(iter(b.weights.values()), "not told"))
    for name in sorted({*a.packages, *b.packages}):
        found[name] = (a.packages.get(name, "not there"), b.packages.get(name, "not there"))
    # The commit may differ by files that no number depends on; then the code does not.
    same_code = a.code == b.code
    return {name: pair for name, pair in found.items() if pair[0] != pair[1] and not (name == "commit" and same_code)}


def _measures(then: Record, now: Record) -> list[Moved]:
    new = {(m.step, m.split, m.test, m.level): m for m in now.measures}
    found = []
    for m in then.measures:
        other = new.get((m.step, m.split, m.test, m.level))
        for metric in METRICS:
            found.append(Moved(m.test, m.level, m.step, metric, m.value(metric), other.value(metric) if other else None))
    return found


def _losses(then: Record, now: Record) -> float | None:
    if [step for step, _ in then.losses] != [step for step, _ in now.losses]:
        return None
    gaps = [0.0 if a == b else float("inf") if a is None or b is None else abs(a - b) for (_, a), (_, b) in _pairs(then, now)]
    return max(gaps, default=0.0)


def _pairs(then: Record, now: Record) -> list[tuple[tuple[int, float | None], tuple[int, float | None]]]:
    return list(zip(then.losses, now.losses, strict=True))


def _scores(then: pd.DataFrame, now: pd.DataFrame) -> tuple[float, bool]:
    """The largest difference between scores of the same face, and whether the faces are others."""
    a, b = (table.astype({"split": str, "test": str, "key": str}).set_index(FACE)["score"] for table in (then, now))
    both = a.index.intersection(b.index)
    gap = np.abs(a[both].to_numpy(np.float64) - b[both].to_numpy(np.float64))
    return float(gap.max(initial=0.0)), len(both) != len(a) or len(both) != len(b)
