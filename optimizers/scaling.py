"""Loss scaling for float16: one power of two on the loss of every pass of a step, by `torch.amp.GradScaler`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from optimizers.vector import Vector

Kept = dict[torch.dtype, Tensor]


def factor(scaler: torch.amp.GradScaler, device: torch.device) -> Tensor:
    """The scale as a 0-dim float32 tensor on `device`; `get_scale` would wait for the device."""
    return torch.as_tensor(scaler.scale(torch.ones((), device=device)))


def keep_buffers(detector: nn.Module) -> Kept:
    """A copy of the detector's buffers, flat, one tensor for each dtype."""
    return {dtype: torch.cat([b.reshape(-1) for b in buffers]) for dtype, buffers in _by_dtype(detector.buffers()).items()}


def put_back_unless_finite(detector: nn.Module, kept: Kept, gradient: Vector) -> Tensor:
    """Give the detector its kept buffers if `gradient` holds an Inf or a NaN.

    Returns:
        Whether it was finite: 0-dim bool on the device, which decides by itself; nothing waits for it.
    """
    if not gradient.parts:
        return torch.ones((), dtype=torch.bool)
    # The largest entry rather than the l2 norm, which can overflow though every entry is finite.
    largest = torch.stack([n.float() for n in torch._foreach_norm(list(gradient.parts.values()), ord=float("inf"))])
    finite = largest.isfinite().all()
    with torch.no_grad():
        for dtype, buffers in _by_dtype(detector.buffers()).items():
            now = torch.cat([b.reshape(-1) for b in buffers])
            chosen = torch.where(finite, now, kept[dtype]).split([b.numel() for b in buffers])
            torch._foreach_copy_(buffers, [part.view_as(b) for part, b in zip(chosen, buffers, strict=True)])
    return finite


def _by_dtype(tensors: Iterable[Tensor]) -> dict[torch.dtype, list[Tensor]]:
    groups: dict[torch.dtype, list[Tensor]] = {}
    for t in tensors:
        groups.setdefault(t.dtype, []).append(t)
    return groups
