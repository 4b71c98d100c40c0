"""The 68 landmarks of a drawn face, in the order of dlib's 68-point predictor (iBUG 300-W markup), 0-based."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocessing.synthetic.canvas import Points
from preprocessing.synthetic.identity import Identity

JAW = slice(0, 17)
LEFT_BROW, RIGHT_BROW = slice(17, 22), slice(22, 27)
NOSE, NOSE_BASE = slice(27, 36), slice(31, 36)
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
MOUTH, OUTER_LIPS = slice(48, 68), slice(48, 60)

# The mean face of dlib's 68-point predictor made symmetric, with the lips almost closed, in canonical units.
_JAW = [
    (-1.0, -0.29),
    (-0.995, -0.024),
    (-0.969, 0.244),
    (-0.916, 0.508),
    (-0.814, 0.754),
    (-0.655, 0.97),
    (-0.462, 1.154),
    (-0.246, 1.304),
]
_BROW = [(-0.793, -0.488), (-0.667, -0.586), (-0.5, -0.611), (-0.328, -0.584), (-0.165, -0.514)]
_NOSE = [
    (0, -0.317),
    (0, -0.143),
    (0, 0.031),
    (0, 0.209),
    (-0.194, 0.32),
    (-0.101, 0.358),
    (0, 0.391),
    (0.101, 0.358),
    (0.194, 0.32),
]
_EYE = [(-0.595, -0.3), (-0.49, -0.362), (-0.363, -0.359), (-0.255, -0.277), (-0.373, -0.254), (-0.497, -0.255)]
_OUTER_LIPS = [
    *[(-0.388, 0.634), (-0.247, 0.577), (-0.103, 0.552), (0, 0.576), (0.103, 0.552), (0.247, 0.577), (0.388, 0.634)],
    *[(0.253, 0.779), (0.112, 0.844), (0, 0.856), (-0.112, 0.844), (-0.253, 0.779)],
]
_INNER_LIPS = [
    (-0.328, 0.644),
    (-0.104, 0.667),
    (0, 0.678),
    (0.104, 0.667),
    (0.328, 0.644),
    (0.106, 0.683),
    (0, 0.694),
    (-0.106, 0.683),
]
_RIGHT_EYE_ORDER = [3, 2, 1, 0, 5, 4]  # the mirror of the left eye, renumbered from its inner corner


def _mirror(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(-x, y) for x, y in points]


MEAN_FACE: Points = np.array(
    [
        *[*_JAW, (0, 1.347), *_mirror(_JAW)[::-1]],
        *[*_BROW, *_mirror(_BROW)[::-1], *_NOSE],
        *[*_EYE, *(_mirror(_EYE)[i] for i in _RIGHT_EYE_ORDER)],
        *[*_OUTER_LIPS, *_INNER_LIPS],
    ],
    np.float64,
)
# Which of the 20 mouth points belong to the upper and the lower lip; the corners belong to neither.
_UPPER_LIP = np.isin(np.arange(20), [1, 2, 3, 4, 5, 13, 14, 15])
_LOWER_LIP = np.isin(np.arange(20), [7, 8, 9, 10, 11, 17, 18, 19])
# dlib places brows and jaw higher and the nostrils lower than they are drawn; measured on 400 drawn frames, in units.
_DLIB_SHIFT = ((NOSE.start + 2, NOSE.stop, 0.045), (JAW.start, JAW.stop, -0.02), (LEFT_BROW.start, RIGHT_BROW.stop, -0.015))


@dataclass(frozen=True)
class Expression:
    """What a face does in one frame. Amounts: 0 is neutral, 1 full; `smile` and `brow` may be negative; gaze in [-1, 1]."""

    open: float = 0.0
    smile: float = 0.0
    brow: float = 0.0
    blink: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0


def place(identity: Identity, expression: Expression) -> Points:
    """The landmarks (68, 2), in canonical units, where the features of `identity` are drawn with `expression`."""
    points = MEAN_FACE.copy()
    _shape_jaw(points, identity)
    for side, eye, brow in ((-1, LEFT_EYE, LEFT_BROW), (1, RIGHT_EYE, RIGHT_BROW)):
        _shape_eye(points, side, eye, brow, identity, expression)
    points[NOSE, 0] *= identity.nose_width
    points[NOSE, 1] += identity.nose_drop * np.clip((points[NOSE, 1] + 0.3) / 0.7, 0, 1)
    _shape_mouth(points, identity, expression)
    points[JAW, 1] += expression.open * 0.16 * np.clip((points[JAW, 1] - 0.35) / 0.9, 0, 1)
    points[:, 0] *= identity.face_width
    return points


def as_dlib_sees(points: Points) -> Points:
    """The points of `place` shifted to where dlib's predictor puts them on average."""
    seen = points.copy()
    for start, stop, shift in _DLIB_SHIFT:
        seen[start:stop, 1] += shift
    return seen


def _shape_jaw(points: Points, identity: Identity) -> None:
    height = np.clip(points[JAW, 1] + 0.1, 0, 1)
    points[JAW, 0] *= 1 + identity.jaw_width * np.sin(np.pi * height) * 1.2
    points[JAW, 1] += identity.chin_drop * height


def _shape_eye(points: Points, side: int, eye: slice, brow: slice, identity: Identity, expression: Expression) -> None:
    centre = points[eye].mean(0)
    offset = (points[eye] - centre) * identity.eye_size
    offset[:, 1] *= identity.eye_openness * (1 - 0.92 * expression.blink)
    angle = side * identity.eye_tilt
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    spread = side * identity.eye_spread
    points[eye] = offset @ turn.T + centre + (spread, 0.02 * expression.blink)
    arch = np.array([0, 0.6, 1, 0.6, 0])
    points[brow, 0] += spread
    points[brow, 1] += identity.brow_drop - identity.brow_arch * arch - 0.07 * expression.brow


def _shape_mouth(points: Points, identity: Identity, expression: Expression) -> None:
    mouth = points[MOUTH]
    centre = mouth[[12, 16]].mean(0)
    offset = mouth - centre
    offset[:, 0] *= identity.mouth_width
    offset[:, 1] *= np.where(offset[:, 1] < 0, identity.upper_lip, identity.lower_lip)
    middle = 1 - (offset[:, 0] / (0.40 * identity.mouth_width)) ** 2  # 1 in the middle of the mouth, 0 at its corners
    offset[:, 1] += _LOWER_LIP * expression.open * 0.26 * np.clip(middle, 0.15, 1)
    offset[:, 1] -= _UPPER_LIP * expression.open * 0.03 * np.clip(middle, 0, 1)
    towards_corner = np.abs(offset[:, 0]) / 0.39
    offset[:, 0] *= 1 + 0.14 * expression.smile
    offset[:, 1] -= expression.smile * 0.09 * towards_corner**2
    points[MOUTH] = offset + centre + (0, identity.mouth_drop + identity.nose_drop * 0.4)
