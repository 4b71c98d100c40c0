"""Grids whose ids, records and scores belong together as a real run's do, from drawn scores in place of training."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results_grids import provenance

from benchmark.circumstances import settings_used
from benchmark.config import Cell, Grid
from benchmark.evaluate import ScoredSet, measures
from benchmark.protocol import Protocol
from results.index import GridFile, GridIndex, WantedCell, WantedTest
from results.record import Measure, Record
from results.report import ReadGrid

FINGERPRINTS = {"stores/a": "a" * 64, "stores/b": "b" * 64}


def grid(**more: Any) -> Grid:
    """Two optimizers, two seeds, one detector; NeuralTextures held out, and a set of another store."""
    content: dict[str, Any] = {
        "name": "small",
        "title": "A small grid",
        "train": {"store": "stores/a", "methods": ["Deepfakes", "Face2Face", "FaceSwap"]},
        "tests": [
            {"name": "NeuralTextures", "store": "stores/a", "methods": ["NeuralTextures"], "role": "held-out"},
            {"name": "CDFv2", "store": "stores/b", "role": "cross-dataset"},
        ],
        "detectors": [{"name": "meso4"}],
        "optimizers": ["sgd", {"name": "roga", "label": '<b>RoGA</b> & "co"'}],
        "seeds": [0, 1],
        "protocol": {"epochs": 2, "batch_size": 24},
    }
    return Grid.model_validate(content | more)


def scores_of(cell: Cell, shift: float = 0.0, only_fake: str = "") -> pd.DataFrame:
    """Scores at two evaluations: 6 real and 6 fake videos of 3 frames a set; `only_fake` names a set without real ones."""
    random = np.random.default_rng(abs(hash_of(cell.id)) + int(1000 * shift))
    rows = []
    for step in (10, 20):
        for test, split, role in [("val", "val", "source-val"), *((t.name, "test", t.role) for t in cell.tests)]:
            for number in range(12):
                label = 1 if test == only_fake else number % 2
                for frame in range(3):
                    score = float(np.clip(random.normal(0.4 + 0.2 * label, 0.2), 0, 1))
                    method, key = ("fakes" if label else "real"), f"{test}/{number:02d}/{frame}"
                    rows.append((step / 10, step, split, test, role, "set", method, f"v{number:02d}", frame, key, label, score))
    columns = ["epoch", "step", "split", "test", "role", "dataset", "method", "video", "frame", "key", "label", "score"]
    return pd.DataFrame(rows, columns=columns).astype({"score": "float32"})


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode()[-4:], "big")


_MEASURED: dict[str, list[Measure]] = {}


def measured(scores: pd.DataFrame, protocol: Protocol) -> list[Measure]:
    """The measures of some scores, computed once."""
    key = sha256(f"{scores.to_csv(index=False)}{protocol}".encode()).hexdigest()
    if key not in _MEASURED:
        found = []
        for (step, test), rows in scores.groupby(["step", "test"], sort=False):
            first = rows.iloc[0]
            missing = pd.DataFrame([], columns=["dataset", "method", "video", "label"])
            of = ScoredSet(str(test), first["split"], first["role"], missing)
            found += measures(rows, of, float(first["epoch"]), int(step), protocol)
        _MEASURED[key] = found
    return _MEASURED[key]


def record_of(cell: Cell, scores: pd.DataFrame, **more: Any) -> Record:
    fields: dict[str, Any] = {
        **settings_used(cell),
        "data": {"train": cell.train.model_dump(mode="json"), "tests": [t.model_dump(mode="json") for t in cell.tests]},
        "parameters": 28000,
        "steps": 20,
        "measures": tuple(measured(scores, cell.protocol)),
        "losses": ((10, 0.7), (20, 0.6)),
        "warnings": ("<i>mind</i> the gap",),
        "provenance": provenance(stores=FINGERPRINTS),
    }
    return Record(**(fields | more))


def grid_file(of: Grid) -> GridFile:
    cells = tuple(
        WantedCell(id=c.id, detector=c.detector.title, optimizer=c.optimizer.title, seed=c.seed, optimizer_name=c.optimizer.name)
        for c in of.cells()
    )
    return GridFile(name=of.name, title=of.title, tests=tuple(WantedTest(name=t.name, role=t.role) for t in of.tests), cells=cells)


def write_cell(folder: Path, cell: Cell, shift: float = 0.0, only_fake: str = "", **more: Any) -> None:
    """A finished cell's files."""
    target = folder / cell.id
    target.mkdir(parents=True, exist_ok=True)
    scores = scores_of(cell, shift, only_fake)
    scores.to_parquet(target / "scores.parquet", index=False)
    record_of(cell, scores, **more).save(target / "record.json")


def write_grid(runs: Path, of: Grid, leave_out: int = 0, only_fake: str = "") -> Path:
    """runs/<grid>/ with every cell but the last `leave_out`."""
    folder = runs / of.name
    folder.mkdir(parents=True, exist_ok=True)
    grid_file(of).save(folder / "grid.json")
    cells = of.cells()
    for cell in cells[: len(cells) - leave_out]:
        write_cell(folder, cell, only_fake=only_fake)
    return folder


def many(count: int) -> ReadGrid:
    """A grid of so many cells in memory, each with measures of its own."""
    of = grid(seeds=list(range(count // 2)))
    first = of.cells()[0]
    model = record_of(first, scores_of(first))
    wanted, records = grid_file(of), {}
    for number, cell in enumerate(wanted.cells):
        moved = [
            m.model_copy(update={"auc": None if m.auc is None else round((m.auc * 997 + number) % 1, 6)}) for m in model.measures
        ]
        used = {"cell": cell.id, "seed": cell.seed, "measures": tuple(moved)}
        records[cell.id] = model.model_copy(update=used)
    return ReadGrid(Path(of.name), GridIndex(wanted, records, {}))
