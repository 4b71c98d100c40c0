"""Image -> aligned face and landmarks, or why not.

The image is warped bilinearly, with a black border; `geometry` says where to.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import PreprocessingError
from preprocessing.geometry import ARCFACE as ARCFACE
from preprocessing.geometry import FIVE, similarity, similarity_float32, template
from preprocessing.modes import STRICT, Switches
from preprocessing.predictor import sha256
from preprocessing.pyramid import Pyramid

Image = NDArray[np.uint8]
Points = NDArray[np.float32]

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


@runtime_checkable
class FindsLargest(Protocol):
    """A detector that finds the largest face in less time than all of them; `Finder` asks it where it can."""

    def largest(self, image: Image, upsample: int, start: int) -> tuple[Box | None, int]:
        """The box that is the largest of `boxes(image, upsample)`, the first of equals, and a hint for the next call's `start`.

        `start` is 0 or the hint of an earlier image; it must not change the box.
        """


class Dlib:
    """dlib's HOG detector (King, 2009; Dalal and Triggs, CVPR 2005) and regression-tree landmarks (Kazemi and Sullivan, CVPR 2014).

    Args:
        predictor: a dlib shape predictor with 68 or 81 points.

    The models are loaded at first use, once per process.

    Raises:
        PreprocessingError: if the file cannot be read; at first use, if it is no such predictor.
    """

    def __init__(self, predictor: Path) -> None:
        self.predictor = predictor
        try:
            self.description = {"name": "dlib-hog", "predictor_sha256": sha256(predictor)}
        except OSError as error:
            raise PreprocessingError(f"predictor file {predictor} cannot be read: {error.strerror}; give another") from error
        self._models: tuple[Any, Any] | None = None
        self._pyramid: Pyramid | None = None

    def boxes(self, image: Image, upsample: int) -> list[Box]:
        """See `Detector`."""
        found = self._load()[0](image, upsample)
        return [Box(r.left(), r.top(), r.right(), r.bottom()) for r in found]

    def largest(self, image: Image, upsample: int, start: int) -> tuple[Box | None, int]:
        """See `FindsLargest`."""
        if self._pyramid is None:
            self._pyramid = Pyramid(self._load()[0])
        box, level = self._pyramid.largest(image, upsample, start)
        # One level below the last face's: a face that shrinks a little is still seen at once.
        return None if box is None else Box(*box), max(0, level - 1)

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
                said = str(error).splitlines()[0]  # dlib goes on with the fields that it was in
                raise PreprocessingError(f"predictor file {self.predictor} is no dlib shape predictor: {said}") from error
            points = predictor(np.zeros((64, 64, 3), np.uint8), dlib.rectangle(8, 8, 55, 55)).num_parts
            if points not in (68, 81):
                raise PreprocessingError(f"predictor file {self.predictor} gives {points} landmarks; one with 68 or 81 is needed")
            self._models = dlib.get_frontal_face_detector(), predictor
        return self._models

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_models": None, "_pyramid": None}


def try_detector(detector: Detector) -> None:
    """Make a detector load its models.

    Raises:
        PreprocessingError: if it cannot.
    """
    detector.boxes(np.zeros((64, 64, 3), np.uint8), 0)


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


FACES = ("largest", "mask-overlap")
"""Which of several faces is taken."""
BESIDE_MASK = "faces were found, but none that the mask covers"


class NoFace(str):
    """A status in place of a face, and the reason where there is more to say."""

    reason: str

    def __new__(cls, status: str, reason: str = "") -> NoFace:
        """Take both."""
        self = super().__new__(cls, status)
        self.reason = reason
        return self


@dataclass
class Finder:
    """Finds the face of a frame.

    Strictly, unless told otherwise: the detector looks closer only where it sees nothing, so no face is lost to speed.

    Attributes:
        detector: finds boxes and landmarks.
        size: side of the crop in pixels.
        switches: where to do as DeepfakeBench does.
        seconds: time spent, by stage; grows with every call.
    """

    detector: Detector
    size: int = 256
    switches: Switches = STRICT
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _hints: dict[int, int] = field(default_factory=dict)

    def find(self, image: Image, mask: Image | None = None) -> Face | NoFace:
        """A face of an RGB frame, aligned; or a status.

        Args:
            image: (H, W, 3).
            mask: (H, W, 3); the face is taken whose box it covers best (intersection over union), the largest one without it, and
                where the mask is empty.

        Returns:
            A face; "no_face" where the detector finds none, neither in the frame nor in the frame enlarged twice, or none that the
            mask covers, or, where the switches want a second detection, none in the crop; "no_landmarks" where the landmarks allow
            no alignment: the five points fall together, or (strictly) fewer than half of all lie inside the image.
        """
        start = time.perf_counter()
        box = self._box(image, mask)
        detected = time.perf_counter()
        self.seconds["detect"] += detected - start
        if not isinstance(box, Box):
            return box
        points = self.detector.landmarks(image, box)
        located = time.perf_counter()
        self.seconds["landmarks"] += located - detected
        face = align(image, points, self.size, self.switches.similarity, MIN_INSIDE if self.switches.inside == "half" else 0.0)
        self.seconds["align"] += time.perf_counter() - located
        if face is None:
            return NoFace("no_landmarks")
        return self._look_again(face) if self.switches.second_detection == "crop" else face

    def _box(self, image: Image, mask: Image | None) -> Box | NoFace:
        upsamples = (1,) if self.switches.first_detection == "enlarged" else (0, 1)
        if mask is not None and (mask > 1).any():
            inside, seen = np.asarray((mask > 1).any(axis=2)), False
            for upsample in upsamples:
                covered = [(overlap(inside, box), box) for box in self.detector.boxes(image, upsample)]
                best = max(covered, key=lambda c: c[0], default=None)
                if best is not None and best[0] > 0:
                    return best[1]
                seen = seen or best is not None
            return NoFace("no_face", BESIDE_MASK if seen else "")  # another person's face must not stand for the forged one
        for upsample in upsamples:
            if isinstance(self.detector, FindsLargest):
                box, hint = self.detector.largest(image, upsample, self._hints.get(upsample, 0))
                self._hints[upsample] = hint
            else:
                box = max(self.detector.boxes(image, upsample), key=lambda b: b.area, default=None)
            if box is not None:
                return box
        return NoFace("no_face")

    def _look_again(self, face: Face) -> Face | NoFace:
        start = time.perf_counter()
        crop = np.ascontiguousarray(face.image[..., ::-1]) if self.switches.crop_channels == "bgr" else face.image
        boxes = self.detector.boxes(crop, 1)
        detected = time.perf_counter()
        self.seconds["detect"] += detected - start
        if not boxes:
            return NoFace("no_face")
        box = boxes[0] if self.switches.crop_face == "first" else max(boxes, key=lambda b: b.area)
        points = self.detector.landmarks(crop, box)
        self.seconds["landmarks"] += time.perf_counter() - detected
        return replace(face, landmarks=points.astype(np.float32))


def overlap(inside: NDArray[np.bool_], box: Box) -> float:
    """Intersection over union of a mask (H, W) and a box; the part of the box outside the image counts to the union."""
    top, left = max(0, box.top), max(0, box.left)
    both = int(inside[top : max(0, box.bottom + 1), left : max(0, box.right + 1)].sum())
    return both / (int(inside.sum()) + box.area - both)


def align(
    image: Image, points: NDArray[Any], size: int = 256, arithmetic: str = "float64", min_inside: float = MIN_INSIDE
) -> Face | None:
    """Warp the frame so that the five points meet the template.

    Args:
        image: RGB (H, W, 3).
        points: landmarks (L, 2) in the frame, L >= 68.
        size: side of the crop.
        arithmetic: "float64": see `similarity`; "float32": see `similarity_float32`.
        min_inside: the share of landmarks that must lie inside the image.

    Returns:
        The face, or None where no similarity is defined or the face lies mostly outside the image.
    """
    height, width = image.shape[:2]
    inside = ((points >= 0) & (points < (width, height))).all(axis=1).mean()
    transform = similarity if arithmetic == "float64" else similarity_float32
    matrix = transform(points[list(FIVE)], template(size))
    if matrix is None or not inside >= min_inside:
        return None
    crop = cv2.warpAffine(image, matrix, (size, size))
    moved = points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return Face(np.asarray(crop, dtype=np.uint8), moved.astype(np.float32), matrix)
