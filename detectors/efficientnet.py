"""EfficientNet-B4."""

from __future__ import annotations

from pathlib import Path

from efficientnet_pytorch import EfficientNet
from efficientnet_pytorch.utils import url_map

from detectors.backbone import BackboneDetector, face_size, probability
from detectors.weights import ImageNet


class EfficientNetB4(BackboneDetector):
    """EfficientNet-B4 (Tan and Le, "EfficientNet: Rethinking Model Scaling for CNNs", ICML 2019, arXiv 1905.11946).

    efficientnet-pytorch's, whose padding follows from `size` as in TensorFlow. Faces of 256 px by default (380 px on ImageNet); any
    size from 32 px. Global average pooling; features: 1792. Normalised with mean and std 0.5, as in DeepfakeBench, or as on
    ImageNet. Parameters: 17,552,202.

    The pretrained stem is kept. DeepfakeBench always replaces it by a new, unpadded convolution.

    PIM's insertion points are the two blocks of the first stage; the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px.
        weights: "none", "imagenet" (efficientnet-pytorch's file), or the path of a state_dict file.
        normalization: "half" (mean and std 0.5) or "imagenet".
        dropout: probability that a feature is zeroed in front of the last layer while training; the paper's for B4.
        drop_connect: probability that the last block is skipped for an image while training, rising linearly from 0 at the first.
    """

    shallow = ("backbone._blocks.0", "backbone._blocks.1")
    imagenet = ImageNet(url_map["efficientnet-b4"], ("_fc.weight", "_fc.bias"))

    def __init__(
        self,
        size: int = 256,
        weights: str | Path = "none",
        normalization: str = "half",
        dropout: float = 0.4,
        drop_connect: float = 0.2,
    ) -> None:
        backbone = EfficientNet.from_name(
            "efficientnet-b4",
            include_top=False,
            image_size=face_size("efficientnet_b4", size),
            drop_connect_rate=probability("efficientnet_b4", "drop_connect", drop_connect),
        )
        # torch's own SiLU: the same function and as frugal as the library's, and its second derivative is torch's too.
        backbone.set_swish(memory_efficient=False)
        features = backbone._conv_head.out_channels
        super().__init__(backbone, features, self.imagenet, size, weights, normalization, dropout)
