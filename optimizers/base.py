"""What an optimizer may ask (Objective), how a paper is written (Rule), and how its gradient is spent (Optimizer).

A rule is not handed a loss value but an objective that it can ask for gradients, at the weights or beside them. So a paper reads
like its equation, plain SGD is a rule too, and the training loop has no branch on the method.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from optimizers.vector import Vector


class Objective(Protocol):
    """The loss of one step's examples as a function of the weights.

    The first gradient that is asked for is the first pass: it moves BatchNorm's running statistics, draws the random masks, and
    sets `loss`. Every later pass leaves the statistics alone and replays the masks.
    """

    @property
    def loss(self) -> Tensor:
        """Mean loss at the unmoved weights, from the first pass; detached, on the device."""

    def weights(self) -> Vector:
        """The trainable weights, at theta."""

    def gradient(self, at: Vector | None = None, wrt: Iterable[Tensor] | None = None) -> Vector:
        """The gradient at theta, or at theta + `at`.

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

    def attach(self, detector: nn.Module) -> None:
        """Hook into the detector's features, where the rule needs that. Called once, before the first step."""

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
    """

    def __init__(self, rule: Rule, base: torch.optim.Optimizer, detector: nn.Module, clip: float | None = None) -> None:
        self.rule, self.base, self.clip = rule, base, clip
        self.parameters = [p for p in detector.parameters() if p.requires_grad]
        rule.attach(detector)

    def step(self, objective: Objective) -> Tensor:
        """One update of the weights; returns the loss at the unmoved weights (detached, on the device)."""
        gradient = self.rule.gradient(objective)
        for p in self.parameters:
            p.grad = gradient.parts.get(p)
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=True)
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
