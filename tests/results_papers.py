"""Shipped grids with drawn scores for the tests of the papers' tables: records measured from them, and probes, without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results_grids import provenance, record
from results_scores import measured

from benchmark.config import Cell
from benchmark.evaluate import SCORE_COLUMNS as FACE_COLUMNS
from benchmark.evaluate import EvaluationSet
from benchmark.launch import write_index
from benchmark.statistics import _effects
from benchmark.study import Study, load_grid
from results.record import DetectorUsed, OptimizerUsed, Record
from results.scores import SCORE_COLUMNS
from results.shallow import StatisticsReport, StatisticsSettings

FRAMES = 3


def seeded(name: str, seeds: tuple[int, ...] = (0,)) -> Study:
    """A shipped grid, scaled down, with these seeds."""
    study = load_grid(name, mini=True)
    return replace(study, parts=tuple(part.model_copy(update={"seeds": seeds}) for part in study.parts))


def as_record(cell: Cell, found: list[Any], **more: Any) -> Record:
    """The record of a cell with these measures."""
    fields: dict[str, Any] = {
        "detector": DetectorUsed(name=cell.detector.name, label=cell.detector.label, settings=cell.detector.settings),
        "optimizer": OptimizerUsed(
            name=cell.optimizer.name, label=cell.optimizer.label, settings=cell.optimizer.settings, base=cell.base.name
        ),
        "seed": cell.seed,
        "grid": cell.grid,
        "protocol": cell.protocol.model_dump(mode="json"),
    }
    return record(cell.id, found).model_copy(update=fields | more)


def faces(name: str, method: str, dataset: str, apart: float, seed: list[int], videos: int) -> pd.DataFrame:
    """Scores of a set; how hard a video is depends on the set alone, so that detectors are alike in it."""
    label = np.repeat([0, 1], videos)
    shared = np.random.default_rng([ord(letter) for letter in name])
    hard = np.repeat(shared.normal(size=2 * videos), FRAMES)
    noise = 0.3 * np.random.default_rng(seed).normal(size=len(hard))
    logit = apart * (2 * np.repeat(label, FRAMES) - 1) / 2 + hard + noise
    return pd.DataFrame(
        {
            "dataset": dataset,
            "method": np.repeat(np.where(label == 1, method, "real"), FRAMES),
            "video": np.repeat([f"{i % videos:03d}" for i in range(2 * videos)], FRAMES),
            "frame": np.tile(np.arange(FRAMES), 2 * videos),
            "key": [f"{name}/{i}" for i in range(2 * videos * FRAMES)],
            "label": np.repeat(label, FRAMES),
            "score": (1 / (1 + np.exp(-logit))).astype(np.float32),
        }
    )


def scored_study(
    folder: Path,
    name: str,
    apart: Callable[[Cell, str], float],
    seeds: tuple[int, ...] = (0,),
    videos: int = 20,
    changed: Callable[[Cell, str], float] | None = None,
    only: Callable[[Cell], bool] = lambda cell: True,
) -> Path:
    """runs/<grid>/ of a shipped grid with a record and scores for every cell.

    Args:
        folder: to write; its name becomes the grid's own.
        name: of the grid, such as "pim/table4".
        apart: (cell, test set) -> distance between the mean logits of real and fake videos.
        seeds: of the grid.
        videos: of each class in each set.
        changed: the same after the change of shallow statistics; None: nothing is probed.
        only: the cells that get a record.
    """
    study = seeded(name, seeds)
    home = folder / study.name
    write_index(study, home)
    for number, cell in enumerate(filter(only, study.cells())):
        sets = [("val", "val", "source-val", "source", "mini-a")]
        sets += [(t.name, "test", t.role, (t.methods or ["fake"])[0], t.store) for t in cell.tests]
        drawn = []
        for at, (test, split, role, method, store) in enumerate(sets):
            found = faces(test, method, store, apart(cell, test), [number, at, cell.seed], videos)
            drawn.append(found.assign(epoch=2.0, step=20, split=split, test=test, role=role))
        scores = pd.concat(drawn, ignore_index=True)[list(SCORE_COLUMNS)]
        target = home / cell.id
        target.mkdir(parents=True)
        as_record(cell, measured(scores)).save(target / "record.json")
        scores.to_parquet(target / "scores.parquet", index=False)
        if changed is not None:
            probe(target, cell, scores, changed, number, videos)
    return home


def probe(target: Path, cell: Cell, scores: pd.DataFrame, changed: Callable[[Cell, str], float], number: int, videos: int) -> None:
    """probes/statistics.json and .parquet, as the probe writes them."""
    nothing = pd.DataFrame(columns=["dataset", "method", "video", "label"])
    rows, effects = [], []
    for at, test in enumerate(cell.tests):
        method = (test.methods or ["fake"])[0]
        before = scores[scores["test"] == test.name][FACE_COLUMNS]
        after = faces(test.name, method, test.store, changed(cell, test.name), [number, 7 + at, cell.seed], videos)[FACE_COLUMNS]
        one = EvaluationSet(test.name, "test", test.role, nothing, None)  # type: ignore[arg-type]
        effects += _effects(one, (before, after), cell.protocol)
        rows += [of.assign(test=test.name, changed=when) for when, of in (("before", before), ("after", after))]
    path = target / "probes" / "statistics.json"
    path.parent.mkdir()
    pd.concat(rows, ignore_index=True).to_parquet(path.with_suffix(".parquet"), index=False)
    StatisticsReport(
        cell=cell.id,
        detector=cell.detector.title,
        optimizer=cell.optimizer.title,
        seed=cell.seed,
        step=20,
        checkpoint="c0ffee" * 10,
        code="c0de" * 16,
        stores=provenance().stores,
        device="cpu",
        modules=("layer1",),
        settings=StatisticsSettings(),
        effects=tuple(effects),
        scores=sha256(path.with_suffix(".parquet").read_bytes()).hexdigest(),
    ).save(path)
