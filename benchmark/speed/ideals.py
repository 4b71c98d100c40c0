"""Steps of every optimizer on one detector, each beside its ideal: timed in turn, and counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.config import default_base
from benchmark.objective import BatchObjective
from benchmark.speed.counting import Count, count
from benchmark.speed.targets import LIMITS, REAL, looked_at
from detectors import DETECTORS
from detectors.base import Batch, Detector
from detectors.layout import channels_last
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer, Rule
from optimizers.bases import build_base
from optimizers.vector import Vector

BATCH, SIZE = 32, 256
"""Faces in a batch as grids train on, and their side, px."""


class Recording(BatchObjective):
    """Notes the micro-batches of each pass, those of the domains included."""

    passes: list[list[Batch]]

    def gradient(self, *args: object, **named: object) -> Vector:
        """One pass."""
        self.passes.append(self.batches)
        return super().gradient(*args, **named)  # type: ignore[arg-type]

    def hessian_product(self, vector: Vector, at: Vector | None = None) -> Vector:
        """One pass, though a dearer one."""
        self.passes.append(self.batches)
        return super().hessian_product(vector, at)


def faces(number: int, size: int, domains: int, device: torch.device) -> Batch:
    """Noise, domain by domain as training has it; half of each domain is fake."""
    images = torch.rand(number, 3, size, size, generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=torch.channels_last
    )
    share = number // domains
    index = torch.arange(domains).repeat_interleave(share)
    batch = Batch(images, torch.arange(number) % 2, index, torch.arange(number)).to(device)
    return Batch(batch.images, batch.labels, index, batch.videos)  # the index of the domains is read on the host


@dataclass
class Row:
    """One method on one detector.

    Attributes:
        name: of the method.
        step: one update.
        ideal: its bare passes and one step of the base optimizer.
        bare: the bare passes alone.
        passes: forward and backward passes.
        batches: the same in whole batches' worth.
        rounds: seconds of `step`, of `ideal` and of a plain step.
        counts: of `step`, `ideal` and `bare`.
        real: seconds of the passes over a batch as grids train on, where `step` and `ideal` are of small faces.
        whole: `step` and `ideal` are of a batch as grids train on.
    """

    name: str
    step: Callable[[], object]
    ideal: Callable[[], object]
    bare: Callable[[], object]
    passes: int
    batches: float
    rounds: list[tuple[float, float, float]] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    real: float | None = None
    whole: bool = False

    def ratios(self) -> dict[str, list[float]]:
        """Those of each round, by column."""
        if self.real is not None:
            return {REAL: [1 + (a - b) / self.real for a, b, _ in self.rounds]}
        ideal = [a / b for a, b, _ in self.rounds]
        found = {"x plain step": [a / c for a, _, c in self.rounds], "x ideal": ideal}
        return found | {REAL: ideal} if self.whole else found

    def undecided(self) -> bool:
        """Whether a target lies within the interval of its ratio."""
        figures = [(LIMITS.get(column, {}).get(self.name), ratios) for column, ratios in self.ratios().items()]
        return any(limit is not None and looked_at(ratios).at_most(limit) == "undecided" for limit, ratios in figures)


class Measurement:
    """Every method on one detector.

    Args:
        name: of the detector.
        methods: names of optimizers.
        number: faces in a batch.
        size: their side, px.
        domains: domains in a batch.
        device: where.
        peers: other implementations of SAM, by name: classes with the interface that most of them share, `SAM(weights, class of the
            base optimizer, rho=, **settings of the base)` with `first_step` and `second_step`.
    """

    def __init__(
        self,
        name: str,
        methods: list[str],
        number: int,
        size: int,
        domains: int,
        device: torch.device,
        peers: Mapping[str, Any] | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.name, self.device, self.size = name, device, size
        self.detector: Detector = DETECTORS.build(name, size=size).to(device)
        channels_last(self.detector)
        self.weights = [p for p in self.detector.parameters() if p.requires_grad]
        self.bytes = sum(p.numel() * p.element_size() for p in self.weights)
        self.batch = faces(number, size, domains, device)
        self.bases = {base: build_base(base, self.weights, lr=0.0) for base in {default_base(m) for m in methods} | {"adam"}}
        self.turn = False
        self._ideals: dict[Any, tuple[Callable[[], None], Callable[[], None]]] = {}
        self.whole = (number, size) == (BATCH, SIZE)
        self.rows = [self._row(method) for method in methods] + [self._peer(*peer) for peer in (peers or {}).items()]

    def _row(self, method: str) -> Row:
        rule: Rule = OPTIMIZERS.build(method)
        base = self.bases[rule.base]
        optimizer = Optimizer(rule, base, self.detector)
        recorded = Recording(self.detector, [self.batch])
        recorded.passes = []
        optimizer.step(recorded)

        def step() -> Tensor:
            return optimizer.step(BatchObjective(self.detector, [self.batch]))

        return self._beside_its_ideal(method, step, base, recorded.passes)

    def _peer(self, name: str, cls: Any) -> Row:
        """SAM as users of `cls` train with it: BatchNorm's momentum is 0 in the second pass."""
        base = self.bases["adam"]
        settings = {key: base.defaults[key] for key in ("lr", "betas", "eps", "weight_decay", "fused", "foreach")}
        optimizer = cls(self.weights, type(base), rho=0.05, **settings)
        norms = [module for module in self.detector.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [module.momentum for module in norms]

        def step() -> None:
            self._pass(self.batch)
            optimizer.first_step(zero_grad=True)
            for module in norms:
                module.momentum = 0.0
            self._pass(self.batch)
            optimizer.second_step(zero_grad=True)
            for module, momentum in zip(norms, momenta, strict=True):
                module.momentum = momentum

        return self._beside_its_ideal(name, step, base, [[self.batch], [self.batch]])

    def _beside_its_ideal(
        self, name: str, step: Callable[[], object], base: torch.optim.Optimizer, passes: list[list[Batch]]
    ) -> Row:
        def bare() -> None:
            for batches in passes:
                base.zero_grad(set_to_none=True)
                for batch in batches:
                    self._pass(batch)

        def ideal() -> None:
            bare()
            base.step()
            base.zero_grad(set_to_none=True)

        alike = base, tuple(tuple(map(len, batches)) for batches in passes)
        bare, ideal = self._ideals.setdefault(alike, (bare, ideal))
        faces = sum(len(batch) for batches in passes for batch in batches)
        return Row(name, step, ideal, bare, len(passes), faces / len(self.batch), whole=self.whole)

    def _pass(self, batch: Batch) -> None:
        self.detector.loss(self.detector(batch.images), batch).backward()

    def seconds_of_a_pass(self) -> float:
        """Of a forward and backward pass over the batch, bare."""
        return self._seconds(lambda: self._pass(self.batch))

    def _plain_step(self) -> None:
        base = self.bases["adam"]
        self._pass(self.batch)
        base.step()
        base.zero_grad(set_to_none=True)

    def _seconds(self, work: Callable[[], object]) -> float:
        for p in self.weights:
            p.grad = None
        if self.device.type != "cuda":
            began = time.perf_counter()
            work()
            return time.perf_counter() - began
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize(self.device)
        return float(start.elapsed_time(end)) / 1000

    def time_round(self, rows: Sequence[Row]) -> Iterator[None]:
        """Each of them once, in turn, after a plain step; by turns the ideals first, so that neither has the warmer caches."""
        turn, self.turn = self.turn, not self.turn
        plain = self._seconds(self._plain_step)
        yield
        for row in rows:
            took = {work: self._seconds(work) for work in (row.step, row.ideal)[:: -1 if turn else 1]}
            row.rounds.append((took[row.step], took[row.ideal], plain))
            yield

    def undecided(self) -> list[Row]:
        """The methods with a target that lies within the interval of their ratio."""
        return [row for row in self.rows if row.undecided()]

    def count_all(self) -> Iterator[None]:
        """The counts of each, which no noise disturbs; what several methods have in common is counted once."""
        known: dict[Callable[[], object], Count] = {}
        for row in self.rows:
            row.counts.clear()
            for work in (row.step, row.ideal, row.bare):
                if work not in known:
                    for p in self.weights:
                        p.grad = None
                    known[work] = count(work, self.device)
                row.counts.append(known[work])
                yield
