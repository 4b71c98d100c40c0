"""From records to tidy rows: one number a row, or the reason why there is none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from typing import get_args

import pandas as pd

from results.files import RecordError
from results.index import GridIndex
from results.printed import METRIC_TITLES
from results.record import METRICS, Level, Metric, Record
from results.resampled import Resampled
from results.selection import Chosen, select, selection_named

TIDY_COLUMNS = (
    *("grid", "part", "optimizer", "detector", "seed"),
    *("test", "role", "level", "metric"),
    *("value", "ci_low", "ci_high", "n", "reason"),
    *("selection", "protocol", "cell"),
)


def protocol_label(record: Record) -> str:
    """Name of the protocol and a short hash of all its settings: equal labels mean equal protocols."""
    digest = hashlib.sha256(json.dumps(record.protocol, sort_keys=True).encode()).hexdigest()[:8]
    return f"{record.protocol.get('name', 'protocol')}-{digest}"


def tidy(index: GridIndex, selection: str = "source_val", resampled: Resampled | None = None) -> pd.DataFrame:
    """One row per cell, test set, level and metric; also for cells without a record, with the reason in place of the value.

    Args:
        index: the grid.
        selection: key of `SELECTIONS`.
        resampled: the bootstrap draws of the same grid and selection, for intervals of the AUC; None leaves them out.

    Returns:
        Columns `TIDY_COLUMNS`. value: in the metric's own unit (fractions, nats), NaN where reason is not empty.
        ci_low, ci_high: 95% interval of an AUC over videos (cluster bootstrap), NaN for other metrics and where there are no
        scores or too few videos.
        n: examples (frames or videos) behind the value, 0 where there is none.

    Raises:
        RecordError: no such selection.
    """
    rule = selection_named(selection)
    rows = []
    for cell in index.grid.cells:
        record = index.records.get(cell.id)
        chosen: list[Chosen] = []
        reason = index.reasons.get(cell.id, "not evaluated on this test set")
        if record is not None:
            try:
                chosen = select(record.measures, rule)
            except RecordError as error:
                reason = str(error)
        found = {(c.test, c.level): c for c in chosen}
        protocol = protocol_label(record) if record else ""
        for test in (t for t in index.grid.tests if t.part == cell.part):
            for level in get_args(Level):
                c = found.get((test.name, level))
                for metric in METRICS:
                    value = c.metrics[metric] if c else None
                    why = "" if value is not None else _undefined(metric, c) if c else reason
                    who = (index.grid.name, cell.part, cell.optimizer, cell.detector, cell.seed)
                    where = (*who, test.name, test.role, level, metric)
                    rows.append(
                        (
                            *where,
                            value,
                            *_interval(resampled, cell.id, test.name, level, metric),
                            c.n if c else 0,
                            why,
                            rule.label,
                            protocol,
                            cell.id,
                        )
                    )
    frame = pd.DataFrame(rows, columns=list(TIDY_COLUMNS))
    return frame.astype(dict.fromkeys(("value", "ci_low", "ci_high"), "float64") | {"n": "int64", "seed": "int64"})


def _interval(resampled: Resampled | None, cell: str, test: str, level: Level, metric: Metric) -> tuple[float, float]:
    if resampled is not None and metric == "auc":
        with contextlib.suppress(RecordError):
            return resampled.of(cell, test, level).interval
    return math.nan, math.nan


def _undefined(metric: Metric, chosen: Chosen) -> str:
    return f"{METRIC_TITLES[metric]} not defined: {chosen.undefined[metric]}"
