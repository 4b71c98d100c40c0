"""EfficientNets."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from efficientnet_pytorch import EfficientNet
from efficientnet_pytorch.utils import Conv2dStaticSamePadding, url_map
from torch import nn

from detectors.about import About
from detectors.backbone import BackboneDetector, face_size, probability
from detectors.weights import ImageNet, KeyMap

HEAD = ("_fc.weight", "_fc.bias")
PAPER = "Tan and Le, EfficientNet: Rethinking Model Scaling for CNNs, ICML 2019, arXiv 1905.11946"


class _EfficientNet(BackboneDetector):
    """efficientnet-pytorch's network behind `backbone`, without its last layer. The subclasses say which."""

    model: ClassVar[str]
    shallow: tuple[str, ...] = ("backbone._blocks.0", "backbone._blocks.1")

    def __init__(self, size: int, weights: str | Path, normalization: str, dropout: float, drop_connect: float) -> None:
        name = type(self).__name__
        backbone = EfficientNet.from_name(
            self.model,
            include_top=False,
            image_size=self._padded_for(face_size(name, size)),
            drop_connect_rate=probability(name, "drop_connect", drop_connect),
        )
        # torch's own SiLU: the same function and as frugal as the library's, and its second derivative is torch's too.
        backbone.set_swish(memory_efficient=False)
        self._change(backbone)
        for module in backbone.modules():
            if isinstance(module, Conv2dStaticSamePadding):
                _pad_inside(module)
        features = backbone._conv_head.out_channels
        super().__init__(backbone, features, self.imagenet, size, weights, normalization, dropout)

    def _padded_for(self, size: int) -> int:
        """The image size that the paddings are worked out for."""
        return size

    def _change(self, backbone: nn.Module) -> None:
        """Whatever differs from the library's network, before the weights are loaded."""


def _pad_inside(convolution: Conv2dStaticSamePadding) -> None:
    """Let a convolution pad by itself where opposite sides get the same: the library copies its input to pad it, and the gradient
    once more, and these are the largest tensors of the network."""
    padding = convolution.static_padding
    if isinstance(padding, nn.ZeroPad2d):
        left, right, top, bottom = padding.padding
        if (left, top) == (right, bottom):
            convolution.padding = (top, left)
            convolution.static_padding = nn.Identity()


class EfficientNetB0(_EfficientNet):
    """EfficientNet-B0 (Tan and Le, "EfficientNet: Rethinking Model Scaling for CNNs", ICML 2019, arXiv 1905.11946).

    efficientnet-pytorch's, whose padding follows from `size` as in TensorFlow. Faces of 256 px by default (224 px on ImageNet); any
    size from 32 px. Global average pooling; features: 1280. Normalised with mean and std 0.5, or as on ImageNet.
    Parameters: 4,010,110.

    PIM's insertion point is the first stage's only block; the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px.
        weights: "none", "imagenet" (efficientnet-pytorch's file), or the path of a state_dict file.
        normalization: "half" (mean and std 0.5) or "imagenet".
        dropout: probability that a feature is zeroed in front of the last layer while training; the paper's for B0.
        drop_connect: probability that the last block is skipped for an image while training, rising linearly from 0 at the first.
    """

    about = About(
        title="EfficientNet-B0",
        paper=PAPER,
        year=2019,
        backbone="efficientnet-b0, efficientnet-pytorch",
        insertion="the first stage's block (our choice)",
    )
    model = "efficientnet-b0"
    shallow = ("backbone._blocks.0",)
    imagenet = ImageNet(url_map["efficientnet-b0"], HEAD)

    def __init__(
        self,
        size: int = 256,
        weights: str | Path = "none",
        normalization: str = "half",
        dropout: float = 0.2,
        drop_connect: float = 0.2,
    ) -> None:
        super().__init__(size, weights, normalization, dropout, drop_connect)


class EfficientNetB4(_EfficientNet):
    """EfficientNet-B4 (Tan and Le, "EfficientNet: Rethinking Model Scaling for CNNs", ICML 2019, arXiv 1905.11946).

    efficientnet-pytorch's, whose padding follows from `size` as in TensorFlow. Faces of 256 px by default (380 px on ImageNet); any
    size from 32 px. Global average pooling; features: 1792. Normalised with mean and std 0.5, as in DeepfakeBench, or as on
    ImageNet. Parameters: 17,552,202.

    The pretrained stem is kept. DeepfakeBench always replaces it by a new, unpadded convolution: `dfb-efficientnet_b4`.

    PIM's insertion points are the two blocks of the first stage; the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px.
        weights: "none", "imagenet" (efficientnet-pytorch's file), or the path of a state_dict file.
        normalization: "half" (mean and std 0.5) or "imagenet".
        dropout: probability that a feature is zeroed in front of the last layer while training; the paper's for B4.
        drop_connect: probability that the last block is skipped for an image while training, rising linearly from 0 at the first.
    """

    about = About(
        title="EfficientNet-B4",
        paper=PAPER,
        year=2019,
        backbone="efficientnet-b4, efficientnet-pytorch",
        insertion="the two blocks of the first stage (our choice)",
    )
    model = "efficientnet-b4"
    imagenet = ImageNet(url_map["efficientnet-b4"], HEAD)
    dfb = "dfb-efficientnet_b4"

    def __init__(
        self,
        size: int = 256,
        weights: str | Path = "none",
        normalization: str = "half",
        dropout: float = 0.4,
        drop_connect: float = 0.2,
    ) -> None:
        super().__init__(size, weights, normalization, dropout, drop_connect)


class DfbEfficientNetB4(_EfficientNet):
    """DeepfakeBench's EfficientNet-B4, for its checkpoints and for numbers that were made with it.

    It differs from `efficientnet_b4` in three ways. The stem is a new convolution without padding, so with "imagenet" it is random
    and everything behind it is pretrained. The paddings behind it are those of images of 380 px, whatever `size` is. There is no
    dropout in front of the last layer, as its published settings have it.

    Faces of 256 px by default; any size from 32 px. Global average pooling; features: 1792. Normalised with mean and std 0.5.
    Parameters: 17,552,202.

    PIM's insertion points are the two blocks of the first stage; our choice.

    Args:
        size: side of the faces in px.
        weights: "none", "imagenet" (efficientnet-pytorch's file, its stem dropped), "dfb:PATH", or the path of a state_dict file.
        normalization: "half" (mean and std 0.5) or "imagenet".
        dropout: probability that a feature is zeroed in front of the last layer while training.
        drop_connect: probability that the last block is skipped for an image while training, rising linearly from 0 at the first.
    """

    about = About(
        title="EfficientNet-B4 of DeepfakeBench",
        paper=PAPER,
        year=2019,
        backbone="efficientnet-b4, efficientnet-pytorch",
        insertion="the two blocks of the first stage (our choice)",
        notes="new unpadded stem, never pretrained; paddings of 380 px; no dropout",
    )
    model = "efficientnet-b4"
    imagenet = ImageNet(url_map["efficientnet-b4"], HEAD, fresh=("_conv_stem.weight",))
    dfb = KeyMap({"backbone.efficientnet.": "backbone.", "backbone.last_layer.": "head."})

    def __init__(
        self,
        size: int = 256,
        weights: str | Path = "none",
        normalization: str = "half",
        dropout: float = 0.0,
        drop_connect: float = 0.2,
    ) -> None:
        super().__init__(size, weights, normalization, dropout, drop_connect)

    def _padded_for(self, size: int) -> int:
        return 380  # the library's own for B4: DeepfakeBench does not tell it another

    def _change(self, backbone: nn.Module) -> None:
        backbone._conv_stem = nn.Conv2d(3, 48, 3, stride=2, bias=False)
