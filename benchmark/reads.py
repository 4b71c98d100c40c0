"""The stores that a cell reads, the rows that it takes of them, and what is to be said about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.config import Cell
from benchmark.data import choose, split_warnings
from benchmark.face_settings import face_warnings
from benchmark.mini import drawn_warnings
from benchmark.self_blended import choose_source
from preprocessing.store import FaceStore


def open_stores(cell: Cell, data: Path) -> dict[str, FaceStore]:
    """Every store that the cell reads, by the name that the grid gives it."""
    return {name: FaceStore(data / name) for name in cell.stores()}


def select(
    cell: Cell, stores: dict[str, FaceStore]
) -> tuple[tuple[pd.DataFrame, tuple[str, ...]], dict[str, tuple[pd.DataFrame, tuple[str, ...]]]]:
    """The rows that the cell trains on, and those of each evaluation set (`val` and the tests), with their methods.

    Raises:
        ConfigError: a store lacks a method or split that the cell asks for.
    """
    training, val = choose_source(cell.train, stores[cell.train.store].manifest)
    evaluated = {"val": val}
    for test in cell.tests:
        manifest = stores[test.store].manifest
        evaluated[test.name] = choose(manifest, test.store, test.methods, test.split, test.frames, test.frame_pick)
    return training, evaluated


def cell_warnings(cell: Cell, stores: dict[str, FaceStore]) -> list[str]:
    """Sentences about what makes the cell's numbers say less than they seem to: its splits, and faces made in different ways."""
    made = {name: store.info["settings"] for name, store in stores.items()}
    return [
        *drawn_warnings(cell, stores),
        *split_warnings(cell.train, cell.tests),
        *face_warnings(cell.train, cell.tests, made),
    ]


def faces_of(store: FaceStore) -> dict[str, Any]:
    """What a checkpoint keeps of its training faces: the settings that they were made with, and what the store notes of them."""
    return {"settings": store.info["settings"], "notes": store.info.get("notes", [])}
