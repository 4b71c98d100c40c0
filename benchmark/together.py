"""One cell in several processes, as torchrun starts them: each has its part of every step's faces, rank 0 writes the files.

    torchrun --nproc-per-node 4 --no-python dfgrid train --device cuda ...

All ranks must see the same folders. They run the cells one after the other, each with all ranks.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from benchmark.config import Cell, ConfigError
from benchmark.evaluate import Diverged
from benchmark.launch import BUSY, STOPPED, WARNING, Event, Job
from benchmark.mishaps import why_it_failed
from benchmark.ranks import Ranks
from benchmark.run import Busy, run_cell
from benchmark.train import Stopped

PATIENCE = timedelta(days=7)
"""How long a rank waits for another, which may be evaluating. One that dies is noticed at once, by its closed connection."""


def here() -> tuple[int, int]:
    """Rank and number of processes as torchrun tells them; (0, 1) without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def own_device(device: str) -> str:
    """`cuda` becomes the GPU of this process, by its index on the machine.

    Raises:
        ConfigError: a GPU that is named for all of them, or more processes than GPUs.
    """
    if not device.startswith("cuda"):
        return device
    if ":" in device:
        raise ConfigError(f"device '{device}': under torchrun every process has a GPU of its own; take --device cuda")
    index, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if index >= count:
        raise ConfigError(f"torchrun started more processes here than there are GPUs ({count}); take --nproc-per-node {count}")
    return f"cuda:{index}"


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The processes of torchrun as `Ranks`; leaves the group at the end.

    Not after an error: NCCL would wait for ranks that sit in a collective and never leave it. The end of this process closes its
    connections, which they and torchrun notice.
    """
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    yield Ranks(PATIENCE)
    dist.destroy_process_group()


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Ctrl-C, and the SIGTERM that torchrun makes of it, ask for a checkpoint; a second Ctrl-C ends the process at once."""
    asked = False

    def note(number: int, _frame: object) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_together(job: Job) -> None:
    """Run a job's cells one after the other, each with all processes; those that failed before come last.

    A cell that diverges is booked and the next one begun: all processes know it by the same numbers, at the same step. After any
    other error they may be out of step, so it ends this process, and torchrun the others.

    Args:
        job: what to run, in this order; `workers` and `address` mean nothing here. Rank 0's `on_event` is told of progress.

    Raises:
        ConfigError: a cell failed other than by diverging; its reason is on disk, too.
    """
    device = own_device(job.device)
    with joined(device) as ranks, asked_to_stop() as stop:
        job.writes = ranks.rank == 0
        before = ranks.first(lambda: {cell.id for cell in job.todo if _failure(job, cell).exists()})
        cells = sorted(job.todo, key=lambda cell: cell.id in before)
        for number, cell in enumerate(cells):
            reason = _run(job, cell, device, ranks, stop)
            ranks.gather(None)  # one that has failed alone is missed here, where no other cell is blamed for it
            job.book(cell, reason)
            if reason == STOPPED:
                job.outcome.stopped += [left.id for left in cells[number + 1 :]]
                return


def _run(job: Job, cell: Cell, device: str, ranks: Ranks, stop: Callable[[], bool]) -> str:
    """One cell; returns, on all ranks alike, "" or the reason why there is no record: `STOPPED`, `BUSY`, or a sentence."""
    folder = job.folder / cell.id

    def report(stage: str, done: int, total: int) -> None:
        if ranks.rank == 0:
            job.on_event(Event(cell.id, stage, done, total))

    def tell(note: str) -> None:
        job.on_event(Event(cell.id, WARNING, reason=note))

    try:
        run_cell(cell, folder, job.data, device, job.threads, report, stop, ranks, tell)
    except Stopped:
        return STOPPED
    except Busy:  # rank 0 has told all
        return BUSY
    except Diverged as error:
        return str(error)
    except Exception as error:
        # The others fail because this one is gone; theirs is not the reason.
        if _failure(job, cell).exists():
            reason = f"{type(error).__name__}: {error}"
        else:
            reason = job.write_down(cell, why_it_failed(error, folder))
        raise ConfigError(f"rank {ranks.rank}: cell {cell.id} failed: {reason}") from error
    return ""


def _failure(job: Job, cell: Cell) -> Path:
    return job.folder / cell.id / "failure.json"
