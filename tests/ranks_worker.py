"""What the tests of `benchmark.ranks` run in each of several processes; the parent computes the same in one."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from optimizer_reference import Tiny, faces
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from benchmark.objective import BatchObjective
from benchmark.ranks import Ranks
from detectors.base import Batch, Prediction
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base

SIZE = 2
DOMAINS = [0, 1, 0, 1, 0, 0, 2, 0, 2, 0, 1, 1, 0, 0]
MINE = (((0, 4), (4, 10)), ((10, 14),))
"""Of each rank the ends of its micro-batches: ten faces of all three domains, and four without domain 2."""


@dataclass(frozen=True)
class Case:
    """Three steps of an optimizer.

    Attributes:
        norm: with BatchNorm.
        evaluation: in evaluation mode.
    """

    rule: str
    base: str = "sgd"
    norm: bool = False
    evaluation: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return repr(self)


NAMES = ["sgd", "adam", "sam", "asam", "gnp", "sagm", "roga", "pim", "dualflat"]
CASES = [
    *(Case(name, base) for name in NAMES for base in ("sgd", "adam")),
    *(Case(name, norm=True) for name in NAMES),
    *(Case(name, norm=True, evaluation=True) for name in NAMES),
    Case("roga", settings={"form": "exact", "alpha": 0.02}),
    Case("roga", settings={"weighting": "size"}),
    Case("roga", settings={"align": "global", "alpha": 0.02}),
    Case("roga", settings={"variant": "c", "alpha": 0.02}),
    Case("pim", settings={"alpha": 0.5}),
]


def run_case(case: Case, parts: list[tuple[int, int]], ranks: Ranks | None = None) -> dict[str, Tensor]:
    """State of the detector after three steps in float64, and the last loss."""
    detector = Tiny(norm=case.norm).double()
    detector.train(not case.evaluation)
    base = build_base(case.base, detector.parameters(), **({"lr": 0.05} if case.base == "sgd" else {"lr": 0.01}))
    optimizer = Optimizer(OPTIMIZERS.build(case.rule, **case.settings), base, detector)
    for step in range(3):
        batch = faces(DOMAINS, seed=step)
        objective = BatchObjective(detector, [batch.only(torch.arange(*ends)) for ends in parts], ranks=ranks)
        loss = optimizer.step(objective)
    return {**{name: t.clone() for name, t in detector.state_dict().items()}, "loss": loss}


class Overflowing(Tiny):
    """Its gradient is infinite where it is told."""

    overflow = False

    def forward(self, images: Tensor) -> Prediction:
        prediction = super().forward(images)
        if self.overflow:
            prediction.logits.register_hook(lambda g: g * float("inf"))
        return prediction


def overflow_on_one(ranks: Ranks) -> dict[str, Tensor]:
    """An Inf on rank 1 in the second of three steps undoes it on both."""
    detector = Overflowing()
    scaler = GradScaler("cpu", init_scale=1024.0)
    optimizer = Optimizer(OPTIMIZERS.build("sam"), build_base("sgd", detector.parameters()), detector, scaler=scaler)
    for step in range(3):
        detector.overflow = step == 1 and ranks.rank == 1
        before = [t.clone() for t in detector.state_dict().values()]
        batch = faces([0] * 4, seed=10 * step + ranks.rank, dtype=torch.float32)
        optimizer.step(BatchObjective(detector, [batch], "fp16", scaler=scaler, ranks=ranks))
        if step == 1:
            assert all(torch.equal(a, b) for a, b in zip(before, detector.state_dict().values(), strict=True))
    return {**detector.state_dict(), "scale": torch.tensor(scaler.get_scale())}


def statistics(ranks: Ranks) -> list[dict[str, Tensor]]:
    """BatchNorm's buffers after one step: of both together, and as this rank's own faces alone would leave them."""
    found = []
    for shared in (ranks, None):
        detector = Tiny()
        batch = _part(faces([0, 0, 0, 0, 0, 0, 1, 1, 1], dtype=torch.float32), ranks.rank)
        rule = OPTIMIZERS.build("sam")
        rule.gradient(BatchObjective(detector, [batch], ranks=shared))
        found.append({name: t.clone() for name, t in detector.named_buffers()})
    return found


def _part(batch: Batch, rank: int) -> Batch:
    return batch.only(torch.arange(0, 6) if rank == 0 else torch.arange(6, 9))


def objectives(rank: int, folder: str) -> None:
    """Everything that is asked of objectives, into a file of each rank."""
    with_group(rank, folder)
    ranks = Ranks(timedelta(seconds=60))
    found: dict[str, Any] = {case.key: run_case(case, list(MINE[rank]), ranks) for case in CASES}
    found["overflow"], found["statistics"] = overflow_on_one(ranks), statistics(ranks)
    empty = BatchObjective(Tiny().double(), [faces([0, 1, 1])] if rank == 0 else [], ranks=ranks)
    found["empty"] = (float(empty.gradient().norm()), float(empty.loss), empty.examples, [d.examples for d in empty.domains()])
    torch.save(found, Path(folder, f"{rank}.pt"))
    last = BatchObjective(Tiny(), [faces([0, 1, 1], dtype=torch.float32)], ranks=ranks)
    if rank == 1:
        raise ZeroDivisionError("while rank 0 waits for this one's gradient")
    started = time.monotonic()
    try:
        last.gradient()
    except RuntimeError:
        Path(folder, "noticed").write_text(str(time.monotonic() - started))
        raise


def cells(rank: int, folder: str, settings: dict[str, Any], data: str) -> None:
    """A cell without a pause, and one that is stopped after its second step."""
    from benchmark.config import Cell
    from benchmark.run import run_cell
    from benchmark.train import Stopped

    signal.alarm(240)
    with_group(rank, folder)
    ranks, cell = Ranks(timedelta(seconds=120)), Cell.model_validate(settings)
    run_cell(cell, Path(folder, "whole"), Path(data), ranks=ranks)
    steps = iter(range(1, 1000))
    try:
        # One that is asked is enough.
        run_cell(cell, Path(folder, "parts"), Path(data), should_stop=lambda: next(steps) == 2 and rank == 1, ranks=ranks)
    except Stopped as stopped:
        Path(folder, f"stopped{rank}").write_text(str(stopped))
    run_cell(cell, Path(folder, "parts"), Path(data), ranks=ranks)
    dist.destroy_process_group()


def with_group(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=SIZE, timeout=timedelta(seconds=120)
    )


def launch(function: Any, *args: Any) -> list[int | None]:
    """`function(rank, *args)` in `SIZE` processes, none of which is ended because another has; returns their exit codes."""
    processes = mp.spawn(function, args=args, nprocs=SIZE, join=False).processes
    for process in processes:
        process.join(300)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes
