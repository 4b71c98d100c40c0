"""How many faces the cells' data have: counted where a store is there, else from the dataset's published counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.config import Cell
from benchmark.data import FaceFrames, choose
from benchmark.expected import SAMPLED, Expected, Faces, layout_of
from benchmark.protocol import Protocol
from benchmark.self_blended import choose_source, training_batches
from benchmark.specs import TestSet, TrainData
from benchmark.train import points
from preprocessing.layouts import Layout
from preprocessing.store import INFO, FaceStore

NO_PIXELS: Any = None
"""They do not matter for counting steps."""


@dataclass(frozen=True)
class Need:
    """A store that the grid reads.

    Attributes:
        name: as the grid names it.
        path: where it must be.
        there: whether it is.
        layout: the dataset's layout, by its name; None where that is not known.
        faces: in the whole store; of a missing one an estimate from the dataset's published counts, or None.
    """

    name: str
    path: Path
    there: bool
    layout: Layout | None
    faces: int | None

    @property
    def command(self) -> str:
        """What makes it out of the dataset's folder."""
        name = Path(self.name).name
        compression = f" --compression {name.rpartition('-')[2]}" if name.endswith(("-c23", "-c40", "-raw")) else ""
        layout = f" --layout {self.layout.name}" if self.layout else ""
        return f"dfgrid preprocess FOLDER{layout}{compression} --frames {SAMPLED} --out {self.path}"


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation comes to: `rows` of scores, and `faces` that go through the detector."""

    rows: int
    faces: int


class Sizes:
    """How many faces the cells' data have: counted where the store is there, else from the dataset's published counts.

    Args:
        cells: whose data.
        data: folder that relative store names belong to.
    """

    def __init__(self, cells: Sequence[Cell], data: Path) -> None:
        self.needs: dict[str, Need] = {}
        self.uncertain: list[str] = []
        self._manifests: dict[str, Any] = {}
        self._steps: dict[str, int | None] = {}
        self._evaluations: dict[str, Evaluation | None] = {}
        for name in dict.fromkeys(store for cell in cells for store in cell.stores()):
            path, layout = data / name, layout_of(name)
            if (path / INFO).exists():
                manifest = FaceStore(path).manifest
                self._manifests[name] = manifest
                self.needs[name] = Need(name, path, True, layout, len(manifest))
            else:
                self.needs[name] = Need(name, path, False, layout, Expected(layout).faces() if layout else None)

    def steps(self, cell: Cell) -> int | None:
        """Training steps of an epoch: those of the run itself where the store is there; None where nothing is known of it."""
        t, p = cell.train, cell.protocol
        key = f"{t} {p.batch_size} {p.class_balance} {p.duplicates}"
        if key not in self._steps:
            self._steps[key] = self._count_steps(cell)
        return self._steps[key]

    def _count_steps(self, cell: Cell) -> int | None:
        t, p = cell.train, cell.protocol
        if t.store in self._manifests:
            (rows, domains), _ = choose_source(t, self._manifests[t.store])
            return training_batches(t, p, FaceFrames(rows, domains, NO_PIXELS), 0, None).steps
        found = self._expected(t, t.methods, t.train_split)
        if found is None:
            return None
        if p.class_balance == "domains":
            return -(-found.largest // (p.batch_size // (2 * len(t.methods))))
        copies = len(t.methods) if p.duplicates == "keep" else 1
        return -(-(found.faces + (copies - 1) * found.real) // p.batch_size)

    def evaluation(self, cell: Cell) -> Evaluation | None:
        """Of one evaluation; None where nothing is known of a store. A face that is in several test sets is scored once."""
        key = f"{cell.train} {cell.tests}"
        if key not in self._evaluations:
            self._evaluations[key] = self._count_evaluation(cell)
        return self._evaluations[key]

    def _count_evaluation(self, cell: Cell) -> Evaluation | None:
        rows = faces = self._validation(cell.train)
        groups: dict[tuple[Any, ...], list[TestSet]] = {}
        for test in cell.tests:
            groups.setdefault((test.store, test.split, test.frames, test.frame_pick), []).append(test)
        for of in groups.values():
            every = any(test.methods is None for test in of)
            union = None if every else tuple(dict.fromkeys(method for test in of for method in test.methods or ()))
            together, each = self._tested(of[0], union), [self._tested(test, test.methods) for test in of]
            if rows is None or faces is None or together is None or None in each:
                return None
            rows, faces = rows + sum(e or 0 for e in each), faces + together
        return None if rows is None or faces is None else Evaluation(rows, faces)

    def _tested(self, test: TestSet, methods: tuple[str, ...] | None) -> int | None:
        if test.store in self._manifests:
            return len(choose(self._manifests[test.store], test.store, methods, test.split, test.frames, test.frame_pick)[0])
        found = self._expected(test, methods, test.split)
        return None if found is None else found.faces

    def _validation(self, t: TrainData) -> int | None:
        if t.store in self._manifests:
            rows, methods = choose_source(t, self._manifests[t.store])[1]
            return len(rows) * (1 if methods else 2)  # real faces alone are given self-blended fakes
        found = self._expected(t, None if t.source == "sbi" else t.methods, t.val_split)
        return None if found is None else found.faces

    def _expected(self, of: TrainData | TestSet, methods: tuple[str, ...] | None, split: str) -> Faces | None:
        """From the dataset's published counts; what is not known of them is noted."""
        layout = self.needs[of.store].layout
        found = Expected(layout).split(split, methods, of.frames) if layout else None
        if found is None or not found.exact:
            sentence = f"{of.store}: the counts of split '{split}' are not published, so "
            sentence += "nothing is estimated from it" if found is None else "the whole dataset is taken, which is too many"
            if sentence not in self.uncertain:
                self.uncertain.append(sentence)
        return found


def evaluations(protocol: Protocol, steps: int) -> int:
    """How often a cell of so many steps an epoch is evaluated."""
    if protocol.evaluation_points == "even":
        return protocol.all_epochs * protocol.evaluations_per_epoch
    return len(points(protocol.all_epochs, steps, 1, "dfb"))
