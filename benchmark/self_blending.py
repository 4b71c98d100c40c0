"""Self-blended images (Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022): fakes out of real faces.

A face is blended with itself: one of two copies is changed slightly in colour and sharpness, one is moved slightly, and both are
joined along a deformed outline of the face (section 3.1: source-target generator, mask generator, blending). What is left is
what most forgeries share: a boundary, and statistics that differ across it. The numbers are those of the authors' released code
where the paper names none; nothing else is taken from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

CANVAS = 256
"""Side in px of the square on which the mask is drawn and deformed, whatever the face's: its deformations are in these pixels."""

RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
"""How much of the source shows inside the mask (section 3.1, "blending ratio"): one of these."""

HULLS = ("whole", "raised", "inner")
"""Outlines of the mask: the convex hull of all landmarks (section 3.1), the same with the brows raised, and the hull of brows,
eyes, nose and mouth without the jaw. The released code draws one of four outlines if a file of Face X-ray is beside it, and takes
the first of these otherwise; the other two here are ours."""


@dataclass(frozen=True)
class Pair:
    """What becomes of one face.

    Attributes:
        real: (S, S, 3) uint8, the blend's target: the face, in half of the pairs changed in colour and sharpness.
        fake: (S, S, 3) uint8, the blend.
        mask: (S, S) float32 in [0, 1], the share of the source.
    """

    real: NDArray[np.uint8]
    fake: NDArray[np.uint8]
    mask: Image


def self_blend(face: NDArray[np.uint8], landmarks: NDArray[np.float32], generator: np.random.Generator) -> Pair:
    """A real face and the fake made of it.

    Args:
        face: (S, S, 3) RGB.
        landmarks: (68, 2) or (81, 2), x and y in px of the face. Of 81, a quarter of the masks takes the first 68 alone.
        generator: of all its choices.

    Raises:
        ValueError: the landmarks enclose nothing of the face.
    """
    size = len(face)
    if len(landmarks) > 68 and generator.random() < 0.25:
        landmarks = landmarks[:68]
    mask = outline((landmarks + 0.5) * (CANVAS / size) - 0.5, HULLS[int(generator.integers(len(HULLS)))])
    if not mask.any():
        raise ValueError("its landmarks enclose nothing of the face")
    source = target = face.astype(np.float32)
    if generator.random() < 0.5:
        source = restyled(source, generator)
    else:
        target = restyled(target, generator)
    source, mask = _moved(source, mask, generator)
    mask = _image(cv2.resize(softened(_wrinkled(mask, generator), generator), (size, size)))
    mask *= RATIOS[int(generator.integers(len(RATIOS)))]
    # Both are rounded to 8 bits: otherwise grey levels between two integers would tell the fakes.
    blend = mask[..., None] * source + (1 - mask[..., None]) * target
    return Pair(_rounded(target), _rounded(blend), mask)


def restyled(face: Image, generator: np.random.Generator) -> Image:
    """The source-target generator's change of statistics, in 8-bit units.

    RGB shift of up to 20 (p 0.3); hue, saturation and value by up to 0.3 of OpenCV's 8-bit units, which is hardly anything, but
    what was released; contrast and brightness by up to 10 %; then either smaller by 2 or 4 and back, or sharper.
    """
    if generator.random() < 0.3:
        face = face + generator.uniform(-20, 20, 3).astype(np.float32)
    hsv = _image(cv2.cvtColor(np.clip(face, 0, 255) / 255, cv2.COLOR_RGB2HSV))  # hue in degrees, the others in [0, 1]
    hsv += generator.uniform(-0.3, 0.3, 3).astype(np.float32) * np.array([2, 1 / 255, 1 / 255], np.float32)
    hsv[..., 0] %= 360
    face = _image(cv2.cvtColor(_image(np.clip(hsv, 0, [360, 1, 1])), cv2.COLOR_HSV2RGB)) * 255
    brightness, contrast = generator.uniform(-0.1, 0.1, 2).astype(np.float32)
    face = np.clip(face * (1 + contrast) + 255 * brightness, 0, 255)
    if generator.random() < 0.5:
        size, small = len(face), len(face) // int(generator.choice([2, 4]))
        face = _image(cv2.resize(cv2.resize(face, (small, small), interpolation=cv2.INTER_NEAREST), (size, size)))
    else:
        strength, lightness = generator.uniform(0.2, 0.5), generator.uniform(0.5, 1.0)
        kernel = np.full((3, 3), -strength, np.float32)
        kernel[1, 1] = 1 - strength + strength * (8 + lightness)
        face = _image(cv2.filter2D(face, -1, kernel))
    return _image(np.clip(face, 0, 255))


def outline(landmarks: NDArray[np.float32], hull: str) -> Image:
    """(CANVAS, CANVAS) of 0 and 1 from (68 or 81, 2) landmarks in its px; `hull` is one of `HULLS`."""
    points = landmarks.astype(np.float32).copy()
    if hull == "raised":
        # By as much as they lie above the eyes: the forehead has no landmarks among the 68.
        points[17:27, 1] -= np.maximum(points[36:48, 1].mean() - points[17:27, 1], 0)
    points = points[17:68] if hull == "inner" else points
    mask = np.zeros((CANVAS, CANVAS), np.uint8)
    cv2.fillConvexPoly(mask, np.rint(cv2.convexHull(points)).astype(np.int32), 1)
    return mask.astype(np.float32)


def _moved(source: Image, mask: Image, generator: np.random.Generator) -> tuple[Image, Image]:
    """Source and mask moved together: by up to 3 % of the side across, 1.5 % down, and larger or smaller by up to 5 %."""
    across, down, scale = generator.uniform(-0.03, 0.03), generator.uniform(-0.015, 0.015), generator.uniform(0.95, 1 / 0.95)

    def move(image: Image, border: int) -> Image:
        size = len(image)
        middle = (size - 1) / 2 * (1 - scale)
        matrix = np.array([[scale, 0, middle + across * size], [0, scale, middle + down * size]])
        return _image(cv2.warpAffine(image, matrix, (size, size), borderMode=border))

    return move(source, cv2.BORDER_REPLICATE), move(mask, cv2.BORDER_CONSTANT)


def _wrinkled(mask: Image, generator: np.random.Generator) -> Image:
    """Elastic deformation (Simard et al. 2003): displacements in [-1, 1] px, smoothed with sigma 7 and multiplied by 50."""
    noise = generator.uniform(-1, 1, (2, CANVAS, CANVAS)).astype(np.float32)
    x, y = np.meshgrid(np.arange(CANVAS, dtype=np.float32), np.arange(CANVAS, dtype=np.float32))
    dx, dy = (cv2.GaussianBlur(field, (0, 0), 7) * 50 for field in noise)
    return _image(cv2.remap(mask, x + dx, y + dy, cv2.INTER_LINEAR))


def softened(mask: Image, generator: np.random.Generator) -> Image:
    """Shrunk by a first blur, of which only the untouched inside is kept, then feathered by a second, at a random aspect ratio.

    Kernels have an odd side of 5 to 25 px at a side of 192 to 256; the second's sigma is 5 to 45. A mask that is too thin for the
    first blur is not shrunk.
    """
    width, height = (int(side) for side in generator.integers(192, 257, 2))
    mask = _image(cv2.resize(mask, (width, height)))
    first, second = (int(side) for side in 5 + 2 * generator.integers(0, 11, 2))
    inside = (cv2.GaussianBlur(mask, (first, first), 0) > 0.999).astype(np.float32)
    soft = cv2.GaussianBlur(inside if inside.any() else mask, (second, second), float(generator.integers(5, 46)))
    return _image(soft / soft.max())


def _image(values: NDArray[Any]) -> Image:
    """What OpenCV gives, as float32."""
    return np.asarray(values, np.float32)


def _rounded(image: Image) -> NDArray[np.uint8]:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
