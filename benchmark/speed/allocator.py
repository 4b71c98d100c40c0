"""What it brings to keep freed memory: `python -m benchmark.speed.allocator`.

Two processes take turns with a block of training steps on one batch: one after `benchmark.allocator.keep_memory`, one as the C
library does by itself. That cannot be undone within a process, so each has its own. A ratio is taken in each round; their median is
printed with its 95 % interval (see `benchmark.speed.paired`), with each one's peak memory, and whether both came to the same state
to the bit.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing as mp
import resource
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from benchmark.allocator import keep_memory
from benchmark.objective import BatchObjective
from benchmark.provenance import cpu
from benchmark.seeding import seed_everything
from benchmark.speed.detectors import DEFAULT
from benchmark.speed.ideals import BATCH, SIZE, faces
from benchmark.speed.paired import median
from detectors import DETECTORS
from detectors.layout import channels_last
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base


@dataclass(frozen=True)
class Told:
    """Seconds of a block of steps, page faults in it, MB at most until its end, and a digest of the detector behind it."""

    seconds: float
    faults: int
    peak: float
    digest: str


def serve(turns: Connection, keep: bool, detector: str, optimizer: str, batch: int, size: int, threads: int) -> None:
    """Train so many steps whenever that is asked for, until none are."""
    if keep:
        keep_memory()
    torch.set_num_threads(threads)
    seed_everything(0)
    net = DETECTORS.build(detector, size=size)
    channels_last(net)
    net.train()
    rule = OPTIMIZERS.build(optimizer)
    trained = Optimizer(rule, build_base(rule.base, net.parameters(), lr=1e-4), net)
    some = faces(batch, size, 2, torch.device("cpu"))
    while steps := turns.recv():
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(steps):
            trained.step(BatchObjective(net, [some]))
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        digest = hashlib.sha256()
        for values in net.state_dict().values():
            digest.update(values.contiguous().numpy().tobytes())
        turns.send(Told(took, after.ru_minflt - before.ru_minflt, after.ru_maxrss / 1e3, digest.hexdigest()))


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
    parser.add_argument("--detectors", nargs="+", default=list(DEFAULT), choices=DETECTORS.names(), metavar="NAME")
    parser.add_argument("--optimizer", default="adam", choices=OPTIMIZERS.names())
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--size", type=int, default=SIZE, help="side of the faces, px")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9, help="6 at least, or there is no interval")
    parser.add_argument("--steps", type=int, default=2, help="in a block")
    given = parser.parse_args()
    if min(given.rounds, given.steps, given.threads) < 1 or given.batch < 4 or given.batch % 4:
        parser.error(
            "--rounds, --steps and --threads must be 1 at least, and --batch a multiple of 4 (two domains, half of each fake)"
        )
    if not keep_memory():
        parser.error("this C library cannot be told to keep memory; glibc can")
    print(f"{given.optimizer}, {given.batch} faces of {given.size} px, fp32, {given.threads} threads, {cpu()}")
    print(
        f"{'detector':16} {'kept':>7} {'given back':>11}   faces/s; {'ratio (95 % interval)':24} page faults a step; peaks; state"
    )
    for name in given.detectors:
        kept, back = measure(name, given.optimizer, given.batch, given.size, given.threads, given.rounds, given.steps)
        ratio = median([b.seconds / k.seconds for k, b in zip(kept, back, strict=True)])
        rates = [given.batch * given.steps / median([told.seconds for told in who]).value for who in (kept, back)]
        faults = [round(median([told.faults for told in who]).value / given.steps) for who in (kept, back)]
        peaks = [who[-1].peak for who in (kept, back)]
        same = "the same" if [told.digest for told in kept] == [told.digest for told in back] else "OTHERS"
        line = f"{name:16} {rates[0]:7.1f} {rates[1]:11.1f}            {ratio:.2f}"
        print(f"{line:60} {faults[0]:,} and {faults[1]:,}; {peaks[0]:.0f} and {peaks[1]:.0f} MB; {same}", flush=True)


if __name__ == "__main__":
    main()
