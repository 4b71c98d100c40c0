"""DeepfakeBench's Meso-4 and MesoInception-4, which share the papers' names and not their networks."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

from detectors.about import About
from detectors.meso import PAPER, MesoNet
from detectors.weights import KeyMap, load_weights

CLASSIFIER = {"backbone.fc1.": "fc1.", "backbone.fc2.": "fc2."}


class DfbMeso4(MesoNet):
    """DeepfakeBench's Meso-4, for its checkpoints and for numbers that were made with it.

    It differs from `meso4`, the paper's: no convolution has a bias, one BatchNorm serves the first and the second convolution and
    another one the third and the fourth (scales, shifts and running statistics alike), and the initialisation is torch's.

    Faces of 256 px, for which its checkpoints are; without them any multiple of 32. Features: 16 units. Normalised with mean and
    std 0.5. Parameters at 256 px: 27,898.

    PIM's insertion point is the first block; our choice. Its BatchNorm is used once more behind it, where nothing is pushed.

    Args:
        size: side of the faces in px, a multiple of 32.
        weights: "none", "dfb:PATH", or the path of a state_dict file of this detector.

    Raises:
        RegistryError: another size, or a file that does not fit.
    """

    about = About(
        title="Meso-4 of DeepfakeBench",
        paper=PAPER,
        year=2018,
        backbone="our own, after DeepfakeBench",
        pooling="none: all positions go into a layer of 16 units",
        insertion="the first block (our choice)",
        notes="two BatchNorms, each shared by two convolutions; no biases",
    )
    shallow = ("block1",)
    dfb = KeyMap(
        {
            "backbone.conv1.": "block1.conv.",
            "backbone.bn1.": "block1.bn.",
            "backbone.conv2.": "conv2.",
            "backbone.conv3.": "conv3.",
            "backbone.conv4.": "conv4.",
            "backbone.bn2.": "bn2.",
            **CLASSIFIER,
        }
    )

    def __init__(self, size: int = 256, weights: str | Path = "none") -> None:
        super().__init__(size)
        self.block1 = nn.Sequential(OrderedDict(conv=_conv(3, 8, 3), relu=nn.ReLU(), bn=nn.BatchNorm2d(8), pool=nn.MaxPool2d(2)))
        self.conv2, self.conv3, self.conv4 = _conv(8, 8, 5), _conv(8, 16, 5), _conv(16, 16, 5)
        self.bn2 = nn.BatchNorm2d(16)
        self.pool2, self.pool4 = nn.MaxPool2d(2), nn.MaxPool2d(4)
        self._add_classifier()
        load_weights(self, weights)

    def maps(self, images: Tensor) -> Tensor:
        """(N, 3, size, size), normalised -> (N, 16, size / 32, size / 32)."""
        x = self.block1(images)
        x = self.pool2(self.block1.get_submodule("bn")(self.conv2(x).relu()))
        x = self.pool2(self.bn2(self.conv3(x).relu()))
        return self.pool4(self.bn2(self.conv4(x).relu()))


class DfbMesoInception4(MesoNet):
    """DeepfakeBench's MesoInception-4, for its checkpoints and for numbers that were made with it.

    It differs from `mesoinception4`, the paper's: no convolution has a bias, none of the inception modules' has a ReLU, one
    BatchNorm serves both convolutions behind them, and the initialisation is torch's.

    Faces of 256 px, for which its checkpoints are; without them any multiple of 32. Features: 16 units. Normalised with mean and
    std 0.5. Parameters at 256 px: 28,525.

    PIM's insertion point is the first inception module; our choice.

    Args:
        size: side of the faces in px, a multiple of 32.
        weights: "none", "dfb:PATH", or the path of a state_dict file of this detector.

    Raises:
        RegistryError: another size, or a file that does not fit.
    """

    about = About(
        title="MesoInception-4 of DeepfakeBench",
        paper=PAPER,
        year=2018,
        backbone="our own, after DeepfakeBench",
        pooling="none: all positions go into a layer of 16 units",
        insertion="the first inception module (our choice)",
        notes="inception modules without ReLU; one BatchNorm shared by the last two convolutions; no biases",
    )
    shallow = ("block1",)
    scores_channels_first_on_gpu = True  # as for `mesoinception4`, whose convolutions these are
    dfb = KeyMap(
        {
            # The misspelling is the files'.
            **{
                f"backbone.Incption{block}_{theirs}.": f"block{block}.{ours}."
                for block in (1, 2)
                for theirs, ours in {
                    "conv1": "inception.plain",
                    "conv2_1": "inception.reduce.0",
                    "conv2_2": "inception.dilated.0",
                    "conv3_1": "inception.reduce.1",
                    "conv3_2": "inception.dilated.1",
                    "conv4_1": "inception.reduce.2",
                    "conv4_2": "inception.dilated.2",
                    "bn": "bn",
                }.items()
            },
            "backbone.conv1.": "conv1.",
            "backbone.conv2.": "conv2.",
            "backbone.bn1.": "bn1.",
            **CLASSIFIER,
        }
    )

    def __init__(self, size: int = 256, weights: str | Path = "none") -> None:
        super().__init__(size)
        self.block1 = nn.Sequential(OrderedDict(inception=_Ways(3, 1, 4, 4, 2), bn=nn.BatchNorm2d(11), pool=nn.MaxPool2d(2)))
        self.block2 = nn.Sequential(OrderedDict(inception=_Ways(11, 2, 4, 4, 2), bn=nn.BatchNorm2d(12), pool=nn.MaxPool2d(2)))
        self.conv1, self.conv2 = _conv(12, 16, 5), _conv(16, 16, 5)
        self.bn1 = nn.BatchNorm2d(16)
        self.pool2, self.pool4 = nn.MaxPool2d(2), nn.MaxPool2d(4)
        self._add_classifier()
        load_weights(self, weights)

    def maps(self, images: Tensor) -> Tensor:
        """(N, 3, size, size), normalised -> (N, 16, size / 32, size / 32)."""
        x = self.pool2(self.bn1(self.conv1(self.block2(self.block1(images))).relu()))
        return self.pool4(self.bn1(self.conv2(x).relu()))


class _Ways(nn.Module):
    """A 1 x 1 convolution beside three pairs of convolutions with dilation 1, 2 and 3; linear throughout."""

    def __init__(self, inputs: int, *outputs: int) -> None:
        super().__init__()
        self.plain = _conv(inputs, outputs[0], 1)
        self.reduce = nn.ModuleList(_conv(inputs, channels, 1) for channels in outputs[1:])
        self.dilated = nn.ModuleList(_conv(channels, channels, 3, dilation) for dilation, channels in enumerate(outputs[1:], 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, sum of the outputs, H, W)."""
        pairs = zip(self.reduce, self.dilated, strict=True)
        return torch.cat([self.plain(x), *(after(before(x)) for before, after in pairs)], dim=1)


def _conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False)
