"""Image transforms with a value of their own for every face, on the device that holds the faces.

torchvision's functions take one value for a whole batch. Here every face has its own, and must not depend on its neighbours by a
single bit: each pixel is a sum written out in a fixed order, and where a library adds up (mean colour), each face is handed over by
itself. JPEG is always compressed on the CPU: GPUs have encoders of their own that give other pixels.

All take (N, 3, H, W) float in [0, 1] and N values, and return the same shape and range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad
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
    # math's, not torch's: a vector's cosines may differ in the last bit by their place in it.
    cos, sin = (_column([f(math.radians(d)) for d in degrees], images)[:, 0] for f in (math.cos, math.sin))
    y = torch.arange(height, dtype=images.dtype, device=images.device).view(1, -1, 1) - (height - 1) / 2
    x = torch.arange(width, dtype=images.dtype, device=images.device).view(1, 1, -1) - (width - 1) / 2
    # Written out: affine_grid multiplies matrices, whose sums may depend on the size of the batch.
    grid = torch.stack([(x * cos - y * sin) * (2 / width), (x * sin + y * cos) * (2 / height)], -1)
    return grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False).clamp(0, 1)


KERNELS = {
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
}
"""Side in px -> OpenCV's Gaussian kernel of that side where no sigma is given."""


def blurred(images: Tensor, sides: Sequence[int]) -> Tensor:
    """Gaussian blur by a kernel of 3, 5 or 7 px, edges mirrored: what albumentations' blur does without a sigma."""
    result = torch.empty_like(images)
    for side in sorted(set(sides)):
        rows = torch.tensor([row for row, own in enumerate(sides) if own == side]).to(images.device, non_blocking=True)
        reach, faces = side // 2, images[rows]
        for axis in (2, 3):
            edges = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
            padded = pad(faces, edges, mode="reflect")
            # Products and sums apart: fused, they round otherwise, and only some of a vector's elements are fused.
            faces = padded.narrow(axis, 0, images.shape[axis]) * KERNELS[side][0]
            for start, weight in enumerate(KERNELS[side][1:], start=1):
                faces += padded.narrow(axis, start, images.shape[axis]) * weight
        result[rows] = faces
    return result.clamp_(0, 1)


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
    """JPEG there and back by OpenCV, at a quality of 1 to 100; colours are rounded to 8 bits first.

    torchvision's JPEG does the same, but announces its removal.
    """
    faces = images.mul(255).round_().to(torch.uint8).cpu().permute(0, 2, 3, 1).numpy()
    back = np.empty_like(faces)
    for row, quality in enumerate(qualities):
        blue_first = np.ascontiguousarray(faces[row, ..., ::-1])
        file = cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
        back[row] = cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1]  # type: ignore[index]
    return torch.from_numpy(back).to(images.device, non_blocking=True).permute(0, 3, 1, 2).to(images.dtype).div_(255)
