"""A look at gradients and sharpness every so many steps, for every optimizer, that leaves no trace in training.

What is measured stands in `results.diagnostics`. A look asks an objective of its own on the step's batch, at the weights that the
step begins with, before the step. Nothing is fetched from the device except there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from benchmark.objective import BatchObjective
from benchmark.train import micro_batches
from benchmark.untouched import undisturbed
from detectors.base import Batch, Detector
from optimizers.base import Rule
from optimizers.vector import TINY, Vector
from results.diagnostics import COSINE, Row, ranges, table
from results.record import Diagnostics

RADIUS = 0.05
"""Every run measures its sharpness gap at this radius, SAM's, so that optimizers can be compared; a rule's own comes beside it."""

SHARE = 0.0075
"""At most so much of the passes of training may the looks cost where the steps between them are chosen by themselves.

With norms and inner products, which are no passes, that stays below one hundredth of training's time.
"""

FORWARD = 1 / 3
"""A forward pass alone, in forward and backward passes."""

Key = tuple[str, int | None, int | None]
"""Name, domain and other domain of a value."""

Ask = Callable[[Sequence[Batch]], BatchObjective]
"""The objective of micro-batches, as training makes it."""


@dataclass(frozen=True)
class Schedule:
    """When to look.

    Attributes:
        steps: steps, counted from 1.
        reason: the same as a phrase for the record.
        passes: of one look.
        share: the passes of all looks over those of training.
        short: the run is too short for a look that costs as little as it may.
    """

    steps: frozenset[int]
    reason: str
    passes: float
    share: float
    short: bool = False


def radii(rule: Rule) -> tuple[float, ...]:
    """The radii of the sharpness gap: the common one, and the rule's own where it is another."""
    own = {rule.radius} if rule.radius else set()
    return tuple(sorted({RADIUS, *own}))


def schedule(every: int | Literal["auto"], steps: int, rule: Rule, domains: int) -> Schedule:
    """When to look, by counting passes alone: a clock would choose other steps on every machine.

    A pass over one domain counts as a whole one, which is its price on a GPU with a small batch; where the arithmetic is what takes
    the time, a look costs a K-th of that.

    Args:
        every: steps between two looks; 0: never; "auto": so that the looks take at most `SHARE` of the passes of training, which in
            a short run leaves no look at all.
        steps: of the whole run.
        rule: the optimizer's.
        domains: K.
    """
    passes = domains * (1 + FORWARD * len(radii(rule))) + rule.probe_passes(domains)
    step_passes = rule.passes(domains)
    if every == "auto":
        k = math.ceil(passes / (SHARE * step_passes))
        chosen, reason = list(range(k, steps + 1, k)), f"every {k} steps, for at most {SHARE:.2%} of the passes"
        if not chosen:
            reason = (
                f"never: {SHARE:.2%} of the passes allow a look every {k} steps, and the run has {steps}; "
                "set diagnostics_every to a number of steps"
            )
    elif every:
        chosen, reason = list(range(every, steps + 1, every)), f"every {every} steps, as asked for"
    else:
        chosen, reason = [], "never, as asked for"
    share = len(chosen) * passes / (steps * step_passes)
    return Schedule(frozenset(chosen), reason, passes, share, short=every == "auto" and not chosen)


class Remembering:
    """An `Objective` that computes its gradient at the weights once, so that a rule may ask for it again at no cost.

    Its domains are objectives over all of a domain's examples, cut into micro-batches for themselves: cut with the others, a domain
    could be left with one face, which BatchNorm cannot normalise.
    """

    def __init__(self, inner: BatchObjective, domains: Sequence[Remembering] = ()) -> None:
        self._inner, self._domains = inner, domains
        self._gradient: Vector | None = None

    @property
    def loss(self) -> Tensor:
        """Mean loss at the weights; of a whole, the mean of its domains' losses."""
        return torch.stack([d.loss for d in self._domains]).mean() if self._domains else self._inner.loss

    @property
    def examples(self) -> int:
        """How many examples the mean is taken over."""
        return self._inner.examples

    @property
    def domain(self) -> int | None:
        """Index of the domain; None for the whole."""
        return self._inner.domain

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """What its passes noticed."""
        return self._inner.diagnostics

    @property
    def repeats(self) -> bool:
        """As the objective's own."""
        return self._inner.repeats

    def weights(self) -> Vector:
        """A copy of the trainable weights."""
        return self._inner.weights()

    def gradient(self, at: Vector | None = None, wrt: Iterable[Tensor] | None = None) -> Vector:
        """As the objective's own."""
        if at is not None or wrt is not None:
            return self._inner.gradient(at, wrt)
        if self._gradient is None:
            self._gradient = self._inner.gradient()
        return Vector(self._gradient.parts)  # another vector on the same memory, so that a rule may spend it

    def value(self, at: Vector) -> Tensor:
        """Mean loss at theta + `at`."""
        return self._inner.value(at)

    def hessian_product(self, vector: Vector, at: Vector | None = None) -> Vector:
        """As the objective's own."""
        return self._inner.hessian_product(vector, at)

    def domains(self) -> Sequence[Remembering]:
        """The domains that are present."""
        return self._domains


@dataclass(frozen=True)
class Probe:
    """Looks at one step's batch.

    Args:
        detector: the model, in training mode.
        name: the rule's registry name, which what it tells of itself begins with.
        rule: the optimizer's.
        ask: makes an objective of micro-batches.
        micro_batch: at most so many faces go through the detector together.
    """

    detector: Detector
    name: str
    rule: Rule
    ask: Ask
    micro_batch: int | None = None

    def look(self, batch: Batch) -> dict[Key, Tensor]:
        """Key -> 0-dim tensor on the device. Weights, buffers and generators are as before."""
        device = next(self.detector.parameters()).device
        with undisturbed(self.detector, device):
            whole = self._objective(batch)
            told = self.rule.probe(whole)
            return {**_geometry(whole, radii(self.rule)), **{(f"{self.name}/{key}", None, None): v for key, v in told.items()}}

    def _objective(self, batch: Batch) -> Remembering:
        index, pairs = batch.domains.tolist(), "pairs" in self.detector.needs
        domains = []
        for domain in sorted(set(index)):
            rows = torch.tensor([row for row, other in enumerate(index) if other == domain], device=batch.domains.device)
            part = self.ask(micro_batches(batch.only(rows), self.micro_batch, pairs))
            part.domain = domain
            domains.append(Remembering(part))
        return Remembering(self.ask(micro_batches(batch, self.micro_batch, pairs)), domains)


def _geometry(whole: Remembering, rhos: Iterable[float]) -> dict[Key, Tensor]:
    """What is measured for every rule."""
    domains = whole.domains()
    gradients = [d.gradient() for d in domains]
    mean = Vector({})
    for g in gradients:
        mean = mean.plus(g, times=1 / len(domains))
    lengths, length = [g.norm() for g in gradients], mean.norm()
    found: dict[Key, Tensor] = {("loss", None, None): whole.loss}
    found[("gradient_norm", None, None)] = length
    for i, (one, norm) in enumerate(zip(domains, lengths, strict=True)):
        found[("loss", one.domain, None)] = one.loss
        found[("gradient_norm", one.domain, None)] = norm
        for j, other in enumerate(domains[: i + 1]):
            cosine = gradients[i].dot(gradients[j]) / ((norm + TINY) * (lengths[j] + TINY))
            found[(COSINE, other.domain, one.domain)] = found[(COSINE, one.domain, other.domain)] = cosine
    for rho in rhos:
        ascent = rho / (length + TINY) * mean
        gaps = [d.value(ascent) - d.loss for d in domains]
        name = f"sharpness_gap@{rho:g}"
        found |= {(name, None, None): torch.stack(gaps).mean()}
        found |= {(name, d.domain, None): gap for d, gap in zip(domains, gaps, strict=True)}
    return found


@dataclass
class Diary:
    """Looks when it is time, and keeps what was seen: as rows, and as curves.

    Args:
        probe: how to look.
        plan: when to look.
        evaluations: steps after which the rule's own diagnostics, which cost nothing, are kept too.
        methods: name of each domain.
        rows: what was seen before, by an interrupted run.
    """

    probe: Probe
    plan: Schedule
    evaluations: Collection[int]
    methods: Sequence[str]
    rows: list[Row] = field(default_factory=list)
    _seen: dict[Key, Tensor] = field(default_factory=dict)

    def before(self, step: int, batch: Batch) -> None:
        """Called before step `step` (from 1) with its batch."""
        if step in self.plan.steps:
            self._seen = self.probe.look(batch)

    def after(self, step: int, writer: SummaryWriter, told: Mapping[str, Tensor]) -> None:
        """Called after step `step`, with what the optimizer noticed in it: fetches what was seen, and writes curves."""
        if step not in self.plan.steps and step not in self.evaluations:
            return
        seen, self._seen = {**self._seen, **self._told(told)}, {}
        if not seen:
            return
        values = torch.stack([value.detach().double().reshape(()) for value in seen.values()]).tolist()
        for (name, domain, other), value in zip(seen, values, strict=True):
            one, two = ("" if index is None else self.methods[index] for index in (domain, other))
            self.rows.append(Row(step, name, one, two, value))
            if other is None or (domain is not None and domain < other):
                where = "-".join(filter(None, (one, two)))
                writer.add_scalar("/".join(filter(None, ("" if "/" in name else "diagnostics", name, where))), value, step)

    def summary(self) -> Diagnostics | None:
        """For the record, which also says that a run was too short; None if nothing was looked at because nobody asked."""
        if not self.rows and not self.plan.short:
            return None
        looks, passes = len(self.plan.steps), self.plan.passes
        rhos = radii(self.probe.rule)
        found = ranges(table(self.rows)) if self.rows else ()
        return Diagnostics(schedule=self.plan.reason, looks=looks, passes=passes, share=self.plan.share, radii=rhos, ranges=found)

    def _told(self, told: Mapping[str, Tensor]) -> dict[Key, Tensor]:
        """What the optimizer noticed in the step, with the domain out of names that end in `/domain_0` and so on."""
        found: dict[Key, Tensor] = {}
        for full, value in told.items():
            name, _, index = full.rpartition("/domain_")
            domain = int(index) if name and index.isdigit() else None
            found[(f"{self.probe.name}/{full if domain is None else name}", domain, None)] = value
        return found
