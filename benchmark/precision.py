"""What the passes of a step are computed in, and what is left of a small shift of the weights in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from benchmark.reading import ConfigError
from optimizers.vector import TINY, Vector

LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", *LOWER)

FAITHFUL = 0.9
"""A cosine between the intended and the realised shift below which a run warns."""


def scaler_for(precision: str, device: torch.device | str) -> GradScaler | None:
    """What scales the loss where passes are computed in fp16, whose small gradients would be zero; None for other precisions."""
    return GradScaler(torch.device(device).type) if precision == "fp16" else None


@dataclass(frozen=True)
class Precision:
    """In what the passes of a step are computed.

    Under autocast a convolution rounds its weights to bf16 or fp16 each time it is called, though they are kept in fp32. A shift
    as small as SAM's is lost in that: bf16 has 8 significant bits. So passes beside the weights see them in fp32, which means
    that they run without autocast, unless `weights` says that they may be rounded.

    Attributes:
        passes: "fp32", or "bf16" or "fp16" for forward passes under autocast.
        weights: what passes at a shift see the weights in: "fp32", or that of the passes.

    Raises:
        ConfigError: an unknown precision, or weights that are rounded to something else than the passes are computed in.
    """

    passes: str = "fp32"
    weights: str = "fp32"

    def __post_init__(self) -> None:
        if self.passes not in PRECISIONS:
            raise ConfigError(f"precision '{self.passes}' is not supported; take one of {', '.join(PRECISIONS)}")
        if self.weights not in dict.fromkeys(("fp32", self.passes)):
            raise ConfigError(
                f"weights_dtype '{self.weights}' does not go with precision '{self.passes}': take "
                + " or ".join(dict.fromkeys(("fp32", self.passes)))
            )

    @property
    def rounds(self) -> bool:
        """Whether passes at a shift see rounded weights."""
        return self.weights != "fp32"

    def check(self, parameters: Iterable[nn.Parameter], scaler: GradScaler | None) -> None:
        """Refuse weights that would lose small shifts though nobody asked for that, and fp16 without a scaler.

        Raises:
            ConfigError: one of these.
        """
        allowed = {torch.float32} if self.passes in LOWER else {torch.float32, torch.float64}
        if self.weights == "bf16":
            allowed.add(torch.bfloat16)
        for p in parameters:
            if p.dtype not in allowed:
                raise ConfigError(
                    f"precision '{self.passes}' with weights of type {p.dtype}: small shifts would be lost; keep them float32"
                )
        if self.passes == "fp16" and scaler is None:
            raise ConfigError("precision 'fp16' needs a GradScaler, or small gradients become zero; give one, or take bf16")
        if self.passes != "fp16" and scaler is not None:
            raise ConfigError(f"a GradScaler goes with precision 'fp16', not with '{self.passes}'")

    def autocast(self, device: torch.device, shifted: bool) -> AbstractContextManager[object]:
        """The context of one forward pass.

        Its cache is off: even inside somebody else's autocast context no cast of an earlier pass may be found again.
        """
        lower = LOWER.get(self.passes)
        enabled = lower is not None and (self.rounds or not shifted)
        return torch.autocast(device.type, dtype=lower or torch.bfloat16, enabled=enabled, cache_enabled=False)

    def realised(self, intended: Vector, before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
        """`realised_cosine` in what the passes see; before and after in the order of `intended`."""
        return realised_cosine(list(intended.parts.values()), before, after, LOWER[self.weights])


def realised_cosine(intended: Sequence[Tensor], before: Sequence[Tensor], after: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Cosine between a shift of the weights and what is left of it once the weights are rounded to `dtype`.

    With theta `before` and theta + e `after` the move it is that of e and round(theta + e) - round(theta), over all weights
    together, every one counted as rounded: a 0-dim float32 tensor on the device; 1 for a shift of zero, 0 where nothing is left.
    """
    if not intended:
        return torch.ones(())
    seen = torch._foreach_sub(_through(after, dtype), _through(before, dtype))
    wanted = [t.float() for t in intended]
    dot = torch.stack([torch.dot(a.reshape(-1), b.reshape(-1)) for a, b in zip(wanted, seen, strict=True)]).sum()
    lengths = [torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(ts)))) for ts in (wanted, seen)]
    return torch.where(lengths[0] == 0, 1.0, dot / (lengths[0] * lengths[1] + TINY**2))


def _through(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Rounded to `dtype`, in float32."""
    rounded = [torch.empty_like(t, dtype=dtype, requires_grad=False) for t in tensors]
    wide = [torch.empty_like(t, dtype=torch.float32, requires_grad=False) for t in tensors]
    with torch.no_grad():
        torch._foreach_copy_(rounded, list(tensors))
        torch._foreach_copy_(wide, rounded)
    return wide
