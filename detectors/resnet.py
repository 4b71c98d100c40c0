"""ResNets: torchvision's, and a narrow one for small faces on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

from detectors.about import About
from detectors.backbone import BackboneDetector, face_size
from detectors.base import Detector, Prediction
from detectors.weights import ImageNet, KeyMap, load_weights
from optimizers.registry import RegistryError

HEAD = ("fc.weight", "fc.bias")
PAPER = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385"


class ResNet10(Detector):
    """ResNet with one basic block a stage, for small faces.

    After He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385. The paper's smallest network is
    ResNet-18; this one has half its blocks and, at the default width, a quarter of its channels
    (16, 32, 64, 128), for grids that must run on a CPU. The stem is one 3 x 3 convolution with stride 2 instead of 7 x 7 and a max
    pooling, because the traces in a face of some 96 px are a few pixels wide. Global average pooling; features: 8 `width` = 128.

    Faces of 96 px by default; any size from 32 px. Normalised with mean and std 0.5. Parameters: 307,794.

    PIM's insertion point is the first stage's block; the choice is ours.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: "none", or the path of a state_dict file of this detector.
        width: channels of the first stage; every further stage doubles them.

    Raises:
        RegistryError: a setting that cannot be, or a file that does not fit.
    """

    about = About(
        title="ResNet-10 (narrow)",
        paper=PAPER,
        year=2016,
        backbone="our own, of torchvision's basic blocks",
        insertion="the first stage's block (our choice)",
        notes="half of ResNet-18's blocks and a quarter of its channels, for grids that must run on a CPU",
    )
    shallow = ("layer1",)

    def __init__(self, size: int = 96, weights: str | Path = "none", width: int = 16) -> None:
        super().__init__()
        self.size = face_size("resnet10", size)
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise RegistryError(f"resnet10: width is {width!r}, but it must be a whole number of channels, at least 1")
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _basic_block(width, width, stride=1)
        self.layer2 = _basic_block(width, 2 * width, stride=2)
        self.layer3 = _basic_block(2 * width, 4 * width, stride=2)
        self.layer4 = _basic_block(4 * width, 8 * width, stride=2)
        self.fc = nn.Linear(8 * width, 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        load_weights(self, weights)

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, H, W) float RGB in [0, 1] -> Prediction."""
        x = self.relu(self.bn1(self.conv1(self.normalize(images))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))
        return Prediction(self.fc(features), features)


def _basic_block(inputs: int, outputs: int, stride: int) -> torchvision_resnet.BasicBlock:
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
    return torchvision_resnet.BasicBlock(inputs, outputs, stride, shortcut)


class TorchvisionResNet(BackboneDetector):
    """torchvision's ResNet behind `backbone`, without its last layer. The subclasses say which."""

    make: ClassVar[Callable[[], torchvision_resnet.ResNet]]

    def __init__(self, size: int = 256, weights: str | Path = "none", normalization: str = "half") -> None:
        backbone = type(self).make()
        features = backbone.fc.in_features
        backbone.fc = nn.Identity()
        super().__init__(backbone, features, self.imagenet, size, weights, normalization)


class ResNet18(TorchvisionResNet):
    """ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385), torchvision's.

    Faces of 256 px by default (224 px on ImageNet); any size from 32 px. Global average pooling; features: 512.
    Normalised with mean and std 0.5, as in DeepfakeBench, or as on ImageNet. Parameters: 11,177,538.

    PIM's insertion points are the two blocks of the first stage; the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: "none", "imagenet" (torchvision's IMAGENET1K_V1), or the path of a state_dict file.
        normalization: "half" (mean and std 0.5) or "imagenet".
    """

    about = About(
        title="ResNet-18",
        paper=PAPER,
        year=2016,
        backbone="resnet18, torchvision",
        insertion="the two blocks of the first stage (our choice)",
    )
    shallow = ("backbone.layer1.0", "backbone.layer1.1")
    make = torchvision_resnet.resnet18
    imagenet = ImageNet(torchvision_resnet.ResNet18_Weights.IMAGENET1K_V1.url, HEAD)


class ResNet34(TorchvisionResNet):
    """ResNet-34 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385), torchvision's.

    Faces of 256 px by default (224 px on ImageNet); any size from 32 px. Global average pooling; features: 512.
    Normalised with mean and std 0.5, as in DeepfakeBench, or as on ImageNet. Parameters: 21,285,698.

    PIM's insertion points are the three blocks of the first stage; the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: "none", "imagenet" (torchvision's IMAGENET1K_V1), "dfb:PATH", or the path of a state_dict file.
        normalization: "half" (mean and std 0.5) or "imagenet".
    """

    about = About(
        title="ResNet-34",
        paper=PAPER,
        year=2016,
        backbone="resnet34, torchvision",
        insertion="the three blocks of the first stage (our choice)",
    )
    shallow = ("backbone.layer1.0", "backbone.layer1.1", "backbone.layer1.2")
    make = torchvision_resnet.resnet34
    imagenet = ImageNet(torchvision_resnet.ResNet34_Weights.IMAGENET1K_V1.url, HEAD)
    # DeepfakeBench keeps the network without its last two parts in an unnamed sequence; ReLU and pooling are its numbers 2 and 3.
    dfb = KeyMap(
        {
            "backbone.resnet.0.": "backbone.conv1.",
            "backbone.resnet.1.": "backbone.bn1.",
            "backbone.resnet.4.": "backbone.layer1.",
            "backbone.resnet.5.": "backbone.layer2.",
            "backbone.resnet.6.": "backbone.layer3.",
            "backbone.resnet.7.": "backbone.layer4.",
            "backbone.fc.": "head.",
        }
    )


class ResNet50(TorchvisionResNet):
    """ResNet-50 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385), torchvision's.

    torchvision strides in the 3 x 3 convolution of a bottleneck ("v1.5") where the paper strides in the first 1 x 1.
    Faces of 256 px by default (224 px on ImageNet); any size from 32 px. Global average pooling; features: 2048.
    Normalised with mean and std 0.5, as in DeepfakeBench, or as on ImageNet. Parameters: 23,512,130.

    PIM's insertion points are the three blocks of the first stage; the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: "none", "imagenet" (torchvision's IMAGENET1K_V1, which the papers' `pretrained=True` meant, not V2), or the path
            of a state_dict file.
        normalization: "half" (mean and std 0.5) or "imagenet".
    """

    about = About(
        title="ResNet-50",
        paper=PAPER,
        year=2016,
        backbone="resnet50, torchvision",
        insertion="the three blocks of the first stage (our choice)",
        notes="torchvision's v1.5: a bottleneck strides in its 3 x 3 convolution",
    )
    shallow = ("backbone.layer1.0", "backbone.layer1.1", "backbone.layer1.2")
    make = torchvision_resnet.resnet50
    imagenet = ImageNet(torchvision_resnet.ResNet50_Weights.IMAGENET1K_V1.url, HEAD)
