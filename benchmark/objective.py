"""The loss of one step's micro-batches as a function of the weights.

The only place that knows micro-batches, autocast, BatchNorm's running statistics and the replay of random masks, so that no
optimizer has to.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.config import ConfigError
from detectors.base import Batch, Detector
from optimizers.vector import Vector, copies

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class LaterPasses:
    """What a step's passes after its first do otherwise than they should, for the sake of comparison with popular code.

    Attributes:
        batchnorm: "update": they move the running statistics (and any other buffer) as a first pass does.
        masks: "fresh": they draw new random masks, and torch's generators go on.
        home: "subtract": shifted weights come back by subtracting the shift, which leaves rounding errors in them.
    """

    batchnorm: Literal["freeze", "update"] = "freeze"
    masks: Literal["replay", "fresh"] = "replay"
    home: Literal["copy", "subtract"] = "copy"


class BatchObjective:
    """The `Objective` of `optimizers.base` over a list of micro-batches; every pass runs over all of them.

    The value is the mean loss over all examples, each micro-batch weighted by its size; with BatchNorm each micro-batch is
    normalised by its own statistics. The detector is used in the mode that it is in.

    - The first pass moves BatchNorm's running statistics (once a micro-batch, as plain training does) and draws random masks.
      Later passes normalise by batch statistics too, but leave every buffer as it was, and replay the masks of each micro-batch;
      torch's generators then stand where the first pass left them. Randomness in a detector must come from torch's default
      generators: nothing else is replayed.
    - Weights are moved in place and come home by copying their saved bits, whatever happens in between. They stay float32 (float64
      for a float64 detector) in every precision.
    - bf16 casts inside one autocast context for each forward, without its cache: the casts of a first pass would otherwise serve
      the second, which would then not see the moved weights.

    Args:
        detector: the model, on its device. Not wrapped for data parallelism.
        batches: the step's micro-batches, on the detector's device. `Batch.domains` may stay on the CPU, which saves `domains()`
            from waiting for the device.
        precision: "fp32", or "bf16" for forward passes under autocast.
        later: departures from the three rules above; none by default.

    Raises:
        ConfigError: unknown precision, a detector in another precision than float32 or float64, or one that is wrapped.
        ValueError: no batch, or an empty one.
    """

    def __init__(
        self, detector: Detector, batches: Sequence[Batch], precision: str = "fp32", later: LaterPasses | None = None
    ) -> None:
        if not batches or not all(len(batch) for batch in batches):
            raise ValueError("an objective needs at least one micro-batch, and none that is empty")
        if precision not in PRECISIONS:
            raise ConfigError(f"precision '{precision}' is not supported; take one of {', '.join(PRECISIONS)}")
        if isinstance(detector, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise ConfigError(
                f"{type(detector).__name__} would not average these gradients; give the detector itself, on one device"
            )
        self.detector, self.batches, self.precision = detector, list(batches), precision
        self.later = later or LaterPasses()
        self.parameters = [p for p in detector.parameters() if p.requires_grad]
        allowed = {torch.float32} if precision == "bf16" else {torch.float32, torch.float64}
        for p in self.parameters:
            if p.dtype not in allowed:
                raise ConfigError(
                    f"precision '{precision}' with weights of type {p.dtype}: small shifts would be lost; keep them float32"
                )
        if not self.parameters:
            raise ConfigError(f"the detector {type(detector).__name__} has no weight to train")
        self.device = self.parameters[0].device
        self.examples = sum(len(batch) for batch in batches)
        self.domain: int | None = None
        self._loss: Tensor | None = None
        self._domains: list[BatchObjective] | None = None
        self._masks: list[tuple[Tensor, Tensor | None]] = []

    @property
    def loss(self) -> Tensor:
        """Mean loss of the first pass; where only the domains were asked, the mean of theirs, 1/K each. Detached, on the device."""
        if self._loss is not None:
            return self._loss
        if self._domains is None:
            raise RuntimeError("the loss is known after the first pass; ask for a gradient first")
        return torch.stack([domain.loss for domain in self._domains]).mean()

    def weights(self) -> Vector:
        """A copy of the trainable weights."""
        return Vector(dict(zip(self.parameters, copies(self.parameters), strict=True)))

    def gradient(self, at: Vector | None = None, wrt: Iterable[Tensor] | None = None) -> Vector:
        """The gradient at theta, or at theta + `at`, by the weights or by the leaf tensors `wrt`; unused leaves have no part."""
        leaves = self.parameters if wrt is None else list(wrt)
        return self._pass(at, lambda loss: _derivative(loss, leaves))

    def hessian_product(self, vector: Vector, at: Vector | None = None) -> Vector:
        """H(theta + `at`) `vector`, by double backward."""

        def product(loss: Tensor) -> Vector:
            slope = _derivative(loss, self.parameters, create_graph=True)
            along = slope.dot(vector)
            return _derivative(along, self.parameters) if along.requires_grad else Vector({})

        return self._pass(at, product)

    def domains(self) -> list[BatchObjective]:
        """One objective for each domain that is present, in order of its index, over its examples of all micro-batches.

        Each has a first pass of its own: BatchNorm's statistics move once for every domain that is asked.
        """
        if self._domains is None:
            parts: dict[int, list[Batch]] = {}
            for batch in self.batches:
                index = batch.domains.tolist()
                for domain in sorted(set(index)):
                    rows = [row for row, other in enumerate(index) if other == domain]
                    whole = len(rows) == len(index)
                    parts.setdefault(domain, []).append(batch if whole else batch.only(torch.tensor(rows)))
            self._domains = [self._part(domain, parts[domain]) for domain in sorted(parts)]
        return self._domains

    def _part(self, domain: int, batches: list[Batch]) -> BatchObjective:
        part = copy.copy(self)
        part.domain, part.batches, part.examples = domain, batches, sum(len(batch) for batch in batches)
        part._loss, part._domains, part._masks = None, None, []
        return part

    def _pass(self, at: Vector | None, differentiate: Callable[[Tensor], Vector]) -> Vector:
        """The sum of `differentiate` over the micro-batches' shares of the mean loss, at theta or theta + `at`."""
        first = self._loss is None
        losses, masks, total = [], [], Vector({})
        with ExitStack() as stack:
            if at is not None:
                stack.enter_context(_moved(self.parameters, at, self.later.home))
            if not first and self.later.batchnorm == "freeze":
                stack.enter_context(_frozen(self.detector))
            if not first and self.later.masks == "replay":
                stack.enter_context(torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []))
            for number, batch in enumerate(self.batches):
                if first:
                    masks.append(_generators(self.device))
                elif self.later.masks == "replay":
                    _set_generators(self.device, self._masks[number])
                loss = self._forward(batch) * (len(batch) / self.examples)
                losses.append(loss.detach())
                total = total + differentiate(loss)
        if first:
            self._masks, self._loss = masks, torch.stack(losses).sum()
        return total

    def _forward(self, batch: Batch) -> Tensor:
        """Mean loss of one micro-batch, with its graph."""
        lower = self.precision == "bf16"
        try:
            # cache_enabled=False: even inside somebody else's autocast context no cast of an earlier pass may be found again.
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=lower, cache_enabled=False):
                return self.detector.loss(self.detector(batch.images), batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            where = "" if self.domain is None else f" of domain {self.domain}"
            raise ConfigError(
                f"BatchNorm cannot normalise a micro-batch of {len(batch)} example{where}; "
                "choose batch_size and micro_batch so that at least two examples go through the detector together"
            ) from error


def _derivative(value: Tensor, leaves: list[Tensor] | list[nn.Parameter], create_graph: bool = False) -> Vector:
    found = torch.autograd.grad(value, leaves, create_graph=create_graph, allow_unused=True)
    return Vector({leaf: part for leaf, part in zip(leaves, found, strict=True) if part is not None})


@contextmanager
def _moved(parameters: Sequence[Tensor], at: Vector, home: str = "copy") -> Iterator[None]:
    """The weights at theta + `at`, and afterwards their very bits back; `home` may ask for the rounding errors of subtracting."""
    moving = list(at.parts)
    if not set(moving) <= set(parameters):
        raise ValueError("`at` moves a tensor that is no trainable weight of the detector (features are pushed by FeatureShift)")
    saved = copies(moving)
    try:
        if moving:
            with torch.no_grad():
                torch._foreach_add_(moving, list(at.parts.values()))
        yield
    finally:
        if moving:
            with torch.no_grad():
                if home == "subtract":
                    torch._foreach_sub_(moving, list(at.parts.values()))
                else:
                    torch._foreach_copy_(moving, saved)


@contextmanager
def _frozen(detector: nn.Module) -> Iterator[None]:
    """Passes that leave every buffer as it was.

    BatchNorm must not write at all: with `track_running_stats` off it still normalises by batch statistics in training mode, and
    counts nothing. (With momentum 0 it would count batches, go on with a cumulative average, and turn an Inf into a NaN.) The
    buffers of any other module are few; they are put back.
    """
    norms, others = [], []
    for module in detector.modules():
        if isinstance(module, _BatchNorm):
            norms.append((module, module.track_running_stats))
        else:
            others += [(module, name, buffer) for name, buffer in module._buffers.items() if buffer is not None]
    saved = copies([buffer for _, _, buffer in others])
    try:
        for module, _ in norms:
            module.track_running_stats = False
        yield
    finally:
        for module, tracking in norms:
            module.track_running_stats = tracking
        if others:
            with torch.no_grad():
                torch._foreach_copy_([buffer for _, _, buffer in others], saved)
        for module, name, buffer in others:  # a forward pass may also have put another tensor in its place
            module._buffers[name] = buffer


def _generators(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """State of the generators that a forward pass may draw from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_generators(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
