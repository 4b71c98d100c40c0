"""How a detector lies in memory while it computes, and layers whose gradients a CPU finds sooner in another way than torch's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from efficientnet_pytorch.utils import Conv2dStaticSamePadding
from torch import Tensor, nn
from torch.autograd import Function

LINE = 16
"""float32 numbers in a cache line."""


def channels_last(detector: nn.Module) -> None:
    """Lay the weights out with the channels last, which is the faster way for nearly every detector and device.

    BatchNorms of fewer channels than a cache line holds become `NarrowBatchNorm2d`, and depthwise convolutions of a large kernel
    or with strides `DepthwiseConv2d`: the same layers with the same weights, but for how their backward pass is computed.
    """
    detector.to(memory_format=torch.channels_last)
    for module in detector.modules():
        if type(module) is nn.BatchNorm2d and module.num_features < LINE:
            module.__class__ = NarrowBatchNorm2d
        elif isinstance(module, nn.Conv2d) and _is_slow(module) and type(module) in DEPTHWISE:
            module.__class__ = DEPTHWISE[type(module)]


@contextmanager
def for_scoring(detector: nn.Module, device: torch.device) -> Iterator[torch.memory_format]:
    """Lay the detector out in the way in which it scores fastest, and with the channels last again afterwards.

    Yields the memory format that its faces should have.
    """
    if device.type == "cpu" or not getattr(detector, "scores_channels_first_on_gpu", False):
        yield torch.channels_last
        return
    detector.to(memory_format=torch.contiguous_format)
    try:
        yield torch.contiguous_format
    finally:
        detector.to(memory_format=torch.channels_last)


class NarrowBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose backward pass on several threads of a CPU reads and writes its channels first.

    torch's own kernel for channels last adds into a row of sums for each thread, and rows that do not fill a cache line share one:
    the threads wait for each other at every pixel, which made the pass up to ten times as slow on two threads as on one. Of
    Xception's and EfficientNet's BatchNorms, whose rows are longer, nothing of that was measured.
    Everywhere else (one thread, a GPU, evaluation, channels first) this is torch's class.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        if not (self.training and images.device.type == "cpu" and torch.get_num_threads() > 1 and _lies_last(images)):
            return super().forward(images)
        self._check_input_dim(images)
        mean, variance, momentum = None, None, self.momentum or 0.0
        if self.track_running_stats:
            mean, variance = self.running_mean, self.running_var
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
                if self.momentum is None:
                    momentum = 1.0 / float(self.num_batches_tracked)
        normalised: Tensor = _BatchNorm.apply(images, self.weight, self.bias, mean, variance, momentum, self.eps)
        return normalised


class _BatchNorm(Function):
    """torch's BatchNorm in training, with its backward pass on the channels first."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor | None,
        variance: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        out, batch_mean, inverse = torch.native_batch_norm(images, weight, bias, mean, variance, True, momentum, eps)
        ctx.save_for_backward(images, weight, batch_mean, inverse)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, inverse = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        first = [t.contiguous() for t in (gradients[0], images)]
        by_images, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            *first, weight, None, None, mean, inverse, True, ctx.eps, wanted
        )
        if by_images is not None:
            by_images = by_images.contiguous(memory_format=torch.channels_last)
        return by_images, by_weight, by_bias, None, None, None, None


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution whose bfloat16 gradients are computed in float32 on a CPU.

    oneDNN has no fast bfloat16 kernel for the gradient by the input with strides, nor for that by the weights of kernels above
    3 x 3: in float32 they take a half to a thirtieth of the time, and round less. Everywhere else this is torch's class.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        if not (torch.is_grad_enabled() and images.device.type == "cpu" and _casts_to_bfloat16() and self.padding_mode == "zeros"):
            return super().forward(images)
        given = [None if t is None else t.to(torch.bfloat16) for t in (self._padded(images), self.weight, self.bias)]
        convolved: Tensor = _Depthwise.apply(*given, self.stride, self.padding, self.dilation, self.groups)
        return convolved

    def _padded(self, images: Tensor) -> Tensor:
        return images


class DepthwiseSame(DepthwiseConv2d, Conv2dStaticSamePadding):
    """The same for efficientnet-pytorch's convolution, which pads by itself."""

    def _padded(self, images: Tensor) -> Tensor:
        pad: Any = self.static_padding
        padded: Tensor = pad(images)
        return padded


DEPTHWISE: dict[type, type] = {nn.Conv2d: DepthwiseConv2d, Conv2dStaticSamePadding: DepthwiseSame}


def _is_slow(module: nn.Conv2d) -> bool:
    wide = max(module.kernel_size) > 3 or max(module.stride) > 1
    return module.groups == module.in_channels > 1 and wide and not isinstance(module.padding, str)


def _casts_to_bfloat16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16


class _Depthwise(Function):
    """A convolution with its backward pass in float32."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.how, ctx.biases = how, None if bias is None else list(bias.shape)
        return torch.nn.functional.conv2d(images, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.how
        found = torch.ops.aten.convolution_backward(
            *(t.float() for t in (gradients[0], images, weight)),
            ctx.biases,
            *(stride, padding, dilation, False, [0, 0], groups, list(ctx.needs_input_grad[:3])),
        )
        return *(None if t is None else t.to(torch.bfloat16) for t in found), None, None, None, None


def _lies_last(images: Tensor) -> bool:
    return images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
