"""The training loop: one step is one question to the optimizer, whatever the method."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from benchmark.ahead import ahead
from benchmark.augment import BY_FACE, augment
from benchmark.data import Annotate, BalancedBatches, FaceFrames
from benchmark.delivery import Delivery
from benchmark.objective import BatchObjective, LaterPasses, Spent
from benchmark.plain_batches import PlainBatches
from benchmark.presets import BY_EXAMPLE
from benchmark.protocol import Protocol as Switches
from benchmark.ranks import Ranks
from detectors.base import Batch, Detector
from optimizers.base import Optimizer

TOGETHER = 4
"""Steps whose faces are sent to a GPU and augmented there in one go. Each call of torch in the thread that reads makes the one that
trains wait for Python's lock, and a small network's step on a GPU takes no longer than some dozens of such calls."""

FLOAT, ALIGNED, GROUP = 4, 512, 2**28
"""Bytes: of a number; that torch's allocator on a GPU aligns tensors to; of the faces of steps that are sent together, at most."""

Faces = tuple[Batch, NDArray[np.int64] | None]
"""The 8-bit faces of a step, and which faces these are where the augmentation asks for that."""

AfterStep = Callable[[int, Tensor], None]
BeforeStep = Callable[[int, Batch], None]


class Stopped(RuntimeError):
    """The run was asked to stop; what it goes on from is on disk."""


class Batches(Protocol):
    """The order of training: `epoch` gives the steps of an epoch, and `batch` the faces of one of them."""

    steps: int
    frames: FaceFrames

    def epoch(self, epoch: int) -> Any:
        """A sequence of `steps` entries; depends on (seed, epoch) alone."""

    def examples(self, order: Any) -> Any:
        """For each entry of `epoch` (N, 2): name and showing of each face; see `benchmark.examples`."""

    def positions(self, step: Any) -> NDArray[np.int64]:
        """Rows of `frames` that one entry of `epoch` stands for, in the batch's order."""

    def batch(self, step: Any) -> Batch:
        """The faces of one entry of `epoch`, as 8-bit levels: (N, 3, S, S) uint8."""


def batches_for(protocol: Switches, frames: FaceFrames, seed: int, annotate: Annotate | None = None) -> Batches:
    """The order of training that the protocol asks for.

    Raises:
        ConfigError: a step asks for more faces than there are.
    """
    if protocol.class_balance == "domains":
        return BalancedBatches(frames, protocol.batch_size, seed, annotate)
    return PlainBatches(frames, protocol.batch_size, seed, protocol.duplicates == "keep", annotate)


@dataclass(frozen=True)
class Plan:
    """How long to train, and what happens on the way."""

    epochs: int
    batches: Batches
    evaluations_per_epoch: int
    seed: int
    augment: str
    precision: Literal["fp32", "bf16", "fp16"]
    micro_batch: int | None
    later: LaterPasses | None = None
    points: Literal["even", "dfb"] = "even"
    stepping: Literal["step", "epoch", "never"] = "step"
    weights_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    ranks: Ranks | None = None
    spent: Spent = field(default_factory=Spent)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.batches.steps

    def evaluation_steps(self) -> set[int]:
        """After how many steps the detector is evaluated; see `points`."""
        return points(self.epochs, self.batches.steps, self.evaluations_per_epoch, self.points)


def points(epochs: int, per: int, n: int, how: Literal["even", "dfb"]) -> set[int]:
    """After how many of `epochs` x `per` steps a detector is evaluated.

    "even": `n` times an epoch, evenly spread, the last at its end. "dfb": where the number of steps is a multiple of an epoch's,
    from the second epoch on of half of that, rounded down; where an epoch's steps are odd, the points do not keep to its end.
    """
    if how == "dfb":
        every = [max(per // (2 if epoch else 1), 1) for epoch in range(epochs)]
        return {step for step in range(1, epochs * per + 1) if step % every[(step - 1) // per] == 0}
    return {epoch * per + round(per * i / n) for epoch in range(epochs) for i in range(1, n + 1)} - {0}


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
    groups = -(-(len(batch) // 2) // (at_most // 2))
    return [_paired(batch, slice(i, None, groups)) for i in range(groups)]


def augmented(batch: Batch, plan: Plan, epoch: int, step: int, views: bool, examples: NDArray[np.int64] | None = None) -> Batch:
    """The faces under the plan's augmentation, and with `views` under a second one that is drawn apart.

    uint8 images become float32 in [0, 1], channels last in memory.

    `examples` says which faces these are; see `augment`.
    """

    def draw(stream: str) -> Tensor:
        images = augment(plan.augment, batch.images, plan.seed, epoch, step, stream, examples)
        return images.contiguous(memory_format=torch.channels_last)

    return replace(batch, images=draw("augment"), views=draw("view") if views else None)


def augmented_together(
    batches: Sequence[Batch], plan: Plan, epoch: int, first: int, views: bool, examples: Sequence[NDArray[np.int64] | None]
) -> list[Batch]:
    """`augmented` for consecutive steps of an epoch, from step `first` on: the same faces to the bit.

    In one go where the preset allows it. The batches are then parts of one tensor, and each starts where a tensor of its own might,
    so that it meets the same kernels.
    """
    if len(batches) == 1 or plan.augment not in BY_FACE or batches[0].images.numel() * FLOAT % ALIGNED:
        steps = enumerate(zip(batches, examples, strict=True), first)
        return [augmented(batch, plan, epoch, step, views, known) for step, (batch, known) in steps]
    every = replace(batches[0], images=torch.cat([batch.images for batch in batches]))  # only its images are looked at
    named = [known for known in examples if known is not None]
    done = augmented(every, plan, epoch, first, views, np.concatenate(named) if named else None)
    sizes = [len(batch) for batch in batches]
    images = done.images.split(sizes)
    seconds = [None] * len(sizes) if done.views is None else done.views.split(sizes)
    return [replace(batch, images=own, views=view) for batch, own, view in zip(batches, images, seconds, strict=True)]


def share(parts: Sequence[Batch], ranks: Ranks | None, pairs: bool = False) -> list[Batch]:
    """The rank's part of each micro-batch; augmentation has seen the whole step, so a face looks the same on any rank.

    The faces of all micro-batches are dealt in turn, so that each rank has as many of the step as any other, but for one. With
    `pairs` it is pairs of a real and a fake face that are dealt.
    """
    if ranks is None:
        return list(parts)
    mine, dealt = [], 0
    for part in parts:
        places = slice((ranks.rank - dealt) % ranks.size, None, ranks.size)
        mine.append(_paired(part, places) if pairs else part.only(torch.arange(len(part))[places]))
        dealt += len(part) // 2 if pairs else len(part)
    return mine


def _paired(batch: Batch, some: slice) -> Batch:
    """`some` of the pairs of the i-th real and the i-th fake face, in the batch's order."""
    labels = batch.labels.cpu()
    real, fake = (torch.nonzero(labels == label).flatten()[some] for label in (0, 1))
    return batch.only(torch.cat([real, fake]).sort().values)


def faces_of_steps(plan: Plan, start: int) -> Generator[Faces, None, None]:
    """The 8-bit faces of every step from `start` to the end, and which faces these are where the augmentation asks for that."""
    for epoch in range(start // plan.batches.steps, plan.epochs):
        order = plan.batches.epoch(epoch)
        examples = plan.batches.examples(order) if plan.augment in BY_EXAMPLE else None
        first = max(start - epoch * plan.batches.steps, 0)
        for within in range(first, plan.batches.steps):
            yield plan.batches.batch(order[within]), None if examples is None else examples[within]


def fit_together(faces: Batch, views: bool) -> int:
    """Steps of so many faces, with a second view of each or without, that `GROUP` has room for; one at least."""
    return max(1, GROUP // (faces.images.numel() * FLOAT * (1 + views)))


def made_ready(
    plan: Plan, start: int, device: torch.device, views: bool, together: int
) -> Generator[Callable[[], list[Batch]], None, None]:
    """The faces of every step from `start` to the end, augmented, on the device; each is a call that gives the batches of so many
    steps at most, or of what is left of an epoch."""
    delivery, read = Delivery(device), faces_of_steps(plan, start)
    while start < plan.steps:
        epoch, first = divmod(start, plan.batches.steps)
        one = next(read)
        count = min(together, fit_together(one[0], views), plan.batches.steps - first)
        faces, examples = zip(one, *islice(read, count - 1), strict=True)
        yield delivery.send(faces, partial(augmented_together, plan=plan, epoch=epoch, first=first, views=views, examples=examples))
        start += len(faces)


def train(
    detector: Detector,
    optimizer: Optimizer,
    schedule: LRScheduler | None,
    plan: Plan,
    after: AfterStep,
    start: int = 0,
    before: BeforeStep = lambda step, batch: None,
) -> None:
    """Train from step `start` to the end; `detector`, `optimizer` and `schedule` already hold the state of that step.

    `after` is told the number of steps done and the step's loss; it evaluates, saves or stops, and changes nothing.
    `before` is told the number that the coming step will have and its batch, and changes nothing either.
    """
    device, views = next(detector.parameters()).device, "views" in detector.needs
    detector.train()
    together, depth = (1, 2) if device.type == "cpu" else (TOGETHER, 1)  # one group on the device besides the one that trains
    with closing(ahead(made_ready(plan, start, device, views, together), depth)) as read:
        for step, batch in enumerate((batch for take in read for batch in take()), start):
            before(step + 1, batch)
            pairs = "pairs" in detector.needs
            # Divided among the ranks last, so that a micro-batch is the same one however many they are.
            parts = share(micro_batches(batch, plan.micro_batch, pairs), plan.ranks, pairs)
            scaler = optimizer.scaler
            objective = BatchObjective(detector, parts, plan.precision, plan.weights_dtype, scaler, plan.ranks, plan.later)
            objective.spent = plan.spent
            loss = optimizer.step(objective)
            ends = (step + 1) % plan.batches.steps == 0
            if schedule is not None and (plan.stepping == "step" or (plan.stepping == "epoch" and ends)):
                schedule.step()
            after(step + 1, loss)
