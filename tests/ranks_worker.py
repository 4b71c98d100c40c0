"""What the tests of `benchmark.ranks` run in each of several processes; the parent computes the same in one."""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from optimizer_reference import Tiny, faces
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.utils.checkpoint import checkpoint

from benchmark.config import ConfigError
from benchmark.objective import BatchObjective
from benchmark.ranks import Ranks
from benchmark.shared_norm import over_all
from detectors.base import Prediction
from detectors.layout import NarrowBatchNorm2d
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base

SIZE = 2
DOMAINS = [0, 1, 0, 1, 0, 0, 2, 0, 2, 0, 1, 1, 0, 0]
MINE = (((0, 4), (4, 10)), ((10, 14),))
"""Of each rank the ends of its micro-batches: ten faces of all three domains, and four without domain 2."""

TOGETHER = ([*range(0, 4), *range(10, 14)], [*range(4, 10)])
"""The micro-batches of one process: the first of both ranks, and the second, which one lacks."""


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
    Case("roga", norm=True, settings={"form": "exact", "alpha": 0.02}),
    Case("roga", norm=True, settings={"variant": "c", "align": "global", "alpha": 0.02}),
]


def run_case(case: Case, parts: Sequence[Sequence[int]], ranks: Ranks | None = None) -> dict[str, Tensor]:
    """State of the detector after three steps in float64, and the last loss."""
    detector = Tiny(norm=case.norm).double()
    detector.train(not case.evaluation)
    base = build_base(case.base, detector.parameters(), **({"lr": 0.05} if case.base == "sgd" else {"lr": 0.01}))
    optimizer = Optimizer(OPTIMIZERS.build(case.rule, **case.settings), base, detector)
    for step in range(3):
        batch = faces(DOMAINS, seed=step)
        objective = BatchObjective(detector, [batch.only(torch.tensor(rows)) for rows in parts], ranks=ranks)
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


class Seen(Tiny):
    """Keeps the mean of its faces as a buffer, as a layer of somebody's own might."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> Prediction:
        """Notes what it saw."""
        if self.training:
            self.seen = images.mean().detach()
        return super().forward(images)


NINE = [0, 0, 0, 0, 0, 0, 1, 1, 1]


def statistics(ranks: Ranks | None, rows: Sequence[int]) -> dict[str, Tensor]:
    """Buffers after one step, in float32, of a detector with BatchNorm and another memory."""
    detector = Seen()
    batch = faces(NINE, dtype=torch.float32).only(torch.tensor(rows))
    OPTIMIZERS.build("sam").gradient(BatchObjective(detector, [batch], ranks=ranks))
    return {name: t.clone() for name, t in detector.named_buffers()}


LAYERS = {
    "of vectors": (nn.BatchNorm1d(3), (8, 3), torch.float32),
    "cumulative": (nn.BatchNorm2d(3, momentum=None), (8, 3, 5, 4), torch.float64),
    "bare": (nn.BatchNorm2d(3, affine=False, track_running_stats=False), (8, 3, 5, 4), torch.float32),
    "large mean": (nn.BatchNorm2d(3), (8, 3, 5, 4), torch.float32),
    "of bfloat16": (nn.BatchNorm2d(3), (8, 3, 5, 4), torch.bfloat16),
    "narrow": (NarrowBatchNorm2d(3), (8, 3, 5, 4), torch.float32),
    "with an activation": (BatchNormAct2d(3), (8, 3, 5, 4), torch.float64),
}
"""BatchNorms of all kinds, the shape of what they are given, and its type."""


class Flat(Tiny):
    """Its second BatchNorm sees one value per channel of each face."""

    def __init__(self) -> None:
        super().__init__()
        self.second[0] = nn.Conv2d(4, 5, 8, bias=False)


class Checkpointed(Tiny):
    """Computes its first block again in the backward pass."""

    def forward(self, images: Tensor) -> Prediction:
        """As Tiny."""
        middle = checkpoint(self.first, self.normalize(images), use_reentrant=False)
        features = self.second(middle).mean(dim=(2, 3))
        return Prediction(self.head(features), features)


def checkpointed(rows: Sequence[int], ranks: Ranks | None = None) -> dict[str, Tensor]:
    """SAM's gradient of a detector that does."""
    detector = Checkpointed().double()
    batch = faces(NINE).only(torch.tensor(rows))
    gradient = OPTIMIZERS.build("sam").gradient(BatchObjective(detector, [batch], ranks=ranks))
    return {name: gradient.parts[p] for name, p in detector.named_parameters()}


def _halves(rank: int) -> Sequence[int]:
    return (range(6), range(6, 9))[rank]


def layers(rows: slice, order: torch.memory_format = torch.contiguous_format) -> dict[str, dict[str, Tensor]]:
    """What each of `LAYERS` gives for some rows in its second forward pass, the slope by them, and its buffers."""
    found = {}
    for name, (layer, shape, dtype) in copy.deepcopy(LAYERS).items():
        layer = layer.double() if dtype == torch.float64 else layer
        draw = torch.Generator().manual_seed(0)
        whole, slope = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))
        x = (whole + 100 * (name == "large mean")).to(dtype)[rows]
        x = (x.contiguous(memory_format=order) if x.ndim == 4 else x).requires_grad_()
        with over_all([layer], 8) if dist.is_initialized() else nullcontext():
            for _ in range(2):
                out = layer(x)
        (by,) = torch.autograd.grad(out, x, slope.to(dtype)[rows])
        found[name] = {"out": out.detach(), "slope": by, **{key: t.clone() for key, t in layer.named_buffers()}}
    return found


def objectives(rank: int, folder: str) -> None:
    """Everything that is asked of objectives, into a file of each rank."""
    with_group(rank, folder)
    ranks = Ranks(timedelta(seconds=60))
    found: dict[str, Any] = {case.key: run_case(case, [range(*ends) for ends in MINE[rank]], ranks) for case in CASES}
    found["overflow"], found["statistics"] = overflow_on_one(ranks), statistics(ranks, _halves(rank))
    empty = BatchObjective(Tiny(norm=False).double(), [faces([0, 1, 1])] if rank == 0 else [], ranks=ranks)
    found["empty"] = (float(empty.gradient().norm()), float(empty.loss), empty.examples, [d.examples for d in empty.domains()])
    found["layers"] = layers(slice(rank, None, SIZE))
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # with which the narrow layer has a way of its own
    found["layers of two threads"] = layers(slice(rank, None, SIZE), torch.channels_last)
    torch.set_num_threads(before)
    found["checkpointed"] = checkpointed(_halves(rank), ranks)
    try:
        BatchObjective(Tiny(), [faces([0, 1, 1])] if rank == 0 else [], ranks=ranks)
    except ConfigError as error:
        found["refused"] = str(error)
    try:
        BatchObjective(
            Flat(), [faces([0], dtype=torch.float32)] if rank == 0 else [faces([1, 1], dtype=torch.float32)], ranks=ranks
        )
        domains = BatchObjective(Flat(), [faces([rank], dtype=torch.float32)], ranks=ranks).domains()
        domains[0].gradient()
    except ConfigError as error:
        found["alone"] = str(error)
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


def grid(rank: int, folder: str, cells: Sequence[dict[str, Any]], data: str, port: int) -> None:
    """Cells as torchrun's processes run them, of which the first that gets as far as scoring finds no finite score."""
    from benchmark import run
    from benchmark.config import Cell
    from benchmark.evaluate import Diverged
    from benchmark.launch import Event, run_cells

    signal.alarm(240)
    torch.set_num_threads(1)
    here = {"RANK": rank, "WORLD_SIZE": SIZE, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in here.items()}
    score, asked = run.score, []

    def blind(*args: Any, **settings: Any) -> Any:
        asked.append(rank)
        if len(asked) == 1:
            raise Diverged("the detector's scores are not finite")
        return score(*args, **settings)

    run.score = blind
    told: list[Event] = []
    outcome = run_cells(list(map(Cell.model_validate, cells)), Path(folder), Path(data), on_event=told.append)
    endings = [(event.cell, event.stage) for event in told if event.stage in ("finished", "failed", "busy")]
    Path(folder, f"told{rank}").write_text(json.dumps({"outcome": asdict(outcome), "endings": endings}))


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
