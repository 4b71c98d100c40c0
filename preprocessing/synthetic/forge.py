"""Four forgeries of drawn people after the families of FaceForensics++, and a fifth in the manner of Celeb-DF.

This forges drawings only: a forgery takes two `Scene` objects and renders faces from their parameters. It reads no images and finds
no faces, so it is no tool for swapping the faces of real people.

Each family leaves a cue of its own, which a detector learns easily, and shares weaker ones with the others, which are all that
carries over to a family held out of training:

* seam: a faint bright ring along the edge of the mask (grey levels);
* dull: detail finer than 0.055 unit is attenuated (share removed);
* grain: the face carries less camera noise than the rest of the frame (factor).

Lengths are in canonical units (half the width of the face); each strength is drawn once per video from the range given here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import cv2
import numpy as np
from scipy.spatial import Delaunay

from preprocessing.synthetic.camera import Range
from preprocessing.synthetic.canvas import SUBPIXEL_BITS, Array, Points
from preprocessing.synthetic.head import Head
from preprocessing.synthetic.landmarks import JAW, MEAN_FACE, NOSE_BASE, OUTER_LIPS, Expression
from preprocessing.synthetic.scene import Scene
from preprocessing.synthetic.streams import stream

_TRIANGLES = Delaunay(MEAN_FACE).simplices
_MASKED_ABOVE = 0.02  # opacity from which a pixel counts as forged
_SOURCE_DELAY = 3  # frames between the driving source and the target, so that a pair never mirrors itself


class Forgery(ABC):
    """One way to forge `target` (who is seen) from `source` (whose face or expression is put there)."""

    ranges: ClassVar[Mapping[str, Range]]

    def __init__(self, target: Scene, source: Scene) -> None:
        self.target, self.source = target, source
        self._rng = stream(target.seed, target.style.name, target.number, type(self).__name__)
        self.strength = {cue: float(self._rng.uniform(*limits)) for cue, limits in self.ranges.items()}

    def forge(self, frame: int) -> tuple[Array, Array]:
        """The forged picture of `frame` (size, size, 3), in [0, 255], and its mask (size, size), 1 where it was forged, else 0."""
        original, landmarks = self.target.photograph(frame)
        face, opacity = self.face(frame, original, landmarks)
        return np.clip(self._blend(original, face, opacity), 0, 255), (opacity > _MASKED_ABOVE).astype(np.float32)

    @abstractmethod
    def face(self, frame: int, original: Array, landmarks: Points) -> tuple[Array, Array]:
        """The face to put into `frame` (size, size, 3) and its opacity (size, size) in [0, 1].

        Args:
            frame: number of the frame.
            original: the target's photograph of that frame (size, size, 3).
            landmarks: its landmarks (68, 2) in pixels.
        """

    def _pixels(self, units: float) -> float:
        return units * self.target.scale

    def _dulled(self, picture: Array) -> Array:
        soft = cv2.GaussianBlur(picture, (0, 0), self._pixels(0.055))
        return picture + np.float32(self.strength["dull"]) * (soft - picture)

    def _grained(self, picture: Array, frame: int) -> Array:
        return self.target.add_grain(picture, frame, self.strength["grain"], type(self).__name__)

    def _seam(self, opacity: Array) -> Array:
        edge = cv2.GaussianBlur(opacity, (0, 0), self._pixels(0.03))
        return (4 * self.strength["seam"] * edge * (1 - edge))[..., None]

    def _blend(self, original: Array, face: Array, opacity: Array) -> Array:
        return original + opacity[..., None] * (face - original) + self._seam(opacity)


class Deepfakes(Forgery):
    """The source's face, squeezed through a small square as an autoencoder would, paler than the rest, softly blended."""

    ranges: ClassVar[Mapping[str, Range]] = {
        "seam": (0.2, 1.2),
        "grain": (0.3, 0.7),
        "square": (45, 55),  # side in pixels
        "paleness": (0.18, 0.32),  # share of saturation lost
        "colour match": (0.7, 0.7),
        "feather": (0.03, 0.05),
    }

    def __init__(self, target: Scene, source: Scene) -> None:
        super().__init__(target, source)
        self._head = Head(source.identity, target.light)

    def face(self, frame: int, original: Array, landmarks: Points) -> tuple[Array, Array]:
        """See `Forgery.face`."""
        opacity = hull(landmarks, original.shape[0], 0.97, self._pixels(self.strength["feather"]))
        generated, source_landmarks = self.target.render(frame, head=self._head)
        small = self._decode(to_square(generated, source_landmarks, int(self.strength["square"])))
        swapped = match_colours(from_square(small, landmarks, original.shape[0]), original, opacity, self.strength["colour match"])
        return self._grained(self._finished(swapped), frame), opacity

    def _decode(self, small: Array) -> Array:
        return small

    def _finished(self, swapped: Array) -> Array:
        return saturated(swapped, 1 - self.strength["paleness"])


class Reenactment(Forgery):
    """The target's own head, rendered again with the source's mouth and brows; Face2Face and NeuralTextures share the rendering."""

    def __init__(self, target: Scene, source: Scene, renders: dict[int, Array] | None = None) -> None:
        super().__init__(target, source)
        self._renders = {} if renders is None else renders

    def _reenacted(self, frame: int) -> Array:
        if frame not in self._renders:
            own, driving = self.target.expression(frame), self.source.expression(frame + _SOURCE_DELAY)
            merged = Expression(driving.open, driving.smile, driving.brow, own.blink, own.gaze_x, own.gaze_y)
            self._renders[frame] = self.target.render(frame, merged)[0]
        return self._dulled(self._renders[frame])


class Face2Face(Reenactment):
    """The whole face reenacted, with a slope of brightness across it and more saturated, very softly blended."""

    ranges: ClassVar[Mapping[str, Range]] = {
        "seam": (0.4, 1.8),
        "dull": (0.12, 0.38),
        "grain": (0.3, 0.7),
        "slope": (0.12, 0.20),  # relative brightness per unit
        "slope direction": (0.0, 2 * np.pi),  # radians
        "saturation": (0.15, 0.25),  # share gained
        "feather": (0.06, 0.10),
    }

    def face(self, frame: int, original: Array, landmarks: Points) -> tuple[Array, Array]:
        """See `Forgery.face`."""
        size, angle = original.shape[0], self.strength["slope direction"]
        rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
        x, y = landmarks.mean(0)
        distance = ((columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)) / self.target.scale
        slope = 1 + self.strength["slope"] * np.clip(distance, -1.5, 1.5)
        face = saturated(self._reenacted(frame) * slope[..., None].astype(np.float32), 1 + self.strength["saturation"])
        return self._grained(face, frame), hull(landmarks, size, 0.98, self._pixels(self.strength["feather"]))


class FaceSwap(Forgery):
    """The source's photograph moved triangle by triangle onto the target's landmarks: a hard edge, and colours that do not fit."""

    ranges: ClassVar[Mapping[str, Range]] = {
        "seam": (0.2, 1.3),
        "dull": (0.08, 0.26),
        "colour match": (0.3, 0.4),
        "edge": (0.4, 0.4),  # blur in pixels
    }

    def face(self, frame: int, original: Array, landmarks: Points) -> tuple[Array, Array]:
        """See `Forgery.face`."""
        own, wanted = self.source.expression(frame), self.target.expression(frame)
        # The source is seen with its mouth as far open as the target's: triangles cannot open or close lips, they would tear.
        fitting = Expression(wanted.open, own.smile, own.brow, wanted.blink, own.gaze_x, own.gaze_y)
        picture, source_landmarks = self.source.render(frame, fitting)
        photograph = np.clip(self.source.add_grain(picture, frame, label="FaceSwap"), 0, 255)
        moved, covered = piecewise_affine(self._dulled(photograph), source_landmarks, landmarks, original.shape[0])
        opacity = cv2.GaussianBlur(hull(landmarks, original.shape[0], 0.96, 0) * covered, (0, 0), self.strength["edge"])
        return match_colours(moved, original, opacity, self.strength["colour match"]), opacity


class NeuralTextures(Reenactment):
    """Mouth and chin reenacted, under the faint periodic pattern that upsampling layers leave."""

    ranges: ClassVar[Mapping[str, Range]] = {
        "seam": (0.6, 2.2),
        "dull": (0.20, 0.46),
        "grain": (0.3, 0.7),
        "pattern": (9.0, 12.0),  # amplitude in grey levels
        "period": (0.21, 0.25),
        "feather": (0.03, 0.06),
    }

    def face(self, frame: int, original: Array, landmarks: Points) -> tuple[Array, Array]:
        """See `Forgery.face`."""
        size = original.shape[0]
        index = np.arange(size, dtype=np.float32) * np.float32(2 * np.pi / self._pixels(self.strength["period"]))
        wave = np.cos(index)
        pattern = np.float32(self.strength["pattern"]) * wave[:, None] * wave[None, :]
        chin = landmarks[JAW][3:14] * 0.8 + landmarks[57] * 0.2
        under_nose = landmarks[NOSE_BASE] * 0.6 + landmarks[51] * 0.4
        lower_face = np.vstack([landmarks[OUTER_LIPS], chin, under_nose])
        face = self._grained(self._reenacted(frame) + pattern[..., None], frame)
        return face, hull(lower_face, size, 1.0, self._pixels(self.strength["feather"]))


class CelebSynthesis(Deepfakes):
    """A better swap, for another data set: larger square, sharpened, full colour match, low and high frequencies blended apart."""

    ranges: ClassVar[Mapping[str, Range]] = {
        "seam": (0.5, 1.7),
        "dull": (0.15, 0.38),
        "grain": (0.5, 0.5),
        "square": (72, 72),
        "colour match": (1.0, 1.0),
        "feather": (0.02, 0.02),
    }

    def _decode(self, small: Array) -> Array:
        return small + np.float32(0.6) * (small - cv2.GaussianBlur(small, (0, 0), 1.2))

    def _finished(self, swapped: Array) -> Array:
        return self._dulled(swapped)

    def _blend(self, original: Array, face: Array, opacity: Array) -> Array:
        wide = cv2.GaussianBlur(opacity, (0, 0), 6)[..., None]
        low_face, low_original = cv2.GaussianBlur(face, (0, 0), 3), cv2.GaussianBlur(original, (0, 0), 3)
        low = low_original + wide * (low_face - low_original)
        high_original = original - low_original
        return low + high_original + opacity[..., None] * (face - low_face - high_original) + self._seam(opacity)


def similarity(source: Points, target: Points) -> Points:
    """The least-squares similarity transform (2, 3) that takes points `source` (N, 2) to `target` (N, 2)."""
    a, b = source - source.mean(0), target - target.mean(0)
    power = (a**2).sum()
    cos, sin = (a * b).sum() / power, (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / power
    turn = np.array([(cos, -sin), (sin, cos)])
    return np.hstack([turn, (target.mean(0) - turn @ source.mean(0))[:, None]])


def to_square(picture: Array, landmarks: Points, side: int) -> Array:
    """The face of `picture` in an upright square (side, side, 3), smoothed first so that it does not alias."""
    matrix = similarity(landmarks, _square_landmarks(side))
    shrink = float(np.hypot(matrix[0, 0], matrix[0, 1]))
    smooth = cv2.GaussianBlur(picture, (0, 0), max(0.3, 0.45 / shrink))
    return cv2.warpAffine(smooth, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def from_square(square: Array, landmarks: Points, size: int) -> Array:
    """An upright square's face put onto `landmarks` (68, 2) of a frame (size, size, 3)."""
    matrix = similarity(landmarks, _square_landmarks(square.shape[0]))
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(square, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _square_landmarks(side: int) -> Points:
    return (MEAN_FACE * 0.40 + (0.5, 0.46)) * side


def hull(points: Points, size: int, shrink: float, feather: float) -> Array:
    """Opacity (size, size) of the convex hull of `points` (N, 2), shrunk about its centre, its edge soft over `feather` pixels."""
    centre = points.mean(0)
    outline = cv2.convexHull(((points - centre) * shrink + centre).astype(np.float32))[:, 0]
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(outline * (1 << SUBPIXEL_BITS)).astype(np.int32)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    opacity = mask.astype(np.float32) / 255
    if feather <= 0:
        return opacity
    return cv2.GaussianBlur(cv2.erode(opacity, np.ones((3, 3)), iterations=int(feather)), (0, 0), feather)


def match_colours(picture: Array, reference: Array, opacity: Array, amount: float) -> Array:
    """`picture` with mean and spread per colour moved by `amount` (0 to 1) towards those of `reference` inside the mask."""
    inside = opacity > 0.5
    mine, wanted = picture[inside], reference[inside]
    mean = mine.mean(0)
    gain = 1 + amount * (wanted.std(0) / (mine.std(0) + 1e-3) - 1)
    return (picture - mean) * gain + mean + np.float32(amount) * (wanted.mean(0) - mean)


def saturated(picture: Array, factor: float) -> Array:
    """`picture` (H, W, 3) with its colours' distance from grey multiplied by `factor`."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    return grey + np.float32(factor) * (picture - grey)


def piecewise_affine(picture: Array, source: Points, target: Points, size: int) -> tuple[Array, Array]:
    """`picture` moved triangle by triangle from landmarks `source` to `target` (68, 2); also where triangles lie (size, size)."""
    triangle = np.full((size, size), -1, np.int32)
    matrices = np.empty((len(_TRIANGLES), 2, 3), np.float32)
    for index, corners in enumerate(_TRIANGLES):
        cv2.fillConvexPoly(
            triangle, np.round(target[corners] * (1 << SUBPIXEL_BITS)).astype(np.int32), index, cv2.LINE_8, SUBPIXEL_BITS
        )
        homogeneous = np.hstack([target[corners], np.ones((3, 1))])
        matrices[index] = np.linalg.lstsq(homogeneous, source[corners], rcond=None)[0].T
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    at = matrices[np.maximum(triangle, 0)]
    column, row = (at[..., i, 0] * columns + at[..., i, 1] * rows + at[..., i, 2] for i in (0, 1))
    moved = cv2.remap(picture, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved.astype(np.float32), (triangle >= 0).astype(np.float32)
