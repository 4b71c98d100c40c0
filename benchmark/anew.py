"""A finished cell whose scores were lost: what of it is made anew, and from what."""

from __future__ import annotations

from pathlib import Path

from benchmark import provenance
from benchmark.checkpoint import LAST
from benchmark.testing import Scores
from results.record import Record
from results.scores import lost_scores

PREVIOUS = "record.previous.json"
"""Where the record of a cell stays whose scores were lost, once there are others."""


def what_is_made_anew(folder: Path) -> str:
    """A sentence about a cell's folder with a record whose scores are lost; "" where nothing is.

    Raises:
        RecordError: the record cannot be read.
    """
    path = folder / "record.json"
    if not path.exists() or not (lost := lost_scores(folder / "scores.parquet")):
        return ""
    record = Record.load(path)
    points, there = len({m.step for m in record.measures}), (folder / LAST).exists()
    if there and Scores(folder).scores.is_dir():
        said = "what was begun anew goes on"
    elif there and points == 1:
        said = "the weights of its checkpoint are scored again"
    else:
        why = f"it was evaluated {points} times, and only its last weights are kept" if there else f"its {LAST} is gone too"
        code = "" if record.provenance.code == provenance.code_hash() else ", by other code than its record's"
        said = f"it is trained again{code}: {why}"
    return f"{folder / 'scores.parquet'} {lost}, so {said}; its record stays until the new scores are there, and then as {PREVIOUS}"


def keep_record(folder: Path) -> None:
    """Move the record away that is about to be replaced, if there is one."""
    path = folder / "record.json"
    if path.exists():
        path.replace(folder / PREVIOUS)
