"""DeepfakeBench's backbones, out of a folder that holds its code, for timing beside ours. Nothing of it is part of this project."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from benchmark.config import ConfigError

COMMON = {"num_classes": 2, "inc": 3, "dropout": False, "mode": "Original", "pretrained": None}
"""What its YAML files say of these backbones, without pretrained weights."""

PEERS = {
    "dfb-meso4": "meso4",
    "dfb-mesoinception4": "meso4Inception",
    "meso4": "meso4",
    "mesoinception4": "meso4Inception",
    "resnet34": "resnet34",
    "xception": "xception",
    "efficientnet_b4": "efficientnetb4",
    "dfb-efficientnet_b4": "efficientnetb4",
}
"""Our detector -> DeepfakeBench's backbone that it is compared with."""


RIGID = ("dfb-meso4", "dfb-mesoinception4", "meso4", "mesoinception4")
"""Those whose peer takes faces of 256 px alone, and fails with the channels last in memory."""


def peer_backbones(folder: Path) -> dict[str, Callable[[], nn.Module]]:
    """Our name -> what builds DeepfakeBench's network beside it. Images go in normalised, logits come out.

    Args:
        folder: the root of its repository.

    Raises:
        ConfigError: the folder does not hold it, or its code does not import here.
    """
    training = folder / "training"
    if not (training / "networks").is_dir():
        raise ConfigError(f"{folder} holds no training/networks; give the root of a DeepfakeBench checkout")
    sys.path.insert(0, str(training.resolve()))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("networks")
            registry: Any = importlib.import_module("metrics.registry").BACKBONE
    except ImportError as error:
        raise ConfigError(f"DeepfakeBench's networks in {folder} do not import here: {error}") from error
    return {ours: (lambda theirs=theirs: Logits(_built(registry[theirs]))) for ours, theirs in PEERS.items()}  # type: ignore[misc]


def _built(cls: type[nn.Module]) -> nn.Module:
    """Its ResNet-34 always asks torchvision for a download; here torchvision gives it one without weights."""
    whole = torchvision.models.resnet34
    torchvision.models.resnet34 = lambda pretrained=True: whole()
    try:
        return cls(dict(COMMON))
    finally:
        torchvision.models.resnet34 = whole


class Logits(nn.Module):
    """A network that gives (logits, features) or logits alone: the logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, 2)."""
        found = self.network(images)
        logits: Tensor = found[0] if isinstance(found, tuple) else found
        return logits
