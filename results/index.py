"""A grid's folder: what it wanted, what is there, and why the rest is not."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field, model_validator

from results.files import FORMAT, RecordError, dump, read_model, write_atomically
from results.record import Record, Role, Strict
from results.rows import METHOD, MixedRow, check_rows

NOT_RUN = "not run yet"
FAILURE = "failure.json"
"""Beside a cell's record, or in its place: why it failed."""


class WantedTest(Strict):
    """A test set of the grid."""

    name: str = Field(min_length=1)
    role: Role
    part: str = ""


class WantedCell(Strict):
    """A cell of the grid; detector and optimizer are named as tables name them (the label, else the registry name).

    `optimizer_name` is the registry name of the optimizer, where its title is another. Two parts may want one cell: one `id`.
    """

    id: str = Field(min_length=1)
    detector: str
    optimizer: str
    seed: int
    optimizer_name: str = ""
    part: str = ""


class GridFile(Strict):
    """Content of grid.json: what a grid wants, written before its first cell starts.

    A grid of several parts (training sets, say) has tests and cells of each; a grid of one part leaves `part` empty.
    """

    format: Literal[1] = FORMAT
    name: str
    title: str = ""
    tests: tuple[WantedTest, ...]
    cells: tuple[WantedCell, ...]

    @model_validator(mode="after")
    def _once(self) -> GridFile:
        for what, names in (
            ("test", [(t.part, t.name) for t in self.tests]),
            ("cell", [(c.part, c.id) for c in self.cells]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"a {what} stands there twice")
        return self

    def save(self, path: str | Path) -> None:
        """Write the file atomically."""
        write_atomically(path, dump(self))

    @property
    def parts(self) -> list[str]:
        """Names of the parts in the grid's order."""
        return list(dict.fromkeys(c.part for c in self.cells))

    @property
    def detectors(self) -> list[str]:
        """Titles in the grid's order."""
        return list(dict.fromkeys(c.detector for c in self.cells))

    @property
    def optimizers(self) -> list[str]:
        """Titles in the grid's order."""
        return list(dict.fromkeys(c.optimizer for c in self.cells))

    @property
    def seeds(self) -> list[int]:
        """Seeds in the grid's order."""
        return list(dict.fromkeys(c.seed for c in self.cells))


def save_failure(path: str | Path, reason: str) -> None:
    """Write a cell's failure.json atomically: why it has no record."""
    write_atomically(path, (json.dumps({"reason": reason}, indent=1, ensure_ascii=False) + "\n").encode())


@dataclass(frozen=True)
class GridIndex:
    """A grid with its records.

    Attributes:
        grid: what was wanted.
        records: cell id -> record, in the grid's order.
        reasons: cell id -> why there is no record, for every other cell.
        folder: that was read, which holds the cells' scores; None for an index that was put together by hand.
    """

    grid: GridFile
    records: dict[str, Record]
    reasons: dict[str, str]
    folder: Path | None = None

    @classmethod
    def read(cls, folder: str | Path, averages: bool = True) -> GridIndex:
        """Read runs/<grid>/: grid.json, and each cell's record.json or what is there in its place.

        A record that cannot be read is a reason of its cell, not an error: it must not hide the other cells.

        Args:
            folder: `runs/<grid>`.
            averages: whether the cells of a row are to be taken for its seeds; they are looked at then.

        Raises:
            RecordError: no such folder, or its grid.json is missing or broken (the sentence says what to run).
            MixedRow: two cells are seeds of one row though they are one seed, or though their detector or optimizer is set
                differently.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise RecordError(never_started(folder))
        grid: GridFile = read_model(GridFile, folder / "grid.json", "grid", f"run `{run_command(folder.name)}`")
        if averages:
            check_seeds(grid, folder / "grid.json")
        records: dict[str, Record] = {}
        reasons: dict[str, str] = {}
        for wanted in grid.cells:
            found = _read_cell(folder / wanted.id, wanted)
            if isinstance(found, Record):
                records[wanted.id] = found
            else:
                reasons[wanted.id] = found
        if averages:
            kept = (c for c in grid.cells if c.id in records)
            check_rows((((c.part, c.detector, c.optimizer), str(folder / c.id), records[c.id]) for c in kept), METHOD)
        return cls(grid, records, reasons, folder)

    def part(self, name: str) -> GridIndex:
        """The part of that name as a grid of its own, its name in the title.

        Raises:
            RecordError: no such part.
        """
        if name not in self.grid.parts:
            raise RecordError(
                f"grid '{self.grid.name}' has no part '{name}'; it has {', '.join(filter(None, self.grid.parts)) or 'one'}"
            )
        cells = tuple(c for c in self.grid.cells if c.part == name)
        grid = self.grid.model_copy(
            update={
                "title": f"{self.grid.title or self.grid.name}: {name}" if name else self.grid.title,
                "tests": tuple(t for t in self.grid.tests if t.part == name),
                "cells": cells,
            }
        )
        ids = {c.id for c in cells}
        return GridIndex(
            grid,
            {id_: r for id_, r in self.records.items() if id_ in ids},
            {id_: r for id_, r in self.reasons.items() if id_ in ids},
            self.folder,
        )

    def optimizer_name(self, title: str) -> str:
        """The registry name of the optimizer that tables call `title`."""
        for cell in self.grid.cells:
            if cell.optimizer == title:
                if cell.id in self.records:
                    return self.records[cell.id].optimizer.name
                if cell.optimizer_name:
                    return cell.optimizer_name
        return title


def check_seeds(grid: GridFile, path: Path) -> None:
    """A row has one number a seed.

    Raises:
        MixedRow: two cells of one row and one seed.
    """
    known: dict[tuple[str, str, str, int], str] = {}
    for c in grid.cells:
        other = known.setdefault((c.part, c.detector, c.optimizer, c.seed), c.id)
        if other != c.id:
            raise MixedRow(
                f"{path}: {other} and {c.id} are both {c.optimizer} on {c.detector} with seed {c.seed}, and a "
                "table would take them for two seeds; take one of them out of its `cells` (what it measured stays in its folder)"
            )


def run_command(name: str) -> str:
    """What starts the grid whose folder has this name; drawn runs end in "-mini"."""
    return f"dfgrid grid run {name.removesuffix('-mini')} --data mini" if name.endswith("-mini") else f"dfgrid grid run {name}"


def grid_folder(runs: Path, grid: str) -> Path:
    """Where a grid's runs lie. One that comes with dfgrid may be named as `roga/table4`; its folder has a dash there."""
    return runs / grid if (runs / grid).is_dir() else runs / grid.replace("/", "-")


def never_started(folder: Path) -> str:
    """The sentence about a grid's folder that is not there: what to run, and which grids of a like name are there."""
    near = difflib.get_close_matches(folder.name, grids_in(folder.parent), 3, 0.5)
    hint = f", or take {' or '.join(near)}, which {'is' if len(near) == 1 else 'are'} there" if near else ""
    return f"{folder} does not exist: this grid was never started; run `{run_command(folder.name)}`{hint}"


def grids_in(runs: Path) -> list[str]:
    """Names of the grids in a folder of runs; none where it is not there."""
    return sorted(path.parent.name for path in runs.glob("*/grid.json"))


def _read_cell(folder: Path, wanted: WantedCell) -> Record | str:
    """The record, or why there is none."""
    path = folder / "record.json"
    if path.exists():
        try:
            record = Record.load(path)
        except RecordError as error:
            # Tables are published: they name the file relative to the grid's folder.
            return str(error).replace(str(folder.parent) + "/", "")
        if (record.cell, record.detector.title, record.optimizer.title, record.seed) != (
            wanted.id,
            wanted.detector,
            wanted.optimizer,
            wanted.seed,
        ):
            return f"{folder.name}/record.json belongs to cell {record.cell} of grid {record.grid}; delete it, run again"
        return record
    if (folder / FAILURE).exists():
        return f"failed: {failure(folder)}"
    if (folder / "checkpoint.pt").exists():
        return f"interrupted{_after(folder)} (or still running)"
    return NOT_RUN


def failure(folder: Path) -> str:
    """Why a cell failed, in one line, from what `save_failure` wrote into its folder."""
    try:
        return " ".join(str(json.loads((folder / FAILURE).read_text(encoding="utf-8"))["reason"]).split())
    except (OSError, ValueError, KeyError, TypeError):
        return f"{folder.name}/{FAILURE} cannot be read"


def _after(folder: Path) -> str:
    """Up to which epoch an unfinished cell was evaluated; nothing where its scores are not there to tell.

    While a cell runs, each evaluation point is a file of its own, scores/<step>.parquet; the end joins them.
    """
    epochs: list[float] = []
    for path in [*sorted((folder / "scores").glob("*.parquet"))[-1:], folder / "scores.parquet"]:
        try:
            epochs += pd.read_parquet(path, columns=["epoch"])["epoch"].tolist()
        except (OSError, ValueError, KeyError):
            continue
    return f" after epoch {max(epochs):g}" if epochs else ""
