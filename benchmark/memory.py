"""Memory that is used up: which error says so, and what would fit, found by trying."""

from __future__ import annotations

import mmap
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import torch

from benchmark.allocator import give_back
from benchmark.config import ConfigError, Protocol
from benchmark.objective import BatchObjective
from benchmark.train import TOGETHER, Plan, augmented, faces_of_steps, fit_together, micro_batches, share
from detectors.base import Batch, Detector
from optimizers.base import Optimizer

CPU_ALLOCATOR = ("DefaultCPUAllocator", "not enough memory")
"""What torch's RuntimeError says where the CPU's memory is used up."""

CUDA = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED")
"""What a RuntimeError says that is no `torch.OutOfMemoryError`: of the driver, of cuBLAS and older cuDNN, and of cuDNN 9."""

ONEDNN = ("could not create a primitive", "could not create a memory object", "could not execute a primitive")
"""What it says where oneDNN has found no memory; and where oneDNN has failed for other reasons."""

GPU_LIBRARIES = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "NCCL")
"""What torch's errors say where CUDA or a library on it has failed."""

HEAD = "out of memory with "

HELD = Path("/proc/self/statm")


class OutOfMemory(ConfigError):
    """A step does not fit into memory; the sentence says what would."""


@contextmanager
def in_memory(
    protocol: Protocol, detector: Detector, optimizer: Optimizer, plan: Plan, smaller: Callable[[int], Plan]
) -> Iterator[None]:
    """Turn an out-of-memory error of training into a sentence that says what fits, found by trying.

    Args:
        protocol, detector, optimizer, plan: of the run.
        smaller: the plan with so many faces in a step.

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
    fits = largest_that_fits(detector, optimizer, plan, faces_at_once(protocol))
    step = None if fits else largest_step_that_fits(detector, optimizer, smaller, plan, protocol)
    raise OutOfMemory(_of_steps(protocol, step, reason) if step else _advice(protocol, fits, reason))


def faces_at_once(protocol: Protocol) -> int:
    """Faces of one forward pass of training."""
    return min(protocol.micro_batch or protocol.batch_size, protocol.batch_size)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory is used up: Python's, CUDA's, or that of torch's CPU allocator.

    oneDNN has one sentence for all that it fails at. It counts where memory is used up, which must be asked before the error and
    what the step holds are let go.
    """
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return isinstance(error, MemoryError | torch.OutOfMemoryError)
    told = str(error)
    return any(words in told for words in (*CPU_ALLOCATOR, *CUDA)) or (any(words in told for words in ONEDNN) and used_up())


def used_up() -> bool:
    """Whether the system refuses as much memory again as this process holds, which no single operation of a step asks for.

    The pages are never touched. False where the system does not say what a process holds.
    """
    try:
        held = int(HELD.read_text().split()[1]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return False
    try:
        mmap.mmap(-1, held, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError):
        return True
    return False


def spoils_its_process(reason: str) -> bool:
    """Whether a cell that failed for this reason leaves a process in which no other should run.

    When oneDNN finds no memory for a kernel's code, the thread keeps the error, and "could not create a primitive" is all that it
    says from then on, with whatever memory. After an error in a kernel, such as an illegal memory access, everything that a process
    asks of its CUDA context fails.
    """
    return reason.startswith(HEAD) or any(words in reason for words in (*ONEDNN, *GPU_LIBRARIES))


def _advice(protocol: Protocol, fits: int | None, reason: str) -> str:
    head = f"{HEAD}{faces_at_once(protocol)} faces in one forward pass ({reason}); "
    if fits is None:
        return head + "not even the smallest micro-batch fits: take smaller faces, another detector, or a device with more memory"
    groups = -(-protocol.batch_size // fits)
    return head + (
        f"{fits} faces fit: set protocol.micro_batch: {fits}, which accumulates the gradient of each step of "
        f"{protocol.batch_size} faces over {groups} forward passes"
        + (", with BatchNorm's statistics of each apart" if groups > 1 else "")
        + f"; or protocol.batch_size: {fits}, which is another training"
    )


def _of_steps(protocol: Protocol, step: int, reason: str) -> str:
    return (
        f"{HEAD}{protocol.batch_size} faces in a step, however few of them in one forward pass ({reason}); steps of {step} faces "
        f"fit: set protocol.batch_size: {step}, which is another training"
    )


def largest_that_fits(detector: Detector, optimizer: Optimizer, plan: Plan, size: int) -> int | None:
    """Faces of the largest micro-batch with which steps can be taken, of a half, a quarter, ... of `size`; tried."""
    while size > 2:
        size = max(2, size // 4 * 2)  # even: pairs stay together
        if _fits(detector, optimizer, lambda: plan, size):
            return size
    return None


def largest_step_that_fits(
    detector: Detector, optimizer: Optimizer, smaller: Callable[[int], Plan], plan: Plan, protocol: Protocol
) -> int | None:
    """Faces of the largest step, of a half, a quarter, ... of the protocol's, that fits with the protocol's micro-batch; tried."""
    pairs = 2 * max(1, len(plan.batches.frames.methods))  # of a real and a fake face for each domain
    size = protocol.batch_size
    while size > pairs:
        size = max(pairs, size // (2 * pairs) * pairs)
        if _fits(detector, optimizer, partial(smaller, size), min(faces_at_once(protocol), size)):
            return size
    return None


def _fits(detector: Detector, optimizer: Optimizer, plan: Callable[[], Plan], size: int) -> bool:
    on_cpu = next(detector.parameters()).device.type == "cpu"
    optimizer.base.zero_grad(set_to_none=True)
    optimizer.base.state.clear()  # where memory ran out while it was made, a part of it is there, and no step finds the rest
    give_back()  # on a CPU, large blocks of the other thread are mapped, and cannot use what lies free here
    try:
        if on_cpu:
            with ThreadPoolExecutor(1) as fresh:  # see `spoils_its_process`
                fresh.submit(_take_steps, detector, optimizer, plan(), size).result()
        else:
            _take_steps(detector, optimizer, plan(), size)
    except (MemoryError, RuntimeError, ConfigError) as error:
        if not isinstance(error, ConfigError) and not ran_out(error):
            raise
        return False
    return True


def steps_beside(plan: Plan, faces: Batch, views: bool) -> int:
    """Of how many other steps the faces lie on a GPU while one trains: the rest of its group, and the next group."""
    return 2 * min(TOGETHER, fit_together(faces, views), plan.batches.steps) - 1


def _take_steps(detector: Detector, optimizer: Optimizer, plan: Plan, size: int) -> None:
    device = next(detector.parameters()).device
    with closing(faces_of_steps(plan, 0)) as read:
        faces, examples = next(read)
    views = "views" in detector.needs
    whole = augmented(faces.to(device), plan, 0, 0, views, examples)
    others = steps_beside(plan, faces, views) if device.type == "cuda" else 0
    beside = [torch.empty_like(images) for images in (whole.images, whole.views) if images is not None for _ in range(others)]
    pairs = "pairs" in detector.needs
    parts = [part for part in share(micro_batches(whole, size, pairs), plan.ranks, pairs) if len(part)]
    for _ in range(2):  # the first makes what the base optimizer keeps, and the second meets it
        optimizer.step(BatchObjective(detector, parts, plan.precision, plan.weights_dtype, optimizer.scaler))
    del beside  # held until here
