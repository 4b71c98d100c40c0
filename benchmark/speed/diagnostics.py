"""What looking at gradients and sharpness costs: `python -m benchmark.speed.diagnostics`.

Plain steps and looks take turns in one process, so that a busy machine is busy for both. A look's time is the difference between a
step with and the step without it next to it; over `every` steps that is the slowdown, which is printed beside the bound by which
the interval is chosen. The batch is noise: what takes time does not depend on the pixels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from functools import partial

import torch

from benchmark.allocator import keep_memory
from benchmark.diagnostics import Probe, schedule
from benchmark.objective import BatchObjective
from detectors import DETECTORS
from detectors.base import Batch, Detector
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base

ALLOWED = 0.01
"""Of training's time."""

LONG = 1_000_000
"""Steps of a run that is long enough for looks at an interval."""


@dataclass(frozen=True)
class Cost:
    """Medians over the rounds, in seconds, and what follows from them.

    Attributes:
        step: a step without a look.
        look: a look.
        every: steps from one look to the next, as a long run chooses it.
    """

    step: float
    look: float
    every: int

    @property
    def slowdown(self) -> float:
        """Share of training's time that the looks add."""
        return self.look / (self.every * self.step)


def noise(domains: int, batch_size: int, size: int, device: str) -> Batch:
    """As many real as fake faces of noise in each domain."""
    share = batch_size // (2 * domains)
    images = torch.rand(2 * domains * share, 3, size, size, generator=torch.Generator().manual_seed(0))
    return Batch(
        images=images.contiguous(memory_format=torch.channels_last),
        labels=torch.arange(2).repeat_interleave(share).repeat(domains),
        domains=torch.arange(domains).repeat_interleave(2 * share),
        videos=torch.arange(2 * domains * share),
    ).to(device)


def measure(detector: Detector, name: str, batch: Batch, domains: int, rounds: int, precision: str = "fp32") -> Cost:
    """Steps with and without a look in turn.

    Args:
        detector: the model, on its device, in training mode.
        name: registry name of the optimizer.
        batch: the step's.
        domains: K.
        rounds: of one step with and one without.
        precision: of the objective.
    """
    rule = OPTIMIZERS.build(name)
    optimizer = Optimizer(rule, build_base(rule.base, detector.parameters()), detector)
    ask = partial(BatchObjective, detector, precision=precision)
    probe = Probe(detector, name, rule, ask)
    every = min(schedule("auto", LONG, rule, domains).steps)
    steps, looks = [], []
    for number in range(rounds + 2):
        started = _now(batch)
        optimizer.step(ask([batch]))
        stepped = _now(batch)
        torch.stack([value.double() for value in probe.look(batch).values()]).tolist()
        if number >= 2:  # the first rounds warm up
            steps.append(stepped - started)
            looks.append(_now(batch) - stepped)
    return Cost(statistics.median(steps), statistics.median(looks), every)


def _now(batch: Batch) -> float:
    if batch.images.is_cuda:
        torch.cuda.synchronize(batch.images.device)
    return time.perf_counter()


def main() -> None:
    """Print a line an optimizer."""
    parser = argparse.ArgumentParser(description="The slowdown of training by its diagnostics, measured side by side.")
    parser.add_argument("--detector", default="resnet34", choices=DETECTORS.names())
    parser.add_argument("--optimizer", nargs="+", default=OPTIMIZERS.names(), choices=OPTIMIZERS.names())
    parser.add_argument("--size", type=int, default=None, help="side of the faces; default: the detector's")
    parser.add_argument("--domains", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(args.threads)
    settings = {key: value for key, value in (("size", args.size), ("weights", "none")) if value is not None}
    settings = {key: value for key, value in settings.items() if key in DETECTORS.settings(args.detector)}
    print(f"{args.detector}, batch {args.batch_size} of {args.domains} domains, {args.precision}, {args.device}")
    print(f"{'optimizer':12} {'step':>9} {'look':>9} {'in steps':>9} {'every':>6} {'slowdown':>9}")
    for name in args.optimizer:
        torch.manual_seed(0)
        detector: Detector = DETECTORS.build(args.detector, **settings).to(args.device)
        detector.to(memory_format=torch.channels_last)
        batch = noise(args.domains, args.batch_size, detector.size, args.device)
        cost = measure(detector, name, batch, args.domains, args.rounds, args.precision)
        within = "" if cost.slowdown <= ALLOWED else f"  above {ALLOWED:.0%}"
        times = f"{1e3 * cost.step:7.1f}ms {1e3 * cost.look:7.1f}ms {cost.look / cost.step:9.2f}"
        print(f"{name:12} {times} {cost.every:6d} {cost.slowdown:9.2%}{within}", flush=True)


if __name__ == "__main__":
    main()
