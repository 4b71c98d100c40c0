"""The torch optimizers that spend a rule's gradient, with the defaults of the papers' training details."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from optimizers import checks
from optimizers.registry import RegistryError, did_you_mean


@dataclass(frozen=True)
class Base:
    """A torch optimizer and the settings that it may be given here.

    Attributes:
        name: what grids call it.
        cls: the optimizer's class.
        defaults: every setting with its default.
    """

    name: str
    cls: type[torch.optim.Optimizer]
    defaults: dict[str, Any]

    def resolve(self, **settings: Any) -> dict[str, Any]:
        """All settings, the given ones in place of the defaults.

        Raises:
            RegistryError: a setting that is unknown, or a value that the optimizer refuses.
        """
        for key in settings:
            if key not in self.defaults:
                raise RegistryError(f"base optimizer '{self.name}' has no setting '{key}': {did_you_mean(key, self.defaults)}")
        resolved = {**self.defaults, **settings}
        if isinstance(resolved.get("betas"), list):  # what YAML makes of a pair
            resolved["betas"] = tuple(resolved["betas"])
        self.build([nn.Parameter(torch.zeros(1))], resolved)  # torch's own checks, before there is a model
        return resolved

    def build(self, parameters: Iterable[nn.Parameter], settings: dict[str, Any]) -> torch.optim.Optimizer:
        """The optimizer over the parameters that can be trained.

        Raises:
            RegistryError: a value that the optimizer refuses, or no parameter to train.
        """
        trained = [p for p in parameters if p.requires_grad]
        try:
            for key, value in settings.items():
                self._check(key, value)
            if settings.get("nesterov") and not settings["momentum"]:
                raise ValueError(f"nesterov looks ahead along the momentum, which is {settings['momentum']}; give it one above 0")
            return self.cls(trained, **settings, **_kernels(self.cls, trained))
        except (ValueError, TypeError) as error:
            raise RegistryError(f"base optimizer '{self.name}': {error}") from error

    def _check(self, key: str, value: Any) -> None:
        # Not left to torch: it lets a NaN through wherever it asks `x < 0`, infinities, and a momentum that grows without bound.
        default = self.defaults[key]
        if isinstance(default, bool):
            checks.flag(key, value)
        elif isinstance(default, tuple):
            if not isinstance(value, tuple) or len(value) != len(default):
                raise ValueError(f"{key} must be a pair of numbers from 0 to below 1, not {checks.shown(value)}")
            for place, one in enumerate(value):
                checks.number(f"{key}[{place}]", one, below=1.0)
        else:
            checks.number(key, value, below=1.0 if key == "momentum" else math.inf)


def _kernels(cls: type[torch.optim.Optimizer], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """One kernel for the whole update where torch has it for the device (it rounds otherwise in the last bit), else foreach."""
    kinds = {(p.device.type, p.dtype) for p in parameters}
    fuse = all(_can_fuse(cls, *kind) for kind in kinds)  # type: ignore[arg-type]
    return {"fused": True} if fuse else {"foreach": True}


@functools.cache
def _can_fuse(cls: Any, device: str, dtype: torch.dtype) -> bool:
    probe = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))
    probe.grad = torch.zeros_like(probe)
    try:
        cls([probe], lr=0.0, fused=True).step()
    except (RuntimeError, TypeError):  # an older torch: SGD or the device is not among them, or the argument is unknown
        return False
    return True


BASES = {
    base.name: base
    for base in (
        Base("sgd", torch.optim.SGD, {"lr": 0.005, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False}),
        Base("adam", torch.optim.Adam, {"lr": 2e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 5e-4}),
    )
}
"""Weight decay is L2 in both: it joins the gradient."""


def build_base(name: str, parameters: Iterable[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """The base optimizer `name` over `parameters`.

    Raises:
        RegistryError: unknown name or setting (with the nearest one), a value that is refused, no parameter to train.
    """
    if name not in BASES:
        raise RegistryError(f"unknown base optimizer '{name}': {did_you_mean(name, BASES)}")
    return BASES[name].build(parameters, BASES[name].resolve(**settings))
