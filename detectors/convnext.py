"""ConvNeXt; the Base is the backbone of the PIM paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from torch import nn
from torchvision.models import convnext as torchvision_convnext

from detectors.about import About
from detectors.backbone import BackboneDetector, probability
from detectors.weights import ImageNet

HEAD = ("classifier.2.weight", "classifier.2.bias")
PAPER = "Liu et al., A ConvNet for the 2020s, CVPR 2022, arXiv 2201.03545"


class TorchvisionConvNeXt(BackboneDetector):
    """torchvision's ConvNeXt behind `backbone`, without its last layer. The subclasses say which."""

    make: ClassVar[Callable[..., torchvision_convnext.ConvNeXt]]
    shallow = ("backbone.features.1.0", "backbone.features.1.1", "backbone.features.1.2")

    def __init__(self, size: int, weights: str | Path, normalization: str, stochastic_depth: float) -> None:
        depth = probability(type(self).__name__, "stochastic_depth", stochastic_depth)
        backbone = type(self).make(stochastic_depth_prob=depth)
        last = backbone.classifier[2]
        assert isinstance(last, nn.Linear)
        backbone.classifier[2] = nn.Identity()  # the LayerNorm in front of it stays: it belongs to the pretrained keys
        super().__init__(backbone, last.in_features, self.imagenet, size, weights, normalization)


class ConvNeXtTiny(TorchvisionConvNeXt):
    """ConvNeXt-Tiny (Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545), torchvision's.

    Faces of 256 px by default (224 px on ImageNet); any size from 32 px. Global average pooling and LayerNorm; features: 768.
    Normalised with mean and std 0.5, as in DeepfakeBench, or as on ImageNet. Parameters: 27,821,666.

    PIM's insertion points are the three blocks of the first stage, as in the PIM paper's ConvNeXt-Base.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: "none", "imagenet" (torchvision's IMAGENET1K_V1), or the path of a state_dict file.
        normalization: "half" (mean and std 0.5) or "imagenet".
        stochastic_depth: probability that the last block is skipped for an image while training, rising linearly from 0 at the
            first; torchvision's default for this network.
    """

    about = About(
        title="ConvNeXt-Tiny",
        paper=PAPER,
        year=2022,
        backbone="convnext_tiny, torchvision",
        pooling="global average, LayerNorm",
        insertion="the three blocks of the first stage (as the PIM paper for ConvNeXt-Base)",
    )
    make = torchvision_convnext.convnext_tiny
    imagenet = ImageNet(torchvision_convnext.ConvNeXt_Tiny_Weights.IMAGENET1K_V1.url, HEAD)

    def __init__(
        self, size: int = 256, weights: str | Path = "none", normalization: str = "half", stochastic_depth: float = 0.1
    ) -> None:
        super().__init__(size, weights, normalization, stochastic_depth)


class ConvNeXtBase(TorchvisionConvNeXt):
    """ConvNeXt-Base (Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545), torchvision's.

    Faces of 256 px by default (224 px on ImageNet); any size from 32 px. Global average pooling and LayerNorm; features: 1024.
    Normalised with mean and std 0.5, as in DeepfakeBench, or as on ImageNet. Parameters: 87,568,514.

    PIM's insertion points are the three blocks of the first stage, as in the PIM paper (Guan et al., IEEE TIFS 2024).

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: "none", "imagenet" (torchvision's IMAGENET1K_V1), or the path of a state_dict file.
        normalization: "half" (mean and std 0.5) or "imagenet".
        stochastic_depth: probability that the last block is skipped for an image while training, rising linearly from 0 at the
            first; torchvision's default for this network.
    """

    about = About(
        title="ConvNeXt-Base",
        paper=PAPER,
        year=2022,
        backbone="convnext_base, torchvision",
        pooling="global average, LayerNorm",
        insertion="the three blocks of the first stage (the PIM paper)",
    )
    make = torchvision_convnext.convnext_base
    imagenet = ImageNet(torchvision_convnext.ConvNeXt_Base_Weights.IMAGENET1K_V1.url, HEAD)

    def __init__(
        self, size: int = 256, weights: str | Path = "none", normalization: str = "half", stochastic_depth: float = 0.5
    ) -> None:
        super().__init__(size, weights, normalization, stochastic_depth)
