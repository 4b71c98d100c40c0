"""The canonical canvas on which a head is painted before it is posed, and the brushes.

Canonical coordinates: x to the right and y down, origin between the eyes, one unit = half the width of the face at the cheeks.
The canvas covers x in [-1.8, 1.8] and y in [-2.1, 1.9] at 72 pixels per unit.
Colours are RGB in grey levels, 0 to 255; they may overshoot.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]  # float32 pictures and masks; OpenCV's annotations do not carry the type through
Points = NDArray[np.float64]

PIXELS_PER_UNIT = 72
LEFT, TOP, WIDTH, HEIGHT = -1.8, -2.1, 3.6, 4.0
COLUMNS, ROWS = int(WIDTH * PIXELS_PER_UNIT), int(HEIGHT * PIXELS_PER_UNIT)
SUBPIXEL_BITS = 4  # OpenCV's fixed-point coordinates: sixteenths of a pixel

_ROW_INDEX, _COLUMN_INDEX = np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float32)
X: Array = _COLUMN_INDEX / np.float32(PIXELS_PER_UNIT) + np.float32(LEFT)
Y: Array = _ROW_INDEX / np.float32(PIXELS_PER_UNIT) + np.float32(TOP)


def to_pixels(points: ArrayLike) -> Points:
    """Canonical points (..., 2) in units -> canvas pixels (column, row)."""
    return (np.asarray(points, np.float64) - (LEFT, TOP)) * PIXELS_PER_UNIT


class Window:
    """A rectangle of the canvas: its coordinate grids, views of canvas arrays, and filled or stroked shapes inside it.

    Args:
        left, top, right, bottom: canonical units; rounded down to whole pixels.
    """

    def __init__(self, left: float, top: float, right: float, bottom: float) -> None:
        self.origin = to_pixels((left, top)).astype(int)
        end = to_pixels((right, bottom)).astype(int)
        self.slices = (slice(int(self.origin[1]), int(end[1])), slice(int(self.origin[0]), int(end[0])))
        self.x, self.y = X[self.slices], Y[self.slices]

    def view(self, image: Array) -> Array:
        """The part of a canvas array (ROWS, COLUMNS, ...) inside this window; writing to it writes to the canvas."""
        return image[self.slices]

    def fill(self, polygon: ArrayLike, blur: float = 0.0) -> Array:
        """Coverage in [0, 1] of a filled polygon (N, 2), in units; blurred by a Gaussian of `blur` pixels."""
        mask = np.zeros(self.x.shape, np.uint8)
        cv2.fillPoly(mask, [self._fixed(polygon)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        return _coverage(mask, blur)

    def stroke(self, line: ArrayLike, width: float, blur: float) -> Array:
        """Coverage in [0, 1] of an open line (N, 2), in units; `width` and `blur` in pixels."""
        mask = np.zeros(self.x.shape, np.uint8)
        cv2.polylines(mask, [self._fixed(line)], False, 255, max(1, round(width)), cv2.LINE_AA, SUBPIXEL_BITS)
        return _coverage(mask, blur)

    def blob(self, x: float, y: float, width: float, height: float) -> Array:
        """A Gaussian hump of height 1 at (x, y), falling to 1/e at `width` and `height`."""
        return np.exp(-(((self.x - x) / width) ** 2) - ((self.y - y) / height) ** 2)

    def _fixed(self, points: ArrayLike) -> NDArray[np.int32]:
        return np.round((to_pixels(points) - self.origin) * (1 << SUBPIXEL_BITS)).astype(np.int32)


WHOLE = Window(LEFT, TOP, LEFT + WIDTH, TOP + HEIGHT)


def _coverage(mask: NDArray[np.uint8], blur: float) -> Array:
    if blur:
        mask = cv2.GaussianBlur(mask, (0, 0), blur).astype(np.uint8)
    return mask.astype(np.float32) * np.float32(1 / 255)


def curve(points: ArrayLike, steps: int = 6, closed: bool = True) -> Points:
    """A Catmull-Rom curve through `points` (N, 2), sampled `steps` times per segment."""
    p = np.asarray(points, np.float64)
    if closed:
        i = np.arange(len(p))
        before, start, end, after = p[i - 1], p, p[(i + 1) % len(p)], p[(i + 2) % len(p)]
    else:
        q = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
        before, start, end, after = q[:-3], q[1:-2], q[2:-1], q[3:]
    t = (np.arange(steps) / steps)[None, :, None]
    before, start, end, after = (v[:, None] for v in (before, start, end, after))
    linear, square, cube = end - before, 2 * before - 5 * start + 4 * end - after, 3 * start - before - 3 * end + after
    sampled = (start + 0.5 * (linear * t + square * t**2 + cube * t**3)).reshape(-1, 2)
    return sampled if closed else np.vstack([sampled, p[-1]])


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 below `low`, 1 above `high`, the cubic 3t^2 - 2t^3 between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def paint(image: Array, colour: ArrayLike, coverage: Array) -> None:
    """Lay `colour` (3,) or (..., 3) over `image` (H, W, 3) in place, where `coverage` (H, W) says how opaquely."""
    image += coverage[..., None] * (np.asarray(colour, np.float32) - image)


def darken(image: Array, by: Array) -> None:
    """Multiply `image` (H, W, 3) in place by 1 - `by` (H, W)."""
    image *= (1 - by)[..., None]


def noise(rng: np.random.Generator, blur: float, rows: int = ROWS, columns: int = COLUMNS) -> Array:
    """Gaussian noise (rows, columns) smoothed over `blur` pixels and scaled to unit variance."""
    field = cv2.GaussianBlur(rng.standard_normal((rows, columns), dtype=np.float32), (0, 0), blur)
    return (field / field.std()).astype(np.float32)
