"""How much of training is waiting for faces: `python -m benchmark.speed.train`.

The training loop over faces in a file, and bare steps on one batch that lies on the device, take turns in blocks of steps in one
process, so that a busy machine is busy for both. What the loop does between two steps (waiting for the thread that reads and, on
the CPU, augments; copying to another device and augmentation there) counts as waiting: on the CPU by its clock, on a GPU by that of
the stream that trains, from its end of a step to its start of the next, since the host runs ahead of it. Each round is a loop and a
bare block, and gives a ratio and a share of waiting; targets are judged by the medians over the rounds and their intervals (see
`benchmark.speed.paired`), so that noise ends in "undecided" and not in a verdict.
Ctrl-C (or SIGTERM) ends the measurement; what is measured by then is printed.

The faces are smooth with a grain, as large as real ones when they are compressed: the preset dfb compresses half of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark.allocator import keep_memory
from benchmark.augment import PRESETS
from benchmark.cli.options import check_device
from benchmark.config import ConfigError
from benchmark.data import REAL, BalancedBatches, FaceFrames
from benchmark.levels import as_floats
from benchmark.objective import BatchObjective
from benchmark.precision import scaler_for
from benchmark.presets import BY_EXAMPLE
from benchmark.provenance import cpu
from benchmark.seeding import seed_everything
from benchmark.speed.by_hand import at_least, in_sentences, shown
from benchmark.speed.paired import Median, median
from benchmark.train import Plan, train
from detectors import DETECTORS
from detectors.base import Batch, Detector
from detectors.layout import channels_last
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base

WAITING, OF_BARE = 0.03, 0.95
"""What is aimed at: at most so much of a step is waiting, and at least so many of the bare model's images per second."""


@dataclass(frozen=True)
class Pace:
    """Medians over the rounds.

    Attributes:
        bare: images per second of steps on a resident batch.
        loop: images per second of the training loop.
        of_bare: the loop's images per second over the bare model's, round by round.
        waiting: share of the loop's time between its steps; on a GPU by the clock of the stream that trains.
        rounds: how many there were: fewer than asked for where Ctrl-C ended them.
    """

    bare: float
    loop: float
    of_bare: Median
    waiting: Median
    rounds: int

    @property
    def verdicts(self) -> tuple[str, str]:
        """Of waiting, and of images per second."""
        return self.waiting.below(WAITING), self.of_bare.at_least(OF_BARE)


def grainy(folder: Path, size: int, domains: int, per_class: int) -> FaceFrames:
    """Smooth faces with a grain in a file of `folder`, as a cache of decoded faces holds them: `per_class` reals, and fakes of each
    domain."""
    methods = tuple(f"method-{i}" for i in range(domains))
    rows = pd.DataFrame([(m, i) for m in (REAL, *methods) for i in range(per_class)], columns=["method", "video"])
    rows = rows.assign(dataset="noise", video=rows["video"].astype(str), index=np.arange(len(rows)))
    rows["key"] = rows["method"] + "/" + rows["video"]
    rows["domain"] = rows["method"].map({REAL: -1} | {m: i for i, m in enumerate(methods)}).astype("int64")
    path, shape = folder / f"{size}px.u8", (len(rows), size, size, 3)
    with path.open("wb") as file:
        generator = np.random.default_rng(0)
        for _ in range(len(rows)):
            coarse = generator.integers(40, 216, (12, 12, 3)).astype(np.float32)
            grain = 3 * generator.standard_normal((size, size, 3), np.float32)
            smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) + grain
            file.write(np.clip(smooth, 0, 255).astype(np.uint8).tobytes())
    return FaceFrames(rows, methods, np.memmap(path, dtype=np.uint8, mode="r", shape=shape))


def measure(detector: Detector, name: str, plan: Plan, rounds: int, steps: int, after: Callable[[], object] = lambda: None) -> Pace:
    """Blocks of the training loop and of bare steps in turn.

    Args:
        detector: the model, on its device.
        name: registry name of the optimizer.
        plan: of the loop; as long as a block, and the first step of each block warms up.
        rounds: of one block each.
        steps: of a bare block.
        after: called after each block, of either kind; it is not timed.

    Raises:
        KeyboardInterrupt: before a round that counts is over; a later one ends the rounds.
    """
    rule, device = OPTIMIZERS.build(name), next(detector.parameters()).device
    base = build_base(rule.base, detector.parameters(), lr=1e-6)
    optimizer = Optimizer(rule, base, detector, scaler=scaler_for(plan.precision, device))
    batch = plan.batches.batch(plan.batches.epoch(0)[0])
    batch = batch.to(device)
    resident = Batch(as_floats(batch.images), batch.labels, batch.domains.cpu(), batch.videos)
    bare: list[float] = []
    loops: list[tuple[float, float]] = []
    detector.train()
    try:
        for number in range(rounds + 1):
            # In turns, and which of the two goes first in turns: a machine that slows down slows both.
            for who in ("loop", "bare") if number % 2 else ("bare", "loop"):
                if who == "loop":
                    loops.append(_loop(detector, optimizer, plan, device))
                else:
                    bare.append(_bare(detector, optimizer, resident, plan, steps))
                after()
    except KeyboardInterrupt:
        if min(len(bare), len(loops)) < 2:
            raise
    done = min(len(bare), len(loops))
    bare, (loop, waiting) = bare[1:done], zip(*loops[1:done], strict=True)  # the first round warms up
    return Pace(
        len(resident) / statistics.median(bare),
        len(resident) / statistics.median(loop),
        median([b / of_loop for b, of_loop in zip(bare, loop, strict=True)]),
        median(waiting),
        done - 1,
    )


def _bare(detector: Detector, optimizer: Optimizer, batch: Batch, plan: Plan, steps: int) -> float:
    """Seconds of a step on a batch that lies on the device."""
    optimizer.step(BatchObjective(detector, [batch], plan.precision, scaler=optimizer.scaler))
    started = _now(batch.images.device)
    for _ in range(steps):
        optimizer.step(BatchObjective(detector, [batch], plan.precision, scaler=optimizer.scaler))
    return (_now(batch.images.device) - started) / steps


def _loop(detector: Detector, optimizer: Optimizer, plan: Plan, device: torch.device) -> tuple[float, float]:
    """Seconds of a step of the training loop, and the share of them that passes between two steps."""
    ends: list[float] = []
    waits: list[float] = []
    marks: list[torch.cuda.Event] = []  # on the stream that trains: the end of a step and the start of the next, in turns

    def before(step: int, batch: Batch) -> None:
        if ends and device.type == "cuda":
            marks.append(_mark(device))
        elif ends:
            waits.append(time.perf_counter() - ends[-1])

    def after(step: int, loss: Tensor) -> None:
        ends.append(_now(device) if step in (1, plan.steps) else time.perf_counter())
        if device.type == "cuda" and step < plan.steps:
            marks.append(_mark(device))

    train(detector, optimizer, None, plan, after, before=before)
    waits += [end.elapsed_time(start) / 1000 for end, start in zip(marks[::2], marks[1::2], strict=True)]
    whole = ends[-1] - ends[0]
    return whole / (plan.steps - 1), sum(waits) / whole


def _mark(device: torch.device) -> torch.cuda.Event:
    """When the stream that trains gets here, which is not before a batch that it was told to await is ready."""
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    """Print a line a detector."""
    parser = argparse.ArgumentParser(description="What of training is waiting for faces, measured beside bare steps.")
    names = ["meso4", "resnet34", "xception", "efficientnet_b4"]
    parser.add_argument("detector", nargs="*", default=names, help=f"registry names; default {' '.join(names)}")
    parser.add_argument(
        "--optimizer", default="adam", choices=OPTIMIZERS.names(), metavar="NAME", help="registry name; default adam"
    )
    parser.add_argument("--size", type=at_least(1), help="side of the faces in pixels; default: the detector's")
    parser.add_argument("--batch-size", type=at_least(2), default=32, help="faces in a step; default 32")
    parser.add_argument("--domains", type=at_least(1), default=4, help="domains in a step; default 4")
    parser.add_argument("--steps", type=at_least(2), default=8, help="in a block; default 8")
    parser.add_argument("--rounds", type=at_least(1), default=9, help="6 at least, or there is no interval; default 9")
    parser.add_argument("--augment", default="none", choices=[*PRESETS, *BY_EXAMPLE], help="of the training faces; default none")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"], help="of the passes; default fp32")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: cuda where torch sees a GPU, else cpu"
    )
    parser.add_argument("--threads", type=at_least(1), default=1, help="of torch on a CPU; default 1")
    args = parser.parse_args()
    try:
        check_device(args.device)
    except ConfigError as error:
        parser.error(str(error))
    if args.steps + 1 < args.domains:
        parser.error(
            f"--steps is {args.steps}: blocks of at least {args.domains - 1} hold enough real faces for {args.domains} domains"
        )
    if args.batch_size % (2 * args.domains):
        parser.error(f"--batch-size is {args.batch_size}: take a multiple of {2 * args.domains}, twice the number of domains")
    given = {key: value for key, value in (("size", args.size), ("weights", "none")) if value is not None}
    settings = {name: {key: given[key] for key in given if key in DETECTORS.settings(name)} for name in args.detector}
    for name in args.detector:  # told now, not after those before it were measured
        DETECTORS.build(name, **settings[name])
    torch.set_num_threads(args.threads)
    keep_memory()
    seed_everything(0)  # with the kernels that cells ask for
    cv2.setNumThreads(1)
    how = f"{args.optimizer}, batch {args.batch_size} of {args.domains} domains, {args.augment}, {args.precision}"
    print(f"{how}, {args.device}, {args.threads} threads, {cpu()}, {args.rounds} rounds of {args.steps} steps")
    print(f"{'detector':16} {'px':>4} {'bare':>7} {'loop':>7} {'of bare (95 % interval)':>26} {'waiting':>22}   images per second")
    per_class = (args.steps + 1) * args.batch_size // (2 * args.domains)
    for name in args.detector:
        torch.manual_seed(0)
        detector: Detector = DETECTORS.build(name, **settings[name]).to(args.device)
        channels_last(detector)
        try:
            with tempfile.TemporaryDirectory() as folder, shown(name, 2 * (args.rounds + 1), "block") as one_more:
                frames = grainy(Path(folder), detector.size, args.domains, per_class)
                batches = BalancedBatches(frames, args.batch_size, 0)
                plan = Plan(1, batches, 1, 0, args.augment, args.precision, None)
                pace = measure(detector, args.optimizer, plan, args.rounds, args.steps, one_more)
        except KeyboardInterrupt:
            sys.exit(f"Stopped before {name} was measured.")
        waiting, of_bare = pace.verdicts
        line = f"{name:16} {detector.size:4} {pace.bare:7.1f} {pace.loop:7.1f} {pace.of_bare:.1%} {pace.waiting:.2%}"
        print(f"{line}   waiting < {WAITING:.0%}: {waiting}, >= {OF_BARE:.0%} of bare: {of_bare}", flush=True)
        if pace.rounds < args.rounds:
            sys.exit(f"Stopped while {name} was measured; its line is of {pace.rounds} of {args.rounds} rounds.")


if __name__ == "__main__":
    in_sentences(main)
