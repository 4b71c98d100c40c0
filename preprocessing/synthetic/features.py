"""What moves in a face: brows, eyes and mouth, painted per frame over a copy of a head's texture."""

from __future__ import annotations

import numpy as np

from preprocessing.synthetic.canvas import Array, Points, Window, curve, darken, paint, smoothstep
from preprocessing.synthetic.head import Head
from preprocessing.synthetic.landmarks import LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE, Expression, place

_UPPER_FACE = Window(-1.05, -1.0, 1.05, 0.08)
_LOWER_FACE = Window(-0.8, 0.30, 0.8, 1.35)
_SCLERA, _LASHES, _MOUTH_CAVITY, _TEETH = (222, 216, 212), (26, 18, 16), (52, 20, 20), (214, 206, 196)
_IRIS_RADIUS = 0.092  # units


def draw(head: Head, expression: Expression) -> tuple[Array, Points]:
    """The head with `expression`: texture (ROWS, COLUMNS, 3) in grey levels and the landmarks (68, 2) of its features, in units."""
    points = place(head.identity, expression)
    image = head.texture.copy()
    upper = _UPPER_FACE.view(image)
    for brow, thickness_at in ((LEFT_BROW, (0.35, 0.85, 1.05, 0.7)), (RIGHT_BROW, (0.7, 1.05, 0.85, 0.35))):
        _draw_brow(upper, head, points[brow], thickness_at)
    for eye in (LEFT_EYE, RIGHT_EYE):
        _draw_eye(upper, head, points[eye], expression)
    _draw_mouth(_LOWER_FACE.view(image), head, points, expression)
    return image, points


def _draw_brow(image: Array, head: Head, points: Points, thickness_at: tuple[float, ...]) -> None:
    line = curve(points, 5, closed=False)
    thickness = head.identity.brow_thickness * np.interp(np.linspace(0, 1, len(line)), [0, 0.3, 0.75, 1], thickness_at)
    upwards = np.stack([np.zeros_like(thickness), thickness], 1)
    outline = np.vstack([line - 0.6 * upwards, (line + 0.75 * upwards)[::-1]])
    hairs = _UPPER_FACE.fill(outline, blur=1.0) * np.clip(0.80 + 0.22 * _UPPER_FACE.view(head.grain), 0, 1)
    lit = np.clip(_UPPER_FACE.view(head.shade), 0.3, 1.2)[..., None]
    paint(image, np.minimum(head.identity.hair * 0.62, head.identity.skin * 0.45) * lit, 0.9 * hairs)


def _draw_eye(image: Array, head: Head, points: Points, expression: Expression) -> None:
    upper_lid, lower_lid = curve(points[[0, 1, 2, 3]], 6, closed=False), curve(points[[3, 4, 5, 0]], 6, closed=False)
    stroke = _UPPER_FACE.stroke
    darken(image, 0.42 * stroke(upper_lid - np.array((0, 0.055 * (1 - 0.5 * expression.blink))), 1.6, 1.0))  # crease of the lid
    darken(image, 0.16 * stroke(lower_lid + np.array((0, 0.035)), 1.4, 1.2))
    paint(image, _eyeball(head, points, expression), _UPPER_FACE.fill(curve(points, 5), blur=0.5))
    paint(image, _LASHES, 0.85 * stroke(upper_lid, 2.6, 0.7))
    darken(image, 0.38 * stroke(lower_lid, 1.2, 0.8))


def _eyeball(head: Head, points: Points, expression: Expression) -> Array:
    """Sclera, iris, pupil, the lid's shadow and the lamp's glint, over the whole upper window (H, W, 3)."""
    x, y = _UPPER_FACE.x, _UPPER_FACE.y
    centre = points.mean(0)
    look_x, look_y = centre[0] + expression.gaze_x * 0.05, centre[1] - 0.012 + expression.gaze_y * 0.03
    distance = np.hypot(x - look_x, y - look_y)
    radius = _IRIS_RADIUS * head.identity.eye_size
    rays = np.cos(np.arctan2(y - look_y, x - look_x) * 17)
    iris = head.identity.iris * (1 - 0.45 * smoothstep(radius * 0.72, radius, distance) + 0.12 * rays)[..., None]
    eye = np.broadcast_to(np.array(_SCLERA, np.float32), (*x.shape, 3)).copy()
    paint(eye, iris, 1 - smoothstep(radius - 0.012, radius + 0.008, distance))
    darken(eye, 0.93 * (1 - smoothstep(radius * 0.36, radius * 0.50, distance)))
    lid_shadow = 0.62 + 0.38 * smoothstep(points[1:3, 1].min() - 0.01, centre[1] + 0.02, y)
    eye *= (np.clip(_UPPER_FACE.view(head.shade), 0.35, 1.15) * lid_shadow)[..., None]
    glint = _UPPER_FACE.blob(look_x + head.light.direction[0] * 0.06, look_y - 0.035, 0.022, 0.022)
    return eye + (215 * head.light.diffuse) * glint[..., None]


def _draw_mouth(image: Array, head: Head, points: Points, expression: Expression) -> None:
    identity, window = head.identity, _LOWER_FACE
    lit = np.clip(window.view(head.shade), 0.3, 1.2)
    lips = identity.skin * (1 - identity.lip_redness * np.array((0.10, 0.46, 0.38), np.float32)) * np.float32(0.96)
    texture = 0.03 * window.view(head.grain)
    upper = np.vstack([curve(points[48:55], 5, closed=False), curve(points[[64, 63, 62, 61, 60]], 5, closed=False)])
    lower = np.vstack(
        [curve(points[[54, 55, 56, 57, 58, 59, 48]], 5, closed=False), curve(points[[60, 67, 66, 65, 64]], 5, closed=False)]
    )
    paint(image, lips * (0.84 * lit * (1 + texture))[..., None], 0.92 * window.fill(upper, blur=0.9))
    shine_at = points[57, 0] + head.light.direction[0] * 0.12, (points[66, 1] + points[57, 1]) / 2
    shine = 34 * head.light.diffuse * window.blob(*shine_at, 0.16, 0.05)
    paint(image, lips * (lit * (1.02 + texture))[..., None] + shine[..., None], 0.92 * window.fill(lower, blur=0.9))
    inner_top = curve(points[[60, 61, 62, 63, 64]], 4, closed=False)
    opening = np.vstack([inner_top, curve(points[[64, 65, 66, 67, 60]], 4, closed=False)])
    paint(image, _mouth_cavity(head, points, expression), window.fill(opening, blur=0.6))
    parting = np.vstack([curve(points[[48, 60]], 2, closed=False), inner_top, points[54:55]])
    darken(image, 0.52 * window.stroke(parting, 1.6, 0.8))
    for corner in (points[48], points[54]):
        darken(image, 0.30 * window.blob(corner[0], corner[1], 0.045, 0.04))
    if expression.smile > 0:
        _draw_smile_folds(image, head, expression.smile)


def _mouth_cavity(head: Head, points: Points, expression: Expression) -> Array:
    """The dark of the mouth with a row of upper teeth, over the whole lower window (H, W, 3)."""
    window = _LOWER_FACE
    cavity = np.broadcast_to(np.array(_MOUTH_CAVITY, np.float32), (*window.x.shape, 3)).copy()
    edge = points[61:64, 1].mean()
    teeth = (1 - smoothstep(edge + 0.055, edge + 0.085, window.y)) * (np.abs(window.x - points[62, 0]) < 0.27)
    teeth *= min(1.0, expression.open * 4) * (0.92 - 0.15 * np.abs(np.sin(window.x * 26)))
    lit = np.clip(window.view(head.shade), 0.35, 1.1)[..., None] * np.float32(0.85)
    paint(cavity, np.array(_TEETH, np.float32) * lit, teeth)
    return cavity


def _draw_smile_folds(image: Array, head: Head, smile: float) -> None:
    x, y = _LOWER_FACE.x, _LOWER_FACE.y
    reach = 0.46 * head.identity.mouth_width * head.identity.face_width + 0.04
    for side in (-1, 1):
        bend = x - side * (reach + 0.10 * (y - 0.55))
        darken(image, 0.22 * smile * np.exp(-((bend / 0.04) ** 2) - ((y - 0.52) / 0.17) ** 2))
