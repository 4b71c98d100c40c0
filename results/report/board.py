"""What the leaderboard's script reads: every cell's numbers under every selection rule, as one compact JSON object."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

from results.files import RecordError
from results.index import GridIndex, WantedCell
from results.printed import METRIC_TITLES
from results.record import METRICS, Level, Record
from results.report import papers
from results.selection import SELECTIONS, Chosen, select
from results.settings import flat_settings, settings_in_words
from results.tables import LOWER_IS_BETTER
from results.tidy import protocol_label

LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class ReadGrid:
    """A grid and where it lies."""

    folder: Path
    index: GridIndex


@dataclass
class Board:
    """The island, while it is filled, and what pages need of it.

    Attributes:
        tests: test set -> column; two sets of one name that do not hold the same faces are two columns.
        protocols: label -> settings in words.
        reasons: why a number is missing -> its place; the island holds -1 - place instead of the number.
        warnings: sentence of a record -> its place.
        cells: one object a cell.
        measured: place in `cells`, record, and its test sets' columns, for every record.
    """

    tests: dict[tuple[str, str, str, str, str], dict[str, Any]] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    warnings: dict[str, int] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)
    measured: list[tuple[int, Record, dict[str, int]]] = field(default_factory=list)

    def missing(self, reason: str) -> int:
        """The negative number that stands for a reason."""
        return -1 - self.reasons.setdefault(reason, len(self.reasons))


def page_name(grid: str, cell: str) -> str:
    """A file name for a cell's page that no name can break: letters, digits and a short hash."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{grid}-{cell}").strip("-")[:80]
    return f"{slug}-{sha256(f'{grid}/{cell}'.encode()).hexdigest()[:6]}.html"


def island(grids: Sequence[ReadGrid], problems: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """The leaderboard's data: what was measured, and the papers' rows that match it.

    Args:
        grids: what is shown.
        problems: (grid, cell id) -> why the cell's numbers are in doubt.
    """
    board = Board()
    names = [g.index.grid.name for g in grids]
    for number, read in enumerate(grids):
        for cell in read.index.grid.cells:
            board.cells.append(_cell(board, number, read, cell, problems.get((names[number], cell.id), "")))
    columns = list(board.tests.values())
    for column in columns:
        column["title"] = _title(column, [c for c in columns if (c["name"], c["role"]) == (column["name"], column["role"])])
    return {
        "grids": names,
        "selections": [{"name": s.name, "label": s.label, "oracle": s.oracle, "sentence": s.sentence} for s in SELECTIONS.values()],
        "levels": list(LEVELS),
        "metrics": [
            {"name": m, "title": METRIC_TITLES[m], "percent": m != "log_loss", "low": m in LOWER_IS_BETTER} for m in METRICS
        ],
        "tests": columns,
        "protocols": [{"label": label, "words": words} for label, words in board.protocols.items()],
        "reasons": list(board.reasons),
        "warnings": list(board.warnings),
        "cells": board.cells,
        "reported": papers.rows(board.measured),
    }


def _cell(board: Board, grid: int, read: ReadGrid, cell: WantedCell, problem: str) -> dict[str, Any]:
    record = read.index.records.get(cell.id)
    found: dict[str, Any] = {
        "g": grid,
        "part": cell.part,
        "d": cell.detector,
        "o": cell.optimizer,
        "s": cell.seed,
        "page": f"cells/{page_name(read.index.grid.name, cell.id)}",
        "p": -1,
        "doubt": problem,
        "w": [],
        "why": 0,
        "v": {},
    }
    if record is None:
        found["why"] = board.missing(read.index.reasons.get(cell.id, "not run yet"))
        return found
    label = protocol_label(record)
    board.protocols.setdefault(label, settings_in_words(record.protocol))
    found["p"] = list(board.protocols).index(label)
    found["w"] = [board.warnings.setdefault(sentence, len(board.warnings)) for sentence in record.warnings]
    found["v"] = _values(board, record)
    return found


def _values(board: Board, record: Record) -> dict[int, list[float]]:
    """Column -> the numbers under each selection rule, level and metric, in that order; a negative one is a reason."""
    chosen: dict[str, dict[tuple[str, Level], Chosen]] = {}
    failed: dict[str, str] = {}
    for name, rule in SELECTIONS.items():
        try:
            chosen[name] = {(c.test, c.level): c for c in select(record.measures, rule)}
        except RecordError as error:
            chosen[name], failed[name] = {}, str(error)
    values: dict[int, list[float]] = {}
    columns: dict[str, int] = {}
    for test, role in dict.fromkeys((m.test, m.role) for m in record.measures if m.role != "source-val"):
        numbers: list[float] = []
        for name in SELECTIONS:
            for level in LEVELS:
                c = chosen[name].get((test, level))
                for metric in METRICS:
                    value = c.metrics[metric] if c else None
                    if value is not None:
                        numbers.append(round(value, 6))
                    elif c:
                        numbers.append(board.missing(f"{METRIC_TITLES[metric]} not defined: {c.undefined[metric]}"))
                    else:
                        numbers.append(board.missing(failed.get(name, "not evaluated")))
        columns[test] = _column(board, record, test, role)
        values[columns[test]] = numbers
    board.measured.append((len(board.cells), record, columns))
    return values


def test_data(record: Record, test: str) -> dict[str, Any]:
    """What the record says of a test set's data; empty where it says nothing."""
    found = [t for t in record.data.get("tests", []) if isinstance(t, dict) and t.get("name") == test]
    return dict(found[0]) if found else {}


def _column(board: Board, record: Record, test: str, role: str) -> int:
    store = str(test_data(record, test).get("store", ""))
    fingerprint = record.provenance.stores.get(store, "")[:12]
    # In-domain data are another set for another training set, whatever they are called.
    trained = "/".join(record.data.get("train", {}).get("methods", ())) if role == "in-domain" else ""
    younger = {"frames": "none", "frame_pick": "uniform"}  # what records of before these settings were made with
    faces = younger | flat_settings({k: v for k, v in test_data(record, test).items() if k not in ("name", "role", "store")})
    key = (test, role, fingerprint or store, trained, settings_in_words(faces))
    if key not in board.tests:
        board.tests[key] = {
            "name": test,
            "role": role,
            "store": store,
            "fingerprint": fingerprint,
            "trained": trained,
            "faces": faces,
        }
    return list(board.tests).index(key)


def _title(column: dict[str, Any], alike: list[dict[str, Any]]) -> str:
    """A test set's name, and what tells it from others of that name and role."""
    told = {"": {c["trained"] for c in alike}, "store": {c["fingerprint"] or c["store"] for c in alike}}
    keys = dict.fromkeys(key for c in alike for key in c["faces"])
    told |= {key: {c["faces"].get(key, "") for c in alike} for key in keys}
    own = {"": column["trained"], "store": column["fingerprint"] or column["store"], **column["faces"]}
    if len(told[""]) > 1:
        told["methods"] = set()  # in-domain, they are what was trained on
    words = [f"{key} {own.get(key, 'not set')}".strip() for key, values in told.items() if len(values) > 1]
    return ", ".join([column["name"], *words])
