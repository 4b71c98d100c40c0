"""The bootstrap draws of a grid's cells, computed once from their scores and kept beside them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from results.files import RecordError
from results.index import GridIndex
from results.record import Level, Metric, Record
from results.resampling import FEWEST, Rules, Sample, draws, evaluate, interval, sample
from results.scores import load_scores
from results.selection import Chosen, select, selection_named

DRAWS = 1000
FOLDER = ".resampled"
"""In the grid's folder. It may be deleted at any time: it is computed again."""
SAME = 1e-6
"""Scores are float32: how far a metric computed from them may lie from the record's."""
KEPT = 2
"""Version of what is kept in `FOLDER`."""


@dataclass(frozen=True)
class Drawn:
    """One metric of one cell on one test set.

    Attributes:
        value: on the whole set; the mean over the evaluations that the selection rule takes.
        draws: (B,) on each draw of videos.
        videos: SHA-256 over the names and classes of the videos: equal means that draws are paired.
        reals: SHA-256 over the names of the real ones: test sets that share them are drawn together.
    """

    value: float
    draws: NDArray[np.float64]
    videos: str
    reals: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """95% over videos, of this trained detector."""
        return interval(self.draws)


class Resampled:
    """Draws of every cell, test set, level and metric of a grid; whoever has the same videos gets the same draws.

    Args:
        index: of a folder; one without has no scores.
        selection: key of `SELECTIONS`: the checkpoints.
        count: draws.
        seed: of the draws.

    Raises:
        RecordError: no such selection.
    """

    def __init__(self, index: GridIndex, selection: str = "source_val", count: int = DRAWS, seed: int = 0) -> None:
        self.index = index
        self.selection = selection_named(selection)
        self.count, self.seed = count, seed
        self._found: dict[tuple[str, Metric], dict[tuple[str, Level], Drawn | str]] = {}
        self._copies: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._recorded: dict[str, set[tuple[str, Level, Metric]]] = {}

    def of(self, cell: str, test: str, level: Level, metric: Metric = "auc") -> Drawn:
        """Draws of one number.

        Raises:
            RecordError: no record, no scores, scores that do not match the record, a metric that is not defined, or too few videos.
        """
        if (cell, metric) not in self._found:
            self._found[cell, metric] = self._cell(cell, metric)
        found = self._found[cell, metric].get((test, level), "not evaluated on this test set")
        if isinstance(found, str):
            raise RecordError(found)
        return found

    def measured(self, cell: str, test: str, level: Level, metric: Metric = "auc") -> bool:
        """Whether the cell's record has that number, with draws or without."""
        if cell not in self._recorded:
            record, chosen = self.index.records.get(cell), []
            if record is not None:
                with contextlib.suppress(RecordError):
                    chosen = select(record.measures, self.selection)
            self._recorded[cell] = {(c.test, c.level, name) for c in chosen for name, v in c.metrics.items() if v is not None}
        return (test, level, metric) in self._recorded[cell]

    def _cell(self, cell: str, metric: Metric) -> dict[tuple[str, Level], Drawn | str]:
        record = self.index.records.get(cell)
        if record is None:
            raise RecordError(self.index.reasons.get(cell, "not in the grid"))
        if self.index.folder is None:
            raise RecordError("no scores at hand")
        scores = self.index.folder / cell / "scores.parquet"
        if not scores.is_file():
            raise RecordError(f"{cell}/scores.parquet does not exist")
        kept = self.index.folder / FOLDER / f"{cell}-{self.selection.name}-{metric}.npz"
        status = scores.stat()
        identity = [hashlib.sha256(record.model_dump_json().encode()).hexdigest(), status.st_size, status.st_mtime_ns]
        identity += [self.count, self.seed, FEWEST, KEPT]
        found = _read(kept, identity)
        if found is None:
            found = self._computed(record, scores, metric)
            # A folder that cannot be written to (an archive, say) is computed anew each time.
            with contextlib.suppress(OSError):
                _write(kept, identity, found)
        return found

    def _computed(self, record: Record, path: Path, metric: Metric) -> dict[tuple[str, Level], Drawn | str]:
        scores = load_scores(path)
        found: dict[tuple[str, Level], Drawn | str] = {}
        for chosen in select(record.measures, self.selection):
            rows = scores[(scores["test"] == chosen.test) & (scores["split"] != "val") & scores["epoch"].isin(chosen.epochs)]
            try:
                found[chosen.test, chosen.level] = self._drawn(
                    rows, chosen, metric, f"{record.cell}/{path.name}", Rules.of(record, chosen.test)
                )
            except RecordError as error:
                found[chosen.test, chosen.level] = str(error)
        return found

    def _drawn(self, rows: Any, chosen: Chosen, metric: Metric, source: str, rules: Rules) -> Drawn:
        recorded = chosen.metrics[metric]
        if recorded is None:
            raise RecordError(f"not defined: {chosen.undefined[metric]}")
        samples = [sample(rows[rows["epoch"] == epoch], chosen.level, rules) for epoch in chosen.epochs]
        value = float(np.mean([evaluate(one, metric)[0] for one in samples])) if all(len(s.labels) for s in samples) else np.nan
        if not abs(value - recorded) <= SAME:
            raise RecordError(
                f"{source} does not match the record: {metric} of {chosen.test} ({chosen.level} level) is {value:.6f} by the "
                f"scores and {recorded:.6f} by the record; run the cell again"
            )
        return self.drawn(samples, metric, value)

    def drawn(self, samples: Sequence[Sample], metric: Metric, value: float) -> Drawn:
        """Draws of the mean of a metric over evaluations of the same videos.

        Args:
            samples: one an evaluation.
            metric: which.
            value: on the whole set.

        Raises:
            RecordError: too few videos.
        """
        first = samples[0]
        if min(first.n_real, first.n_fake) < FEWEST:
            raise RecordError(
                f"too few videos to resample ({first.n_real} real, {first.n_fake} fake; {FEWEST} of each are the least)"
            )
        sizes = (first.n_real, first.n_fake)
        if sizes not in self._copies:
            self._copies[sizes] = draws(*sizes, self.count, self.seed)
        drawn = np.mean([evaluate(one, metric, self._copies[sizes]) for one in samples], axis=0)
        reals = "\n".join(first.names[: first.n_real])
        named = "\n".join(("real", reals, "fake", *first.names[first.n_real :]))
        return Drawn(value, drawn.astype(np.float32).astype(np.float64), _digest(named), _digest(reals))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path: Path, identity: list[Any], found: dict[tuple[str, Level], Drawn | str]) -> None:
    """Atomically: readers of several processes see a whole file or none."""
    head = [[*key, *((d,) if isinstance(d, str) else (d.value, d.videos, d.reals))] for key, d in found.items()]
    matrix = [d.draws for d in found.values() if isinstance(d, Drawn)]
    path.parent.mkdir(exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            np.savez(file, head=np.array(json.dumps([identity, head])), draws=np.array(matrix, np.float32))
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _read(path: Path, identity: list[Any]) -> dict[tuple[str, Level], Drawn | str] | None:
    """What was kept, if it is of these very scores; None if it is not, or is broken."""
    try:
        with np.load(path) as kept:
            before, head = json.loads(str(kept["head"]))
            matrix = iter(kept["draws"].astype(np.float64))
    except Exception:  # a damaged zip is a BadZipFile, RuntimeError or TokenError, by the byte that is wrong
        return None
    if before != identity:
        return None
    found: dict[tuple[str, Level], Drawn | str] = {}
    for test, level, *rest in head:
        assert level in get_args(Level)
        found[test, level] = rest[0] if len(rest) == 1 else Drawn(rest[0], next(matrix), rest[1], rest[2])
    return found
