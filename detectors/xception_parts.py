"""What the detectors that are built from Xceptions share: the network in stages, and its ImageNet weights in other shapes."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from detectors.backbone import NORMALIZATIONS, face_size
from detectors.base import Detector
from detectors.weights import ImageNet, State
from optimizers.registry import RegistryError, did_you_mean

with warnings.catch_warnings():
    # The package compiles all its models on the first import, and one of them compares a string by `is`.
    warnings.simplefilter("ignore", SyntaxWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    from pretrainedmodels.models.xception import Block, SeparableConv2d, pretrained_settings, xception

__all__ = [
    "HEAD",
    "Block",
    "SeparableConv2d",
    "XceptionDetector",
    "blocks",
    "body",
    "conv1",
    "end",
    "imagenet",
    "pool",
    "pretrained_settings",
    "start",
    "xception",
]

FEATURES = 2048
"""Channels of Xception's last feature map."""

HEAD = ("fc.weight", "fc.bias", "last_linear.weight", "last_linear.bias")
"""Keys of the 1000-class layer: the published files call it `fc`; a model of the library, saved, calls it `last_linear`."""

DFB_HEAD = {"backbone.last_linear.": "head."}
DFB_DROP = ("backbone.adjust_channel.",)
"""How the keys of DeepfakeBench's detectors around one Xception differ. Its `adjust_channel` is always built; UCF alone uses it."""


def body() -> nn.Module:
    """pretrainedmodels's Xception without its last layer, with random weights."""
    network: nn.Module = xception(pretrained=None)
    network.last_linear = nn.Identity()
    return network


def conv1(channels: int, stride: int = 2) -> nn.Conv2d:
    """Xception's first convolution for other than three input channels."""
    return nn.Conv2d(channels, 32, 3, stride=stride, bias=False)


def imagenet(convert: Callable[[State, nn.Module], State], fresh: tuple[str, ...] = ()) -> ImageNet:
    """Xception's ImageNet weights as pretrainedmodels publishes them, brought into the shapes of another network by `convert`.

    `fresh` names what that network has beyond them, which keeps its random initialisation.
    """
    return ImageNet(pretrained_settings["xception"]["imagenet"]["url"], HEAD, fresh, convert)


def through(network: nn.Module, x: Tensor, *names: str) -> Tensor:
    """`x` through the submodules of `network` that are named, in this order."""
    for name in names:
        x = network.get_submodule(name)(x)
    return x


def start(network: nn.Module, images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 64, about H/2, about W/2): both convolutions in front of the blocks, none of them padded."""
    return through(network, images, "conv1", "bn1", "relu", "conv2", "bn2", "relu")


def blocks(network: nn.Module, x: Tensor, first: int, last: int) -> Tensor:
    """Blocks `first` to `last` of 12, as the backbone's code numbers them; 1, 2, 3 and 12 halve the side."""
    return through(network, x, *(f"block{number}" for number in range(first, last + 1)))


def end(network: nn.Module, x: Tensor) -> Tensor:
    """(N, 1024, h, w) -> (N, 2048, h, w): both convolutions behind the blocks, without the last ReLU."""
    return through(network, x, "conv3", "bn3", "relu", "conv4", "bn4")


def pool(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C): ReLU and global average."""
    return F.relu(x).mean(dim=(2, 3))


class XceptionDetector(Detector):
    """The settings that detectors built from Xceptions share.

    Raises:
        RegistryError: a setting that cannot be.
    """

    def __init__(self, size: int, normalization: str, multiple: int = 1) -> None:
        super().__init__()
        name = type(self).__name__
        if normalization not in NORMALIZATIONS:
            raise RegistryError(f"{name}: no normalization '{normalization}': {did_you_mean(str(normalization), NORMALIZATIONS)}")
        self.size = face_size(name, size, multiple, self.smallest)
        self.mean, self.std = NORMALIZATIONS[normalization]


def positive(name: str, key: str, value: float, zero: bool = True) -> float:
    """`value` itself, if it is a finite number of at least 0 (above 0 unless `zero`).

    Raises:
        RegistryError: if it is not; the sentence names the setting `key`.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Not math.isfinite: Python's integers have no end, and it cannot look at those above the largest float.
    if not is_number or not (0 if zero else math.ulp(0.0)) <= value <= sys.float_info.max:
        least = "of at least 0" if zero else "above 0"
        raise RegistryError(f"{name}: {key} is {value!r}, but it must be a finite number {least}")
    return float(value)
