"""A cell that takes a second, for tests of what runs cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmark.checkpoint import load
from benchmark.config import Cell, Grid
from results.record import Record
from results.scores import load_scores

CONTENT: dict[str, Any] = {
    "name": "small",
    "train": {"store": "stores/mini-a", "methods": ["Deepfakes", "Face2Face"]},
    "tests": [{"name": "mini-b", "store": "stores/mini-b", "role": "cross-dataset"}],
    "detectors": [{"name": "resnet10", "size": 32, "width": 4}],
    "optimizers": [{"name": "roga", "base": "adam"}],
    "bases": {"adam": {"lr": 0.001}},
    "seeds": [0],
    "protocol": {"epochs": 1, "batch_size": 8, "augment": "light"},
}


def grid(**changes: Any) -> Grid:
    return Grid.model_validate({**CONTENT, **changes})


def cell(**changes: Any) -> Cell:
    return grid(**changes).cells()[0]


def assert_same(one: Path, other: Path, weights: bool = True) -> None:
    """Weights, scores and the whole record but where and when it was made."""
    if weights:
        a, b = (load(folder / "checkpoint.pt")["detector"] for folder in (one, other))
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), name
    pd.testing.assert_frame_equal(*(load_scores(f / "scores.parquet") for f in (one, other)), check_exact=True)
    first, second = (Record.load(f / "record.json").model_dump(mode="json") for f in (one, other))
    for record in (first, second):
        for name in ("started", "finished", "seconds", "restarts", "energy"):
            del record["provenance"][name]
    assert first == second
