"""Hair of a drawn head: where it is, its strands, its colour; all on the canonical canvas."""

from __future__ import annotations

import cv2
import numpy as np

from preprocessing.synthetic.canvas import COLUMNS, PIXELS_PER_UNIT, ROWS, WHOLE, Array, Points, X, Y, curve
from preprocessing.synthetic.identity import Identity

_CROWN = (0.0, -0.3)  # the point that strands run away from


def strands(rng: np.random.Generator) -> Array:
    """Streaks (ROWS, COLUMNS) of roughly unit variance that radiate from the crown."""
    coarse = rng.standard_normal((ROWS // 2, COLUMNS // 10), dtype=np.float32)
    streaks = cv2.resize(coarse, (COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC)
    x, y = X - np.float32(_CROWN[0]), Y - np.float32(_CROWN[1])
    along = np.mod(np.hypot(x, y) * PIXELS_PER_UNIT * 0.8, COLUMNS - 1)
    across = np.mod((np.arctan2(x, -y) + np.pi) / (2 * np.pi) * (ROWS - 1), ROWS - 1)
    return cv2.remap(streaks, along.astype(np.float32), across.astype(np.float32), cv2.INTER_LINEAR).astype(np.float32)


def coverage(identity: Identity, skull_top: float, strand: Array) -> Array:
    """Where the hair is (ROWS, COLUMNS), in [0, 1]: between an outer arc around the skull and the style's hair line."""
    volume = identity.hair_volume * (0.45 if identity.hair_style == "receding" else 1.0)
    width = identity.face_width
    angle = np.linspace(np.pi, 2 * np.pi, 15)[1:-1]
    ear_level = -0.35
    outer = np.stack([(1.03 * width + volume) * np.cos(angle), ear_level + (ear_level - skull_top + volume) * np.sin(angle)], 1)
    line = _hair_line(identity)
    right_end, left_end = (1.06 * width + 0.5 * volume, line[-1, 1]), (-1.06 * width - 0.5 * volume, line[0, 1])
    hair = WHOLE.fill(np.vstack([curve(line, 4, closed=False), right_end, outer[::-1], left_end]), blur=1.2)
    hair = np.clip(hair + hair * (1 - hair) * strand * 1.2, 0, 1)  # single strands where the edge is soft
    if identity.hair_style == "long":
        for side in (-1, 1):
            hair = np.maximum(hair, WHOLE.fill(curve(_long_lock(width, volume) * (side, 1)), blur=1.5))
    return hair


def colour(identity: Identity, strand: Array, lit: Array, gloss: Array) -> Array:
    """Hair colour (ROWS, COLUMNS, 3) under the light `lit` (a factor) with highlights where `gloss` is high."""
    highlight = 16 * np.clip(strand, 0, 1) * gloss
    return identity.hair * ((1 + 0.20 * strand) * lit)[..., None] + highlight[..., None]


def _hair_line(identity: Identity) -> Points:
    """The inner edge of the hair from the left to the right ear (9, 2)."""
    y = identity.hair_line
    lines = {
        "straight": [(-0.97, -0.30), (-0.90, -0.62), (-0.74, y + 0.12), (-0.4, y), (0, y - 0.03)],
        "long": [(-0.93, 0.2), (-0.90, -0.3), (-0.80, y + 0.30), (-0.4, y - 0.02), (0, y - 0.10)],
        "receding": [(-0.98, -0.30), (-0.92, -0.66), (-0.70, y - 0.12), (-0.4, y - 0.16), (0, y - 0.02)],
    }
    if identity.hair_style == "parted":
        left = [(-0.97, -0.25), (-0.88, -0.68), (-0.66, y + 0.16), (-0.2, y + 0.10), (0.2, y + 0.02)]
        points = [*left, (0.5, y - 0.10), (0.74, y + 0.02), (0.90, -0.62), (0.97, -0.25)]
    else:
        half = lines[identity.hair_style]
        points = [*half, *((-x, height) for x, height in half[-2::-1])]
    return np.array(points) * (identity.face_width, 1)


def _long_lock(width: float, volume: float) -> Points:
    """The right-hand lock of long hair beside the face (7, 2)."""
    inner = [(0.90 * width, -0.3), (0.94 * width, 0.3), (0.92 * width, 0.75), (0.98 * width, 1.25)]
    outer = [(1.16 * width + volume, 1.3), (1.16 * width + volume, 0.4), (1.08 * width + volume, -0.5)]
    return np.array([*inner, *outer])
