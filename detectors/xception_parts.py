"""What the detectors that are built from Xceptions share: the network in stages, and ImageNet weights for a stem of other channels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.backbone import NORMALIZATIONS, face_size
from detectors.base import Detector
from detectors.weights import ImageNet, load_weights, read_state
from optimizers.registry import RegistryError, did_you_mean

with warnings.catch_warnings():
    # The package compiles all its models on the first import, and one of them compares a string by `is`.
    warnings.simplefilter("ignore", SyntaxWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    from pretrainedmodels.models.xception import Block, SeparableConv2d, pretrained_settings, xception

__all__ = ["IMAGENET", "Block", "SeparableConv2d", "XceptionDetector", "blocks", "body", "conv1", "end", "load", "pool", "start"]

IMAGENET = ImageNet(pretrained_settings["xception"]["imagenet"]["url"], ("fc.weight", "fc.bias"))

FEATURES = 2048
"""Channels of Xception's last feature map."""

Dfb = tuple[tuple[str, str | None], ...]
"""How the keys of DeepfakeBench's checkpoint become ours: (prefix there, prefix here; None drops it), the first that fits."""

BODY: Dfb = (("backbone.last_linear.", "head."), ("backbone.adjust_channel.", None))
"""The keys of DeepfakeBench's detectors around one Xception. Its `adjust_channel` is built always, and used by UCF alone."""


def body() -> nn.Module:
    """pretrainedmodels's Xception without its last layer, with random weights."""
    network: nn.Module = xception(pretrained=None)
    network.last_linear = nn.Identity()
    return network


def conv1(channels: int, stride: int = 2) -> nn.Conv2d:
    """Xception's first convolution for other than three input channels."""
    return nn.Conv2d(channels, 32, 3, stride=stride, bias=False)


def start(network: nn.Module, images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 64, H/2, W/2): both convolutions in front of the blocks."""
    x = network.relu(network.bn1(network.conv1(images)))
    x = network.relu(network.bn2(network.conv2(x)))
    return torch.as_tensor(x)


def blocks(network: nn.Module, x: Tensor, first: int, last: int) -> Tensor:
    """Blocks `first` to `last`, counted from 1 as in the code of the backbone; 1, 2, 3 and 12 halve the side."""
    for number in range(first, last + 1):
        x = network.get_submodule(f"block{number}")(x)
    return x


def end(network: nn.Module, x: Tensor) -> Tensor:
    """(N, 1024, h, w) -> (N, 2048, h, w): both convolutions behind the blocks, without the last ReLU."""
    x = network.relu(network.bn3(network.conv3(x)))
    return torch.as_tensor(network.bn4(network.conv4(x)))


def pool(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C): ReLU and global average."""
    return F.relu(x).mean(dim=(2, 3))


class XceptionDetector(Detector):
    """The settings that detectors built from Xceptions share.

    Raises:
        RegistryError: a setting that cannot be.
    """

    def __init__(self, size: int, normalization: str, multiple: int = 1, least: int = 32) -> None:
        super().__init__()
        name = type(self).__name__
        if normalization not in NORMALIZATIONS:
            raise RegistryError(f"{name}: no normalization '{normalization}': {did_you_mean(str(normalization), NORMALIZATIONS)}")
        self.size = face_size(name, size, multiple, least)
        self.mean, self.std = NORMALIZATIONS[normalization]


def load(detector: Detector, weights: str | Path, give: Callable[[nn.Module], None]) -> None:
    """`detectors.weights.load_weights` for a detector whose Xceptions differ from the published one.

    Args:
        detector: freshly built.
        weights: "none", "imagenet", a file of the backbone as published, or a file of the whole detector.
        give: spends a whole Xception with the ImageNet weights, or those of a backbone's file, on the detector's own Xceptions.

    Raises:
        RegistryError: as `load_weights`.
    """
    if str(weights) != "imagenet" and not _is_of_backbone(weights):
        load_weights(detector, weights, None)
        return
    # Named like the detector, whose weights a message is about.
    donor = type(type(detector).__name__, (nn.Module,), {})()
    donor.backbone = body()
    load_weights(donor, weights, IMAGENET)
    with torch.no_grad():
        give(donor.backbone)


def _is_of_backbone(weights: str | Path) -> bool:
    path = Path(weights).expanduser() if isinstance(weights, str | Path) and str(weights) else None
    return path is not None and path.is_file() and "conv1.weight" in read_state(path)


def copy_from(donor: nn.Module, network: nn.Module, stem: Tensor | None = None) -> None:
    """Give `network`, an Xception that may lack blocks, the donor's weights; `stem` is its first convolution's, if not the donor's."""
    state = {key: value for key, value in donor.state_dict().items() if key in network.state_dict()}
    if stem is not None:
        state["conv1.weight"] = stem
    network.load_state_dict(state)


def positive(name: str, key: str, value: float, zero: bool = True) -> float:
    """`value` itself, if it is a number of at least 0 (above 0 unless `zero`).

    Raises:
        RegistryError: if it is not; the sentence names the setting `key`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value >= 0 if zero else value > 0):
        least = "at least 0" if zero else "above 0"
        raise RegistryError(f"{name}: {key} is {value!r}, but it must be a number {least}")
    return float(value)
