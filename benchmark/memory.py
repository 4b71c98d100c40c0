"""Memory that is used up: which error says so, and what would fit, found by trying."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager

import torch

from benchmark.config import ConfigError, Protocol
from benchmark.objective import BatchObjective
from benchmark.train import TOGETHER, Plan, augmented, faces_of_steps, fit_together, micro_batches, share
from detectors.base import Batch, Detector
from optimizers.base import Optimizer

CPU_ALLOCATOR = ("DefaultCPUAllocator", "not enough memory")
"""What torch's RuntimeError says where the CPU's memory is used up."""


class OutOfMemory(ConfigError):
    """A step does not fit into memory; the sentence says what would."""


@contextmanager
def in_memory(protocol: Protocol, detector: Detector, optimizer: Optimizer, plan: Plan) -> Iterator[None]:
    """Turn an out-of-memory error of training into a sentence that says what fits, found by trying.

    Raises:
        OutOfMemory: in place of torch's and Python's errors; the detector and optimizer are then of no more use.
    """
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        traceback.clear_frames(error.__traceback__)  # they hold the step's tensors
    optimizer.base.zero_grad(set_to_none=True)
    raise OutOfMemory(_advice(protocol, largest_that_fits(detector, optimizer, plan, faces_at_once(protocol)), reason))


def faces_at_once(protocol: Protocol) -> int:
    """Faces of one forward pass of training."""
    return min(protocol.micro_batch or protocol.batch_size, protocol.batch_size)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory is used up: Python's, CUDA's, or that of torch's CPU allocator."""
    told = isinstance(error, RuntimeError) and any(words in str(error) for words in CPU_ALLOCATOR)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or told


def _advice(protocol: Protocol, fits: int | None, reason: str) -> str:
    head = f"out of memory with {faces_at_once(protocol)} faces in one forward pass ({reason}); "
    if fits is None:
        return head + "not even the smallest micro-batch fits: take smaller faces, another detector, or a device with more memory"
    groups = -(-protocol.batch_size // fits)
    return head + (
        f"{fits} faces fit: set protocol.micro_batch: {fits}, which accumulates the gradient of each step of "
        f"{protocol.batch_size} faces over {groups} forward passes"
        + (", with BatchNorm's statistics of each apart" if groups > 1 else "")
        + f"; or protocol.batch_size: {fits}, which is another training"
    )


def largest_that_fits(detector: Detector, optimizer: Optimizer, plan: Plan, size: int) -> int | None:
    """Faces of the largest micro-batch with which the rule's gradient can be taken, of a half, a quarter, ... of `size`; tried."""
    device = next(detector.parameters()).device
    while size > 2:
        size = max(2, size // 4 * 2)  # even: pairs stay together
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            _take_gradient(detector, optimizer, plan, size)
        except (MemoryError, RuntimeError, ConfigError) as error:
            if not isinstance(error, ConfigError) and not ran_out(error):
                raise
            continue
        return size
    return None


def steps_beside(plan: Plan, faces: Batch, views: bool) -> int:
    """Of how many other steps the faces lie on a GPU while one trains: the rest of its group, and the next group."""
    return 2 * min(TOGETHER, fit_together(faces, views), plan.batches.steps) - 1


def _take_gradient(detector: Detector, optimizer: Optimizer, plan: Plan, size: int) -> None:
    device = next(detector.parameters()).device
    with closing(faces_of_steps(plan, 0)) as read:
        faces, examples = next(read)
    views = "views" in detector.needs
    whole = augmented(faces.to(device), plan, 0, 0, views, examples)
    others = steps_beside(plan, faces, views) if device.type == "cuda" else 0
    beside = [torch.empty_like(images) for images in (whole.images, whole.views) if images is not None for _ in range(others)]
    pairs = "pairs" in detector.needs
    parts = [part for part in (share(one, plan.ranks, pairs) for one in micro_batches(whole, size, pairs)) if len(part)]
    optimizer.rule.gradient(BatchObjective(detector, parts, plan.precision, plan.weights_dtype, optimizer.scaler))
    del beside  # held until here
