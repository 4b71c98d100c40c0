"""The stores that a cell reads, the rows that it takes of them, and what is to be said about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.config import Cell, ConfigError
from benchmark.data import choose, split_warnings
from benchmark.face_settings import face_warnings
from benchmark.frame_pick import VIDEO
from benchmark.mini import drawn_warnings
from benchmark.self_blended import choose_source
from preprocessing.store import FaceStore


def open_stores(cell: Cell, data: Path) -> dict[str, FaceStore]:
    """Every store that the cell reads, by the name that the grid gives it.

    Raises:
        ConfigError: a test set is of the training store under another name, by which its role was not checked.
    """
    stores = {name: FaceStore(data / name) for name in cell.stores()}
    home = stores[cell.train.store]
    for test in cell.tests:
        if test.store != cell.train.store and stores[test.store].fingerprint == home.fingerprint:
            raise ConfigError(
                f"tests: '{test.name}' is of store {test.store}, which has the very content of the training store "
                f"{cell.train.store}: name it as train does, so that its role and its split are checked"
            )
    return stores


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
        *seen_warnings(cell, stores),
        *face_warnings(cell.train, cell.tests, made),
    ]


def seen_warnings(cell: Cell, stores: dict[str, FaceStore]) -> list[str]:
    """Sentences about test sets of other stores that hold videos of the training data: at another compression, say."""
    home = stores[cell.train.store].manifest
    used = home["split"].isin((cell.train.train_split, cell.train.val_split)) & home["method"].isin([*cell.train.methods, "real"])
    seen = set(home.loc[used, VIDEO].itertuples(index=False, name=None))
    found = []
    for test in cell.tests:
        if test.store == cell.train.store:
            continue
        rows = stores[test.store].manifest
        rows = rows if test.methods is None else rows[rows["method"].isin([*test.methods, "real"])]
        tested = set(rows.loc[rows["split"] == test.split, VIDEO].itertuples(index=False, name=None))
        if shared := sorted(tested & seen):
            dataset, method, video = shared[0]
            found.append(
                f"{len(shared)} of the {len(tested)} videos of test set '{test.name}' are by their names trained or validated on, "
                f"too ({dataset} {method} {video}, ...): what is measured on store {test.store} says less about unseen videos"
            )
    return found


def faces_of(store: FaceStore) -> dict[str, Any]:
    """What a checkpoint keeps of its training faces: the settings that they were made with, and what the store notes of them."""
    return {"settings": store.info["settings"], "notes": store.info.get("notes", [])}
