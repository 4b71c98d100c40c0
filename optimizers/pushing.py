"""The derivatives of pushed channel statistics (eq. 6-9 of PIM, Guan et al. 2024), in as few launches as torch allows.

A group norm of one channel a group is norm(f), and its affine part the shift. With the channels last in memory torch takes the
variance as a difference of squares, which loses the digits of a large mean: hence norm(f) is computed of a contiguous copy. The
backward pass is given the moments and works in the layout of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

EPSILON = 1e-5
"""Added to the variance under the root, so that a constant channel has a standard deviation to divide by."""

Seen = list[tuple[int, Tensor, Tensor]]
"""For each call of a submodule its number, its features (N, C, H, W), and the loss's slope by them."""


def subtract(features: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """f - norm(f) sigma - mu, with (C,) mu and sigma held constant; once differentiable.

    Written with differences because f - (+0) is f to the bit, where f + 0 turns -0 into +0: a zero shift changes nothing at all.
    """
    less: Tensor = _Subtract.apply(features, mu, sigma)
    return less


def gate(seen: Seen, widths: Sequence[int], leaf: Tensor) -> tuple[Tensor, ...]:
    """A token for `watch` for each submodule, from their zero d_mu and d_sigma; the gradient by these passes through it, once.

    Args:
        seen: where `watch` notes what it sees.
        widths: channels of each submodule.
        leaf: (2, sum of widths), d_mu and d_sigma.
    """
    tokens: tuple[Tensor, ...] = _Gate.apply(seen, widths, leaf)
    return tokens


def watch(features: Tensor, token: Tensor, seen: Seen, number: int) -> Tensor:
    """The features of submodule `number`, pushed by zero.

    At zero the derivative of f' by f is the identity, so nothing but the gradient by the shift has to be computed.
    """
    same: Tensor = _Watch.apply(features, token, seen, number)
    return same


class _Subtract(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
        f = _in(mu.dtype, features)
        n, c = f.shape[:2]
        rows = f.contiguous().view(n, c, -1)
        away, mean, rstd = torch.native_group_norm(rows, sigma, mu, n, c, rows.shape[2], c, EPSILON)
        ctx.save_for_backward(features, mean, rstd, sigma)
        return _in(features.dtype, f - away.view(f.shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        features, mean, rstd, sigma = ctx.saved_tensors
        f, g = _alike(_in(sigma.dtype, features), _in(sigma.dtype, slope))
        n, c, positions = *f.shape[:2], f.shape[2:].numel()
        by_features = [True, False, False]
        away, _, _ = torch.ops.aten.native_group_norm_backward(g, f, mean, rstd, sigma, n, c, positions, c, by_features)
        return _in(features.dtype, g - away).view(features.shape), None, None


class _Watch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, _token: Tensor, seen: Seen, number: int) -> Tensor:
        ctx.save_for_backward(features)
        ctx.seen, ctx.number = seen, number
        return features.view(features.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        if not ctx.seen:  # what one backward pass has seen is no other's, even if that never asks for the gradient by the shifts
            Variable._execution_engine.queue_callback(ctx.seen.clear)
        ctx.seen.append((ctx.number, ctx.saved_tensors[0], slope))
        return slope, None, None, None


class _Gate(torch.autograd.Function):
    """Autograd comes here when every `_Watch` has been passed, so the slopes by all shifts are computed together."""

    @staticmethod
    def forward(ctx: Any, seen: Seen, widths: Sequence[int], leaf: Tensor) -> tuple[Tensor, ...]:
        ctx.seen, ctx.widths, ctx.dtype = seen, widths, leaf.dtype
        ctx.set_materialize_grads(False)
        return tuple(torch.empty(0, dtype=leaf.dtype, device=leaf.device) for _ in widths)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *_tokens: None) -> tuple[None, None, Tensor]:
        return None, None, _slope(ctx.seen, ctx.widths, ctx.dtype)


def _slope(seen: Seen, widths: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The loss's slope by all (d_mu, d_sigma), (2, sum of widths), at zero: the sums of g and of g norm(f).

    Features that agree in batch and positions are laid side by side as more channels: channels know nothing of each other.
    """
    found: list[Tensor | None] = [None] * len(widths)
    groups: dict[tuple[Any, ...], Seen] = {}
    for one in sorted(seen, key=lambda one: one[0]):
        groups.setdefault((one[1].device, one[1].shape[0], one[1].shape[2:]), []).append(one)
    for (device, n, positions), group in groups.items():
        numbers, fs, gs = zip(*group, strict=True)
        channels = [widths[number] for number in numbers]
        both = torch.empty(2, n, sum(channels), *positions, dtype=dtype, device=device)
        torch._foreach_copy_([part for half in both.unbind() for part in half.split(channels, dim=1)], [*gs, *fs])
        norm = F.group_norm(both[1], sum(channels), eps=EPSILON)
        torch.mul(norm, both[0], out=both[1])
        sums = both.sum(dim=(1, 3, 4))
        if len(groups) == 1 and numbers == tuple(range(len(widths))):
            return sums  # as it is wanted already
        for number, part in zip(numbers, sums.split(channels, dim=1), strict=True):
            known = found[number]
            found[number] = part if known is None else known + part
    zeros = seen[0][1].new_zeros  # for a submodule that this pass did not call
    return torch.cat([zeros(2, width, dtype=dtype) if s is None else s for s, width in zip(found, widths, strict=True)], dim=1)


def _alike(f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one layout that torch's backward pass takes: with the channels last on a CPU, if they are so, else (N, C, HW)."""
    if f.device.type == "cpu" and min(f.shape[1:]) > 1 and f.is_contiguous(memory_format=torch.channels_last):
        return f, g.contiguous(memory_format=torch.channels_last)
    return f.contiguous().view(*f.shape[:2], -1), g.contiguous().view(*g.shape[:2], -1)


def _in(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
