"""Xception, the backbone of FaceForensics++ and of most detectors since."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from detectors.about import About
from detectors.backbone import BackboneDetector
from detectors.weights import ImageNet, KeyMap
from detectors.xception_parts import HEAD, pretrained_settings, xception


class Xception(BackboneDetector):
    """Xception (Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, arXiv 1610.02357).

    pretrainedmodels's, the detector of FaceForensics++ (Rössler et al., ICCV 2019). Faces of 256 px by default (299 px on
    ImageNet); any size from 32 px. Global average pooling; features: 2048. Normalised with mean and std 0.5, as its ImageNet
    weights were. Parameters: 20,811,050.

    PIM's insertion point is the first block of the entry flow (`block1`, the only one at a quarter of the input's side); the PIM
    paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: "none", "imagenet" (pretrainedmodels's file), "dfb:PATH", or the path of a state_dict file; the older public file,
            xception-b5690688.pth, in which 1 x 1 convolutions are matrices, loads as well.
        normalization: "half" (mean and std 0.5) or "imagenet".
    """

    about = About(
        title="Xception",
        paper="Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017, arXiv 1610.02357",
        year=2017,
        backbone="xception, pretrainedmodels",
        insertion="the first block of the entry flow (our choice)",
        notes="the detector of FaceForensics++ (Rössler et al., ICCV 2019)",
    )
    shallow = ("backbone.block1",)
    imagenet = ImageNet(pretrained_settings["xception"]["imagenet"]["url"], HEAD)
    dfb = KeyMap(
        {"backbone.last_linear.": "head.", "backbone.last_linear.1.": "head."},  # the second where its dropout was switched on
        drop=("backbone.adjust_channel.",),  # always built there, and used by none of its losses for this detector
    )

    def __init__(self, size: int = 256, weights: str | Path = "none", normalization: str = "half") -> None:
        backbone = xception(pretrained=None)
        features = backbone.last_linear.in_features
        backbone.last_linear = nn.Identity()
        super().__init__(backbone, features, self.imagenet, size, weights, normalization)
