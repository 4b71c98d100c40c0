"""Image -> aligned face and landmarks, or why not.

The geometry is DeepfakeBench's: five of the landmarks are moved by a least-squares similarity (Umeyama, PAMI 1991, eq. 40-43) onto
the ArcFace template (Deng et al., CVPR 2019), widened by a margin, and the image is warped bilinearly with a black border.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import PreprocessingError
from preprocessing.predictor import sha256

Image = NDArray[np.uint8]
Points = NDArray[np.float32]

# Eyes' outer corners, nose tip, mouth. 49 and 55 are each one past the mouth's corners (48, 54 counted from 0): DeepfakeBench uses
# them, and a store must be comparable with its crops.
FIVE = (37, 44, 30, 49, 55)
ARCFACE = ((30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041))
"""The ArcFace template for a crop of 112 x 96 (height x width); 8 px to the right it is centred in 112 x 112."""
MARGIN = 1.3
MIN_INSIDE = 0.5
"""A face of whose landmarks fewer than this share lie inside the image is no usable face."""


class Box(NamedTuple):
    """A detected face in pixels, edges included; it may reach out of the image."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        """Width times height."""
        return (self.right - self.left + 1) * (self.bottom - self.top + 1)


class Detector(Protocol):
    """The seam for other face detectors. An instance must survive pickling: every worker process gets a copy."""

    @property
    def description(self) -> dict[str, str]:
        """Name and hashes that tell two detectors with different results apart; part of a store's settings. No paths."""

    def boxes(self, image: Image, upsample: int) -> list[Box]:
        """Faces in an RGB image (H, W, 3), after enlarging it 2 ** `upsample` times."""

    def landmarks(self, image: Image, box: Box) -> NDArray[Any]:
        """At least 68 points (L, 2) as x, y in pixels, in iBUG order."""


class Dlib:
    """dlib's HOG detector (King, 2009; Dalal and Triggs, CVPR 2005) and regression-tree landmarks (Kazemi and Sullivan, CVPR 2014).

    Args:
        predictor: a dlib shape predictor with 68 or 81 points.

    The models are loaded at first use, once per process.
    """

    def __init__(self, predictor: Path) -> None:
        self.predictor = predictor
        self.description = {"name": "dlib-hog", "predictor_sha256": sha256(predictor)}
        self._models: tuple[Any, Any] | None = None

    def boxes(self, image: Image, upsample: int) -> list[Box]:
        """See `Detector`."""
        found = self._load()[0](image, upsample)
        return [Box(r.left(), r.top(), r.right(), r.bottom()) for r in found]

    def landmarks(self, image: Image, box: Box) -> NDArray[np.int64]:
        """See `Detector`; whole pixels."""
        import dlib

        shape = self._load()[1](image, dlib.rectangle(*box))
        return np.array([(p.x, p.y) for p in shape.parts()], dtype=np.int64)

    def _load(self) -> tuple[Any, Any]:
        if self._models is None:
            import dlib  # takes a second; only processes that detect need it

            try:
                predictor = dlib.shape_predictor(str(self.predictor))
            except RuntimeError as error:
                raise PreprocessingError(f"predictor file {self.predictor} is no dlib shape predictor: {error}") from error
            points = predictor(np.zeros((64, 64, 3), np.uint8), dlib.rectangle(8, 8, 55, 55)).num_parts
            if points not in (68, 81):
                raise PreprocessingError(f"predictor file {self.predictor} gives {points} landmarks; one with 68 or 81 is needed")
            self._models = dlib.get_frontal_face_detector(), predictor
        return self._models

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_models": None}


@dataclass(frozen=True)
class Face:
    """An aligned face.

    Attributes:
        image: RGB (S, S, 3) uint8.
        landmarks: (L, 2) float32, x and y in the crop's pixels.
        matrix: (2, 3) float64, from the frame's pixels to the crop's.
    """

    image: Image
    landmarks: Points
    matrix: NDArray[np.float64]

    def crop_mask(self, mask: Image) -> Image:
        """The mask (H, W, 3) of this face's frame, moved like the image: (S, S) uint8, 255 where a warped channel exceeds 1."""
        side = self.image.shape[0]
        forged = cv2.warpAffine(mask, self.matrix, (side, side)) > 1
        return np.where(forged.any(axis=2), np.uint8(255), np.uint8(0))


@dataclass
class Finder:
    """Finds the face of a frame, strictly: the detector looks closer only where it sees nothing, so no face is lost to speed.

    Attributes:
        detector: finds boxes and landmarks.
        size: side of the crop in pixels.
        seconds: time spent, by stage; grows with every call.
    """

    detector: Detector
    size: int = 256
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def find(self, image: Image) -> Face | str:
        """The largest face of an RGB frame, aligned; or a status.

        Returns:
            A face; "no_face" where the detector finds none, neither in the frame nor in the frame enlarged twice; "no_landmarks"
            where the landmarks allow no alignment: the five points fall together, or fewer than half of all lie inside the image.
        """
        start = time.perf_counter()
        boxes = self.detector.boxes(image, 0) or self.detector.boxes(image, 1)
        detected = time.perf_counter()
        self.seconds["detect"] += detected - start
        if not boxes:
            return "no_face"
        points = self.detector.landmarks(image, max(boxes, key=lambda b: b.area))
        located = time.perf_counter()
        self.seconds["landmarks"] += located - detected
        face = align(image, points, self.size)
        self.seconds["align"] += time.perf_counter() - located
        return face if face is not None else "no_landmarks"


def align(image: Image, points: NDArray[Any], size: int = 256) -> Face | None:
    """Warp the frame so that the five points meet the template.

    Args:
        image: RGB (H, W, 3).
        points: landmarks (L, 2) in the frame, L >= 68.
        size: side of the crop.

    Returns:
        The face, or None where no similarity is defined or the face lies mostly outside the image.
    """
    height, width = image.shape[:2]
    inside = ((points >= 0) & (points < (width, height))).all(axis=1).mean()
    matrix = similarity(points[list(FIVE)], template(size))
    if matrix is None or not inside >= MIN_INSIDE:
        return None
    crop = cv2.warpAffine(image, matrix, (size, size))
    moved = points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return Face(np.asarray(crop, dtype=np.uint8), moved.astype(np.float32), matrix)


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
