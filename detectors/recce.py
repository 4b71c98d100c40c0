"""RECCE: an Xception that also learns to reconstruct real faces, and looks where that fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors import xception_parts as xception
from detectors.about import About
from detectors.backbone import probability
from detectors.base import Batch, Prediction
from detectors.weights import KeyMap, State, load_weights

NOISE = 1e-6
"""Standard deviation of the white noise that half of the images get while training; the authors' code."""


class Run(NamedTuple):
    """What one pass gives to the losses: the prediction, the reconstructed images, and the features that are compared."""

    prediction: Prediction
    reconstruction: Tensor
    embeddings: tuple[Tensor, ...]


class GraphReasoning(nn.Module):
    """Multi-scale graph reasoning: what each position of the encoder learns from the decoder's positions under it.

    Args:
        channels: of the encoder's map and of the decoder's two maps, which are 2 and 4 times as wide and high.
        width: channels that the graphs work in.
        dropout: probability that a value of the result is zeroed while training.
    """

    def __init__(self, channels: tuple[int, int, int], width: int, dropout: float) -> None:
        super().__init__()
        a, b, c = channels

        def gate() -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(a, width, 1, bias=False), nn.Sigmoid())

        def embedding(inputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inputs, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False))

        self.va_embedding = nn.Sequential(nn.Conv2d(a, width, 1, bias=False), nn.ReLU(), nn.Conv2d(width, width, 1, bias=False))
        self.va_gated_b, self.va_gated_c = gate(), gate()
        self.vb_embedding, self.vc_embedding = embedding(b), embedding(c)
        self.reweight_ab = nn.Sequential(nn.Linear(2 * width, 1, bias=False), nn.ReLU(), nn.Softmax(dim=1))
        self.reweight_ac = nn.Sequential(nn.Linear(2 * width, 1, bias=False), nn.ReLU(), nn.Softmax(dim=1))
        self.reproject = nn.Sequential(
            nn.Conv2d(3 * width, a, 1, bias=False), nn.ReLU(), nn.Conv2d(a, a, 1, bias=False), nn.Dropout(dropout)
        )

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """(N, C, h, w), (N, C', 2h, 2w), (N, C'', 4h, 4w) -> (N, C, h, w)."""
        vertices = self.va_embedding(a)
        gathered = [
            _gather(vertices, b, 2, self.vb_embedding, self.reweight_ab) * (1 - self.va_gated_b(a)),
            _gather(vertices, c, 4, self.vc_embedding, self.reweight_ac) * (1 - self.va_gated_c(a)),
        ]
        return torch.as_tensor(self.reproject(torch.sigmoid(torch.cat([*gathered, vertices], dim=1))))


def _gather(vertices: Tensor, finer: Tensor, ratio: int, embed: nn.Module, weigh: nn.Module) -> Tensor:
    """For each of the vertices (N, D, h, w), the weighted mean of the ratio^2 embedded positions of `finer` under it."""
    n, d, h, w = vertices.shape
    cells = F.unfold(finer, ratio, stride=ratio).view(n, finer.shape[1], ratio * ratio, h * w)
    below = embed(cells.permute(0, 2, 3, 1))  # (N, ratio^2, h w, D)
    above = vertices.flatten(2).transpose(1, 2).unsqueeze(1).expand_as(below)
    weights = weigh(torch.cat([above, below], dim=-1))
    return (weights * below).sum(dim=1).transpose(1, 2).reshape(n, d, h, w)


class GuidedAttention(nn.Module):
    """Reconstruction-guided attention: features, weighted by where the reconstruction differs from the image."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.gated = nn.Sequential(
            nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(3, 1, 1, bias=False), nn.Sigmoid()
        )
        self.h = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor, reconstruction: Tensor, x: Tensor) -> Tensor:
        """(N, 3, H, W) twice and (N, C, h, w) -> (N, C, h, w)."""
        difference = F.interpolate((images - reconstruction).abs(), size=x.shape[-2:], mode="bilinear", align_corners=True)
        return torch.as_tensor(self.gated(difference) * self.h(x) + self.dropout(x))


def _upsampling(inputs: int, outputs: int) -> nn.Sequential:
    convolution = xception.SeparableConv2d(inputs, outputs, 3, 1, 1)
    return nn.Sequential(nn.UpsamplingNearest2d(scale_factor=2), convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _same(state: State, backbone: nn.Module) -> State:
    return state


class _Reconstructing(xception.XceptionDetector):
    """The network of RECCE; its subclasses say what it is trained with."""

    shallow = ("backbone.block1",)
    imagenet = xception.imagenet(_same)
    dfb = KeyMap(
        {"model.encoder.": "backbone.", "model.fc.": "head.", "model.": ""},
        drop=("backbone.", "model.encoder.fc."),  # a whole second Xception, built and never called; the 1000-class layer
    )

    def __init__(self, size: int, weights: str | Path, normalization: str, dropout: float) -> None:
        super().__init__(size, normalization)
        dropout = probability(type(self).__name__, "dropout", dropout)
        self.backbone = xception.body()
        self.attention = GuidedAttention(728, dropout)
        self.reasoning = GraphReasoning((728, 256, 128), 256, dropout)
        self.decoder1, self.decoder2 = _upsampling(728, 256), xception.Block(256, 256, 3, 1)
        self.decoder3, self.decoder4 = _upsampling(256, 128), xception.Block(128, 128, 3, 1)
        self.decoder5 = _upsampling(128, 64)
        self.decoder6 = nn.Sequential(nn.Conv2d(64, 3, 1, bias=False), nn.Tanh())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(xception.FEATURES, 2)
        load_weights(self, weights, self.imagenet)

    def run(self, images: Tensor) -> Run:
        """(N, 3, H, W), normalised -> what the losses need."""
        x = xception.start(self.backbone, self._noisy(images) if self.training else images)
        x = xception.blocks(self.backbone, x, 1, 4)
        coarse = self.decoder2(self.decoder1(self.dropout(x)))
        fine = self.decoder4(self.decoder3(coarse))
        reconstruction = self.decoder6(self.decoder5(fine))
        reconstruction = F.interpolate(reconstruction, size=images.shape[-2:], mode="bilinear", align_corners=True)
        deep = xception.blocks(self.backbone, x, 5, 7)
        deep = xception.blocks(self.backbone, self.reasoning(deep, coarse, fine) + deep, 8, 8)
        deep = self.attention(images, reconstruction, deep)
        features = xception.pool(xception.end(self.backbone, xception.blocks(self.backbone, deep, 9, 12)))
        return Run(Prediction(self.head(self.dropout(features)), features), reconstruction, (x, coarse, fine))

    @staticmethod
    def _noisy(images: Tensor) -> Tensor:
        chosen = torch.rand(len(images), 1, 1, 1, device=images.device) > 0.5
        return (images + NOISE * torch.randn_like(images) * chosen).clamp(-1, 1)

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, H, W) float RGB in [0, 1] -> Prediction."""
        return self.run(self.normalize(images)).prediction


class RECCE(_Reconstructing):
    """RECCE (Cao et al., "End-to-End Reconstruction-Classification Learning for Face Forgery Detection", CVPR 2022).

    An Xception's fourth block feeds a decoder that reconstructs real faces. A graph carries the decoder's maps back to the encoder,
    and the reconstruction's error says where the rest of the encoder looks. Loss, as in the authors' code
    (github.com/VISION-SJTU/RECCE): |CE - flood| + flood + `reconstruction` x the mean absolute error of real faces'
    reconstructions (`reconstruction_error`) + `metric` x the metric loss (`metric_loss`) of three maps: the fourth block's and the
    decoder's at two scales. Two classes and cross entropy stand here where that code has one logit and binary cross entropy, which
    is the same function.

    Faces of 256 px by default (299 px in the paper); any size from 32 px. Global average pooling; features: 2048. Normalised with
    mean and std 0.5, the range of the decoder's tanh. Parameters: 23,783,558.

    PIM's insertion point is the first block (`block1`); the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: "none", "imagenet" (Xception's), the path of such a file or of a state_dict of this detector, or DeepfakeBench's
            checkpoint, which fits: only the losses differ.
        dropout: probability that a value is zeroed while training, wherever the authors' code has dropout.
        reconstruction: lambda_1, weight of the reconstruction loss; the authors' code.
        metric: lambda_2, weight of the metric loss; the authors' code.
        flood: cross entropy is driven up again below this value (Ishida et al. 2020); the authors' code.
    """

    about = About(
        title="RECCE",
        paper="Cao et al., End-to-End Reconstruction-Classification Learning for Face Forgery Detection, CVPR 2022",
        year=2022,
        backbone="Xception, pretrainedmodels",
        insertion="the first block (our choice)",
    )

    def __init__(
        self,
        size: int = 256,
        weights: str | Path = "none",
        dropout: float = 0.2,
        reconstruction: float = 0.1,
        metric: float = 0.1,
        flood: float = 0.04,
    ) -> None:
        self.reconstruction = xception.positive("RECCE", "reconstruction", reconstruction)
        self.metric = xception.positive("RECCE", "metric", metric)
        self.flood = xception.positive("RECCE", "flood", flood)
        super().__init__(size, weights, "half", dropout)

    def objective(self, batch: Batch) -> Tensor:
        """Cross entropy, the reconstruction of real faces, and the metric loss."""
        images = self.normalize(batch.images)
        found = self.run(images)
        error = (self.loss(found.prediction, batch) - self.flood).abs() + self.flood
        real = batch.labels == 0
        return (
            error
            + self.reconstruction * reconstruction_error(found.reconstruction, images, real)
            + self.metric * metric_loss(found.embeddings, real)
        )


class DfbRECCE(_Reconstructing):
    """RECCE as in DeepfakeBench: the same network, trained with cross entropy alone.

    Faces of 256 px by default; any size from 32 px. Everything else as in `RECCE`. Parameters: 23,783,558.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: as for `RECCE`.
        dropout: probability that a value is zeroed while training, wherever the authors' code has dropout.
    """

    about = replace(RECCE.about, title="RECCE (DeepfakeBench)", notes="trained with cross entropy alone")

    def __init__(self, size: int = 256, weights: str | Path = "none", dropout: float = 0.2) -> None:
        super().__init__(size, weights, "half", dropout)


def reconstruction_error(reconstruction: Tensor, images: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference over the real faces, 0 where there is none; a scalar.

    Args:
        reconstruction: (N, 3, H, W).
        images: (N, 3, H, W), normalised.
        real: (N,) bool.
    """
    each = (reconstruction - images).abs().mean(dim=(1, 2, 3))
    return (each * real).sum() / real.sum().clamp(min=1)


def metric_loss(embeddings: tuple[Tensor, ...], real: Tensor) -> Tensor:
    """Real faces alike, and unlike fake ones: the sum over the maps of max(0, 1 - alike + unlike), a scalar.

    With s = (cos + 1) / 2 of two faces' pooled maps, `alike` is the mean of s over pairs of different real faces and `unlike` over
    pairs of a real and a fake face, each 0 where there is no such pair. Fake faces are not compared with each other.

    Args:
        embeddings: maps (N, C, h, w).
        real: (N,) bool.
    """
    across = (real.unsqueeze(1) != real).float()
    among = (real.unsqueeze(1) & real).float() - torch.diag(real.float())
    total = embeddings[0].new_zeros(())
    for maps in embeddings:
        unit = F.normalize(maps.mean(dim=(2, 3)))
        likeness = (unit @ unit.T + 1) / 2
        alike, unlike = ((likeness * pairs).sum() / pairs.sum().clamp(min=1) for pairs in (among, across))
        total = total + (1 - alike + unlike).clamp(min=0)
    return total
