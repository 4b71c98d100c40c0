"""Faces as 8-bit grey levels, as stores keep them, and as the floats that detectors take."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WHITE = np.float32(255)


def as_floats(levels: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 on any device -> float32 in [0, 1], channels last in memory; floats are given back as they are.

    The quotient is the correctly rounded one on every device, so a face has the same floats on all of them.
    """
    if levels.dtype != torch.uint8:
        return levels
    if levels.device.type != "cpu":
        return torch.div(levels.contiguous(memory_format=torch.channels_last), _white(levels.device))
    faces = levels.permute(0, 2, 3, 1).numpy()
    # One pass over the memory, where torch takes two. Most detectors are faster on a CPU with the channels last.
    return channels_first(np.divide(faces, WHITE, out=np.empty(faces.shape, np.float32)))


@functools.cache
def _white(device: torch.device) -> Tensor:
    """255 on a device, where torch turns a division by a number into a product with its rounded inverse."""
    return torch.tensor(255.0, dtype=torch.float32).to(device)  # waits for the copy, so it is there for every stream


def channels_first(faces: NDArray[np.generic]) -> Tensor:
    """(N, H, W, 3) -> (N, 3, H, W), the same memory."""
    return torch.from_numpy(faces).permute(0, 3, 1, 2)
