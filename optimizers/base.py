"""What an optimizer may ask (Objective), how a paper is written (Rule), and how its gradient is spent (Optimizer).

A rule is not handed a loss value but an objective that it can ask for gradients, at the weights or beside them. So a paper reads
like its equation, plain SGD is a rule too, and the training loop has no branch on the method.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from optimizers.registry import RegistryError
from optimizers.scaling import factor, keep_buffers, put_back_unless_finite
from optimizers.vector import Vector, aligned


class Objective(Protocol):
    """The loss of one step's examples as a function of the weights.

    The first gradient that is asked for is the first pass: it moves BatchNorm's running statistics, draws the random masks, and
    sets `loss`. Every later pass leaves the statistics alone and replays the masks.
    """

    @property
    def loss(self) -> Tensor:
        """Mean loss of the first pass; where only the domains were asked, the mean of theirs. Detached, on the device."""

    @property
    def examples(self) -> int:
        """How many examples the mean is taken over."""

    @property
    def domain(self) -> int | None:
        """Index of the domain that all the examples belong to, for a member of `domains()`; None for the whole."""

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """What the passes noticed, by name, as `Rule.diagnostics`."""

    @property
    def repeats(self) -> bool:
        """Whether a later pass at theta computes, and reads, what the first did, over all the examples at once.

        A rule may then take from the first pass what the second would compute again. It counts as False where it is missing.
        """

    def weights(self) -> Vector:
        """A copy of the trainable weights, at theta."""

    def gradient(self, at: Vector | None = None, wrt: Iterable[Tensor] | None = None) -> Vector:
        """The gradient at theta, or at theta + `at`. A leaf that the loss does not depend on has no part in it.

        Args:
            at: a shift of the weights for this pass only.
            wrt: leaf tensors to differentiate by instead of the weights (PIM's shifts of the features, say).
        """

    def hessian_product(self, vector: Vector, at: Vector | None = None) -> Vector:
        """H(theta + `at`) `vector`, by double backward."""

    def domains(self) -> Sequence[Objective]:
        """The same objective on the examples of each domain that is present, in order of the domain's index."""


class Rule:
    """A paper: chooses the gradient. Its hyper-parameters are dataclass fields, its equations are in its docstring."""

    base: ClassVar[str] = "adam"
    """Name of the base optimizer (a key of `optimizers.bases.BASES`) that spends the gradient where a user names none."""

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """What a rule noticed in its last step, by name: detached 0-dim tensors on the device, for whoever keeps a log."""
        found: dict[str, Tensor] = self.__dict__.setdefault("_diagnostics", {})
        return found

    @property
    def radius(self) -> float | None:
        """Radius of its neighbourhood of the weights, in the l2 norm over all of them together; None where it has none."""
        rho: float | None = getattr(self, "rho", None)
        return rho

    def passes(self, domains: int) -> float:
        """At least so many forward and backward passes takes a step over examples of so many domains.

        A pass over one domain's examples counts as one: on a GPU with a small batch it takes about as long as a whole one.
        """
        return 1.0

    def probe_passes(self, domains: int) -> float:
        """As many does `probe` take, beside the gradients at the weights of each domain, which the prober remembers."""
        return 0.0

    def probe(self, objective: Objective) -> dict[str, Tensor]:
        """What can be told about the method at these weights at the price of more passes; 0-dim tensors by name.

        It is asked now and then, outside training: nothing that a step uses may change.
        """
        return {}

    def check(self, detector: nn.Module) -> None:
        """Whether a detector names what the rule needs of it; what it names is looked at by `attach`.

        Raises:
            RegistryError: it does not.
        """

    def check_domains(self, names: Sequence[str]) -> None:
        """Whether it can do its work over these domains of the training data, asked before any are read.

        Raises:
            RegistryError: it cannot.
        """

    def attach(self, detector: nn.Module) -> None:
        """Get to know the detector's parameters or features, where the rule needs that.

        `Optimizer` calls it before the first step; calling it again must do no harm.
        """

    def gradient(self, objective: Objective) -> Vector:
        """The vector that is handed to the base optimizer as the gradient."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart; nothing for a rule without memory."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""


class Optimizer:
    """A rule chooses the gradient, a real torch optimizer spends it.

    Args:
        rule: the paper.
        base: a torch optimizer over the detector's parameters. Weight decay, momentum and schedules are its own.
        detector: the model; the rule is attached to it.
        clip: largest l2 norm of the combined gradient, or None.
        scaler: for fp16; the objective of every step must be given the same one. A step whose combined gradient holds an Inf or
            a NaN is then undone: the base optimizer is skipped, the buffers (BatchNorm's running statistics, which an overflow in
            the forward pass would poison for good) are those from before the step, and the scale is lowered.

    Raises:
        RegistryError: a rule that this detector gives no hold, or a clip that is no positive number.
    """

    def __init__(
        self,
        rule: Rule,
        base: torch.optim.Optimizer,
        detector: nn.Module,
        clip: float | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        if clip is not None and (isinstance(clip, bool) or not isinstance(clip, int | float) or not 0 < clip < math.inf):
            raise RegistryError(f"clip must be a finite number above 0 or none at all, not {clip!r}")
        self.rule, self.base, self.clip, self.scaler = rule, base, clip, scaler
        self._detector, self._skipped = detector, torch.zeros((), dtype=torch.int64)
        self._noticed: dict[str, Tensor] = {}
        self.parameters = [p for p in detector.parameters() if p.requires_grad]
        rule.attach(detector)

    def step(self, objective: Objective) -> Tensor:
        """One update of the weights; returns the loss at the unmoved weights (detached, on the device)."""
        kept = keep_buffers(self._detector) if self.scaler is not None else {}
        gradient = self.rule.gradient(objective)
        if self.clip is not None:
            # As torch's own clip_grad_norm_, but into other memory: the rule may keep what it returned, as its momentum say.
            gradient = (self.clip / (gradient.norm() + 1e-6)).clamp(max=1.0) * gradient
        if self.scaler is not None:
            finite = put_back_unless_finite(self._detector, kept, gradient)
            self._skipped = self._skipped.to(finite.device, non_blocking=True) + ~finite
            # The scaler takes the scale away again, exactly, since it is a power of two, and looks for Inf and NaN while it does.
            gradient = factor(self.scaler, self.parameters[0].device) * gradient
        for p in self.parameters:
            p.grad = _laid_out(gradient.parts.get(p), p)
        if self.scaler is None or not gradient.parts:  # a scaler refuses a step without any gradient
            self.base.step()
        else:
            self.scaler.step(self.base)
            self.scaler.update()
        self.base.zero_grad(set_to_none=True)
        self._noticed = dict(objective.diagnostics)
        return objective.loss

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """What rule, objective and scaler noticed in the last step, by name: detached 0-dim tensors on the device."""
        scale = {}
        if self.scaler is not None:
            scale = {"loss_scale": factor(self.scaler, self.parameters[0].device), "skipped_steps": self._skipped}
        return {**self.rule.diagnostics, **self._noticed, **scale}

    def state_dict(self) -> dict[str, Any]:
        """The rule's and the base optimizer's state, and the scaler's where there is one; no copy of the weights."""
        state: dict[str, Any] = {"rule": self.rule.state_dict(), "base": self.base.state_dict()}
        if self.scaler is not None:
            state |= {"scaler": self.scaler.state_dict(), "skipped_steps": int(self._skipped)}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.rule.load_state_dict(state["rule"])
        self.base.load_state_dict(state["base"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
            self._skipped = torch.tensor(state["skipped_steps"])
        for p, memory in self.base.state.items():
            for key, value in memory.items():
                if isinstance(value, Tensor) and value.shape == p.shape:
                    memory[key] = _laid_out(value, p)


def _laid_out(tensor: Tensor | None, weight: Tensor) -> Tensor | None:
    """The same numbers in the weight's memory format: torch's fused optimizers pair them by place in memory, unchecked."""
    same = None if tensor is None else aligned(tensor, weight)
    if tensor is None or same is not None:
        return same
    return torch.empty_like(weight, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
