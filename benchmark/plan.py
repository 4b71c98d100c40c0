"""What a grid will cost, before anything runs: cells, passes, faces, hours, disk, and the stores that are not there yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmark.config import Cell
from benchmark.data import REAL, choose
from benchmark.expected import SAMPLED, Expected, layout_of
from benchmark.passes import Passes, passes_per_step
from benchmark.specs import DetectorSpec, TestSet, TrainData
from detectors import DETECTORS
from optimizers.registry import RegistryError
from preprocessing.layouts import Layout
from preprocessing.store import INFO, FaceStore

STORE_BYTES = 53_000
"""Of one face of 256 px in a store, lossless, with its landmarks: measured."""

SCORE_BYTES = 20
"""Of one face's score at one evaluation in scores.parquet: measured."""

COPIES = {"sgd": 2, "adam": 3}
"""Copies of the weights in a checkpoint: the weights, and what the base optimizer keeps of each."""

TIMED_FACES, TIMED_SECONDS = 4, 2.0
"""The calibration's batch, and how long it goes on with one detector after one batch to warm up."""


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
class Timing:
    """A detector on this machine: seconds of a face forward and backward, and forward alone; its numbers of weights and of all."""

    train: float
    score: float
    weights: int
    numbers: int


@dataclass(frozen=True)
class CellPlan:
    """One cell's estimates; None where a store's size is not known."""

    cell: Cell
    passes: Passes
    steps: int | None
    scored: int | None
    hours: float | None
    checkpoint: int
    scores: int | None

    @property
    def faces(self) -> int | None:
        """Faces that training goes through, all passes together."""
        return None if self.steps is None else round(self.steps * self.cell.protocol.batch_size * self.passes.count)


@dataclass(frozen=True)
class GridPlan:
    """Every cell and every store of a grid. `cache`: bytes of decoded faces; `missing`: bytes of the stores that are not there."""

    cells: list[CellPlan]
    needs: list[Need]
    cache: int
    missing: int
    uncertain: list[str] = field(default_factory=list)

    @property
    def hours(self) -> float | None:
        """Of all cells one after the other; None where one is not known."""
        return _total([c.hours for c in self.cells])


def _total(values: Sequence[Any]) -> Any:
    return None if None in values else sum(values)


def plan_grid(
    cells: Sequence[Cell],
    data: Path,
    device: str = "cpu",
    threads: int = 1,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> GridPlan:
    """Estimate what these cells cost here. Nothing is written, and no store need be there.

    Args:
        cells: what would run.
        data: folder that relative store names belong to.
        device, threads: what would compute.
        on_progress: told about the calibration.

    Raises:
        RegistryError, ConfigError, PreprocessingError: a name, setting or store that is wrong.
    """
    torch.set_num_threads(threads)
    sizes = Sizes(cells, data)
    detectors = {_key(c.detector): c.detector for c in cells}
    timings: dict[str, Timing] = {}
    for done, (key, spec) in enumerate(detectors.items(), start=1):
        on_progress(f"time {spec.title}", done - 1, len(detectors))
        timings[key] = time_detector(spec, device)
    on_progress("timed", len(detectors), len(detectors))
    passes: dict[str, Passes] = {}
    planned = []
    for cell in cells:
        domains = len(cell.train.methods)
        key = f"{cell.optimizer.name} {cell.optimizer.settings} {cell.base.name} {domains}"
        if key not in passes:
            passes[key] = passes_per_step(cell.optimizer.name, cell.optimizer.settings, cell.base.name, domains)
        planned.append(_plan_cell(cell, passes[key], timings[_key(cell.detector)], sizes))
    pairs = {(store, cell.detector.settings.get("size", 256)) for cell in cells for store in cell.stores()}
    cache = sum((sizes.needs[store].faces or 0) * size * size * 3 for store, size in pairs)
    missing = sum((need.faces or 0) * STORE_BYTES for need in sizes.needs.values() if not need.there)
    return GridPlan(planned, list(sizes.needs.values()), cache, missing, sizes.uncertain)


def _key(spec: DetectorSpec) -> str:
    return f"{spec.name} {spec.settings}"


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
        for name in dict.fromkeys(store for cell in cells for store in cell.stores()):
            path, layout = data / name, layout_of(name)
            if (path / INFO).exists():
                manifest = FaceStore(path).manifest
                self._manifests[name] = manifest
                self.needs[name] = Need(name, path, True, layout, len(manifest))
            else:
                self.needs[name] = Need(name, path, False, layout, Expected(layout).faces() if layout else None)

    def fakes_and_all(self, of: TrainData | TestSet, methods: tuple[str, ...] | None, split: str) -> tuple[int, int] | None:
        """Fake faces of the largest method, and all faces; None where nothing is known."""
        if of.store in self._manifests:
            rows, _ = choose(self._manifests[of.store], of.store, methods, split, of.frames, of.frame_pick)
            counts = rows.loc[rows["method"] != REAL, "method"].value_counts()
            return int(counts.max()), len(rows)
        layout = self.needs[of.store].layout
        found = Expected(layout).split(split, methods, of.frames) if layout else None
        if found is None or not found.exact:
            sentence = f"{of.store}: the counts of split '{split}' are not published, so "
            sentence += "nothing is estimated from it" if found is None else "the whole dataset is taken, which is too many"
            if sentence not in self.uncertain:
                self.uncertain.append(sentence)
        return None if found is None else (found.largest, found.faces)


def _plan_cell(cell: Cell, passes: Passes, timing: Timing, sizes: Sizes) -> CellPlan:
    p, t = cell.protocol, cell.train
    training = sizes.fakes_and_all(t, t.methods, t.train_split)
    evaluated = [sizes.fakes_and_all(t, t.methods, t.val_split), *(sizes.fakes_and_all(x, x.methods, x.split) for x in cell.tests)]
    per_epoch = None
    if training is not None and p.class_balance == "none":
        per_epoch = -(-training[1] // p.batch_size)
    elif training is not None:
        per_epoch = -(-training[0] // (p.batch_size // (2 * len(t.methods))))
    steps = None if per_epoch is None else per_epoch * p.all_epochs
    once = _total([None if e is None else e[1] for e in evaluated])
    scored = None if once is None else once * p.all_epochs * p.evaluations_per_epoch
    hours = None
    if steps is not None and scored is not None:
        hours = (steps * p.batch_size * passes.work * timing.train + scored * timing.score) / 3600
    copies = COPIES.get(cell.base.name, max(COPIES.values()))
    checkpoint = 4 * (timing.numbers + (copies - 1) * timing.weights)
    return CellPlan(cell, passes, steps, scored, hours, checkpoint, None if scored is None else scored * SCORE_BYTES)


def time_detector(spec: DetectorSpec, device: str = "cpu") -> Timing:
    """Time a few passes of a detector with random weights. A loss of its own, with more than one view of a face, is not timed.

    Raises:
        RegistryError: an unknown name or setting.
    """
    settings = {**spec.settings, **({"weights": "none"} if "weights" in spec.settings else {})}
    detector = DETECTORS.build(spec.name, **settings).to(device).to(memory_format=torch.channels_last)
    side = getattr(detector, "size", None)
    if not isinstance(side, int):
        raise RegistryError(f"detector '{spec.title}' has no attribute `size`, the side of its faces in px")
    images = torch.rand(TIMED_FACES, 3, side, side, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(TIMED_FACES, device=device) % 2
    weights = [w for w in detector.parameters() if w.requires_grad]

    def train() -> None:
        torch.autograd.grad(F.cross_entropy(detector(images).logits, labels), weights, allow_unused=True)

    @torch.no_grad()
    def score() -> None:
        detector(images)

    timed = (_seconds(train, device) / TIMED_FACES, _seconds(score, device) / TIMED_FACES)
    numbers = sum(tensor.numel() for tensor in detector.state_dict().values())
    return Timing(*timed, weights=sum(w.numel() for w in weights), numbers=numbers)


def _seconds(work: Callable[[], None], device: str) -> float:
    """Seconds of one call, the fastest of some: what else the machine does only makes it slower."""
    best, spent = float("inf"), 0.0
    work()
    while spent < TIMED_SECONDS:
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        seconds = time.perf_counter() - started
        best, spent = min(best, seconds), spent + seconds
    return best


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
