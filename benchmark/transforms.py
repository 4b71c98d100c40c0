"""Image transforms on one face of 8-bit levels by OpenCV, and the tables and shifts that the same transforms on a GPU take too.

They are what albumentations 1.1.0 does to 8-bit images, which rounds after every step. All take (S, S, 3) uint8 RGB and a value and
return the same shape; none depends on OpenCV's number of threads. `benchmark.transforms_batched` has them for a batch on a device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Face = NDArray[np.uint8]

LEVELS = np.arange(256, dtype=np.float32)


def mirrored(face: Face, value: None = None) -> Face:
    """Left to right."""
    return _face(cv2.flip(face, 1))


def rotated(face: Face, degrees: float) -> Face:
    """About (S / 2, S / 2), bilinear; what comes in from outside is the mirrored face, not black."""
    size = len(face)
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), degrees, 1.0)
    return _face(cv2.warpAffine(face, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))


def blurred(face: Face, side: int) -> Face:
    """Gaussian blur by OpenCV's kernel of 3, 5 or 7 px for no given sigma, edges mirrored."""
    return _face(cv2.GaussianBlur(face, (side, side), 0))


def rescaled(face: Face, value: tuple[float, float]) -> Face:
    """RandomBrightnessContrast; see `rescaling`."""
    return _face(cv2.LUT(face, rescaling(value)))


def rescaling(value: tuple[float, float]) -> NDArray[np.uint8]:
    """(256,): level x -> contrast x + 255 brightness, cut off and rounded down."""
    contrast, brightness = value
    return _cut(LEVELS * np.float32(contrast) + np.float32(brightness * 255))


def tinted(face: Face, value: tuple[float, float, float]) -> Face:
    """RGBShift; see `tints`."""
    return _face(cv2.LUT(face, np.ascontiguousarray(tints(value).T)[None]))


def tints(value: tuple[float, float, float]) -> NDArray[np.uint8]:
    """(3, 256): level x of red, green and blue -> x plus the channel's own shift in levels, cut off and rounded down."""
    return _cut(LEVELS + np.asarray(value, np.float32)[:, None])


def hsv_shifted(face: Face, value: tuple[float, float, float]) -> Face:
    """HueSaturationValue in OpenCV's 8-bit HSV; see `hsv_tables`."""
    planes = cv2.split(cv2.cvtColor(face, cv2.COLOR_RGB2HSV))
    moved = [cv2.LUT(plane, table) for plane, table in zip(planes, hsv_tables(value), strict=True)]
    return _face(cv2.cvtColor(cv2.merge(moved), cv2.COLOR_HSV2RGB))


def hsv_tables(value: tuple[float, float, float]) -> NDArray[np.uint8]:
    """(3, 256): hue in half degrees, which goes round, saturation and value -> the same plus a shift each, rounded down."""
    hue, saturation, light = value
    levels = np.arange(256)
    return np.stack([np.mod(levels + hue, 180).astype(np.uint8), _cut(levels + saturation), _cut(levels + light)])


def pca_shifted(face: Face, alpha: float) -> Face:
    """FancyPCA (Krizhevsky et al. 2012, section 4.1), with one draw for the three components; see `pca_shift`."""
    planes = cv2.split(face)
    # Sums of integers, so exact in any order: a b = (a a + b b - (a - b) (a - b)) / 2.
    own = [cv2.norm(plane, cv2.NORM_L2SQR) for plane in planes]
    products = np.diag(own)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        products[i, j] = products[j, i] = (own[i] + own[j] - cv2.norm(planes[i], planes[j], cv2.NORM_L2SQR)) / 2
    sums = np.array(cv2.sumElems(face)[:3])
    shift = pca_shift(products, sums, face.shape[0] * face.shape[1], alpha)
    return _face(cv2.add(face, (*shift, 0)))  # type: ignore[call-overload]  # a number for each channel; sums are cut off


def pca_shift(products: NDArray[np.float64], sums: NDArray[np.float64], count: int, alpha: float) -> tuple[int, int, int]:
    """Levels to be added to red, green and blue: alpha times the sum of the covariance's eigenvectors, each times its eigenvalue.

    Args:
        products: (3, 3), sums over the face's pixels of products of two channels' levels.
        sums: (3,), sums of levels.
        count: pixels.
        alpha: the draw.
    """
    values, vectors = np.linalg.eigh((products - np.outer(sums, sums) / count) / ((count - 1) * 255.0**2))
    # An eigenvector is as good with the other sign: the one that brightens is taken, whatever the library gives.
    vectors = vectors * np.where(vectors.sum(0) < 0, -1.0, 1.0)
    red, green, blue = np.floor(255 * (vectors @ (alpha * values))).astype(int).tolist()
    return red, green, blue


def compressed(face: Face, quality: int) -> Face:
    """ImageCompression: JPEG there and back at a quality of 1 to 100.

    albumentations hands over RGB where OpenCV expects BGR, so red and blue change places inside the file. It is done here too.
    """
    file = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return _face(cv2.imdecode(file, cv2.IMREAD_UNCHANGED))


One = Callable[[Face, Any], Face]
"""A face and the value for it -> the face."""


def _cut(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.clip(values, 0, 255).astype(np.uint8)


def _face(image: Any) -> Face:
    return np.asarray(image, np.uint8)
