"""What a detector is given and what it gives back. Images in, Prediction out; nothing of training or data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.about import About
from detectors.weights import ImageNet, KeyMap


@dataclass(frozen=True)
class Batch:
    """Faces with what is known about them.

    Attributes:
        images: (N, 3, H, W) float RGB in [0, 1]; a detector normalises them itself.
        labels: (N,) int64, 0 real, 1 fake.
        domains: (N,) int64 index of the forgery method. A real face carries the index of the domain that
            it was drawn to stand beside, so every domain of a balanced batch holds both classes.
        videos: (N,) int64 ids of the videos that the frames come from.
    """

    images: Tensor
    labels: Tensor
    domains: Tensor
    videos: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(*(getattr(self, f.name).to(device, non_blocking=True) for f in dataclasses.fields(self)))

    def only(self, rows: Tensor | slice) -> Batch:
        """The part of the batch that `rows` ((N,) bool mask, (M,) int64 indices, or a slice, which copies nothing) chooses."""
        return Batch(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


@dataclass(frozen=True)
class Prediction:
    """What a detector says.

    Attributes:
        logits: (N, 2), the columns are real and fake.
        features: (N, D), the vector in front of the last layer.
    """

    logits: Tensor
    features: Tensor

    @property
    def fake(self) -> Tensor:
        """(N,) P(fake) in [0, 1]."""
        return self.logits.softmax(dim=1)[:, 1]


class Detector(nn.Module):
    """Base class of every detector.

    A subclass names the submodules whose channel statistics PIM may push (`shallow`), says in `size` how large the faces
    must be that it is given, and returns a `Prediction` from `forward`. `mean` and `std` are per RGB channel of
    images in [0, 1]; `normalize` applies them and keeps no state, so a state_dict holds the backbone's keys alone.
    `unused` names the parameters, by their full name or a prefix that ends in a dot, that a published architecture holds
    and that no loss reaches.

    `about` says what the detector is, for `dfgrid list detectors` and docs/detectors.md. `imagenet` is what a library publishes
    for its backbone; `dfb` says how DeepfakeBench's checkpoint of it is read (see `detectors.weights`): a map of keys, the name
    of the detector that takes the file instead, or None.
    """

    about: ClassVar[About | None] = None
    imagenet: ClassVar[ImageNet | None] = None
    dfb: ClassVar[KeyMap | str | None] = None
    shallow: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    size: int = 256
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def normalize(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the range that the backbone was made for."""
        # Made on the CPU and sent without waiting: torch.tensor(..., device="cuda") would drain the GPU's queue in every forward.
        mean, std = (torch.tensor(values, dtype=images.dtype).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (images - mean.to(images.device, non_blocking=True)) / std.to(images.device, non_blocking=True)

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, H, W) float RGB in [0, 1] -> Prediction."""
        raise NotImplementedError

    def loss(self, prediction: Prediction, batch: Batch) -> Tensor:
        """Mean cross entropy over the batch, a scalar. A detector with another objective overrides this."""
        return F.cross_entropy(prediction.logits, batch.labels)
