"""BatchNorm over the faces of all processes: the statistics of a step are those that one process would take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from detectors.layout import NarrowBatchNorm2d
from optimizers.kept import instead

Normalise = Callable[..., Tensor]


def shared_norms(modules: Iterable[nn.Module]) -> list[_BatchNorm]:
    """Those of the modules that normalise by the statistics of a batch."""
    return [m for m in modules if isinstance(m, _BatchNorm) and (m.training or m.running_mean is None)]


@contextmanager
def over_all(norms: Sequence[_BatchNorm], faces: int, counted: bool = True) -> Iterator[None]:
    """Forward passes in here take mean and variance over the faces of all ranks of torch's default group.

    Every rank must call the same norms in the same order, forward and backward, and differentiates its own share of the loss: what
    it finds is the derivative of the sum of all shares, by its own copy of the weights. Can be differentiated twice. What a class
    of BatchNorms does besides is its own: torch's function is exchanged, which all of them call.

    torch's `SyncBatchNorm` does this on a GPU alone, once differentiably, and has no place for faces that do not count. Under bf16
    this one keeps its input in float32 for the backward pass.

    Args:
        norms: of the detector; without any nothing is exchanged.
        faces: on all ranks.
        counted: False for faces that stand in where this rank has none: they are normalised as all are, and no statistic is theirs.
    """
    if not norms:
        yield
        return
    shared = partial(_normalise, faces, counted)
    with (
        instead(F, "batch_norm", partial(_as_function, shared, F.batch_norm)),
        instead(torch, "batch_norm", partial(_as_operator, shared, torch.batch_norm)),
        instead(NarrowBatchNorm2d, "forward", nn.BatchNorm2d.forward),
    ):
        yield


def _as_function(
    shared: Normalise,
    alone: Normalise,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`."""
    how = shared if training else alone
    return how(input, running_mean, running_var, weight, bias, training, momentum, eps)


def _as_operator(
    shared: Normalise,
    alone: Normalise,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """`torch.batch_norm`."""
    if training:
        return shared(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return alone(input, weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled)


def _normalise(
    faces: int,
    counted: bool,
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    _training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """(N, C, ...) -> the same.

    Raises:
        ValueError: one value per channel on all ranks together, in torch's words.
    """
    if faces == 1 and images.shape[2:].numel() == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {images.shape}")
    x = images if images.dtype in (torch.float32, torch.float64) else images.float()
    own = x.numel() // x.shape[1] if counted else 0
    variance, mean = (t.double() for t in torch.var_mean(x, [0, *range(2, x.ndim)], correction=0))  # sums shall cost no digit
    total = _Summed.apply(torch.cat([own * mean, torch.full_like(mean[:1], own)]))
    count = total[-1].detach()
    center = total[:-1] / count
    spread = _Summed.apply(own * (variance + (mean - center).square())) / count
    with torch.no_grad():  # the running variance is the unbiased one
        for running, new in ((running_mean, center), (running_var, spread * (count / (count - 1)))):
            if running is not None:
                running.lerp_(new.to(running.dtype), momentum)
    scale = (spread + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -center * scale if bias is None else bias - center * scale
    scale, shift = (t.to(x.dtype).view(-1, *(1 for _ in x.shape[2:])) for t in (scale, shift))
    return torch.addcmul(shift, x, scale).to(images.dtype)


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
