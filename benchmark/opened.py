"""A finished cell opened again: its detector with the trained weights, and the faces that it was evaluated on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from benchmark import checkpoint
from benchmark.circumstances import check_same
from benchmark.config import Cell, ConfigError
from benchmark.data import FaceFrames, without_face
from benchmark.decoded import CachedImages
from benchmark.evaluate import EvaluationSet
from benchmark.reads import open_stores, select
from benchmark.restore import Restored, restore
from benchmark.testing import Report


@dataclass(frozen=True)
class Opened:
    """What `open_trained` found.

    Attributes:
        cell: its settings.
        restored: the detector at its last step.
        tests: the test sets by name, in the cell's order.
        stores: name of each face store -> its fingerprint.
    """

    cell: Cell
    restored: Restored
    tests: dict[str, EvaluationSet]
    stores: dict[str, str]


def read_cell(path: Path, data: Path) -> tuple[Cell, dict[str, str]]:
    """The settings of a checkpoint's cell, and the fingerprints of its stores, which are as they were.

    Raises:
        ConfigError: no checkpoint of a cell; stores that are not there or have changed.
    """
    state = checkpoint.load(path)
    try:
        cell, then = Cell.model_validate(state["cell"]), dict(state["stores"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ConfigError(f"{path} is no checkpoint of a dfgrid cell of this version") from error
    now = {name: store.fingerprint for name, store in open_stores(cell, data).items()}
    check_same(path, then, now, "content of store")
    return cell, now


def open_trained(
    path: Path,
    data: Path,
    device: str = "cpu",
    names: Iterable[str] | None = None,
    report: Report = lambda stage, done, total: None,
) -> Opened:
    """Open a checkpoint with its test faces.

    Args:
        path: checkpoint.pt.
        data: folder that relative store names belong to.
        device: torch's name of the device.
        names: of test sets; None takes all.
        report: told (stage, done, total).

    Raises:
        ConfigError: no checkpoint of a cell, stores that are not there or have changed, no such test set.
    """
    cell, fingerprints = read_cell(path, data)
    known = [test.name for test in cell.tests]
    wanted = known if names is None else list(names)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"cell {cell.id} has no test set '{name}'; it has {', '.join(known)}")
    stores = open_stores(cell, data)
    restored = restore(path, device)
    _, evaluated = select(cell, stores)
    tests = {}
    for test in (t for t in cell.tests if t.name in wanted):
        images = CachedImages(stores[test.store], restored.detector.size, partial(report, f"decode {test.store}")).images
        rows, methods = evaluated[test.name]
        missing = without_face(stores[test.store].ledger, methods, test.split)
        tests[test.name] = EvaluationSet(test.name, "test", test.role, missing, FaceFrames(rows, methods, images))
    return Opened(cell, restored, tests, fingerprints)
