"""ConvNeXt-Base, the backbone of the PIM paper."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from torchvision.models import convnext as torchvision_convnext

from detectors.backbone import BackboneDetector, probability
from detectors.weights import ImageNet


class ConvNeXtBase(BackboneDetector):
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

    shallow = ("backbone.features.1.0", "backbone.features.1.1", "backbone.features.1.2")
    imagenet = ImageNet(torchvision_convnext.ConvNeXt_Base_Weights.IMAGENET1K_V1.url, ("classifier.2.weight", "classifier.2.bias"))

    def __init__(
        self,
        size: int = 256,
        weights: str | Path = "none",
        normalization: str = "half",
        stochastic_depth: float = 0.5,
    ) -> None:
        depth = probability("convnext_base", "stochastic_depth", stochastic_depth)
        backbone = torchvision_convnext.convnext_base(stochastic_depth_prob=depth)
        features = backbone.classifier[2].in_features
        backbone.classifier[2] = nn.Identity()  # the LayerNorm in front of it stays: it belongs to the pretrained keys
        super().__init__(backbone, features, self.imagenet, size, weights, normalization)
