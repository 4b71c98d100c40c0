"""Image transforms with a value of their own for every face, on the device that holds the faces.

torchvision's functions take one value for a whole batch. Where a transform works on each pixel alone, a batch is transformed at
once; where pixels are added up (blur, mean colour), each face is transformed by itself, since a sum over a batch may be taken in
another order for another batch size, and a face must not depend on its neighbours by a single bit. JPEG is always compressed on the
CPU: GPUs have encoders of their own that give other pixels.

All take (N, 3, H, W) float in [0, 1] and N values, and return the same shape and range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms.v2 import functional as v2


def _column(values: Sequence[float], images: Tensor) -> Tensor:
    """(N, 1, 1, 1) on the images' device."""
    return torch.tensor(values, dtype=images.dtype).view(-1, 1, 1, 1).to(images.device, non_blocking=True)


def mirrored(images: Tensor, values: Sequence[None]) -> Tensor:
    """Left to right."""
    return v2.horizontal_flip(images)


def rotated(images: Tensor, degrees: Sequence[float]) -> Tensor:
    """About the middle, bilinear; what comes in from outside is the mirrored face, as albumentations fills it, not black."""
    height, width = images.shape[-2:]
    angle = _column([math.radians(d) for d in degrees], images)[:, 0]  # (N, 1, 1)
    y = torch.arange(height, dtype=images.dtype, device=images.device).view(1, -1, 1) - (height - 1) / 2
    x = torch.arange(width, dtype=images.dtype, device=images.device).view(1, 1, -1) - (width - 1) / 2
    # Written out: affine_grid multiplies matrices, whose sums may depend on the size of the batch.
    grid = torch.stack([(x * angle.cos() - y * angle.sin()) * (2 / width), (x * angle.sin() + y * angle.cos()) * (2 / height)], -1)
    # The corners of a pixel lie on the edge: its middle is where the other grids here put it.
    return grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False).clamp(0, 1)


def blurred(images: Tensor, kernels: Sequence[int]) -> Tensor:
    """Gaussian blur; the kernel's odd side in pixels sets sigma as OpenCV does: 0.3 ((side - 1) / 2 - 1) + 0.8."""
    sigmas = [0.3 * ((side - 1) * 0.5 - 1) + 0.8 for side in kernels]
    return torch.stack(
        [v2.gaussian_blur(f, [side, side], [s, s]) for f, side, s in zip(images, kernels, sigmas, strict=True)]
    ).clamp(0, 1)


def rescaled(images: Tensor, values: Sequence[tuple[float, float]]) -> Tensor:
    """x -> contrast x + brightness, about black, as albumentations' RandomBrightnessContrast."""
    contrast, brightness = zip(*values, strict=True)
    return (images * _column(contrast, images) + _column(brightness, images)).clamp(0, 1)


def tinted(images: Tensor, values: Sequence[tuple[float, float, float]]) -> Tensor:
    """Each colour channel shifted by a value of its own."""
    shift = torch.tensor(values, dtype=images.dtype).view(-1, 3, 1, 1).to(images.device, non_blocking=True)
    return (images + shift).clamp(0, 1)


def hsv_shifted(images: Tensor, values: Sequence[tuple[float, float, float]]) -> Tensor:
    """Hue shifted in turns, saturation and value in [0, 1]; a grey pixel has no hue and stays grey.

    torchvision shifts hue alone, and scales saturation; this is albumentations' HueSaturationValue without its rounding to 8 bits.
    """
    turn, fade, light = (_column(column, images) for column in zip(*values, strict=True))
    red, green, blue = images.split(1, 1)
    top = images.amax(1, keepdim=True)
    spread = top - images.amin(1, keepdim=True)
    grey = spread == 0
    divisor = spread.masked_fill(grey, 1)
    hue = torch.where(top == blue, (red - green) / divisor + 4, 0)
    hue = torch.where(top == green, (blue - red) / divisor + 2, hue)
    hue = torch.where(top == red, (green - blue) / divisor, hue) + 6 * turn  # in sixths of a turn
    saturation = ((spread / top.clamp(min=1e-6) + fade).clamp(0, 1)).masked_fill(grey, 0)
    top = (top + light).clamp(0, 1)
    # A channel of HSV is v - v s k, where k falls from 1 to 0 and back with the hue's distance from the channel's own.
    place = (hue + torch.tensor([5.0, 3.0, 1.0], dtype=images.dtype).view(1, 3, 1, 1).to(images.device)).remainder_(6)
    return top - top * saturation * torch.minimum(place, 4 - place).clamp_(0, 1)


def pca_shifted(images: Tensor, alphas: Sequence[float]) -> Tensor:
    """FancyPCA (Krizhevsky et al. 2012, section 4.1) with one draw for the three components, as albumentations has it."""
    shifted = []
    for face, alpha in zip(images, alphas, strict=True):
        values, vectors = torch.linalg.eigh(torch.cov(face.flatten(1)))
        # An eigenvector is as good with the other sign: the one that brightens is taken, whatever the library gives.
        vectors = vectors * torch.where(vectors.sum(0) < 0, -1.0, 1.0)
        shifted.append((face + (vectors @ (alpha * values)).view(3, 1, 1)).clamp(0, 1))
    return torch.stack(shifted)


def compressed(images: Tensor, qualities: Sequence[int]) -> Tensor:
    """JPEG there and back, at a quality of 1 to 100; colours are rounded to 8 bits first."""
    bytes_ = images.mul(255).round_().to(torch.uint8).cpu().contiguous()
    back = torch.stack([v2.jpeg(face, quality) for face, quality in zip(bytes_, qualities, strict=True)])
    return back.to(images.device, non_blocking=True).to(images.dtype).div_(255)
