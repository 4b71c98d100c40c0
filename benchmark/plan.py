"""What a grid will cost, before anything runs: cells, passes, faces, hours, disk, and the stores that are not there yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmark.config import Cell
from benchmark.memory import faces_at_once
from benchmark.passes import Passes, passes_per_step
from benchmark.sizes import Need, Sizes, evaluations
from benchmark.specs import DetectorSpec
from benchmark.timed import Timing, time_detector

STORE_BYTES = 53_000
"""Of one face of 256 px in a store, lossless, with its landmarks: measured."""

SCORE_BYTES = 20
"""Of one face's score at one evaluation in scores.parquet: measured."""

COPIES = {"sgd": 2, "adam": 3}
"""Copies of the weights in a checkpoint: the weights, and what the base optimizer keeps of each."""


@dataclass(frozen=True)
class CellPlan:
    """One cell's estimates; None where a store's size is not known.

    Attributes:
        cell: which.
        passes: of a step.
        steps: of training.
        evaluations: points at which the weights are judged.
        scored: scores that are kept, over all of these.
        hours: on this machine.
        checkpoint: bytes of one; a cell keeps its last two.
        weights: bytes that it keeps of its evaluation points until its tests are done.
        scores: bytes of `scored`.
    """

    cell: Cell
    passes: Passes
    steps: int | None
    evaluations: int | None
    scored: int | None
    hours: float | None
    checkpoint: int
    weights: int | None
    scores: int | None

    @property
    def faces(self) -> int | None:
        """Faces of all training steps, each counted once a step: a record's `examples`."""
        return None if self.steps is None else self.steps * self.cell.protocol.batch_size


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
    passes = {}
    wanted: dict[tuple[str, str], tuple[DetectorSpec, int]] = {}
    for c in cells:
        rule = _rule(c)
        if rule not in passes:
            passes[rule] = passes_per_step(c.optimizer.name, c.optimizer.settings, c.base.name, len(c.train.methods))
        for precision in _precisions(c, passes[rule]):
            _, most = wanted.get((_key(c.detector), precision), (c.detector, 0))
            wanted[_key(c.detector), precision] = (c.detector, max(most, faces_at_once(c.protocol)))
    timings: dict[tuple[str, str], Timing] = {}
    for done, ((key, precision), (spec, faces)) in enumerate(wanted.items()):
        on_progress(f"time {spec.title}" + (f" in {precision}" if precision != "fp32" else ""), done, len(wanted))
        timings[key, precision] = time_detector(spec, device, faces, precision)
    on_progress("timed", len(wanted), len(wanted))
    planned = []
    for cell in cells:
        needed = passes[_rule(cell)]
        known = {precision: timings[_key(cell.detector), precision] for precision in _precisions(cell, needed)}
        planned.append(_plan_cell(cell, needed, known, sizes))
    pairs = {(store, cell.detector.settings.get("size", 256)) for cell in cells for store in cell.stores()}
    cache = sum((sizes.needs[store].faces or 0) * size * size * 3 for store, size in pairs)
    missing = sum((need.faces or 0) * STORE_BYTES for need in sizes.needs.values() if not need.there)
    return GridPlan(planned, list(sizes.needs.values()), cache, missing, sizes.uncertain)


def _key(spec: DetectorSpec) -> str:
    return f"{spec.name} {spec.settings}"


def _rule(cell: Cell) -> str:
    return f"{cell.optimizer.name} {cell.optimizer.settings} {cell.base.name} {len(cell.train.methods)}"


def _precisions(cell: Cell, passes: Passes) -> dict[str, float]:
    """What the passes of a step are computed in, and the work in each."""
    p = cell.protocol
    work: dict[str, float] = {p.precision: passes.work - passes.shifted}
    if passes.shifted:
        work[p.weights_dtype] = work.get(p.weights_dtype, 0.0) + passes.shifted
    return work


def _plan_cell(cell: Cell, passes: Passes, timings: dict[str, Timing], sizes: Sizes) -> CellPlan:
    p, timing = cell.protocol, timings[cell.protocol.precision]
    per_epoch, once = sizes.steps(cell), sizes.evaluation(cell)
    steps = None if per_epoch is None else per_epoch * p.all_epochs
    times = None if per_epoch is None else evaluations(p, per_epoch)
    scored = None if once is None or times is None else once.rows * times
    hours = None
    if steps is not None and once is not None and times is not None:
        a_face = sum(work * timings[precision].train for precision, work in _precisions(cell, passes).items())
        hours = (steps * p.batch_size * a_face + once.faces * times * timing.score) / 3600
    copies = COPIES.get(cell.base.name, max(COPIES.values()))
    checkpoint = 4 * (timing.numbers + (copies - 1) * timing.weights)
    weights = None if times is None else times * 4 * timing.numbers
    scores = None if scored is None else scored * SCORE_BYTES
    return CellPlan(cell, passes, steps, times, scored, hours, checkpoint, weights, scores)
