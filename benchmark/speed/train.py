"""How much of training is waiting for faces: `python -m benchmark.speed.train`.

The training loop over faces in a file, and bare steps on one batch that lies on the device, take turns in blocks of steps in one
process, so that a busy machine is busy for both. What the loop does between two steps (reading, copying to the device,
augmentation) counts as waiting. The faces are noise: what takes time does not depend on the pixels.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark.data import REAL, BalancedBatches, FaceFrames
from benchmark.objective import BatchObjective
from benchmark.train import Plan, train
from detectors import DETECTORS
from detectors.base import Batch, Detector
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
        waiting: share of the loop's time between its steps.
    """

    bare: float
    loop: float
    waiting: float

    @property
    def of_bare(self) -> float:
        """The loop's images per second over the bare model's."""
        return self.loop / self.bare

    @property
    def verdict(self) -> str:
        """Whether both targets are met."""
        return "met" if self.waiting < WAITING and self.of_bare >= OF_BARE else "NOT met"


def noise(folder: Path, size: int, domains: int, per_class: int) -> FaceFrames:
    """Faces of noise in a file of `folder`, as a cache of decoded faces holds them: `per_class` reals, and fakes of each domain."""
    methods = tuple(f"method-{i}" for i in range(domains))
    rows = pd.DataFrame([(m, i) for m in (REAL, *methods) for i in range(per_class)], columns=["method", "video"])
    rows = rows.assign(dataset="noise", video=rows["video"].astype(str), index=np.arange(len(rows)))
    rows["key"] = rows["method"] + "/" + rows["video"]
    rows["domain"] = rows["method"].map({REAL: -1} | {m: i for i, m in enumerate(methods)}).astype("int64")
    path, shape = folder / f"{size}px.u8", (len(rows), size, size, 3)
    with path.open("wb") as file:
        generator = np.random.default_rng(0)
        for _ in range(len(rows)):
            file.write(generator.bytes(size * size * 3))
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
    resident = Batch(batch.images.contiguous(memory_format=torch.channels_last), batch.labels, batch.domains.cpu(), batch.videos)
    found: list[tuple[float, float, float]] = []
    for number in range(rounds + 1):
        loop, waiting = _loop(detector, optimizer, plan, device)
        detector.train()
        optimizer.step(BatchObjective(detector, [resident], plan.precision))
        started = _now(device)
        for _ in range(steps):
            optimizer.step(BatchObjective(detector, [resident], plan.precision))
        bare = (_now(device) - started) / steps
        if number:  # the first round warms up
            found.append((len(resident) / bare, len(resident) / loop, waiting))
    return Pace(*(statistics.median(values) for values in zip(*found, strict=True)))


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--augment", default="none")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.optimizer}, batch {args.batch_size} of {args.domains} domains, {args.augment}, {args.precision}, {args.device}")
    print(f"{'detector':18} {'bare':>9} {'loop':>9} {'of bare':>8} {'waiting':>8}   images per second")
    per_class = (args.steps + 1) * args.batch_size // (2 * args.domains)
    for name in args.detector:
        settings = {key: value for key, value in (("size", args.size), ("weights", "none")) if value is not None}
        settings = {key: value for key, value in settings.items() if key in DETECTORS.settings(name)}
        torch.manual_seed(0)
        detector: Detector = DETECTORS.build(name, **settings).to(args.device)
        detector.to(memory_format=torch.channels_last)
        with tempfile.TemporaryDirectory() as folder:
            frames = noise(Path(folder), detector.size, args.domains, per_class)
            batches = BalancedBatches(frames, args.batch_size, 0)
            plan = Plan(1, batches, 1, 0, args.augment, args.precision, None)
            pace = measure(detector, args.optimizer, plan, args.rounds, args.steps)
        line = f"{name:18} {pace.bare:9.1f} {pace.loop:9.1f} {pace.of_bare:8.1%} {pace.waiting:8.2%}"
        print(f"{line}   waiting < {WAITING:.0%} and >= {OF_BARE:.0%} of bare: {pace.verdict}", flush=True)


if __name__ == "__main__":
    main()
