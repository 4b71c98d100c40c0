"""What the detectors with a published backbone share: settings, normalisation, first weights, and the layer to two classes."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from detectors.base import Detector, Prediction
from detectors.weights import ImageNet, load_weights
from optimizers.registry import RegistryError, did_you_mean

NORMALIZATIONS = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""name -> (mean, std) per RGB channel of images in [0, 1]. "half" is what DeepfakeBench and the papers built on it use for every
backbone, and what Xception's ImageNet weights were trained with; "imagenet" is what torchvision's and efficientnet-pytorch's were
trained with."""


def face_size(name: str, size: int, multiple: int = 1, least: int = 32) -> int:
    """`size` itself, if it is a whole number of px of at least `least` and divisible by `multiple`.

    Raises:
        RegistryError: if it is not.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < least or size % multiple:
        divisible = f" divisible by {multiple}" if multiple > 1 else ""
        raise RegistryError(f"{name}: size is {size!r}, but it must be a whole number of pixels{divisible}, at least {least}")
    return size


def probability(name: str, key: str, value: float) -> float:
    """`value` itself, if it is a probability below 1.

    Raises:
        RegistryError: if it is not; the sentence names the setting `key`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise RegistryError(f"{name}: {key} is {value!r}, but it must be a probability from 0 to below 1")
    return float(value)


class BackboneDetector(Detector):
    """A published network cut in front of its 1000-class layer (`backbone`), and a linear layer to two classes (`head`).

    `backbone` keeps the library's parameter names, so the library's own files load into it key by key.

    Args:
        backbone: the network without its last layer.
        features: D, the length of the vector in front of that layer.
        imagenet: what the library publishes for it, if anything.
        size: side of the faces in px.
        weights: "none", "imagenet", "dfb:PATH", or the path of a state_dict file; see `detectors.weights.load_weights`.
        normalization: a name of `NORMALIZATIONS`.
        dropout: probability that a feature is zeroed in front of `head` while training.

    Raises:
        RegistryError: a setting that cannot be.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        imagenet: ImageNet | None,
        size: int,
        weights: str | Path,
        normalization: str,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if normalization not in NORMALIZATIONS:
            raise RegistryError(f"{name}: no normalization '{normalization}': {did_you_mean(str(normalization), NORMALIZATIONS)}")
        self.size = face_size(name, size)
        self.mean, self.std = NORMALIZATIONS[normalization]
        self.backbone = backbone
        self.dropout = nn.Dropout(probability(name, "dropout", dropout))
        self.head = nn.Linear(features, 2)
        load_weights(self, weights, imagenet)

    def embed(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), normalised -> (N, D)."""
        features: Tensor = self.backbone(images)
        return features.flatten(1)

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, H, W) float RGB in [0, 1] -> Prediction."""
        features = self.embed(self.normalize(images))
        return Prediction(self.head(self.dropout(features)), features)
