"""Meso-4 and MesoInception-4, the small networks for compressed video faces."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.about import About
from detectors.backbone import face_size
from detectors.base import Detector, Prediction
from detectors.weights import load_weights
from optimizers.registry import RegistryError

PAPER = "Afchar et al., MesoNet: a Compact Facial Video Forgery Detection Network, WIFS 2018, arXiv 1809.00888"


class MesoNet(Detector):
    """What the two networks share: faces of a fixed size, and the classifier of 16 units behind the last feature map.

    A subclass builds its convolutions, then calls `_add_classifier`, and fills in `maps`.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        # With a multiple of 32 Keras's "same" pooling pads nothing, so it is torch's pooling.
        self.size = face_size(type(self).__name__, size, multiple=32)

    def _add_classifier(self) -> None:
        self.dropout = nn.Dropout(0.5)
        self.fc1 = nn.Linear(16 * (self.size // 32) ** 2, 16)
        self.activation = nn.LeakyReLU(0.1)
        self.fc2 = nn.Linear(16, 2)

    def _initialise_as_keras(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def maps(self, images: Tensor) -> Tensor:
        """(N, 3, size, size), normalised -> (N, 16, size / 32, size / 32)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, size, size) float RGB in [0, 1] -> Prediction.

        Raises:
            RegistryError: faces of another side than `size`.
        """
        if images.shape[-2:] != (self.size, self.size):
            height, width = images.shape[-2:]
            raise RegistryError(
                f"{type(self).__name__} was built for faces of {self.size} px and is given {width} x {height} px; set its size"
            )
        x = self.maps(self.normalize(images))
        features = self.activation(self.fc1(self.dropout(x.flatten(1))))
        return Prediction(self.fc2(self.dropout(features)), features)


class Meso4(MesoNet):
    """Meso-4 (Afchar et al., "MesoNet: a Compact Facial Video Forgery Detection Network", WIFS 2018, arXiv 1809.00888, figure 3).

    Four blocks of convolution, ReLU, BatchNorm and max pooling with 8, 8, 16 and 16 channels, then 16 units with LeakyReLU(0.1) and
    the output layer, with dropout 0.5 in front of both. Features: the 16 units.

    Faces of 256 px in the paper; any multiple of 32 works, and the first linear layer's input, 16 (size / 32)^2, follows from it.
    Normalised with mean and std 0.5. Parameters at 256 px: 27,994, the paper's 27,977 and the second output's 17.

    As in the authors' Keras code every convolution has a bias, its own BatchNorm behind the ReLU, and Glorot initialisation.
    Here as nowhere there: two logits under cross entropy instead of one under a squared error, images in [-1, 1] instead of
    [0, 1], and torch's BatchNorm constants (momentum 0.1, eps 1e-5) instead of Keras's (0.01, 1e-3), with which the running
    statistics of a short training lag far behind.
    DeepfakeBench's network of this name is another one: its two BatchNorms are shared by two convolutions each, none of its
    convolutions has a bias, and only 256 px work.

    PIM's insertion point is the first block; the PIM paper names none for this network, so the choice is ours.

    Args:
        size: side of the faces in px, a multiple of 32.
        weights: "none", or the path of a state_dict file of this detector.

    Raises:
        RegistryError: another size, or a file that does not fit.
    """

    about = About(
        title="Meso-4",
        paper=PAPER,
        year=2018,
        backbone="our own, after the paper",
        pooling="none: all positions go into a layer of 16 units",
        insertion="the first block (our choice)",
        notes="two logits under cross entropy; images in [-1, 1]; torch's BatchNorm constants",
    )
    shallow = ("block1",)
    dfb = "dfb-meso4"

    def __init__(self, size: int = 256, weights: str | Path = "none") -> None:
        super().__init__(size)
        self.block1 = _block(3, 8, kernel=3, pool=2)
        self.block2 = _block(8, 8, kernel=5, pool=2)
        self.block3 = _block(8, 16, kernel=5, pool=2)
        self.block4 = _block(16, 16, kernel=5, pool=4)
        self._add_classifier()
        self._initialise_as_keras()
        load_weights(self, weights)

    def maps(self, images: Tensor) -> Tensor:
        """(N, 3, size, size), normalised -> (N, 16, size / 32, size / 32)."""
        return self.block4(self.block3(self.block2(self.block1(images))))


class MesoInception4(MesoNet):
    """MesoInception-4 (Afchar et al., WIFS 2018, arXiv 1809.00888, figure 4).

    Meso-4 whose first two blocks are inception modules: side by side a 1 x 1 convolution, and three more that are followed by a
    3 x 3 convolution with dilation 1, 2 and 3; with 1, 4, 4, 2 channels in the first module and 2, 4, 4, 2 in the second; then
    BatchNorm and max pooling. Features: the 16 units.

    Faces of 256 px in the paper; any multiple of 32 works. Normalised with mean and std 0.5. Parameters at 256 px: 28,632, the
    paper's 28,615 and the second output's 17.

    As in the authors' Keras code every convolution has a bias and a ReLU behind it. What differs from it is as for `meso4`.
    DeepfakeBench's network of this name is another one, `dfb-mesoinception4`.

    PIM's insertion point is the first inception module; the PIM paper names none for this network, so the choice is ours.

    Args:
        size: side of the faces in px, a multiple of 32.
        weights: "none", or the path of a state_dict file of this detector.

    Raises:
        RegistryError: another size, or a file that does not fit.
    """

    about = About(
        title="MesoInception-4",
        paper=PAPER,
        year=2018,
        backbone="our own, after the paper",
        pooling="none: all positions go into a layer of 16 units",
        insertion="the first inception module (our choice)",
        notes="two logits under cross entropy; images in [-1, 1]; torch's BatchNorm constants",
    )
    shallow = ("block1",)
    dfb = "dfb-mesoinception4"
    scores_channels_first_on_gpu = True  # few channels: 1.7 times as fast on an H100 (docs/detectors_speed.md)

    def __init__(self, size: int = 256, weights: str | Path = "none") -> None:
        super().__init__(size)
        self.block1 = nn.Sequential(OrderedDict(inception=_Inception(3, 1, 4, 4, 2), bn=nn.BatchNorm2d(11), pool=nn.MaxPool2d(2)))
        self.block2 = nn.Sequential(OrderedDict(inception=_Inception(11, 2, 4, 4, 2), bn=nn.BatchNorm2d(12), pool=nn.MaxPool2d(2)))
        self.block3 = _block(12, 16, kernel=5, pool=2)
        self.block4 = _block(16, 16, kernel=5, pool=4)
        self._add_classifier()
        self._initialise_as_keras()
        load_weights(self, weights)

    def maps(self, images: Tensor) -> Tensor:
        """(N, 3, size, size), normalised -> (N, 16, size / 32, size / 32)."""
        return self.block4(self.block3(self.block2(self.block1(images))))


class _Inception(nn.Module):
    """A 1 x 1 convolution beside three dilated ones, with a ReLU behind each convolution.

    All of it waits for memory, and on a GPU for launches: the four 1 x 1 convolutions are computed as one, which reads the input
    once and has one gradient by it.
    """

    def __init__(self, inputs: int, *outputs: int) -> None:
        super().__init__()
        self.plain = nn.Conv2d(inputs, outputs[0], 1)
        self.reduce = nn.ModuleList(nn.Conv2d(inputs, channels, 1) for channels in outputs[1:])
        self.dilated = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
            for dilation, channels in enumerate(outputs[1:], 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, sum of the outputs, H, W)."""
        if x.device.type == "cuda" and not (self.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cuda")):
            return self._scored(x)
        beside = self._beside
        maps = F.conv2d(x, torch.cat([conv.weight for conv in beside]), torch.cat([conv.bias for conv in beside]))
        plain, *ways = _parts(maps, [conv.out_channels for conv in beside], in_place=maps.device.type == "cpu")
        return torch.cat([plain, *(after(way) for way, after in zip(ways, self.dilated, strict=True))], dim=1).relu_()

    @property
    def _beside(self) -> list[Any]:
        """The 1 x 1 convolutions, in the order of their outputs."""
        return [self.plain, *self.reduce]

    def _scored(self, x: Tensor) -> Tensor:
        """The same for evaluation, in 1.09 times the images per second on an H100 (fp32, channels first).

        Biases are added where a part is written anyway: where it comes to lie on its own, and in its place of the result.
        """
        beside = self._beside
        maps = F.conv2d(x, torch.cat([conv.weight for conv in beside]))
        result, sizes = torch.empty_like(maps), [conv.out_channels for conv in beside]
        (plain, *ways), (first, *places) = maps.split(sizes, dim=1), result.split(sizes, dim=1)
        torch.add(plain, _by_channel(self.plain.bias), out=first)
        pairs: Any = zip(self.reduce, self.dilated, strict=True)
        for way, place, (before, after) in zip(ways, places, pairs, strict=True):
            reduced = torch.add(way, _by_channel(before.bias)).relu_()
            dilated = F.conv2d(reduced, after.weight, None, 1, after.padding, after.dilation)
            torch.add(dilated, _by_channel(after.bias), out=place)
        return result.relu_()


def _by_channel(bias: Any) -> Tensor:
    """(C,) -> (C, 1, 1)."""
    shaped: Tensor = bias.view(-1, 1, 1)
    return shaped


def _parts(maps: Tensor, sizes: list[int], in_place: bool) -> list[Tensor]:
    """(N, sum of the sizes, H, W) -> (N, size, H, W) each, rectified but for the first where not in place.

    A convolution copies an input that lies between other channels. A GPU is spared that pass where the ReLU itself writes the part
    on its own. A CPU would take the ReLU's bfloat16 numbers one by one there, which costs more than the copy.
    """
    if in_place:
        return list(maps.relu_().split(sizes, dim=1))
    first, *others = maps.split(sizes, dim=1)
    return [first, *(part.relu() for part in others)]


def _block(inputs: int, outputs: int, kernel: int, pool: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2),
            relu=nn.ReLU(),
            bn=nn.BatchNorm2d(outputs),
            pool=nn.MaxPool2d(pool),
        )
    )
