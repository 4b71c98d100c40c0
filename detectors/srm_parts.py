"""What SRM is built of beside its two Xceptions: residual filters, both attentions, their fusion, and a head of cosines."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
