"""BatchNorm over the faces of all processes: the statistics of a step are those that one process would take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm


def shared_norms(modules: Iterable[nn.Module]) -> list[_BatchNorm]:
    """Those of the modules that normalise by the statistics of a batch."""
    return [m for m in modules if isinstance(m, _BatchNorm) and (m.training or m.running_mean is None)]


@contextmanager
def over_all(norms: Sequence[_BatchNorm], counted: bool) -> Iterator[None]:
    """Forward passes in here take mean and variance over the faces of all ranks of torch's default group.

    Every rank must call the same norms in the same order, forward and backward, and differentiates its own share of the loss: what
    it finds is the derivative of the sum of all shares, by its own copy of the weights. Can be differentiated twice.

    torch's `SyncBatchNorm` does this on a GPU alone, once differentiably, and has no place for faces that do not count.

    Args:
        norms: of the detector.
        counted: False for faces that stand in where this rank has none: they are normalised as all are, and no statistic is theirs.
    """
    try:
        for norm in norms:
            norm.__dict__["forward"] = partial(_forward, norm, counted)
        yield
    finally:
        for norm in norms:
            norm.__dict__.pop("forward", None)


def _forward(norm: _BatchNorm, counted: bool, images: Tensor) -> Tensor:
    """(N, C, ...) -> the same."""
    norm._check_input_dim(images)
    x = images if images.dtype in (torch.float32, torch.float64) else images.float()
    own = x.numel() // x.shape[1] if counted else 0
    others = [1, *(1 for _ in x.shape[2:])]
    dims = [0, *range(2, x.ndim)]
    variance, mean = (t.double() for t in torch.var_mean(x, dims, correction=0))  # few numbers: their sums shall cost no digit
    total = _Summed.apply(torch.cat([own * mean, torch.full_like(mean[:1], own)]))
    count = total[-1].detach()
    center = total[:-1] / count
    spread = _Summed.apply(own * (variance + (mean - center).square())) / count
    if norm.training and norm.track_running_stats:
        _note(norm, center.detach(), spread.detach() * (count / (count - 1)))
    scale = (spread + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -center * scale if norm.bias is None else norm.bias - center * scale
    scale, shift = (t.to(x.dtype).view(-1, *others[1:]) for t in (scale, shift))
    return torch.addcmul(shift, x, scale).to(images.dtype)


def _note(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """What torch's own forward pass does with the running statistics; the variance is the unbiased one."""
    if norm.running_mean is None or norm.running_var is None:
        return
    factor = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if factor is None:
            factor = 1.0 / float(norm.num_batches_tracked)
    with torch.no_grad():
        for running, new in ((norm.running_mean, mean), (norm.running_var, variance)):
            running.lerp_(new.to(running.dtype), factor or 0.0)


class _Summed(Function):
    """The sum over the ranks. Each loses by it what all lose, so the derivative is summed as well, and that again."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return _Summed.apply(slope.contiguous())
