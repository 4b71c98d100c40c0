"""A few timed passes of a detector: what a plan's hours are made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark.allocator import keep_memory
from benchmark.memory import ran_out
from benchmark.precision import Precision
from benchmark.specs import DetectorSpec
from detectors import DETECTORS
from detectors.layout import channels_last
from optimizers.registry import RegistryError

FEWEST_FACES, LONG = 4, 0.3
"""The first batch that is timed; it is doubled, up to a step's faces, while a pass over it takes less than so many seconds."""

TIMED_SECONDS = 2.0
"""How long the calibration goes on with one detector and one kind of pass, after one to warm up."""


@dataclass(frozen=True)
class Timing:
    """A detector on this machine: seconds of a face forward and backward, and forward alone; its numbers of weights and of all."""

    train: float
    score: float
    weights: int
    numbers: int


def time_detector(spec: DetectorSpec, device: str = "cpu", faces: int = FEWEST_FACES, precision: str = "fp32") -> Timing:
    """Time a few passes of a detector with random weights. A loss of its own, with more than one view of a face, is not timed.

    Args:
        spec: which detector.
        device: torch's name of the device.
        faces: of one forward pass of training; small batches take longer a face than large ones.
        precision: of the passes of training, as a protocol names it; faces are scored in fp32 whatever it is.

    Raises:
        RegistryError, ConfigError: an unknown name, setting or precision.
    """
    computed_in = Precision(precision)
    keep_memory(device)  # as a cell does
    detector = DETECTORS.build(spec.name, **spec.without_weights).to(device)
    channels_last(detector)
    side = getattr(detector, "size", None)
    if not isinstance(side, int):
        raise RegistryError(f"detector '{spec.title}' has no attribute `size`, the side of its faces in px")
    weights = [w for w in detector.parameters() if w.requires_grad]

    def batch(count: int) -> tuple[Tensor, Tensor]:
        images = torch.rand(count, 3, side, side, device=device).to(memory_format=torch.channels_last)
        return images, torch.arange(count, device=device) % 2

    def train(images: Tensor, labels: Tensor) -> None:
        with computed_in.autocast(images.device, shifted=False):
            loss = F.cross_entropy(detector(images).logits, labels)
        torch.autograd.grad(loss, weights, allow_unused=True)

    @torch.no_grad()
    def score(images: Tensor, labels: Tensor) -> None:
        detector(images)

    given = _largest(train, batch, faces, device)
    count = len(given[0])
    timed = (_seconds(partial(train, *given), device) / count, _seconds(partial(score, *given), device) / count)
    numbers = sum(tensor.numel() for tensor in detector.state_dict().values())
    return Timing(*timed, weights=sum(w.numel() for w in weights), numbers=numbers)


def _largest(
    work: Callable[[Tensor, Tensor], None], batch: Callable[[int], tuple[Tensor, Tensor]], faces: int, device: str
) -> tuple[Tensor, Tensor]:
    """The largest batch, of at most `faces`, that is quick to work on and fits into memory."""
    count = min(FEWEST_FACES, faces)
    given = batch(count)
    work(*given)  # the first pass takes longer
    while count < faces and _once(partial(work, *given), device) < LONG:
        count = min(2 * count, faces)
        try:
            larger = batch(count)
            work(*larger)
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            return given
        given = larger
    return given


def _seconds(work: Callable[[], None], device: str) -> float:
    """Seconds of one call, the fastest of some: what else the machine does only makes it slower."""
    best, spent = float("inf"), 0.0
    work()
    while spent < TIMED_SECONDS:
        seconds = _once(work, device)
        best, spent = min(best, seconds), spent + seconds
    return best


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _once(work: Callable[[], None], device: str) -> float:
    # One thread's own time leaves out what it waits for a core that others hold; several threads, or a GPU, have no such clock.
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    _wait(device)
    started = clock()
    work()
    _wait(device)
    return clock() - started
