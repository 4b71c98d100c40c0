"""How much of training is waiting for faces: `python -m benchmark.speed.train`.

The training loop over faces in a file, and bare steps on one batch that lies on the device, take turns in blocks of steps in one
process, so that a busy machine is busy for both. What the loop does between two steps (waiting for the thread that reads and, on
the CPU, augments; copying to another device and augmentation there) counts as waiting. Each round is a loop and a bare block, and
gives a ratio and a share of waiting; targets are judged by the medians over the rounds and their intervals (see
`benchmark.speed.paired`), so that noise ends in "undecided" and not in a verdict.

The faces are smooth with a grain, as large as real ones when they are compressed: the preset dfb compresses half of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark.allocator import keep_memory
from benchmark.cli.options import check_device
from benchmark.config import ConfigError
from benchmark.data import REAL, BalancedBatches, FaceFrames
from benchmark.levels import as_floats
from benchmark.objective import BatchObjective
from benchmark.provenance import cpu
from benchmark.seeding import seed_everything
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
        waiting: share of the loop's time between its steps.
    """

    bare: float
    loop: float
    of_bare: Median
    waiting: Median

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


def measure(detector: Detector, name: str, plan: Plan, rounds: int, steps: int) -> Pace:
    """Blocks of the training loop and of bare steps in turn.

    Args:
        detector: the model, on its device.
        name: registry name of the optimizer.
        plan: of the loop; as long as a block, and the first step of each block warms up.
        rounds: of one block each.
        steps: of a bare block.
    """
    rule = OPTIMIZERS.build(name)
    optimizer = Optimizer(rule, build_base(rule.base, detector.parameters(), lr=1e-6), detector)
    device = next(detector.parameters()).device
    batch = plan.batches.batch(plan.batches.epoch(0)[0])
    batch = batch.to(device)
    resident = Batch(as_floats(batch.images), batch.labels, batch.domains.cpu(), batch.videos)
    bare: list[float] = []
    loops: list[tuple[float, float]] = []
    detector.train()
    for number in range(rounds + 1):
        # In turns, and which of the two goes first in turns: a machine that slows down slows both.
        for who in ("loop", "bare") if number % 2 else ("bare", "loop"):
            if who == "loop":
                loops.append(_loop(detector, optimizer, plan, device))
                continue
            optimizer.step(BatchObjective(detector, [resident], plan.precision))
            started = _now(device)
            for _ in range(steps):
                optimizer.step(BatchObjective(detector, [resident], plan.precision))
            bare.append((_now(device) - started) / steps)
    bare, (loop, waiting) = bare[1:], zip(*loops[1:], strict=True)  # the first round warms up
    return Pace(
        len(resident) / statistics.median(bare),
        len(resident) / statistics.median(loop),
        median([b / of_loop for b, of_loop in zip(bare, loop, strict=True)]),
        median(waiting),
    )


def _loop(detector: Detector, optimizer: Optimizer, plan: Plan, device: torch.device) -> tuple[float, float]:
    """Seconds of a step of the training loop, and the share of them that passes between two steps."""
    ends: list[float] = []
    waits: list[float] = []

    def before(step: int, batch: Batch) -> None:
        if ends:
            waits.append(time.perf_counter() - ends[-1])

    def after(step: int, loss: Tensor) -> None:
        ends.append(_now(device) if step in (1, plan.steps) else time.perf_counter())

    train(detector, optimizer, None, plan, after, before=before)
    whole = ends[-1] - ends[0]
    return whole / (plan.steps - 1), sum(waits) / whole


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    """Print a line a detector."""
    parser = argparse.ArgumentParser(description="What of training is waiting for faces, measured beside bare steps.")
    parser.add_argument("detector", nargs="*", default=["meso4", "resnet34", "xception", "efficientnet_b4"])
    parser.add_argument("--optimizer", default="adam", choices=OPTIMIZERS.names())
    parser.add_argument("--size", type=int, default=None, help="side of the faces; default: the detector's")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--domains", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8, help="in a block")
    parser.add_argument("--rounds", type=int, default=9, help="6 at least, or there is no interval")
    parser.add_argument("--augment", default="none")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    try:
        check_device(args.device)
    except ConfigError as error:
        parser.error(str(error))
    if args.steps + 1 < args.domains:
        parser.error(
            f"--steps is {args.steps}: blocks of at least {args.domains - 1} hold enough real faces for {args.domains} domains"
        )
    torch.set_num_threads(args.threads)
    keep_memory()
    seed_everything(0)  # with the kernels that cells ask for
    cv2.setNumThreads(1)
    how = f"{args.optimizer}, batch {args.batch_size} of {args.domains} domains, {args.augment}, {args.precision}"
    print(f"{how}, {args.device}, {args.threads} threads, {cpu()}, {args.rounds} rounds of {args.steps} steps")
    print(f"{'detector':16} {'px':>4} {'bare':>7} {'loop':>7} {'of bare (95 % interval)':>26} {'waiting':>22}   images per second")
    per_class = (args.steps + 1) * args.batch_size // (2 * args.domains)
    for name in args.detector:
        settings = {key: value for key, value in (("size", args.size), ("weights", "none")) if value is not None}
        settings = {key: value for key, value in settings.items() if key in DETECTORS.settings(name)}
        torch.manual_seed(0)
        detector: Detector = DETECTORS.build(name, **settings).to(args.device)
        channels_last(detector)
        with tempfile.TemporaryDirectory() as folder:
            frames = grainy(Path(folder), detector.size, args.domains, per_class)
            batches = BalancedBatches(frames, args.batch_size, 0)
            plan = Plan(1, batches, 1, 0, args.augment, args.precision, None)
            pace = measure(detector, args.optimizer, plan, args.rounds, args.steps)
        waiting, of_bare = pace.verdicts
        line = f"{name:16} {detector.size:4} {pace.bare:7.1f} {pace.loop:7.1f} {pace.of_bare:.1%} {pace.waiting:.2%}"
        print(f"{line}   waiting < {WAITING:.0%}: {waiting}, >= {OF_BARE:.0%} of bare: {of_bare}", flush=True)


if __name__ == "__main__":
    main()
