"""DeepfakeBench's way from a PNG file to a training tensor, written anew from what it does: the baseline of reading faces.

What it does (its dataset class, with the settings of most detectors): `cv2.imread`, BGR to RGB, a cubic resize to the detector's
side whatever the file's, a PIL image and back, albumentations' list, then float, division, and normalisation with mean and
deviation 0.5. The list: flip, rotation by up to 10 degrees, Gaussian blur of 3 to 7, one of brightness and contrast, FancyPCA or
HSV, JPEG of quality 40 to 100, each with probability 0.5. albumentations 1.1.0 does these with OpenCV on 8-bit images, FancyPCA
with numpy in float64; so does this. What its classes cost around these calls (parameters, checks, keyword arguments) is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def read(path: Path, size: int) -> NDArray[np.uint8]:
    """The file's face: RGB (size, size, 3) uint8."""
    image: Any = cv2.imread(str(path))
    image = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(Image.fromarray(np.asarray(image, np.uint8)))


def to_tensor(face: NDArray[np.uint8]) -> Tensor:
    """(S, S, 3) uint8 -> (3, S, S) float32 in [-1, 1]."""
    values = torch.from_numpy(np.ascontiguousarray(face.transpose(2, 0, 1))).float().div(255)
    return values.sub_(0.5).div_(0.5)


def augmented(face: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """The list above."""
    image: Any = face
    size = len(face)
    if generator.random() < 0.5:
        image = cv2.flip(image, 1)
    if generator.random() < 0.5:
        turn = cv2.getRotationMatrix2D((size / 2, size / 2), generator.uniform(-10, 10), 1.0)
        image = cv2.warpAffine(image, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if generator.random() < 0.5:
        side = int(generator.integers(3, 8)) | 1
        image = cv2.GaussianBlur(image, (side, side), 0)
    if generator.random() < 0.5:
        image = (_rescaled, _pca_shifted, _hsv_shifted)[int(generator.integers(3))](image, generator)
    if generator.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(generator.integers(40, 101))]
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_UNCHANGED)
    return np.asarray(image, np.uint8)


def _rescaled(image: Any, generator: np.random.Generator) -> Any:
    contrast, brightness = 1 + generator.uniform(-0.1, 0.1), 255 * generator.uniform(-0.1, 0.1)
    return cv2.LUT(image, np.clip(np.arange(256) * contrast + brightness, 0, 255).astype(np.uint8))


def _pca_shifted(image: Any, generator: np.random.Generator) -> Any:
    pixels = image.reshape(-1, 3) / 255.0
    values, vectors = np.linalg.eigh(np.cov(pixels - pixels.mean(0), rowvar=False))
    moved = image.astype(np.float64)
    for channel, shift in enumerate(255 * (vectors @ (generator.normal(0, 0.1) * values))):
        moved[..., channel] += shift
    return np.clip(moved, 0, 255).astype(np.uint8)


def _hsv_shifted(image: Any, generator: np.random.Generator) -> Any:
    hue, saturation, value = generator.uniform([-20, -30, -20], [20, 30, 20])
    levels = np.arange(256)
    tables = ((levels + hue) % 180, np.clip(levels + saturation, 0, 255), np.clip(levels + value, 0, 255))
    planes = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    hsv = cv2.merge([cv2.LUT(plane, table.astype(np.uint8)) for plane, table in zip(planes, tables, strict=True)])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
