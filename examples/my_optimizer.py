"""Momentum-SAM (Becker et al. 2024, arXiv 2401.12033) from outside the project: `--plugin examples/my_optimizer.py`.
SAM at the price of plain descent: the weights are moved against the last steps' momentum, so one pass a step is enough."""

from dataclasses import dataclass

from optimizers import OPTIMIZERS
from optimizers.base import Rule
from optimizers.vector import TINY, Vector


@OPTIMIZERS.register("my_optimizer")
@dataclass
class MomentumSAM(Rule):
    rho: float = 0.3
    momentum: float = 0.9

    def attach(self, detector):
        self.weights, self.v = list(detector.parameters()), Vector({})

    def gradient(self, objective):
        g = objective.gradient(at=-self.rho / (self.v.norm() + TINY) * self.v)
        self.v = self.momentum * self.v + g
        return g

    def state_dict(self):  # the rule's memory: without it a resumed run would be another one
        return {"v": [self.v.parts.get(p) for p in self.weights]}

    def load_state_dict(self, state):
        self.v = Vector({p: v for p, v in zip(self.weights, state["v"], strict=True) if v is not None})
