"""The loss of one step's micro-batches as a function of the weights.

The only place that knows micro-batches, autocast, BatchNorm's running statistics and the replay of random masks, so that no
optimizer has to.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmark.config import ConfigError
from benchmark.precision import Precision
from benchmark.ranks import Ranks
from benchmark.shared_norm import over_all, shared_norms
from benchmark.untouched import frozen, generators, modules_of, moved, set_generators
from detectors.base import Batch, Detector
from optimizers.scaling import factor
from optimizers.vector import Vector, copies

FORWARD, HESSIAN = 1 / 3, 3.0
"""What a forward pass alone and a product with the Hessian cost, in forward and backward passes."""


@dataclass
class Spent:
    """Faces that went forward and backward; FORWARD and HESSIAN say what else counts."""

    faces: float = 0.0


@dataclass(frozen=True)
class Micro:
    """A micro-batch of this rank.

    Attributes:
        batch: its faces.
        faces: of all ranks together.
        stands_in: the rank has none, and these take part for BatchNorm's sake.
    """

    batch: Batch
    faces: int
    stands_in: bool = False

    @property
    def counted(self) -> int:
        """How many of its faces count."""
        return 0 if self.stands_in else len(self.batch)


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
    - Weights are moved in place and come home by copying their saved bits, whatever happens in between. They are kept in float32
      (float64 for a float64 detector) in every precision.
    - bf16 and fp16 cast inside one autocast context for each forward, without its cache: the casts of a first pass would otherwise
      serve the second, which would then not see the moved weights. A pass at a shift of the weights runs without autocast, since
      the casts would round most of the shift away; `weights_dtype` asks for the casts there too, and `diagnostics` then tells
      what is left of the shift.
    - fp16 multiplies the loss of every pass by the scaler's one scale, and divides the gradients by it again in float32. Scales are
      powers of two, so what a rule sees is the gradient itself.
    - Under `ranks` the k-th micro-batches of all ranks are one micro-batch of one step: every gradient is the sum over the ranks,
      so a rule computes the same shift everywhere, and BatchNorm normalises over the faces of all of them. The result is that of
      one process with the same micro-batches, but for what else couples faces (a loss of pairs) or is drawn for them (random
      masks): that is a rank's own.
      A domain or micro-batch that one rank lacks is its own nonetheless, without examples there; where BatchNorm needs every rank,
      others of its faces stand in for it and do not count. After a first pass the ranks take the mean of their other buffers,
      weighted by examples.

    Args:
        detector: the model, on its device. Not wrapped for data parallelism.
        batches: the step's micro-batches, on the detector's device. `Batch.domains` may stay on the CPU, which saves `domains()`
            from waiting for the device. Under `ranks` one may be empty, and without BatchNorm there may be none.
        precision: "fp32", or "bf16" or "fp16" for forward passes under autocast.
        weights_dtype: what passes at a shift see the weights in: "fp32", or that of `precision`. With "bf16" the detector's own
            weights may be bfloat16 too.
        scaler: for fp16, the one that the `Optimizer` has.
        ranks: the processes that share the step.
        later: departures from the first two rules above; none by default.

    Attributes:
        spent: where the passes are counted, those of the domains too; None counts nothing.
        diagnostics: what the passes noticed, by name, as `Rule.diagnostics`: "realised_cosine", the least of the step's shifts
            (see `benchmark.precision.realised_cosine`), where weights are rounded.

    Raises:
        ConfigError: unknown precision, one that does not go with `weights_dtype`, the scaler or the detector's weights, or a
            detector that is wrapped.
        ConfigError: under `ranks` with BatchNorm, no face on some rank.
        ValueError: no batch, or an empty one.
    """

    def __init__(
        self,
        detector: Detector,
        batches: Sequence[Batch],
        precision: str = "fp32",
        weights_dtype: str = "fp32",
        scaler: torch.amp.GradScaler | None = None,
        ranks: Ranks | None = None,
        later: LaterPasses | None = None,
    ) -> None:
        if ranks is None and not (batches and all(len(batch) for batch in batches)):
            raise ValueError("an objective needs at least one micro-batch, and none that is empty")
        self.precision, self.scaler, self.ranks = Precision(precision, weights_dtype), scaler, ranks
        if isinstance(detector, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise ConfigError(
                f"{type(detector).__name__} would not average these gradients; give the detector itself, on one device"
            )
        self.detector, self.later = detector, later or LaterPasses()
        self.modules = modules_of(detector)
        weights = dict.fromkeys(p for module in self.modules for p in module._parameters.values() if p is not None)
        self.parameters = [p for p in weights if p.requires_grad]
        self.precision.check(self.parameters, scaler)
        if not self.parameters:
            raise ConfigError(f"the detector {type(detector).__name__} has no weight to train")
        self.device = self.parameters[0].device
        self.norms = [] if ranks is None else shared_norms(self.modules)
        self.examples, self.micro = self._together(batches)
        self.domain: int | None = None
        self.diagnostics: dict[str, Tensor] = {}
        self._loss: Tensor | None = None
        self._domains: list[BatchObjective] | None = None
        self._masks: list[tuple[Tensor, Tensor | None]] = []
        self.spent: Spent | None = None

    def _together(self, batches: Sequence[Batch]) -> tuple[int, list[Micro]]:
        """How many faces the step has on all ranks, and this one's micro-batches."""
        mine = [batch for batch in batches if len(batch)]
        sizes = [len(batch) for batch in batches]
        everywhere = [sizes] if self.ranks is None else self.ranks.gather(sizes)
        examples = sum(map(sum, everywhere))
        if not self.norms:
            return examples, [Micro(batch, len(batch)) for batch in mine]
        if not all(map(sum, everywhere)):
            raise ConfigError(
                f"a step of {examples} faces leaves one of {len(everywhere)} processes without any, and BatchNorm normalises over "
                "all of them; take fewer processes, or another protocol.batch_size"
            )
        faces = [sum(some) for some in zip_longest(*everywhere, fillvalue=0)]
        own = [Micro(batch or mine[-1], n, stands_in=not batch) for batch, n in zip_longest(batches, faces)]
        return examples, own

    @property
    def batches(self) -> list[Batch]:
        """This rank's micro-batches, without what stands in."""
        return [micro.batch for micro in self.micro if not micro.stands_in]

    @property
    def loss(self) -> Tensor:
        """Mean loss of the first pass; where only the domains were asked, the mean of theirs, 1/K each. Detached, on the device."""
        if self._loss is not None:
            return self._loss
        if self._domains is None:
            raise RuntimeError("the loss is known after the first pass; ask for a gradient first")
        return torch.stack([domain.loss for domain in self._domains]).mean()

    @property
    def repeats(self) -> bool:
        """Whether a later pass at theta computes what the first did: over one micro-batch, its masks replayed, buffers left alone.

        Several micro-batches repeat it, too, but whoever kept what they computed would hold all of them at once. The ranks' mean is
        written to the buffers between the passes, and the first one's graph would refuse them.
        """
        alone = len(self.micro) == 1 and self.ranks is None
        return alone and self.later.batchnorm == "freeze" and self.later.masks == "replay"

    def weights(self) -> Vector:
        """A copy of the trainable weights."""
        return Vector(dict(zip(self.parameters, copies(self.parameters), strict=True)), fresh=True)

    def gradient(self, at: Vector | None = None, wrt: Iterable[Tensor] | None = None) -> Vector:
        """The gradient at theta, or at theta + `at`, by the weights or by the leaf tensors `wrt`; unused leaves have no part."""
        leaves = self.parameters if wrt is None else list(wrt)
        return self._pass(at, leaves, lambda loss: _derivative(loss, leaves))

    def value(self, at: Vector | None = None) -> Tensor:
        """The mean loss at theta or theta + `at` without its gradient; detached, on the device."""
        losses: list[Tensor] = []

        def note(loss: Tensor) -> Vector:
            losses.append(loss.detach())
            return Vector({})

        with torch.no_grad():
            self._pass(at, [], note)
        scale = 1.0 if self.scaler is None else factor(self.scaler, self.device)
        value = (torch.stack(losses).sum() if losses else torch.zeros((), device=self.device)) / scale
        return value if self.ranks is None else self.ranks.summed([value])[0]

    def hessian_product(self, vector: Vector, at: Vector | None = None) -> Vector:
        """H(theta + `at`) `vector`, by double backward."""

        def product(loss: Tensor) -> Vector:
            slope = _derivative(loss, self.parameters, create_graph=True)
            along = slope.dot(vector)
            return _derivative(along, self.parameters) if along.requires_grad else Vector({})

        # Of the ways to compute attention only the plain one has a second derivative.
        self._count(HESSIAN - 1.0)
        with sdpa_kernel(SDPBackend.MATH):
            return self._pass(at, self.parameters, product)

    def domains(self) -> list[BatchObjective]:
        """One objective for each domain that is present, in order of its index, over its examples of all micro-batches.

        Each has a first pass of its own: BatchNorm's statistics move once for every domain that is asked.
        """
        if self._domains is None:
            rows = [{} if micro.stands_in else _rows_of_domains(micro.batch) for micro in self.micro]
            counts = [{domain: len(some) for domain, some in found.items()} for found in rows]
            everywhere = [counts] if self.ranks is None else self.ranks.gather(counts)
            examples = Counter[int]()
            for count in chain.from_iterable(everywhere):
                examples.update(count)
            self._domains = [self._part(domain, rows, everywhere, examples[domain]) for domain in sorted(examples)]
        return self._domains

    def _part(
        self, domain: int, rows: list[dict[int, list[int]]], everywhere: list[list[dict[int, int]]], examples: int
    ) -> BatchObjective:
        part = copy.copy(self)
        part.domain, part.examples, part.micro = domain, examples, []
        for number, (micro, found) in enumerate(zip(self.micro, rows, strict=True)):
            # Without BatchNorm the ranks need not have as many micro-batches, and nobody asks.
            faces = sum(counts[number].get(domain, 0) for counts in everywhere if number < len(counts))
            if some := found.get(domain):
                # No copy where the domain's faces lie side by side.
                beside = len(some) == some[-1] + 1 - some[0]
                part.micro.append(Micro(micro.batch.only(slice(some[0], some[-1] + 1) if beside else torch.tensor(some)), faces))
            elif self.norms and faces:
                part.micro.append(Micro(micro.batch, faces, stands_in=True))
        part._loss, part._domains, part._masks = None, None, []
        return part

    def _pass(self, at: Vector | None, leaves: Sequence[Tensor], differentiate: Callable[[Tensor], Vector]) -> Vector:
        """The sum of `differentiate`, a vector over `leaves`, over the micro-batches' shares of the mean loss."""
        self._count(1.0 if leaves else FORWARD)
        first = self._loss is None
        scale = None if self.scaler is None else factor(self.scaler, self.device)
        losses, masks, total = [], [], Vector({})
        with ExitStack() as stack:
            if at is not None:
                if self.precision.rounds:
                    at = Vector(at.parts)  # compared with what is left of it: its memory is not to lend
                    home = stack.enter_context(moved(self.parameters, at, self.later.home))
                    self._note(self.precision.realised(at, home, list(at.parts)))
                else:
                    stack.enter_context(moved(self.parameters, at, self.later.home))
            if not first and self.later.batchnorm == "freeze":
                stack.enter_context(frozen(self.modules))
            if not first and self.later.masks == "replay":
                stack.enter_context(torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []))
            for number, micro in enumerate(self.micro):
                if first:
                    masks.append(generators(self.device))
                elif self.later.masks == "replay":
                    set_generators(self.device, self._masks[number])
                with over_all(self.norms, micro.faces, not micro.stands_in):  # backward, too: a checkpoint computes again there
                    loss = self._forward(micro.batch, shifted=at is not None)
                    if micro.counted != self.examples:
                        loss = loss * (micro.counted / self.examples)
                    losses.append(loss.detach())
                    part = differentiate(loss if scale is None else loss * scale)
                total = total.spent() + part if number else part
        if scale is not None:
            total = Vector((total.spent() / scale).parts, fresh=True)
        if self.ranks is not None:
            total = self.ranks.sum(total, leaves)
        if first:
            self._masks, self._loss = masks, self._mean(losses)
        return total

    def _mean(self, losses: list[Tensor]) -> Tensor:
        """The loss of a first pass from its micro-batches' shares; the ranks agree on it, and on their buffers."""
        if self.ranks is None:
            return torch.stack(losses).sum() if len(losses) > 1 else losses[0]
        loss = torch.zeros((), dtype=torch.float64, device=self.device) + sum(losses)
        self.ranks.average_buffers(self.detector, sum(micro.counted for micro in self.micro) / self.examples)
        return self.ranks.summed([loss])[0].to(torch.promote_types(self.parameters[0].dtype, torch.float32))

    def _count(self, passes: float) -> None:
        if self.spent is not None:
            self.spent.faces += passes * self.examples

    def _note(self, cosine: Tensor) -> None:
        known = self.diagnostics.get("realised_cosine")
        self.diagnostics["realised_cosine"] = cosine if known is None else torch.minimum(known, cosine)

    def _of_domain(self) -> str:
        return "" if self.domain is None else f" of domain {self.domain}"

    def _forward(self, batch: Batch, shifted: bool) -> Tensor:
        """Mean loss of one micro-batch, with its graph."""
        if len(batch) < self.detector.least_micro_batch:
            raise ConfigError(
                f"{type(self.detector).__name__} compares faces with each other, and a micro-batch has {len(batch)}"
                f"{self._of_domain()}; choose batch_size and micro_batch so that at least {self.detector.least_micro_batch} go "
                "through the detector together"
            )
        try:
            with self.precision.autocast(self.device, shifted):
                return self.detector.objective(batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                f"BatchNorm cannot normalise a micro-batch of {len(batch)} example{self._of_domain()}; "
                "choose batch_size and micro_batch so that at least two examples go through the detector together"
            ) from error


def _derivative(value: Tensor, leaves: list[Tensor] | list[nn.Parameter], create_graph: bool = False) -> Vector:
    found = torch.autograd.grad(value, leaves, create_graph=create_graph, allow_unused=True)
    return Vector({leaf: part for leaf, part in zip(leaves, found, strict=True) if part is not None}, fresh=True)


def _rows_of_domains(batch: Batch) -> dict[int, list[int]]:
    """Where each domain's faces lie in a batch."""
    found: dict[int, list[int]] = {}
    for row, domain in enumerate(batch.domains.tolist()):
        found.setdefault(domain, []).append(row)
    return found
