"""SRM: high-frequency residuals beside the image, in two Xceptions that attend to each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors import xception_parts as xception
from detectors.about import About
from detectors.base import Batch, Prediction
from detectors.weights import KeyMap, State, load_weights

KERNELS = (
    [[0, 0, 0, 0, 0], [0, -1, 2, -1, 0], [0, 2, -4, 2, 0], [0, -1, 2, -1, 0], [0, 0, 0, 0, 0]],
    [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]],
    [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, -2, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
)
"""Three residual filters of the spatial rich model (Fridrich and Kodovsky 2012), to be divided by `SCALES`."""

SCALES = (4, 12, 2)
LIMIT = 3.0
"""Residuals are cut off at -3 and 3."""


def kernels() -> Tensor:
    """(3, 1, 5, 5), the filters of `KERNELS`."""
    return torch.tensor(KERNELS, dtype=torch.float32).unsqueeze(1) / torch.tensor(SCALES).view(3, 1, 1, 1)


class ImageResidual(nn.Module):
    """(N, 3, H, W) -> (N, 3, H, W): each filter summed over the three channels, cut off. Nothing is learned."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", kernels().repeat(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The residuals."""
        return F.conv2d(images, self.kernel, padding=2).clamp(-LIMIT, LIMIT)


class FeatureResidual(nn.Module):
    """(N, C, h, w) -> (N, C, h, w): residuals of every channel, mixed by a 1 x 1 convolution.

    Args:
        channels: C.
        each: whether all three filters see each channel. The authors' code lays its 3 C kernels out filter by filter, where a
            grouped convolution reads them channel by channel: there nearly every channel meets one filter, three times.
    """

    kernel: Tensor

    def __init__(self, channels: int, each: bool) -> None:
        super().__init__()
        three = kernels()
        laid_out = three.repeat(channels, 1, 1, 1) if each else three.repeat_interleave(channels, dim=0)
        self.register_buffer("kernel", laid_out, persistent=False)
        self.out_conv = nn.Sequential(nn.Conv2d(3 * channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        nn.init.kaiming_normal_(self.out_conv.get_submodule("0").weight, a=1)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The mixed residuals."""
        residuals = F.conv2d(x, self.kernel, padding=2, groups=x.shape[1]).clamp(-LIMIT, LIMIT)
        return torch.as_tensor(self.out_conv(residuals))


class ResidualAttention(nn.Module):
    """Residual-guided spatial attention: the image's residuals -> (N, 1, h, w), where to look."""

    def __init__(self) -> None:
        super().__init__()
        self.srm = ImageResidual()
        self.conv = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.pa = nn.Module()
        self.pa.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=1)

    def forward(self, residuals: Tensor) -> Tensor:
        """Weights from 0 to 1."""
        x = self.conv(self.srm(residuals))
        summary = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.pa.get_submodule("conv")(summary))


class CrossModality(nn.Module):
    """Dual cross-modality attention: two maps (N, C, h, w) -> the same two, each with what it attends to in the other.

    Args:
        channels: C.
        positions: h w, which the linear layers over the attention map are made for.
        ratio: C divided by the channels of the keys.
    """

    def __init__(self, channels: int, positions: int, ratio: int = 8) -> None:
        super().__init__()
        keys = channels // ratio
        self.key_conv1 = nn.Conv2d(channels, keys, 1)
        self.key_conv2 = nn.Conv2d(channels, keys, 1)
        self.key_conv_share = nn.Conv2d(keys, keys, 1)
        self.linear1 = nn.Linear(positions, positions)
        self.linear2 = nn.Linear(positions, positions)
        self.value_conv1 = nn.Conv2d(channels, channels, 1)
        self.value_conv2 = nn.Conv2d(channels, channels, 1)
        self.gamma1 = nn.Parameter(torch.zeros(1))
        self.gamma2 = nn.Parameter(torch.zeros(1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(module.weight, gain=0.02)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x and y, enriched by each other."""
        first = self.key_conv_share(self.key_conv1(x)).flatten(2)
        second = self.key_conv_share(self.key_conv2(y)).flatten(2)
        energy = first.transpose(1, 2) @ second
        of_y = self.linear1(energy).softmax(dim=-1)
        of_x = self.linear2(energy.transpose(1, 2)).softmax(dim=-1)
        from_y = (self.value_conv2(y).flatten(2) @ of_y.transpose(1, 2)).view_as(x)
        from_x = (self.value_conv1(x).flatten(2) @ of_x.transpose(1, 2)).view_as(y)
        return self.gamma1 * from_y + x, self.gamma2 * from_x + y


class Fusion(nn.Module):
    """Two maps (N, 2048, h, w) -> one, weighted channel by channel.

    Args:
        residual: whether the weighted map is added to the unweighted one, as in the authors' code.
    """

    def __init__(self, residual: bool, channels: int = 2048, ratio: int = 16) -> None:
        super().__init__()
        self.residual = residual
        self.convblk = nn.Sequential(nn.Conv2d(2 * channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.ca = nn.Module()
        self.ca.sharedMLP = nn.Sequential(
            nn.Conv2d(channels, channels // ratio, 1, bias=False), nn.ReLU(), nn.Conv2d(channels // ratio, channels, 1, bias=False)
        )
        for module in self.ca.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight, gain=0.02)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The fused map."""
        both = self.convblk(torch.cat([x, y], dim=1))
        weigh = self.ca.get_submodule("sharedMLP")
        weighted = both * torch.sigmoid(weigh(both.mean(dim=(2, 3), keepdim=True)) + weigh(both.amax(dim=(2, 3), keepdim=True)))
        return both + weighted if self.residual else weighted


class CosineHead(nn.Module):
    """(N, D) -> (N, 2): the scaled cosine of the features to each class's direction, without a bias."""

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(2, features)))

    def forward(self, features: Tensor) -> Tensor:
        """The logits, from -scale to scale."""
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))


def _twice(state: State, backbone: nn.Module) -> State:
    return {f"{stream}.{key}": value for stream in ("rgb", "noise") for key, value in state.items()}


class SRM(xception.XceptionDetector):
    """The two-stream network of Luo et al., "Generalizing Face Forgery Detection with High-frequency Features", CVPR 2021, arXiv
    2103.12376.

    One Xception sees the image, another the residuals of three SRM filters, to which the residuals of the first one's low-level
    features are added (multi-scale high-frequency features). The residuals say where the first stream looks,
    the streams attend to each other behind blocks 3 and 7, and a channel attention fuses them.
    Loss: AM-Softmax (Wang et al. 2018), cross entropy of s (cos - m) for the true class and s cos for the other, with m = 0.45 and
    s = 30 as in DeepfakeBench, whose file says that the authors gave them. P(fake) is the softmax of s cos.

    The first author's code (github.com/crywang/face-forgery-detection) is the network without its training. There AM-Softmax's own
    default is m = 0.5, the last layer is a plain linear one behind dropout of 0.5, and the filters over features are laid out as in
    `FeatureResidual(each=False)`. Here every filter sees every channel, and the last layer gives the cosines that the loss is of.

    Faces of 256 px by default; any size divisible by 16, from 32 px; a state_dict belongs to one size, because the attention has
    linear layers over positions. Global average pooling; features: 2048. Normalised with mean and std 0.5.
    Parameters: 53,238,378.

    PIM's insertion points are the first blocks of both streams; the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px.
        weights: "none", "imagenet" (Xception's, for both streams), the path of such a file, or of a state_dict of this detector.
        normalization: "half" (mean and std 0.5) or "imagenet".
        margin: m of AM-Softmax.
        scale: s of AM-Softmax.
    """

    about = About(
        title="SRM",
        paper="Luo et al., Generalizing Face Forgery Detection with High-frequency Features, CVPR 2021, arXiv 2103.12376",
        year=2021,
        backbone="two Xceptions, pretrainedmodels",
        insertion="the first block of both streams (our choice)",
        notes="every filter sees every channel of the features, which the first author's code does not do",
    )
    shallow = ("backbone.rgb.block1", "backbone.noise.block1")
    imagenet = xception.imagenet(_twice)
    dfb: ClassVar[KeyMap | str | None] = "dfb-srm"
    as_paper: ClassVar[bool] = True

    def __init__(
        self,
        size: int = 256,
        weights: str | Path = "none",
        normalization: str = "half",
        margin: float = 0.45,
        scale: float = 30.0,
    ) -> None:
        super().__init__(size, normalization, multiple=16)
        self.margin = xception.positive(type(self).__name__, "margin", margin)
        self.scale = xception.positive(type(self).__name__, "scale", scale, zero=False)
        self.backbone = nn.ModuleDict({"rgb": xception.body(), "noise": xception.body()})
        self.srm_conv0 = ImageResidual()
        self.srm_conv1 = FeatureResidual(32, each=self.as_paper)
        self.srm_conv2 = FeatureResidual(64, each=self.as_paper)
        self.srm_sa = ResidualAttention()
        self.srm_sa_post = nn.Sequential(nn.BatchNorm2d(64), nn.ReLU())
        self.dual_cma0 = CrossModality(728, (size // 16) ** 2)
        self.dual_cma1 = CrossModality(728, (size // 16) ** 2)
        self.fusion = Fusion(residual=self.as_paper)
        self.head: nn.Module = CosineHead(xception.FEATURES, self.scale) if self.as_paper else nn.Linear(xception.FEATURES, 2)
        load_weights(self, weights, self.imagenet)

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, H, W) float RGB in [0, 1] -> Prediction."""
        rgb, noise = self.backbone["rgb"], self.backbone["noise"]
        x = self.normalize(images)
        residuals = self.srm_conv0(x)
        x = xception.through(rgb, x, "conv1", "bn1", "relu")
        y = F.relu(xception.through(noise, residuals, "conv1", "bn1", "relu") + self.srm_conv1(x))
        x = xception.through(rgb, x, "conv2", "bn2", "relu")
        y = F.relu(xception.through(noise, y, "conv2", "bn2", "relu") + self.srm_conv2(x))
        x = self.srm_sa_post(x * self.srm_sa(residuals) + x)
        x, y = self.dual_cma0(xception.blocks(rgb, x, 1, 3), xception.blocks(noise, y, 1, 3))
        x, y = self.dual_cma1(xception.blocks(rgb, x, 4, 7), xception.blocks(noise, y, 4, 7))
        x, y = (xception.end(stream, xception.blocks(stream, z, 8, 12)) for stream, z in ((rgb, x), (noise, y)))
        features = xception.pool(self.fusion(x, y))
        return Prediction(self.head(features), features)

    def loss(self, prediction: Prediction, batch: Batch) -> Tensor:
        """AM-Softmax; the logits are s cos."""
        true = F.one_hot(batch.labels, 2).to(prediction.logits.dtype)
        return F.cross_entropy(prediction.logits - self.scale * self.margin * true, batch.labels)


class DfbSRM(SRM):
    """SRM as in DeepfakeBench.

    It trains with the formula of AM-Softmax on the logits of a plain linear layer, not on cosines, and predicts by the softmax of
    these logits without the scale; lays the filters over the features out as the authors' code does (see `FeatureResidual`); and
    does not add the fused map to its weighted self.

    Faces of 256 px by default, as its checkpoints need. Everything else as in `SRM`. Parameters: 53,238,380.

    Args:
        size: side of the faces in px.
        weights: as for `SRM`, or DeepfakeBench's checkpoint.
        normalization: "half" (mean and std 0.5) or "imagenet".
        margin: m of AM-Softmax.
        scale: s of AM-Softmax.
    """

    about = replace(SRM.about, title="SRM (DeepfakeBench)", notes="AM-Softmax of plain logits instead of cosines")
    as_paper = False
    dfb = KeyMap(
        {"backbone_rgb.last_linear.": "head.", "backbone_rgb.": "backbone.rgb.", "backbone_srm.": "backbone.noise."},
        drop=(
            "backbone_rgb.adjust_channel.",
            "backbone_srm.adjust_channel.",
            "backbone_srm.last_linear.",
            "blur.weight",  # built, never called
            "srm_conv0.kernel",  # the filters are constants
            "srm_conv1.kernel",
            "srm_conv2.kernel",
            "srm_sa.srm.kernel",
        ),
    )

    def loss(self, prediction: Prediction, batch: Batch) -> Tensor:
        """AM-Softmax's formula, with the logits in the place of the cosines."""
        true = F.one_hot(batch.labels, 2).to(prediction.logits.dtype)
        return F.cross_entropy(self.scale * (prediction.logits - self.margin * true), batch.labels)
