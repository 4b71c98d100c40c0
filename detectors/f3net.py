"""F3-Net: the image in frequency bands beside statistics of local frequencies."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detectors import xception_parts as xception
from detectors.about import About
from detectors.backbone import probability
from detectors.base import Prediction
from detectors.weights import KeyMap, State, load_weights
from optimizers.registry import RegistryError

EPSILON = 1e-6
"""Added to the sum of DCT coefficients (of grey levels from 0 to 255) in front of the logarithm."""


def dct_matrix(size: int) -> Tensor:
    """(size, size) float64: row k holds the k-th cosine of the orthonormal DCT-II, so D x D^T is the transform of x."""
    k, n = torch.arange(size, dtype=torch.float64).view(-1, 1), torch.arange(size, dtype=torch.float64)
    matrix = math.sqrt(2 / size) * torch.cos((n + 0.5) * math.pi * k / size)
    matrix[0] = math.sqrt(1 / size)
    return matrix


def band(size: int, low: float, high: float) -> Tensor:
    """(size, size) float32: 1 where the sum of both indices lies from `low` to `high`, both included, else 0."""
    index = torch.arange(size)
    total = index.view(-1, 1) + index
    return ((total >= low) & (total <= high)).to(torch.float32)


def _in_full(device: torch.device) -> AbstractContextManager[Any]:
    """No autocast in here: bfloat16 has too few digits for a sum over an image."""
    # Tensors without numbers, on which a network's cost is counted, know no autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


class Filter(nn.Module):
    """A fixed band and what is learned on top of it: base + sigma(w), sigma(w) = (1 - exp(-w)) / (1 + exp(-w))."""

    base: Tensor

    def __init__(self, base: Tensor) -> None:
        super().__init__()
        self.register_buffer("base", base, persistent=False)
        self.learnable = nn.Parameter(0.1 * torch.randn_like(base))

    def forward(self) -> Tensor:
        """The filter, of its base's shape."""
        return self.base + 2 * torch.sigmoid(self.learnable) - 1


class FAD(nn.Module):
    """Frequency-aware decomposition: (N, 3, S, S) -> (N, 3 B, S, S), the image in B bands of its DCT.

    y_i = D^T (D x D^T (f_i + sigma(w_i))) D, D being the DCT, f_i a band and w_i learned.

    Args:
        size: S.
        whole: whether the whole spectrum is a fourth band, as in the public re-implementation; the paper has three, which cut
            the spectrum at 1/16 and 1/8 of its area.
    """

    dct: Tensor

    def __init__(self, size: int, whole: bool) -> None:
        super().__init__()
        self.register_buffer("dct", dct_matrix(size).to(torch.float32), persistent=False)
        first, second = size // 2.82, size // 2
        edges = [(0, first), (first, second), (second, 2 * size), *([(0, 2 * size)] if whole else [])]
        self.filters = nn.ModuleList(Filter(band(size, low, high)) for low, high in edges)

    def forward(self, images: Tensor) -> Tensor:
        """The bands, brought back to images."""
        with _in_full(images.device):
            spectrum = self.dct @ images.to(self.dct.dtype) @ self.dct.T
            return torch.cat([self.dct.T @ (spectrum * weight()) @ self.dct for weight in self.filters], dim=1)


class LFS(nn.Module):
    """Local frequency statistics: (N, 3, H, W) in [0, 1] -> (N, M, H/2, W/2).

    In every window of 10 x 10 px, with steps of 2, q_i = log10 ||D(p) (h_i + sigma(w_i))||_1 over M bands of its DCT D(p).
    The public re-implementation (github.com/yyk-wew/F3Net) filters the logarithms instead; its README says that something is wrong
    with this branch there, whose AUC is 84.7 % on its test data where the paper has 88.9 %.
    """

    cosines: Tensor

    def __init__(self, bands: int, window: int = 10) -> None:
        super().__init__()
        matrix = dct_matrix(window)
        # Each coefficient of a window's DCT is the window's product with one image: a convolution with all of them.
        cosines = torch.einsum("ui,vj->uvij", matrix, matrix).reshape(-1, 1, window, window)
        self.register_buffer("cosines", cosines.to(torch.float32), persistent=False)
        width = 2 * window / bands
        self.filters = nn.ModuleList(Filter(band(window, width * i, width * (i + 1))) for i in range(bands))

    def forward(self, images: Tensor) -> Tensor:
        """The statistics."""
        with _in_full(images.device):
            luma = torch.tensor([0.299, 0.587, 0.114], dtype=self.cosines.dtype).to(images.device, non_blocking=True)
            grey = (255 * images.to(self.cosines.dtype) * luma.view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
            size = nn.functional.conv2d(grey, self.cosines, stride=2, padding=4).abs()
            # |D h| = |D| |h|, so the sums over a window are 1 x 1 convolutions.
            weights = torch.stack([weight().abs().flatten() for weight in self.filters])
            return (nn.functional.conv2d(size, weights[..., None, None]) + EPSILON).log10()


class MixBlock(nn.Module):
    """Cross attention between the two branches: two maps (N, C, h, w) -> the same two, each enriched by the other.

    The paper shows it in a figure and says that a cross-attention matrix of both maps augments each by the other; the public
    re-implementation has a block of its own, weights from queries and keys of both maps, which its network never calls. Here the
    matrix is softmax(q k^T / sqrt(d)) over positions, q of the first map and k of the second; it gathers the second map for the
    first one and, transposed before the softmax, the first for the second. Gates that start from 0 add what was gathered, and as
    there a convolution of single channels and BatchNorm come before.
    """

    def __init__(self, channels: int, ratio: int = 8) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // ratio, 1)
        self.key = nn.Conv2d(channels, channels // ratio, 1)
        self.first = nn.Sequential(nn.Conv2d(channels, channels, 1, groups=channels, bias=False), nn.BatchNorm2d(channels))
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 1, groups=channels, bias=False), nn.BatchNorm2d(channels))
        self.gates = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x and y, enriched by each other."""
        query, key = self.query(x).flatten(2), self.key(y).flatten(2)
        energy = query.transpose(1, 2) @ key / math.sqrt(query.shape[1])
        of_y = (y.flatten(2) @ energy.softmax(dim=2).transpose(1, 2)).view_as(x)
        of_x = (x.flatten(2) @ energy.softmax(dim=1)).view_as(y)
        return x + self.gates[0] * self.first(of_y), y + self.gates[1] * self.second(of_x)


def _spread(stem: Tensor, groups: int) -> Tensor:
    """The first convolution's weights over `groups` images, such that its sums stay as large. Of the file's type still: integers
    must not look like weights."""
    return (stem.repeat(1, groups, 1, 1) / groups).to(stem.dtype)


def _both(state: State, backbone: nn.Module) -> State:
    """Weights for both branches, the first convolution spread over their bands."""
    found: State = {}
    for branch in ("fad", "lfs"):
        groups = backbone.state_dict()[f"{branch}.conv1.weight"].shape[1] // 3
        stem = _spread(state["conv1.weight"], groups)
        found |= {f"{branch}.{key}": value for key, value in (state | {"conv1.weight": stem}).items()}
    return found


class F3Net(xception.XceptionDetector):
    """F3-Net (Qian et al., "Thinking in Frequency: Face Forgery Detection by Mining Frequency-aware Clues", ECCV 2020, arXiv
    2007.09355).

    One Xception sees the image in three frequency bands (`FAD`), another the local frequency statistics in six (`LFS`); a
    `MixBlock` lets them attend to each other behind blocks 7 and 12, and their features are joined. Cross entropy. The authors
    published no code; the first convolution of the second branch has stride 1, because its input is already half as large, as in
    the public re-implementation (github.com/yyk-wew/F3Net).

    Faces of 256 px by default (299 px in the paper); any size divisible by 32, from 64 px; a state_dict belongs to one size,
    because the filters do. Global average pooling; features: 4096. Normalised with mean and std 0.5.
    Parameters: 42,227,492.

    PIM's insertion points are the first blocks of both branches; the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px.
        weights: "none", "imagenet" (Xception's, for both branches), the path of such a file, or of a state_dict of this detector.
        normalization: "half" (mean and std 0.5) or "imagenet".
        bands: M, how many bands the local statistics have; divisible by 3.
        dropout: probability that a feature is zeroed in front of `head` while training.
    """

    about = About(
        title="F3-Net",
        paper="Qian et al., Thinking in Frequency, ECCV 2020, arXiv 2007.09355",
        year=2020,
        backbone="two Xceptions, pretrainedmodels",
        insertion="the first block of both branches (our choice)",
        notes="the paper only sketches the MixBlock; its form here is ours",
    )
    shallow = ("backbone.fad.block1", "backbone.lfs.block1")
    imagenet = xception.imagenet(_both)
    dfb = "dfb-f3net"
    smallest = 64

    def __init__(
        self, size: int = 256, weights: str | Path = "none", normalization: str = "half", bands: int = 6, dropout: float = 0.0
    ) -> None:
        super().__init__(size, normalization, multiple=32)
        if isinstance(bands, bool) or not isinstance(bands, int) or bands < 3 or bands % 3:
            raise RegistryError(f"F3Net: bands is {bands!r}, but it must be a whole number divisible by 3, at least 3")
        self.fad, self.lfs = FAD(size, whole=False), LFS(bands)
        self.backbone = nn.ModuleDict({"fad": xception.body(), "lfs": xception.body()})
        self.backbone["fad"].conv1 = xception.conv1(9)
        self.backbone["lfs"].conv1 = xception.conv1(bands, stride=1)
        self.mix7, self.mix12 = MixBlock(728), MixBlock(1024)
        self.dropout = nn.Dropout(probability("F3Net", "dropout", dropout))
        self.head = nn.Linear(2 * xception.FEATURES, 2)
        load_weights(self, weights, self.imagenet)

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, H, W) float RGB in [0, 1] -> Prediction."""
        fad, lfs = self.backbone["fad"], self.backbone["lfs"]
        x = xception.start(fad, self.fad(self.normalize(images)))
        y = xception.start(lfs, self.lfs(images))
        x, y = self.mix7(xception.blocks(fad, x, 1, 7), xception.blocks(lfs, y, 1, 7))
        x, y = self.mix12(xception.blocks(fad, x, 8, 12), xception.blocks(lfs, y, 8, 12))
        features = torch.cat([xception.pool(xception.end(fad, x)), xception.pool(xception.end(lfs, y))], dim=1)
        return Prediction(self.head(self.dropout(features)), features)


def _four(state: State, backbone: nn.Module) -> State:
    return state | {"conv1.weight": _spread(state["conv1.weight"], 4)}


class DfbF3Net(xception.XceptionDetector):
    """F3-Net as in DeepfakeBench: frequency-aware decomposition alone, with the whole spectrum as a fourth band.

    Faces of 256 px by default, as its checkpoints need; any size from 32 px; a state_dict belongs to one size, because the filters
    do. Global average pooling; features: 2048. Normalised with mean and std 0.5.
    Parameters: 21,075,786.

    PIM's insertion point is the first block (`block1`); the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px.
        weights: "none", "imagenet" (Xception's), the path of such a file or of a state_dict of this detector, or DeepfakeBench's
            checkpoint.
        normalization: "half" (mean and std 0.5) or "imagenet".
        dropout: probability that a feature is zeroed in front of `head` while training; DeepfakeBench's.
    """

    about = replace(
        F3Net.about,
        title="F3-Net (DeepfakeBench)",
        backbone="Xception, pretrainedmodels",
        insertion="the first block (our choice)",
        notes="the FAD branch alone",
    )
    shallow = ("backbone.block1",)
    imagenet = xception.imagenet(_four)
    dfb = KeyMap(
        {"backbone.last_linear.1.": "head.", "FAD_head.": "fad."},
        drop=(*xception.DFB_DROP, "FAD_head._DCT_all", *(f"FAD_head.filters.{i}.base" for i in range(4))),  # constants
    )

    def __init__(self, size: int = 256, weights: str | Path = "none", normalization: str = "half", dropout: float = 0.5) -> None:
        super().__init__(size, normalization)
        self.fad = FAD(size, whole=True)
        self.backbone = xception.body()
        self.backbone.conv1 = xception.conv1(12)
        self.dropout = nn.Dropout(probability("DfbF3Net", "dropout", dropout))
        self.head = nn.Linear(xception.FEATURES, 2)
        load_weights(self, weights, self.imagenet)

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, H, W) float RGB in [0, 1] -> Prediction."""
        x = xception.start(self.backbone, self.fad(self.normalize(images)))
        features = xception.pool(xception.end(self.backbone, xception.blocks(self.backbone, x, 1, 12)))
        return Prediction(self.head(self.dropout(features)), features)
