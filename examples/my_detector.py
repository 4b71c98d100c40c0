"""A detector from outside the project: a fixed high-pass filter (Fridrich and Kodovský, IEEE TIFS 2012) in front of a small CNN."""

import torch
from torch import nn

from detectors import DETECTORS
from detectors.base import Detector, Prediction


@DETECTORS.register("my_detector")
class MyDetector(Detector):
    """The noise residual of each colour channel, clipped and classified. Faces of 64 px by default, any size from 8 px."""

    shallow = ("stage1",)

    def __init__(self, size: int = 64, width: int = 16) -> None:
        super().__init__()
        self.size = size
        kernel = torch.tensor([[-1.0, 2.0, -1.0], [2.0, -4.0, 2.0], [-1.0, 2.0, -1.0]]) / 4
        self.register_buffer("high_pass", kernel.repeat(3, 1, 1, 1))
        self.stage1 = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(width, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, 2)

    def forward(self, images: torch.Tensor) -> Prediction:
        residuals = nn.functional.conv2d(self.normalize(images), self.high_pass, groups=3)
        features = self.stage2(self.stage1(residuals.clamp(-1, 1))).mean(dim=(2, 3))
        return Prediction(self.head(features), features)
