"""What it brings to keep freed memory: `python -m benchmark.speed.allocator`.

Two processes take turns with a block of training steps on one batch: one after `benchmark.allocator.keep_memory`, one as the C
library does by itself. That cannot be undone within a process, so each has its own. A ratio is taken in each round; their median is
printed with its 95 % interval (see `benchmark.speed.paired`), and whether both came to the same weights.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import resource
import time
from multiprocessing.connection import Connection

import torch

from benchmark.allocator import keep_memory
from benchmark.objective import BatchObjective
from benchmark.provenance import cpu
from benchmark.seeding import seed_everything
from benchmark.speed.ideals import BATCH, SIZE, faces
from benchmark.speed.paired import median
from detectors import DETECTORS
from detectors.layout import channels_last
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base

Told = tuple[float, int, str]
"""Seconds of a block of steps, page faults in it, and a digest of the weights behind it."""


def serve(turns: Connection, keep: bool, detector: str, optimizer: str, batch: int, size: int, threads: int) -> None:
    """Train so many steps whenever that is asked for, until none are."""
    if keep and not keep_memory():
        raise RuntimeError("this C library cannot be told to keep memory")
    torch.set_num_threads(threads)
    seed_everything(0)
    net = DETECTORS.build(detector, size=size)
    channels_last(net)
    net.train()
    rule = OPTIMIZERS.build(optimizer)
    trained = Optimizer(rule, build_base(rule.base, net.parameters(), lr=1e-4), net)
    some = faces(batch, size, 2, torch.device("cpu"))
    while steps := turns.recv():
        began, before = time.perf_counter(), _faults()
        for _ in range(steps):
            trained.step(BatchObjective(net, [some]))
        took, faults = time.perf_counter() - began, _faults() - before
        turns.send((took, faults, float(sum(p.detach().double().sum() for p in net.parameters())).hex()))


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(
    detector: str, optimizer: str, batch: int, size: int, threads: int, rounds: int, steps: int
) -> tuple[list[Told], list[Told]]:
    """What the process that keeps its memory and the other told of each round but the first, which warms up."""
    context = mp.get_context("spawn")
    ends, processes = [], []
    for keep in (True, False):
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, keep, detector, optimizer, batch, size, threads), daemon=True)
        process.start()
        there.close()
        ends.append(here)
        processes.append(process)
    told: tuple[list[Told], list[Told]] = ([], [])
    for number in range(rounds + 1):
        for who in (0, 1) if number % 2 else (1, 0):  # which goes first in turns, too
            ends[who].send(steps)
            told[who].append(ends[who].recv())
    for end, process in zip(ends, processes, strict=True):
        end.send(0)
        process.join()
    return told[0][1:], told[1][1:]


def main() -> None:
    """Print a line a detector."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("detectors", nargs="*", default=["meso4", "resnet34", "xception", "efficientnet_b4"])
    parser.add_argument("--optimizer", default="adam", choices=OPTIMIZERS.names())
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--size", type=int, default=SIZE, help="side of the faces, px")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9, help="6 at least, or there is no interval")
    parser.add_argument("--steps", type=int, default=2, help="in a block")
    given = parser.parse_args()
    print(f"{given.optimizer}, {given.batch} faces of {given.size} px, fp32, {given.threads} threads, {cpu()}")
    print(f"{'detector':16} {'kept':>7} {'given back':>11}   faces/s; {'ratio (95 % interval)':24} page faults a step, and weights")
    for name in given.detectors:
        kept, back = measure(name, given.optimizer, given.batch, given.size, given.threads, given.rounds, given.steps)
        ratio = median([b[0] / k[0] for k, b in zip(kept, back, strict=True)])
        rates = [given.batch * given.steps / median([took for took, _, _ in told]).value for told in (kept, back)]
        faults = [round(median([count for _, count, _ in told]).value / given.steps) for told in (kept, back)]
        same = "the same" if [told[2] for told in kept] == [told[2] for told in back] else "OTHERS"
        line = f"{name:16} {rates[0]:7.1f} {rates[1]:11.1f}            {ratio:.2f}"
        print(f"{line:60} {faults[0]:,} and {faults[1]:,}, {same}", flush=True)


if __name__ == "__main__":
    main()
