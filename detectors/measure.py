"""A detector's card, made from its class and measured on the detector itself."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from detectors import DETECTORS
from detectors.base import Detector
from detectors.cards import Card
from detectors.weights import KeyMap
from optimizers.registry import RegistryError


def card(name: str, device: str = "meta") -> Card:
    """What `Card` says of a registered detector with its default settings.

    Args:
        name: in the registry.
        device: where it is built and given one face. "meta" has shapes and no numbers, and so takes no time; a detector that
            computes something while it is built may need "cpu".

    Raises:
        RegistryError: an unknown name, or a string where a tuple of strings belongs.
    """
    cls: Any = DETECTORS.get(name)
    with torch.device(device):
        detector: Detector = DETECTORS.build(name).eval()
        face = torch.zeros(1, 3, detector.size, detector.size)
    for key in ("shallow", "needs"):
        if isinstance(value := getattr(detector, key), str):  # its letters would be listed
            raise RegistryError(f"{key} is '{value}', one string; write {key} = ('{value}',)")
    # With gradients, or torch would take a fused attention that the counter does not know.
    with FlopCounterMode(display=False) as counter:
        features = detector(face).features.shape[1]
    about = cls.about
    first = (cls.__doc__ or "").strip().split("\n")[0]
    ways = ["none"] if "weights" in DETECTORS.settings(name) else []
    if detector.imagenet is not None and detector.imagenet.url:
        ways.append("imagenet")
    if isinstance(cls.dfb, KeyMap):
        ways.append("dfb")
    return Card(
        title=about.title if about else first,
        paper=about.paper if about else "",
        year=about.year if about else None,
        backbone=about.backbone if about else "",
        notes=about.notes if about else "",
        size=detector.size,
        mean=tuple(detector.mean),
        std=tuple(detector.std),
        pooling=about.pooling if about else "",
        features=features,
        insertion=about.insertion if about else "",
        shallow=tuple(detector.shallow),
        needs=tuple(detector.needs),
        weights=tuple(ways),
        imagenet=detector.imagenet.url if detector.imagenet is not None else "",
        parameters=sum(p.numel() for p in detector.parameters() if p.requires_grad),
        gflops=float(f"{counter.get_total_flops() / 1e9:.4g}"),
        settings={key: None if value is DETECTORS.NO_DEFAULT else value for key, value in DETECTORS.settings(name).items()},
    )
