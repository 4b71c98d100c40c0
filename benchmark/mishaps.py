"""What ends a cell before its time, found early and said in one sentence: numbers that are not finite, memory, disk, stores."""

from __future__ import annotations

import gc
import json
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from benchmark.checkpoint import LAST, Damaged, load
from benchmark.config import ConfigError, Protocol
from benchmark.evaluate import Diverged
from benchmark.objective import BatchObjective
from benchmark.train import Plan, augmented, micro_batches
from detectors.base import Detector
from optimizers.base import Optimizer
from preprocessing.store import INFO, FaceStore
from results.record import write_atomically

NOT_FINITE = "not_finite.json"
"""In the cell's folder: the step and its faces."""

CPU_ALLOCATOR = ("DefaultCPUAllocator", "not enough memory")
"""What torch's RuntimeError says where the CPU's memory is used up."""


class OutOfMemory(ConfigError):
    """A step does not fit into memory; the sentence says what would."""


def place_to_write(folder: Path) -> None:
    """Make a folder and see that a file can be written there.

    Raises:
        ConfigError: it cannot; the sentence says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}: {error.strerror or error}; name another folder with --runs") from error


def unchanged_stores(stores: Mapping[str, FaceStore], fingerprints: Mapping[str, str]) -> None:
    """Look at each store's file again.

    Raises:
        ConfigError: a store that has another content than when the run began, or is gone.
    """
    for name, store in stores.items():
        try:
            now = json.loads((Path(store.path) / INFO).read_text(encoding="utf-8"))["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            now = "none that can be read"
        if now != fingerprints[name]:
            raise ConfigError(
                f"store {name} changed since the run began (fingerprint {fingerprints[name][:12]} then, {str(now)[:12]} now): its "
                "faces are no longer those of the earlier steps; put the store back, or delete the cell's folder to start again"
            )


def check_finite(
    folder: Path, plan: Plan, step: int, losses: Sequence[Tensor], detector: Detector | None, writes: bool = True
) -> None:
    """Look at the losses of the last steps, and at the weights.

    Args:
        folder: the cell's; the faces of the step go to `NOT_FINITE` there.
        plan: of the run.
        step: of the last loss.
        losses: one a step, 0-dim.
        detector: whose weights are looked at; None looks at losses alone.
        writes: whether this process writes files.

    Raises:
        Diverged: names the step, its faces, and the checkpoint that is left.
    """
    finite = torch.isfinite(torch.stack([loss.detach() for loss in losses])).tolist() if losses else []
    if not all(finite):
        at = step - len(finite) + 1 + finite.index(False)
        raise Diverged(_sentence(folder, plan, at, "the loss is not finite at", writes))
    if detector is not None and not all(bool(torch.isfinite(p).all()) for p in detector.parameters()):
        raise Diverged(_sentence(folder, plan, step, "the weights are not finite after", writes))


def faces_of_step(plan: Plan, step: int) -> list[str]:
    """Keys of the faces of a step, which is counted from 1."""
    epoch, within = divmod(step - 1, plan.batches.steps)
    positions = plan.batches.positions(plan.batches.epoch(epoch)[within])
    return [str(key) for key in plan.batches.frames.rows["key"].to_numpy()[positions]]


def _sentence(folder: Path, plan: Plan, step: int, what: str, writes: bool) -> str:
    faces = faces_of_step(plan, step)
    if writes:
        content = {"step": step, "what": f"{what} this step", "faces": faces}
        write_atomically(folder / NOT_FINITE, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    shown = ", ".join(faces[:3]) + (f" and {len(faces) - 3} more, see {folder.name}/{NOT_FINITE}" if len(faces) > 3 else "")
    return f"{what} step {step} of {plan.steps} (faces {shown}); {_left(folder)}; take a lower learning rate or clip the gradient"


def _left(folder: Path) -> str:
    try:
        return (
            f"the checkpoint of step {int(load(folder / LAST)['step'])} is kept"
            if (folder / LAST).exists()
            else "no checkpoint yet"
        )
    except (Damaged, KeyError):
        return "no whole checkpoint is there"


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


def _take_gradient(detector: Detector, optimizer: Optimizer, plan: Plan, size: int) -> None:
    device = next(detector.parameters()).device
    faces = plan.batches.batch(plan.batches.epoch(0)[0])
    whole = augmented(faces.to(device), plan, 0, 0, views="views" in detector.needs)
    parts = micro_batches(whole, size, "pairs" in detector.needs)
    optimizer.rule.gradient(BatchObjective(detector, parts, plan.precision, plan.weights_dtype, optimizer.scaler))
