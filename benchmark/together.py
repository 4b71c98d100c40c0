"""One cell in several processes, as torchrun starts them: each has its part of every step's faces, rank 0 writes the files.

    torchrun --nproc-per-node 4 --no-python dfgrid train --device cuda ...

All ranks must see the same folders. They run the cells one after the other, each with all ranks.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from benchmark.config import Cell, ConfigError
from benchmark.evaluate import Diverged
from benchmark.ranks import Ranks
from benchmark.run import run_cell
from benchmark.testing import Report
from benchmark.train import Stopped
from results.index import save_failure

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
    """The processes of torchrun as `Ranks`; leaves the group at the end."""
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(PATIENCE)
    finally:
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


def run_together(
    cells: Iterable[Cell],
    folder: Path,
    data: Path,
    device: str,
    threads: int,
    report: Callable[[Cell], Report],
    ended: Callable[[Cell, str], None],
    tell: Callable[[Cell], Callable[[str], None]],
) -> None:
    """Run cells one after the other, each with all processes. The first that fails ends this process, and torchrun the others.

    Args:
        cells: what to run, in this order.
        folder: `runs/<grid>`.
        data: folder that relative store names belong to.
        device: "cpu", or "cuda" for the GPU of each process.
        threads: of torch in each process.
        report: makes a cell's `Report`; rank 0's is called.
        ended: told "finished" or "stopped" of a cell.
        tell: makes what `run_cell` tells of a cell with; rank 0's is called.

    Raises:
        ConfigError: a cell failed; its reason is on disk, too.
    """
    device = own_device(device)
    with joined(device) as ranks, asked_to_stop() as stop:
        for cell in cells:
            try:
                silent: Report = lambda stage, done, total: None  # noqa: E731
                told = report(cell) if ranks.rank == 0 else silent
                run_cell(cell, folder / cell.id, data, device, threads, told, stop, ranks, tell(cell))
            except Stopped:
                ended(cell, "stopped")
                return
            except Exception as error:
                reason = str(error) if isinstance(error, ValueError | Diverged) else f"{type(error).__name__}: {error}"
                target = folder / cell.id / "failure.json"
                # The others fail because this one is gone; theirs is not the reason.
                if target.parent.is_dir() and not target.exists():
                    save_failure(target, reason)
                raise ConfigError(f"rank {ranks.rank}: cell {cell.id} failed: {reason}") from error
            ended(cell, "finished")
