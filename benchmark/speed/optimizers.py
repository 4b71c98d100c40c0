"""What every optimizer costs: `python -m benchmark.speed.optimizers`.

Beside each step its ideal is timed, in the same run and in turn: as many bare forward and backward passes over the same faces, by
torch's ordinary `zero_grad`, `backward`, and one step of the same base optimizer. Ratios are taken within a round and their
median over the rounds is printed, with half the distance of their quartiles. The learning rate is zero: all steps do the same.

By default 16 faces in 4 domains, of 256 px for Meso4 and of 128 px for the others, which has the whole table done in about a
quarter of an hour on two idle cores; `--detectors` takes a part of it.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from benchmark.cli.console import console, progress
from benchmark.config import default_base
from benchmark.objective import BatchObjective
from benchmark.provenance import cpu, device_name
from benchmark.speed.counting import Count, count
from detectors import DETECTORS
from detectors.base import Batch, Detector
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer, Rule
from optimizers.bases import build_base
from optimizers.vector import Vector

SIZES = {"meso4": 256, "resnet34": 128, "xception": 128, "efficientnet_b4": 128}
"""Detectors that are measured by default, and the side of their faces, px."""

COLUMNS = ("optimizer", "passes", "ms", "x plain step", "x ideal", "launches", "waits", "copies of the weights")

LIMITS: dict[str, dict[str, float]] = {
    "x plain step": {"pim": 1.75},
    "x ideal": {"sam": 1.01, "gnp": 1.01, "sagm": 1.01, "roga": 1.03},
    "launches": dict.fromkeys(("sgd", "adam", "sam", "asam", "gnp", "sagm", "pim", "dualflat"), 30.0) | {"roga": 70.0},
    "waits": dict.fromkeys(("sgd", "adam", "sam", "asam", "gnp", "sagm", "roga", "pim", "dualflat"), 0.0),
    "copies of the weights": {"sam": 1, "sagm": 2},
}
"""What we want each method to stay within, by column; RoGA's with four domains."""


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
        passes: forward and backward passes, in whole batches' worth.
        seconds: of `step`, by round.
        ideals: of `ideal`, by round.
        counts: of `step`, `ideal` and `bare`.
    """

    name: str
    step: Callable[[], object]
    ideal: Callable[[], object]
    bare: Callable[[], object]
    passes: int
    seconds: list[float] = field(default_factory=list)
    ideals: list[float] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)


class Measurement:
    """Every method on one detector.

    Args:
        name: of the detector.
        methods: names of optimizers.
        number: faces in a batch.
        size: their side, px.
        domains: domains in a batch.
        device: where.
    """

    def __init__(self, name: str, methods: list[str], number: int, size: int, domains: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.name, self.device, self.size = name, device, size
        self.detector: Detector = DETECTORS.build(name, size=size).to(device)
        self.detector.to(memory_format=torch.channels_last)
        self.weights = [p for p in self.detector.parameters() if p.requires_grad]
        self.bytes = sum(p.numel() * p.element_size() for p in self.weights)
        self.batch = faces(number, size, domains, device)
        self.bases = {base: build_base(base, self.weights, lr=0.0) for base in {default_base(m) for m in methods} | {"adam"}}
        self.plain: list[float] = []
        self.rows = [self._row(method) for method in methods]

    def _row(self, method: str) -> Row:
        rule: Rule = OPTIMIZERS.build(method)
        base = self.bases[rule.base]
        optimizer = Optimizer(rule, base, self.detector)
        recorded = Recording(self.detector, [self.batch])
        recorded.passes = []
        optimizer.step(recorded)

        def step() -> Tensor:
            return optimizer.step(BatchObjective(self.detector, [self.batch]))

        def bare() -> None:
            for batches in recorded.passes:
                base.zero_grad(set_to_none=True)
                for batch in batches:
                    self.detector.loss(self.detector(batch.images), batch).backward()

        def ideal() -> None:
            bare()
            base.step()

        return Row(method, step, ideal, bare, len(recorded.passes))

    def _plain_step(self) -> None:
        base = self.bases["adam"]
        base.zero_grad(set_to_none=True)
        self.detector.loss(self.detector(self.batch.images), self.batch).backward()
        base.step()

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

    def time_round(self) -> Iterator[None]:
        """Each of them once, in turn; the ideals' first and the steps' first by turns, so that neither has the warmer caches."""
        turn = len(self.plain) % 2
        self.plain.append(self._seconds(self._plain_step))
        yield
        for row in self.rows:
            for work, into in ((row.step, row.seconds), (row.ideal, row.ideals))[:: -1 if turn else 1]:
                into.append(self._seconds(work))
                yield

    def count_all(self) -> Iterator[None]:
        """The counts of each, which no noise disturbs."""
        for row in self.rows:
            row.counts.clear()
            for work in (row.step, row.ideal, row.bare):
                for p in self.weights:
                    p.grad = None
                row.counts.append(count(work, self.device))
                yield


def cells(measured: Measurement, row: Row) -> list[tuple[str, float]]:
    """What the table says of a method, column by column: text and figure."""
    launches, waits, copies = beyond(measured, row)
    to_plain = [a / b for a, b in zip(row.seconds, measured.plain, strict=True)]
    to_ideal = [a / b for a, b in zip(row.seconds, row.ideals, strict=True)]
    ms = statistics.median(row.seconds) * 1000
    return [
        (row.name, 0.0),
        (str(row.passes), row.passes),
        (f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}", ms),
        (_median(to_plain, 2), statistics.median(to_plain)),
        (_median(to_ideal, 3), statistics.median(to_ideal)),
        (str(launches), launches),
        (str(waits), waits),
        (f"{copies:.2f}", copies),
    ]


def beyond(measured: Measurement, row: Row) -> tuple[int, int, float]:
    """Launches beyond the bare passes; waits, and peak memory in copies of the weights, beyond the ideal."""
    step, ideal, bare = row.counts
    launches = (step.launches - bare.launches).total()  # name by name: what later passes save (BatchNorm's counters) is no credit
    return launches, step.waits - ideal.waits, round((step.peak - ideal.peak) / measured.bytes, 2)


def _median(ratios: list[float], digits: int) -> str:
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return f"{statistics.median(ratios):.{digits}f} ± {(high - low) / 2:.{digits}f}"


def verdict(column: str, method: str, value: float) -> str:
    """Whether the figure is within its target, where it has one."""
    limit = LIMITS.get(column, {}).get(method)
    if limit is None:
        return ""
    return f" (target {limit:g} {'met' if value <= limit else 'NOT met'})"


def table_rows(measured: Measurement) -> list[list[str]]:
    """The table's body."""
    return [
        [text + verdict(column, row.name, value) for column, (text, value) in zip(COLUMNS, cells(measured, row), strict=True)]
        for row in measured.rows
    ]


def title(measured: Measurement) -> str:
    """Detector, batch and size of its weights."""
    count = sum(p.numel() for p in measured.weights)
    return f"{measured.name}: {len(measured.batch)} faces of {measured.size} px, {count:,} weights ({measured.bytes / 1e6:.1f} MB)"


def markdown(done: list[Measurement], domains: int, repeats: int, device: torch.device) -> str:
    """The tables with how they were made."""
    lines = [
        "# What the optimizers cost",
        "",
        f"Made by `python -m benchmark.speed.optimizers` on {date.today().isoformat()}: {device_name(str(device))}, CPU {cpu()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}; float32, "
        f"channels last, {domains} domains in a batch, median of {repeats} rounds ± half the distance of the quartiles.",
        "",
        "- x plain step: the step's time over that of a forward and backward pass of the whole batch and one step of Adam.",
        "- x ideal: over that of as many bare passes of the same faces and one step of the same base optimizer, in the same round.",
        "- launches: beyond those of the bare passes, the base optimizer's included; "
        + ("kernels." if device.type == "cuda" else "operators that Python or autograd calls (a foreach function is one)."),
        "- waits: how often the host waits for a number, beyond the ideal (on a CPU torch's fused Adam looks up its step count).",
        "- copies of the weights: peak memory beyond that of the ideal. PIM's and DualFlat's pushed features count there, too.",
    ]
    for measured in done:
        lines += ["", f"## {title(measured)}", "", "| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in table_rows(measured)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=list(SIZES), choices=DETECTORS.names(), metavar="NAME")
    parser.add_argument("--optimizers", nargs="+", default=OPTIMIZERS.names(), choices=OPTIMIZERS.names(), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=9, help="rounds; default 9")
    parser.add_argument("--batch", type=int, default=16, help="faces in a step; default 16")
    parser.add_argument("--size", type=int, help="side of the faces, px; default: 256 for meso4, 128 for the others")
    parser.add_argument("--domains", type=int, default=4, help="domains in a batch; default 4")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of torch; default: as many as it takes")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there as well")
    given = parser.parse_args()
    if given.repeats < 1 or given.domains < 1 or given.batch < 2 * given.domains or given.batch % given.domains:
        parser.error("--repeats and --domains must be at least 1, and --batch a multiple of --domains of at least twice as many")
    if given.threads:
        torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    done = []
    for name in given.detectors:
        size = given.size or SIZES.get(name, 128)
        with progress() as bar:
            total = (given.repeats + 1) * (1 + 2 * len(given.optimizers)) + 3 * len(given.optimizers)
            task = bar.add_task(name, total=total, unit="run")
            measured = Measurement(name, given.optimizers, given.batch, size, given.domains, device)
            for number in range(given.repeats + 1):
                for _ in measured.time_round():
                    bar.advance(task)
                if number == 0:  # the first round warms up
                    for kept in (measured.plain, *(r.seconds for r in measured.rows), *(r.ideals for r in measured.rows)):
                        kept.clear()
            for _ in measured.count_all():
                bar.advance(task)
        table = Table(*COLUMNS, title=title(measured))
        for row in table_rows(measured):
            table.add_row(*row)
        console.print(table)
        done.append(measured)
        if given.markdown:  # after each detector, so that nothing measured is lost
            given.markdown.write_text(markdown(done, given.domains, given.repeats, device), encoding="utf-8")


if __name__ == "__main__":
    main()
