"""The test pass: the test sets, opened once training is over, scored by the weights that each evaluation point left.

Until then nothing of a test set is read, so nothing that is decided before (when to stop, which checkpoint validation selects) can
depend on one. A test set that belongs to the training store is the exception that cannot be avoided for its file; its rows are not
looked at either.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from benchmark import checkpoint
from benchmark.config import Cell, ConfigError
from benchmark.data import FaceFrames, choose, without_face
from benchmark.decoded import CachedImages
from benchmark.evaluate import EvaluationSet, measures
from benchmark.scoring import score_sets
from benchmark.train import Stopped
from detectors.base import Detector
from preprocessing.errors import PreprocessingError
from preprocessing.store import FaceStore
from results.record import Measure

Report = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


class Scores:
    """Scores and weights of each evaluation point of a running cell, as files in its folder; removed when its record is written."""

    def __init__(self, folder: Path) -> None:
        self.scores, self.weights = folder / "scores", folder / "weights"

    def keep(self, step: int, scores: pd.DataFrame, detector: Detector) -> None:
        """Keep the validation scores and the weights of an evaluation point."""
        self.scores.mkdir(exist_ok=True)
        self.weights.mkdir(exist_ok=True)
        write_parquet(scores, self.scores / f"{step:08d}-val.parquet")
        checkpoint.save(self.weights / f"{step:08d}.pt", {"step": step, "detector": detector.state_dict()})

    def has(self, step: int) -> bool:
        """Whether an evaluation point is kept."""
        return (self.weights / f"{step:08d}.pt").exists() and (self.scores / f"{step:08d}-val.parquet").exists()

    def tested(self, step: int) -> Path:
        """Where the test scores of an evaluation point are."""
        return self.scores / f"{step:08d}.parquet"

    def joined(self, steps: Sequence[int]) -> pd.DataFrame:
        """All scores, evaluation point by evaluation point, validation first."""
        files = [file for step in steps for file in (self.scores / f"{step:08d}-val.parquet", self.tested(step))]
        return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)

    def remove(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.scores, ignore_errors=True)
        shutil.rmtree(self.weights, ignore_errors=True)


def open_test_stores(cell: Cell, data: Path, opened: dict[str, FaceStore]) -> dict[str, FaceStore]:
    """Every store of the cell, in the cell's order, those that are open already included.

    Raises:
        ConfigError: one cannot be opened; the training is kept.
    """
    stores = {}
    for name in cell.stores():
        try:
            stores[name] = opened[name] if name in opened else FaceStore(data / name)
        except (PreprocessingError, OSError) as error:
            raise _kept(name, error) from error
    return stores


def test_sets(
    cell: Cell, stores: dict[str, FaceStore], size: int, report: Report, tell: Callable[[str], None]
) -> list[EvaluationSet]:
    """The test sets with their faces, decoded at `size`; `tell` is told where they cannot be kept.

    Raises:
        ConfigError: a store lacks a method or split, or cannot be read.
    """
    images = {}
    sets = []
    for test in cell.tests:
        store = stores[test.store]
        try:
            rows, methods = choose(store.manifest, test.store, test.methods, test.split, test.frames, test.frame_pick)
            missing = without_face(store.ledger, methods, test.split)
            if test.store not in images:
                images[test.store] = CachedImages(store, size, partial(report, f"decode {test.store}"), tell).images
        except (PreprocessingError, OSError) as error:
            raise _kept(test.store, error) from error
        sets.append(EvaluationSet(test.name, "test", test.role, missing, FaceFrames(rows, methods, images[test.store])))
    return sets


test_sets.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks of its name


def _kept(store: str, error: Exception) -> ConfigError:
    reason = str(error).rstrip(".")
    return ConfigError(
        f"test store {store} cannot be read, so nothing is tested yet: {reason}; the training is done and kept;"
        " mend the store and run the same command"
    )


def score_tests(
    detector: Detector,
    sets: Sequence[EvaluationSet],
    points: Sequence[tuple[int, float]],
    kept: Scores,
    report: Report,
    should_stop: Callable[[], bool],
) -> None:
    """Score every set with the weights of every evaluation point; points that were scored before are left as they are.

    Args:
        detector: takes the weights of one point after the other, and holds the last point's afterwards.
        sets: the test sets.
        points: (step, epoch) of each evaluation point.
        kept: where weights come from and scores go to.
        report: told about progress.
        should_stop: asked after each point.

    Raises:
        Stopped: `should_stop` said so.
        Diverged: a score is not a number.
    """
    for step, epoch in points:
        if kept.tested(step).exists():
            continue
        detector.load_state_dict(checkpoint.load(kept.weights / f"{step:08d}.pt")["detector"])
        told = score_sets(detector, sets, progress=lambda name, *count: report(f"evaluate {name}", *count))
        scored = [
            scores.assign(epoch=epoch, step=step, split=s.split, test=s.name, role=s.role)
            for s, scores in zip(sets, told, strict=True)
        ]
        write_parquet(pd.concat(scored, ignore_index=True), kept.tested(step))
        if should_stop():
            raise Stopped(f"stopped after testing the weights of step {step}; run the same command to go on")


def measures_of_tests(scores: pd.DataFrame, sets: Sequence[EvaluationSet], cell: Cell) -> dict[int, list[Measure]]:
    """The measures of the test sets at each evaluation point, by its step, from all scores."""
    found: dict[int, list[Measure]] = {}
    for step, point in scores[scores["split"] == "test"].groupby("step", sort=True):
        epoch = float(point["epoch"].iloc[0])
        found[int(str(step))] = [
            m for s in sets for m in measures(point[point["test"] == s.name], s, epoch, int(str(step)), cell.protocol)
        ]
    return found


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table so that the file is whole or not there, also after a loss of power."""
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            table.to_parquet(file, index=False)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        part.unlink(missing_ok=True)
        raise
    part.replace(path)
