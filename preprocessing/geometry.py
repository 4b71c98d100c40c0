"""Where a face goes: five landmarks, a template, and the similarity between them.

The geometry is DeepfakeBench's: five of the landmarks are moved by a least-squares similarity (Umeyama, PAMI 1991, eq. 40-43) onto
the ArcFace template (Deng et al., CVPR 2019), widened by a margin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]

# Eyes' outer corners, nose tip, mouth. 49 and 55 are each one past the mouth's corners (48, 54 counted from 0): DeepfakeBench uses
# them, and a store must be comparable with its crops.
FIVE = (37, 44, 30, 49, 55)
ARCFACE = ((30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041))
"""The ArcFace template for a crop of 112 x 96 (height x width); 8 px to the right it is centred in 112 x 112."""
MARGIN = 1.3


def template(size: int = 256) -> Points:
    """Where the five points belong in a crop of `size` pixels: (5, 2) float32.

    For 256: [[96.870, 120.433], [158.825, 120.090], [128.044, 155.669], [102.592, 191.939], [153.899, 191.656]].
    """
    # float32 throughout, as in DeepfakeBench: its rounding is part of the targets.
    points = np.array(ARCFACE, dtype=np.float32)
    points[:, 0] += 8.0
    points = points * np.float32(size) / np.float32(112)
    margin = size * (MARGIN - 1) / 2
    return (points + np.float32(margin)) * np.float32(size / (size + 2 * margin))


def similarity(source: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64] | None:
    """The rotation, scale and shift that bring `source` (N, 2) closest to `target` (N, 2) in least squares: (2, 3), or None.

    In the plane Umeyama's solution has a closed form: with points as complex numbers z -> w around their means, the factor is
    sum(conj(z) w) / sum(|z|^2); a reflection cannot arise. Inputs are rounded to float32, as DeepfakeBench rounds them, and the
    arithmetic is float64. DeepfakeBench (skimage) goes on in float32, so its matrix differs by up to 2e-4 px, which turns some ten
    pixels of a crop by a grey level; float64 is kept here because its result does not depend on the machine's linear algebra.
    """
    rounded = (np.asarray(p, dtype=np.float32).astype(np.float64) for p in (source, target))
    z, w = (p[:, 0] + 1j * p[:, 1] for p in rounded)
    spread = np.sum(np.abs(z - z.mean()) ** 2)
    if not np.isfinite(spread) or spread < 1e-6:
        return None
    factor = np.sum((z - z.mean()).conj() * (w - w.mean())) / spread
    shift = w.mean() - factor * z.mean()
    if not np.isfinite(factor + shift) or abs(factor) < 1e-6:
        return None
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def similarity_float32(source: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64] | None:
    """`similarity` with the rounding of DeepfakeBench's: (2, 3), or None.

    skimage keeps Umeyama's covariance and its singular values in the points' float32 and goes on in float64; so does this, and the
    matrix is skimage's to the last bit.
    """
    a, b = (np.asarray(p, dtype=np.float32) for p in (source, target))
    middle, goal = a.mean(axis=0), b.mean(axis=0)
    a, b = a - middle, b - goal
    covariance = b.T @ a / len(a)
    spread = a.var(axis=0).sum()
    if not np.isfinite(covariance).all() or not spread > 0 or not covariance.any():
        return None
    u, values, vt = np.linalg.svd(covariance)
    signs = np.ones(2)
    if np.linalg.det(u) * np.linalg.det(vt) < 0:  # a reflection fits best: the best rotation instead
        signs[-1] = -1
    turn = u @ np.diag(signs) @ vt
    scale = 1.0 / spread * (values @ signs)
    shift = goal - scale * (turn @ middle)
    matrix = np.column_stack([scale * turn, shift]).astype(np.float64)
    return matrix if np.isfinite(matrix).all() else None
