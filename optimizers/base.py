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
from optimizers.vector import Vector


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

    def check(self, detector: type) -> None:
        """Whether a class of detectors gives the rule what it needs, asked before a detector is built or data are read.

        Raises:
            RegistryError: it does not.
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

    Raises:
        RegistryError: a rule that this detector gives no hold, or a clip that is no positive number.
    """

    def __init__(self, rule: Rule, base: torch.optim.Optimizer, detector: nn.Module, clip: float | None = None) -> None:
        if clip is not None and (isinstance(clip, bool) or not isinstance(clip, int | float) or not 0 < clip < math.inf):
            raise RegistryError(f"clip must be a finite number above 0 or none at all, not {clip!r}")
        self.rule, self.base, self.clip = rule, base, clip
        self.parameters = [p for p in detector.parameters() if p.requires_grad]
        rule.attach(detector)

    def step(self, objective: Objective) -> Tensor:
        """One update of the weights; returns the loss at the unmoved weights (detached, on the device)."""
        gradient = self.rule.gradient(objective)
        if self.clip is not None:
            gradient = (self.clip / (gradient.norm() + 1e-6)).clamp(max=1.0) * gradient.spent()  # torch's own clip_grad_norm_
        for p in self.parameters:
            p.grad = _laid_out(gradient.parts.get(p), p)
        self.base.step()
        self.base.zero_grad(set_to_none=True)
        return objective.loss

    def state_dict(self) -> dict[str, Any]:
        """The rule's and the base optimizer's state; no copy of the weights."""
        return {"rule": self.rule.state_dict(), "base": self.base.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.rule.load_state_dict(state["rule"])
        self.base.load_state_dict(state["base"])
        for p, memory in self.base.state.items():
            for key, value in memory.items():
                if isinstance(value, Tensor) and value.shape == p.shape:
                    memory[key] = _laid_out(value, p)


def _laid_out(tensor: Tensor | None, weight: Tensor) -> Tensor | None:
    """The same numbers in the weight's memory format: torch's fused optimizers pair them by place in memory, unchecked."""
    if tensor is None or tensor.stride() == weight.stride():
        return tensor
    return torch.empty_like(weight, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
