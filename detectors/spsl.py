"""SPSL: the phase spectrum as a fourth channel, in front of a shallow Xception."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from detectors import xception_parts as xception
from detectors.about import About
from detectors.base import Prediction
from detectors.weights import KeyMap, State, load_weights

MIDDLE = tuple(f"block{number}" for number in range(4, 12))


@cache
def _middle() -> frozenset[str]:
    """The keys of the blocks that are left out, in Xception's state_dict."""
    with torch.device("meta"):
        return frozenset(key for key in xception.body().state_dict() if key.startswith(tuple(f"{block}." for block in MIDDLE)))


def _with_phase(state: State, backbone: nn.Module) -> State:
    """Weights for four channels, each of which starts from the mean over RGB, and without the blocks that are not there."""
    if not hasattr(backbone, MIDDLE[0]):
        state = {key: value for key, value in state.items() if key not in _middle()}
    return state | {"conv1.weight": state["conv1.weight"].mean(dim=1, keepdim=True).repeat(1, 4, 1, 1)}


class SPSL(xception.XceptionDetector):
    """SPSL (Liu et al., "Spatial-Phase Shallow Learning: Rethinking Face Forgery Detection in Frequency Domain", CVPR 2021, arXiv
    2103.01856).

    A face's phase spectrum, brought back to the image with all amplitudes 1 (`phase_image`), is the fourth channel of an Xception
    without the eight blocks of its middle flow: a small receptive field keeps to local texture. Cross entropy. The authors
    published no code that we know of; which blocks are left out is DeepfakeBench's reading (its backbone's mode "shallow_xception",
    which its own SPSL does not use), and so is the grey image, the mean over normalised channels, that the phase is taken of.

    Faces of 256 px by default; any size from 32 px. Global average pooling; features: 2048. Normalised with mean and std 0.5.
    Parameters: 7,899,530.

    PIM's insertion point is the first block (`block1`); the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: "none", "imagenet" (Xception's; each of the four channels of the first convolution starts from the mean over RGB),
            the path of such a file, or of a state_dict of this detector.
        normalization: "half" (mean and std 0.5) or "imagenet".
    """

    about = About(
        title="SPSL",
        paper="Liu et al., Spatial-Phase Shallow Learning, CVPR 2021, arXiv 2103.01856",
        year=2021,
        backbone="Xception without its blocks 4 to 11, pretrainedmodels",
        insertion="the first block (our choice)",
        notes="which blocks are left out is DeepfakeBench's reading of the paper",
    )
    shallow = ("backbone.block1",)
    imagenet = xception.imagenet(_with_phase)
    dfb: ClassVar[KeyMap | str | None] = "dfb-spsl"
    middle: ClassVar[bool] = False

    def __init__(self, size: int = 256, weights: str | Path = "none", normalization: str = "half") -> None:
        super().__init__(size, normalization)
        self.backbone = xception.body()
        self.backbone.conv1 = xception.conv1(4)
        if not self.middle:
            for name in MIDDLE:
                delattr(self.backbone, name)
        self.head = nn.Linear(xception.FEATURES, 2)
        load_weights(self, weights, self.imagenet)

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, H, W) float RGB in [0, 1] -> Prediction."""
        images = self.normalize(images)
        x = xception.start(self.backbone, torch.cat([images, phase_image(images)], dim=1))
        x = xception.blocks(self.backbone, x, 1, 3)
        if self.middle:
            x = xception.blocks(self.backbone, x, 4, 11)
        features = xception.pool(xception.end(self.backbone, xception.blocks(self.backbone, x, 12, 12)))
        return Prediction(self.head(features), features)


class DfbSPSL(SPSL):
    """SPSL as in DeepfakeBench: the phase channel in front of the whole Xception, for comparison with its other detectors.

    Faces of 256 px by default; any size from 32 px. Everything else as in `SPSL`. Parameters: 20,811,338.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: as for `SPSL`, or DeepfakeBench's checkpoint.
        normalization: "half" (mean and std 0.5) or "imagenet".
    """

    about = replace(
        SPSL.about,
        title="SPSL (DeepfakeBench)",
        backbone="Xception, pretrainedmodels",
        notes="in front of the whole Xception",
    )
    middle = True
    dfb = KeyMap(xception.DFB_HEAD, xception.DFB_DROP)


def phase_image(images: Tensor) -> Tensor:
    """The phase spectrum of the grey image as an image: F^-1(exp(i arg F(x))).

    Args:
        images: (N, 3, H, W); the grey image is the mean of the channels.

    Returns:
        (N, 1, H, W).
    """
    spectrum = torch.fft.fft2(images.mean(dim=1, keepdim=True))
    return torch.fft.ifft2(torch.exp(1j * spectrum.angle())).real
