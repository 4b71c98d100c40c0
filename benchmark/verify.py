"""Whether a cell is what it claims: its id follows from its settings, its measures from its scores."""

from __future__ import annotations

from itertools import product
from typing import cast

import numpy as np
import pandas as pd

from benchmark.config import settings_hash
from benchmark.metrics import measure, per_video
from results.record import METRICS, Level, Record, RecordError, Split

TOLERANCE = 1e-6
"""Measures are computed from float32 scores; another machine's or library's last digits are no contradiction."""


def check_id(record: Record) -> None:
    """Refuse a record whose settings do not give the id that it claims.

    The settings are taken as the record holds them, so that one that is older than some setting keeps its id.

    Raises:
        RecordError: names the id that they give.
    """
    d, o = record.detector, record.optimizer
    # A record names what tables call a thing; whether the grid gave that as a label or it is the name itself is not kept.
    labels = [sorted({title, "" if title == name else title}) for title, name in ((d.title, d.name), (o.title, o.name))]
    found = []
    for detector, optimizer in product(*labels):
        settings = {
            "detector": {"name": d.name, "label": detector, "bases": {}, **d.settings},
            "optimizer": {"name": o.name, "label": optimizer, "base": None, **o.settings},
            "base": {"name": o.base, **o.base_settings},
            "seed": record.seed,
            "train": record.data.get("train", {}),
            "tests": record.data.get("tests", []),
            "protocol": record.protocol,
        }
        found.append(settings_hash(settings))
    if record.cell.rsplit("-", 1)[-1] not in found:
        raise RecordError(
            f"cell {record.cell}: the settings in its record give an id that ends in {found[0]}; "
            "they are not those that it was run with"
        )


def check_measures(record: Record, scores: pd.DataFrame) -> None:
    """Compute every measure anew from the scores.

    Args:
        record: of the cell.
        scores: as `results.scores.load_scores` gives them.

    Raises:
        RecordError: a measure that differs, or has no scores, or scores without a measure; names the first.
    """
    claimed = {(m.step, m.split, m.test, m.level): m for m in record.measures}
    for key, rows in scores.groupby(["step", "split", "test"], sort=True, observed=True):
        step, split, test = cast("tuple[int, Split, str]", key)
        levels: tuple[tuple[Level, pd.DataFrame], ...] = (("frame", rows), ("video", per_video(rows)))
        for level, table in levels:
            where = f"cell {record.cell}: {test}, {level} level, step {step}"
            m = claimed.pop((step, split, test, level), None)
            if m is None:
                raise RecordError(f"{where}: scores.parquet has scores that record.json does not know of")
            labels = table["label"].to_numpy(np.int64)
            if (int((labels == 0).sum()), int((labels == 1).sum())) != (m.n_real, m.n_fake):
                raise RecordError(
                    f"{where}: the scores are of other faces than the {m.n_real} real and {m.n_fake} fake of the record"
                )
            values, _ = measure(labels, table["score"].to_numpy(np.float64))
            for metric in METRICS:
                here, there = values[metric], m.value(metric)
                if (here is None) != (there is None) or (here is not None and there is not None and abs(here - there) > TOLERANCE):
                    raise RecordError(f"{where}: {metric} is {_said(here)} by the scores and {_said(there)} by the record")
    if claimed:
        step, _, test, level = next(iter(claimed))
        raise RecordError(f"cell {record.cell}: {test}, {level} level, step {step}: the record has measures without scores")


def _said(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.6f}"
