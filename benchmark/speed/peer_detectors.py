"""DeepfakeBench's networks and detectors, out of a folder that holds its code, for timing beside ours. Nothing of it is part of
this project."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.config import ConfigError
from detectors.base import Batch
from detectors.xception_parts import xception

COMMON = {"num_classes": 2, "inc": 3, "dropout": False, "mode": "Original", "pretrained": None}
"""What its YAML files say of these backbones, without pretrained weights."""

BACKBONES = {
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


@dataclass(frozen=True)
class Theirs:
    """One of its detectors: the file's and the registry's name, and what its YAML file says that is not common to all."""

    name: str
    loss: str | dict[str, str] = "cross_entropy"
    inc: int = 3
    mode: str = "original"
    dropout: float | bool = False


UCF = {"cls_loss": "cross_entropy", "spe_loss": "cross_entropy", "con_loss": "contrastive_regularization", "rec_loss": "l1loss"}
DETECTORS = {
    "dfb-spsl": Theirs("spsl", inc=4),
    "dfb-srm": Theirs("srm", loss="am_softmax"),
    "dfb-core": Theirs("core", loss="consistency_loss"),
    "dfb-recce": Theirs("recce"),
    "dfb-f3net": Theirs("f3net", dropout=0.5),
    "ucf": Theirs("ucf", loss=UCF, mode="adjust_channel"),
}
"""Our detector -> DeepfakeBench's that does the same work."""

RIGID = ("dfb-meso4", "dfb-mesoinception4", "meso4", "mesoinception4")
"""Those whose peer takes faces of 256 px alone."""


def normalised(images: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1] by the function of torchvision that its data loader calls, there face by face."""
    return torchvision.transforms.functional.normalize(images, [0.5] * 3, [0.5] * 3)


class Backbone(nn.Module):
    """A network that gives (logits, features) or logits alone: the logits, and cross entropy of them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 2)."""
        found = self.network(normalised(images))
        logits: Tensor = found[0] if isinstance(found, tuple) else found
        return logits

    def objective(self, batch: Batch) -> Tensor:
        """What its trainer minimises."""
        return F.cross_entropy(self(batch.images), batch.labels)


class Whole(nn.Module):
    """One of its detector classes, which is given a dict."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 2)."""
        told = {"image": normalised(images), "label": torch.zeros(len(images), dtype=torch.int64, device=images.device)}
        logits: Tensor = self.detector(told, inference=True)["cls"]
        return logits

    def objective(self, batch: Batch) -> Tensor:
        """What its trainer minimises."""
        # The real faces of a batch of pairs come first there.
        order = batch.labels.argsort(stable=True)
        labels = batch.labels[order]
        told = {"image": normalised(batch.images[order]), "label": labels, "label_spe": (batch.domains[order] + 1) * labels}
        loss: Tensor = self.detector.get_losses(told, self.detector(told))["overall"]
        return loss


Peer = Backbone | Whole


def peers(folder: Path) -> dict[str, Callable[[int], Peer]]:
    """Our name -> what builds, for faces of so many px, DeepfakeBench's network beside it.

    Args:
        folder: the root of its repository.

    Raises:
        ConfigError: the folder does not hold it, or its code does not import here; for a detector this shows when it is built.
    """
    training = folder / "training"
    if not (training / "networks").is_dir():
        raise ConfigError(f"{folder} holds no training/networks; give the root of a DeepfakeBench checkout")
    sys.path.insert(0, str(training.resolve()))
    registry = _imported("networks", folder).BACKBONE
    found: dict[str, Callable[[int], Peer]] = {}
    for ours, theirs in BACKBONES.items():
        found[ours] = lambda size, theirs=theirs: Backbone(_backbone(registry[theirs]))  # type: ignore[misc]
    for ours, whole in DETECTORS.items():
        found[ours] = lambda size, whole=whole: Whole(_detector(whole, folder, size))  # type: ignore[misc]
    return found


def _imported(name: str, folder: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"DeepfakeBench's {name} in {folder} does not import here: {error}") from error


def _backbone(cls: type[nn.Module]) -> nn.Module:
    """Its ResNet-34 always asks torchvision for a download; here torchvision gives it one without weights."""
    whole = torchvision.models.resnet34
    torchvision.models.resnet34 = lambda pretrained=True: whole()
    try:
        return cls(dict(COMMON))
    finally:
        torchvision.models.resnet34 = whole


def _detector(theirs: Theirs, folder: Path, size: int) -> Any:
    with _their_package(folder / "training" / "detectors"):
        module = _imported(f"detectors.{theirs.name}_detector", folder)
    if theirs.name == "recce":  # its encoder, which timm would download
        module.encoder_params["xception"]["init_op"] = functools.partial(_timm, "legacy_xception")
    logging.getLogger(module.__name__).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        # Every one of them reads weights while it is built: random ones, in the file's old form.
        pretrained = Path(scratch) / "xception.pth"
        state = {key: value for key, value in xception(pretrained=None).state_dict().items() if "last_linear" not in key}
        torch.save({key: value[..., 0, 0] if "pointwise" in key else value for key, value in state.items()}, pretrained)
        return module.DETECTOR[theirs.name](
            {
                "backbone_name": "xception",
                "backbone_config": {"num_classes": 2, "inc": theirs.inc, "dropout": theirs.dropout, "mode": theirs.mode},
                "pretrained": str(pretrained),
                "loss_func": theirs.loss,
                "resolution": size,
                "encoder_feat_dim": 512,
                "train_dataset": ["FF-F2F", "FF-DF", "FF-FS", "FF-NT"],
            }
        )


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


@contextlib.contextmanager
def _their_package(folder: Path) -> Iterator[None]:
    """`detectors` is its package in here, without the file that imports all its forty detectors and what they need."""
    ours = {name: module for name, module in sys.modules.items() if name == "detectors" or name.startswith("detectors.")}
    for name in ours:
        del sys.modules[name]
    package: Any = types.ModuleType("detectors")
    package.__path__ = [str(folder)]
    package.DETECTOR = importlib.import_module("metrics.registry").DETECTOR
    sys.modules["detectors"] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name == "detectors" or name.startswith("detectors.")]:
            del sys.modules[name]
        sys.modules.update(ours)
