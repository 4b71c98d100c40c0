"""The training loop: one step is one question to the optimizer, whatever the method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from benchmark.augment import augment
from benchmark.data import BalancedBatches
from benchmark.objective import BatchObjective
from detectors.base import Batch, Detector
from optimizers.base import Optimizer

AfterStep = Callable[[int, Tensor], None]


class Stopped(RuntimeError):
    """The run was asked to stop; its checkpoint is on disk."""


@dataclass(frozen=True)
class Plan:
    """How long to train, and what happens on the way."""

    epochs: int
    batches: BalancedBatches
    evaluations_per_epoch: int
    seed: int
    augment: str
    precision: Literal["fp32", "bf16"]
    micro_batch: int | None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.batches.steps

    def evaluation_steps(self) -> set[int]:
        """After how many steps the detector is evaluated: evenly spread, the last at the end of each epoch."""
        per, n = self.batches.steps, self.evaluations_per_epoch
        return {epoch * per + round(per * i / n) for epoch in range(self.epochs) for i in range(1, n + 1)} - {0}


def micro_batches(batch: Batch, at_most: int | None, pairs: bool = False) -> list[Batch]:
    """The step's faces in groups of at most `at_most`, each a mix of all domains and both classes.

    With `pairs`, the i-th real and the i-th fake face stay together: each group holds as many real as fake faces.
    """
    if at_most is None or len(batch) <= at_most:
        return [batch]
    if not pairs:
        groups = -(-len(batch) // at_most)
        rows = torch.arange(len(batch))
        return [batch.only(rows[i::groups]) for i in range(groups)]
    labels = batch.labels.cpu()
    real, fake = (torch.nonzero(labels == label).flatten() for label in (0, 1))
    groups = -(-len(real) // (at_most // 2))
    return [batch.only(torch.cat([real[i::groups], fake[i::groups]]).sort().values) for i in range(groups)]


def augmented(batch: Batch, plan: Plan, epoch: int, step: int, views: bool) -> Batch:
    """The faces under the plan's augmentation, and with `views` under a second one that is drawn apart; channels last in memory."""

    def draw(stream: str) -> Tensor:
        images = augment(plan.augment, batch.images, plan.seed, epoch, step, stream)
        return images.contiguous(memory_format=torch.channels_last)

    return replace(batch, images=draw("augment"), views=draw("view") if views else None)


def train(
    detector: Detector, optimizer: Optimizer, schedule: LRScheduler | None, plan: Plan, after: AfterStep, start: int = 0
) -> None:
    """Train from step `start` to the end; `detector`, `optimizer` and `schedule` already hold the state of that step.

    `after` is told the number of steps done and the step's loss; it evaluates, saves or stops, and changes nothing.
    """
    device = next(detector.parameters()).device
    detector.train()
    for step in range(start, plan.steps):
        epoch, within = divmod(step, plan.batches.steps)
        if within == 0 or step == start:
            order = plan.batches.epoch(epoch)
        batch = plan.batches.batch(order[within]).to(device)
        batch = augmented(batch, plan, epoch, within, views="views" in detector.needs)
        parts = micro_batches(batch, plan.micro_batch, pairs="pairs" in detector.needs)
        loss = optimizer.step(BatchObjective(detector, parts, precision=plan.precision))
        if schedule is not None:
            schedule.step()
        after(step + 1, loss)
