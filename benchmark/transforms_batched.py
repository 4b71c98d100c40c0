"""The transforms of `benchmark.transforms` for a batch of 8-bit faces on the device that holds it, a value for each face.

They round where OpenCV does, so that a preset is one thing whatever the device: flip, blur, brightness and contrast, tint, FancyPCA
and JPEG give the very same levels; rotation and HSV differ by at most one level, in less than 1 % of the values (tested on the CPU,
against OpenCV 5.0). OpenCV 4 rotates in steps of 1/32 px: one level in 10 % of the values.

A face must not depend on its neighbours by a single bit: each pixel is a sum written out in a fixed order, or a sum of integers,
which is the same in any. JPEG is always compressed on the CPU: GPUs have encoders of their own that give other pixels.

All take (N, 3, H, W) uint8 and N values, and return the same shape.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, pad
from torchvision.transforms.v2 import functional as v2

from benchmark import transforms

Many = Callable[[Tensor, Sequence[Any]], Tensor]
"""Faces and a value for each -> faces."""


def rows_of(images: Tensor, rows: Sequence[int]) -> Tensor:
    """Some of the faces, in that order."""
    return images.index_select(0, torch.tensor(rows, dtype=torch.int64).to(images.device, non_blocking=True))


def put_back(images: Tensor, places: Sequence[int]) -> Tensor:
    """The faces in their own order, where row i is the one of place `places[i]`."""
    return rows_of(images, sorted(range(len(places)), key=places.__getitem__))


def mirrored(images: Tensor, values: Sequence[None]) -> Tensor:
    """Left to right."""
    return v2.horizontal_flip(images)


def rotated(images: Tensor, degrees: Sequence[float]) -> Tensor:
    """See `transforms.rotated`."""
    size = images.shape[-1]
    # math's, not torch's: a vector's cosines may differ in the last bit by their place in it.
    cos, sin = (_column([f(math.radians(d)) for d in degrees], images)[:, 0] for f in (math.cos, math.sin))
    y = torch.arange(size, dtype=torch.float32, device=images.device).view(1, -1, 1) - size / 2
    x = torch.arange(size, dtype=torch.float32, device=images.device).view(1, 1, -1) - size / 2
    # Written out: affine_grid multiplies matrices, whose sums may depend on the size of the batch.
    grid = torch.stack([x * cos - y * sin, x * sin + y * cos], -1).add_(size / 2).mul_(2 / (size - 1)).sub_(1)
    return _rounded(grid_sample(images.to(torch.float32), grid, mode="bilinear", padding_mode="reflection", align_corners=True))


KERNELS = {
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
}
"""Side in px -> OpenCV's Gaussian kernel of that side where no sigma is given. Multiples of 1/256, so float32 holds every sum."""


def blurred(images: Tensor, sides: Sequence[int]) -> Tensor:
    """See `transforms.blurred`."""
    done, order = [], []
    for side in sorted(set(sides)):
        rows = [row for row, own in enumerate(sides) if own == side]
        reach, faces = side // 2, rows_of(images, rows).to(torch.float32)
        for axis in (2, 3):
            edges = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
            padded = pad(faces, edges, mode="reflect")
            faces = padded.narrow(axis, 0, images.shape[axis]) * KERNELS[side][0]
            for start, weight in enumerate(KERNELS[side][1:], start=1):
                faces += padded.narrow(axis, start, images.shape[axis]) * weight
        done.append(_rounded(faces))
        order += rows
    return put_back(torch.cat(done), order)


def rescaled(images: Tensor, values: Sequence[tuple[float, float]]) -> Tensor:
    """See `transforms.rescaled`."""
    return _looked_up(images, [transforms.rescaling(value)[None].repeat(3, 0) for value in values])


def tinted(images: Tensor, values: Sequence[tuple[float, float, float]]) -> Tensor:
    """See `transforms.tinted`."""
    return _looked_up(images, [transforms.tints(value) for value in values])


def hsv_shifted(images: Tensor, values: Sequence[tuple[float, float, float]]) -> Tensor:
    """See `transforms.hsv_shifted`."""
    return _from_hsv(_looked_up(_to_hsv(images), [transforms.hsv_tables(value) for value in values]))


def _to_hsv(images: Tensor) -> Tensor:
    """OpenCV's 8-bit HSV: hue in half degrees, saturation of 255; rounded quotients of integers by its tables of 1/4096."""
    divisors = np.maximum(np.arange(256), 1)
    by_value, by_spread = (
        torch.from_numpy(np.rint(units / divisors).astype(np.int32)).to(images.device, non_blocking=True)
        for units in (255 << 12, (180 << 12) / 6)
    )
    red, green, blue = images.to(torch.int32).unbind(1)
    top = torch.maximum(torch.maximum(red, green), blue)
    spread = top - torch.minimum(torch.minimum(red, green), blue)
    saturation = (spread * by_value[top] + 2048) >> 12
    hue = torch.where(top == green, blue - red + 2 * spread, red - green + 4 * spread)
    hue = torch.where(top == red, green - blue, hue)
    hue = (hue * by_spread[spread] + 2048) >> 12
    return torch.stack([torch.where(hue < 0, hue + 180, hue), saturation, top], 1).to(torch.uint8)


def _from_hsv(hsv: Tensor) -> Tensor:
    """A channel is v - v s k, where k falls from 1 to 0 and back with the hue's distance from the channel's own; rounded down."""
    hue, saturation, top = hsv.to(torch.int32).split(1, 1)
    own = torch.tensor([150, 90, 30], dtype=torch.int32).view(1, 3, 1, 1).to(hsv.device, non_blocking=True)
    place = (hue + own) % 180
    share = torch.minimum(place, 120 - place).clamp_(0, 30)
    whole = 255 * 30
    return torch.div(top * (whole - saturation * share), whole, rounding_mode="floor").to(torch.uint8)


def pca_shifted(images: Tensor, alphas: Sequence[float]) -> Tensor:
    """See `transforms.pca_shifted`."""
    levels = images.flatten(2).to(torch.int32)
    products = torch.stack([(levels * levels[:, i : i + 1]).sum(2, dtype=torch.int64) for i in range(3)], 1).cpu().numpy()
    sums, count = levels.sum(2, dtype=torch.int64).cpu().numpy(), levels.shape[2]
    shifts = [transforms.pca_shift(products[row], sums[row], count, alpha) for row, alpha in enumerate(alphas)]
    shift = torch.tensor(shifts, dtype=torch.int32).view(-1, 3, 1, 1).to(images.device, non_blocking=True)
    return (images + shift).clamp_(0, 255).to(torch.uint8)


def compressed(images: Tensor, qualities: Sequence[int]) -> Tensor:
    """See `transforms.compressed`."""
    faces = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()  # turned on the device: a CPU takes milliseconds for it
    result = torch.empty(faces.shape, dtype=torch.uint8, pin_memory=images.device.type == "cuda")
    back, threads = result.numpy(), _threads()

    def compress(first: int) -> None:
        for row in range(first, len(faces), threads):
            back[row] = transforms.compressed(faces[row], qualities[row])

    # A task for each thread and not for each face: what Python does for a task makes the thread that trains wait for its lock.
    for _ in _compressors().map(compress, range(threads)):
        pass
    return result.to(images.device, non_blocking=True).permute(0, 3, 1, 2)


@functools.cache
def _threads() -> int:
    """As many threads as this process has cores, shared with the processes of other GPUs, and no more than eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // max(1, torch.cuda.device_count())))


@functools.cache
def _compressors() -> ThreadPoolExecutor:
    """They run side by side: OpenCV lets go of Python's lock, and a face knows nothing of its neighbours."""
    return ThreadPoolExecutor(_threads(), thread_name_prefix="jpeg")


def _column(values: Sequence[float], images: Tensor) -> Tensor:
    """(N, 1, 1, 1) on the images' device."""
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1).to(images.device, non_blocking=True)


def _looked_up(images: Tensor, tables: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Each level by the (3, 256) table of its face and channel."""
    table = torch.from_numpy(np.stack(tables)).to(images.device, non_blocking=True)
    return table.gather(2, images.flatten(2).long()).view(images.shape)


def _rounded(images: Tensor) -> Tensor:
    """A half is rounded up, as OpenCV's fixed point does."""
    return images.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
