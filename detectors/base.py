"""What a detector is given and what it gives back. Images in, Prediction out; nothing of training or data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.about import About
from detectors.weights import ImageNet, KeyMap, Loaded

NEEDS = {
    "views": "each face under two augmentations (`Batch.views`)",
    "pairs": "as many real as fake faces in every micro-batch; the i-th real and the i-th fake face are a pair",
    "methods": "which forgery method each fake face comes from (`Batch.domains`)",
    "masks": "where each face is forged (`Batch.masks`)",
    "landmarks": "each face's landmarks (`Batch.landmarks`)",
}
"""Everything that a detector may ask of training in `Detector.needs`."""


@dataclass(frozen=True)
class Batch:
    """Faces with what is known about them.

    Attributes:
        images: (N, 3, H, W) float RGB in [0, 1]; a detector normalises them itself.
        labels: (N,) int64, 0 real, 1 fake.
        domains: (N,) int64 index of the forgery method. A real face carries the index of the domain that
            it was drawn to stand beside, so every domain of a balanced batch holds both classes.
        videos: (N,) int64 ids of the videos that the frames come from. They and `domains` stay on the CPU when a GPU trains.
        views: (N, 3, H, W) the same faces under a second augmentation; None unless the detector `needs` "views".
        masks: (N, 1, H, W) float, 1 where the face is forged, 0 elsewhere; None unless it needs "masks".
        landmarks: (N, L, 2) float32, x and y in px of `images`; None unless it needs "landmarks".
    """

    images: Tensor
    labels: Tensor
    domains: Tensor
    videos: Tensor
    views: Tensor | None = None
    masks: Tensor | None = None
    landmarks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return self.each(lambda values: values.to(device, non_blocking=True))

    def only(self, rows: Tensor | slice) -> Batch:
        """The part of the batch that `rows` ((N,) bool mask, (M,) int64 indices, or a slice, which copies nothing) chooses."""
        return self.each(lambda values: values[rows])

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """A batch of what `change` makes of each tensor that is there."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return Batch(*(None if value is None else change(value) for value in values))  # type: ignore[arg-type]


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
    must be that it is given and in `smallest` what is the least, and returns a `Prediction` from `forward`. `mean` and `std` are
    per RGB channel of images in [0, 1]; `normalize` applies them and keeps no state, so a state_dict holds the network's keys
    alone. `unused` names the parameters, by their full name or a prefix that ends in a dot, that a published architecture holds
    and that no loss reaches. `needs` names what training must give beyond labelled faces (keys of `NEEDS`), and `methods` how
    many forgery methods a detector with "methods" among them tells apart. `least_micro_batch` is how many faces `objective` must be
    given together, where it compares them with each other. `scores_channels_first_on_gpu` says that without
    gradients a GPU is faster with the channels first in memory, where everything else has them last; set where that was measured
    of the detector's layers.

    `about` says what the detector is, for `dfgrid list detectors` and docs/detectors.md. `imagenet` is what a library publishes
    for its backbone; `dfb` says how DeepfakeBench's checkpoint of it is read (see `detectors.weights`): a map of keys, the name
    of the detector that takes the file instead, or None. `loaded` is what a file's tensors became when this instance was built,
    None where it began at random.
    """

    about: ClassVar[About | None] = None
    imagenet: ClassVar[ImageNet | None] = None
    dfb: ClassVar[KeyMap | str | None] = None
    shallow: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    methods: int = 0
    least_micro_batch: ClassVar[int] = 1
    scores_channels_first_on_gpu: ClassVar[bool] = False
    loaded: Loaded | None = None
    size: int = 256
    smallest: int = 32
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def normalize(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the range that the backbone was made for."""
        if len({*self.mean}) == len({*self.std}) == 1 and math.frexp(self.std[0])[0] == 0.5:
            # One pass over the memory instead of two. To divide by a power of two is exact, so the bits are those of below.
            return torch.add(torch.tensor(-self.mean[0] / self.std[0], dtype=images.dtype), images, alpha=1 / self.std[0])
        # Made on the CPU and sent without waiting: torch.tensor(..., device="cuda") would drain the GPU's queue in every forward.
        mean, std = (
            torch.tensor(values, dtype=images.dtype).to(images.device, non_blocking=True) for values in (self.mean, self.std)
        )
        if not images.is_contiguous(memory_format=torch.channels_last):
            return (images - mean.view(1, 3, 1, 1)).div_(std.view(1, 3, 1, 1))
        # Row by row of the memory: against three numbers a CPU would work on three values at a time, many times as slowly.
        width = images.shape[3]
        rows = images.permute(0, 2, 3, 1).flatten(2)
        return (rows - mean.repeat(width)).div_(std.repeat(width)).unflatten(2, (width, 3)).permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, H, W) float RGB in [0, 1] -> Prediction."""
        raise NotImplementedError

    def loss(self, prediction: Prediction, batch: Batch) -> Tensor:
        """Mean cross entropy over the batch, a scalar. A detector with another loss of its predictions overrides this."""
        return F.cross_entropy(prediction.logits, batch.labels)

    def objective(self, batch: Batch) -> Tensor:
        """What training minimises: the loss of one forward pass over a micro-batch, a scalar.

        A detector whose loss asks for more than predictions of `batch.images` overrides this. Random choices in it must come
        from torch's default generators, so that an optimizer's second pass can replay them.
        """
        return self.loss(self(batch.images), batch)
