"""A scene: one drawn person moving in front of a background, under one light and one camera; the original of a video."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from preprocessing.synthetic import features
from preprocessing.synthetic.camera import Camera, Range
from preprocessing.synthetic.canvas import (
    LEFT,
    PIXELS_PER_UNIT,
    SUBPIXEL_BITS,
    TOP,
    Array,
    Points,
    curve,
    darken,
    paint,
    smoothstep,
)
from preprocessing.synthetic.head import Head, Light
from preprocessing.synthetic.identity import draw_identity
from preprocessing.synthetic.landmarks import Expression, as_dlib_sees
from preprocessing.synthetic.streams import stream

SECONDS_PER_FRAME = 3 / 25  # people move three frames' worth from one kept frame to the next: short files with varied frames
_PIVOT_DEPTH = 0.55  # the axis of yaw and pitch lies this deep in the head, in units
_SHOULDERS = [(-0.62, 0.6), (-0.62, 1.35), (-0.75, 1.62), (-1.7, 1.95), (-2.2, 2.6), (-2.2, 4)]


@dataclass(frozen=True)
class Style:
    """The ranges that one data set's scenes are drawn from; `size` is the frame's side in pixels."""

    name: str
    size: int
    face_scale: Range  # pixels per canonical unit, relative to the frame's side
    blur: Range  # pixels
    noise: Range  # grey levels
    lamp_side: float  # largest sideways slope of the lamp's direction
    ambient: Range
    turn: float  # factor on the head's rotations
    colourfulness: float  # saturation of backgrounds


@dataclass(frozen=True)
class Pose:
    """Rotations in radians, shifts in pixels."""

    yaw: float
    pitch: float
    roll: float
    x: float
    y: float


class Scene:
    """One video's world, drawn from `seed`, `style` and `number`; frames are rendered on demand.

    Attributes: `style`, `number`, `seed`, `identity`, `light`, `head`, `camera`; `size`, the frame's side in pixels; `scale`,
    pixels per unit.
    """

    def __init__(self, style: Style, number: int, seed: int) -> None:
        self.style, self.number, self.seed, self.size = style, number, seed, style.size
        self.identity = draw_identity(stream(seed, style.name, number, "identity"))
        rng = stream(seed, style.name, number, "scene")
        self.light = _draw_light(rng, style)
        self.head = Head(self.identity, self.light)
        self.camera = Camera.draw(rng, style.blur, style.noise)
        self.scale = style.size * float(rng.uniform(*style.face_scale))
        self._centre = style.size * (np.array((0.5, 0.52)) + rng.uniform(-0.03, 0.03, 2))
        self._background = _draw_background(rng, style)
        self._phase, self._rate = rng.uniform(0, 2 * np.pi, 11), rng.uniform(0.6, 1.6, 11)
        self._talk, self._mood, self._blink_at = float(rng.uniform(0.3, 1.0)), float(rng.uniform(-0.25, 0.6)), int(rng.integers(23))
        turns = rng.uniform((0.04, 0.02, 0.01), (0.17, 0.09, 0.07)) * style.turn
        self._reach = np.concatenate([turns, rng.uniform((0.4, 0.2), (1.8, 1.0))])
        rows, columns = np.mgrid[0 : style.size, 0 : style.size].astype(np.float32)
        self._columns, self._rows = columns, rows
        self._photographs: dict[int, tuple[Array, Points]] = {}

    def expression(self, frame: int) -> Expression:
        """What the person does in `frame`."""
        talk = 0.42 + 0.35 * self._wave(0, 1.9, frame) + 0.35 * self._wave(1, 3.1, frame)
        return Expression(
            open=float(np.clip(self._talk * talk, 0, 1)),
            smile=float(np.clip(self._mood + 0.3 * self._wave(2, 0.5, frame), -0.4, 1)),
            brow=float(np.clip(0.2 + 0.5 * self._wave(3, 0.6, frame), -0.3, 1)),
            blink=0.9 if (frame + self._blink_at) % 23 == 0 else 0.0,
            gaze_x=0.7 * self._wave(4, 0.4, frame),
            gaze_y=0.4 * self._wave(5, 0.4, frame),
        )

    def pose(self, frame: int) -> Pose:
        """How the head is held in `frame`."""
        rates = (0.35, 0.4, 0.3, 0.4, 0.4)
        return Pose(*(float(reach * self._wave(6 + i, rates[i], frame)) for i, reach in enumerate(self._reach)))

    def render(self, frame: int, expression: Expression | None = None, head: Head | None = None) -> tuple[Array, Points]:
        """The noiseless picture of `frame` (size, size, 3), grey levels in [0, 255], and the landmarks (68, 2) in its pixels.

        `expression` and `head` stand in for the scene's own: another face under this scene's light, pose and camera.
        """
        expression, head, pose = expression or self.expression(frame), head or self.head, self.pose(frame)
        texture, points = features.draw(head, expression)
        view = self._background.copy()
        self._paint_body(view, pose)
        column, row = self._canvas_position(head, pose, expression)
        opacity = cv2.remap(head.opacity, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        paint(view, cv2.remap(texture, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), opacity)
        return self.camera.expose(view), self._project(head, pose, as_dlib_sees(points))

    def add_grain(self, picture: Array, frame: int, amount: float = 1.0, label: str = "original") -> Array:
        """`picture` with `amount` times the camera's noise; `label` and `frame` choose the noise."""
        rng = stream(self.seed, self.style.name, self.number, "grain", label, frame)
        return picture + np.float32(amount) * self.camera.grain(rng, picture)

    def photograph(self, frame: int) -> tuple[Array, Points]:
        """The picture of `frame` (size, size, 3) as the camera delivers it, in [0, 255], and its landmarks (68, 2).

        Kept, since the original and every forgery of a scene need it; do not write to it.
        """
        if frame not in self._photographs:
            picture, points = self.render(frame)
            self._photographs[frame] = np.clip(self.add_grain(picture, frame), 0, 255), points
        return self._photographs[frame]

    def _wave(self, index: int, rate: float, frame: int) -> float:
        return float(np.sin(2 * np.pi * SECONDS_PER_FRAME * frame * self._rate[index] * rate + self._phase[index]))

    def _canvas_position(self, head: Head, pose: Pose, expression: Expression) -> tuple[Array, Array]:
        """For each pixel of the frame the canvas pixel (column, row) that it shows, each (size, size)."""
        cos, sin = np.cos(pose.roll) / self.scale, np.sin(pose.roll) / self.scale
        x, y = self._columns - np.float32(self._centre[0] + pose.x), self._rows - np.float32(self._centre[1] + pose.y)
        flat_x, flat_y = x * np.float32(cos) + y * np.float32(sin), y * np.float32(cos) - x * np.float32(sin)
        across, down = flat_x, flat_y
        for _ in range(3):  # fixed point of: position = (seen position - parallax at that position) / foreshortening
            seen = cv2.remap(head.depth, *_pixels(across, down), cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0.05)
            z = seen - np.float32(_PIVOT_DEPTH)
            across = (flat_x - z * np.float32(np.sin(pose.yaw))) / np.float32(np.cos(pose.yaw))
            down = (flat_y - z * np.float32(np.sin(pose.pitch))) / np.float32(np.cos(pose.pitch))
        if expression.open > 0.01:
            down = down - np.float32(0.16 * expression.open) * _jaw_share(across, down)
        return _pixels(across, down)

    def _project(self, head: Head, pose: Pose, points: Points) -> Points:
        """Canonical points (N, 2) -> frame pixels (N, 2)."""
        column, row = _pixels(*points.T.astype(np.float32)[:, None])
        z = cv2.remap(head.depth, column, row, cv2.INTER_LINEAR)[0] - _PIVOT_DEPTH
        x = points[:, 0] * np.cos(pose.yaw) + z * np.sin(pose.yaw)
        y = points[:, 1] * np.cos(pose.pitch) + z * np.sin(pose.pitch)
        cos, sin = np.cos(pose.roll) * self.scale, np.sin(pose.roll) * self.scale
        return np.stack([x * cos - y * sin, x * sin + y * cos], 1) + self._centre + (pose.x, pose.y)

    def _paint_body(self, view: Array, pose: Pose) -> None:
        """Neck, shoulders and shirt; they follow the head's shift by 60 %."""
        centre = self._centre + 0.6 * np.array((pose.x, pose.y))
        outline = curve([*_SHOULDERS, *((-x, y) for x, y in _SHOULDERS[::-1])])
        mask = np.zeros((self.size, self.size), np.uint8)
        fixed = np.round((outline * self.scale + centre) * (1 << SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        top = max(0, int(centre[1] + 0.55 * self.scale))
        body = cv2.GaussianBlur(mask, (0, 0), 0.8)[top:].astype(np.float32) / 255
        x, y = (self._columns[top:] - np.float32(centre[0])) / self.scale, (self._rows[top:] - np.float32(centre[1])) / self.scale
        lit = x * np.sign(self.light.direction[0])
        colour = np.empty((*x.shape, 3), np.float32)
        colour[:] = self.identity.skin * (self.light.ambient + self.light.diffuse * 0.62)
        darken(colour, 0.48 * np.exp(-(((y - 1.15) / 0.42) ** 2)) + 0.25 * np.clip(0.1 - lit, 0, 0.6))  # the chin's shadow
        shirt = self.identity.shirt * (self.light.ambient + self.light.diffuse * (0.55 + 0.25 * np.clip(lit, -1, 1)))[..., None]
        paint(colour, shirt, smoothstep(1.50, 1.60, y - 0.28 * np.clip(0.55 - np.abs(x), 0, 1)))
        paint(view[top:], colour, body)


def _pixels(x: Array, y: Array) -> tuple[Array, Array]:
    return (x - np.float32(LEFT)) * np.float32(PIXELS_PER_UNIT), (y - np.float32(TOP)) * np.float32(PIXELS_PER_UNIT)


def _jaw_share(x: Array, y: Array) -> Array:
    """How much a point follows the jaw when it drops; the mouth itself does not, as it is drawn open already."""
    jaw = np.clip((y - 0.75) / 0.55, 0, 1) * np.clip(1.4 - np.abs(x), 0, 1)
    return jaw * (1 - np.exp(-((x / 0.5) ** 2) - ((y - 0.75) / 0.33) ** 2))


def _draw_light(rng: np.random.Generator, style: Style) -> Light:
    slopes = rng.uniform((-style.lamp_side, -0.75), (style.lamp_side, -0.15))
    direction = np.array((*slopes, 1), np.float32)
    direction /= np.linalg.norm(direction)
    return Light(direction, float(rng.uniform(*style.ambient)), float(rng.uniform(0.58, 0.80)), float(rng.uniform(0.03, 0.12)))


def _draw_background(rng: np.random.Generator, style: Style) -> Array:
    """An out-of-focus room (size, size, 3): a vertical gradient, soft rectangles and discs, and a woven texture."""
    size = style.size

    def colour() -> Array:
        drawn = rng.uniform(40, 215, 3).astype(np.float32)
        return drawn.mean() + np.float32(style.colourfulness) * (drawn - drawn.mean())

    down = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    room = np.ascontiguousarray(np.broadcast_to(colour() * (1 - down) + colour() * down, (size, size, 3)))
    for _ in range(int(rng.integers(4, 12))):
        x, y, width, height = (size * np.concatenate([rng.uniform(-0.2, 1, 2), rng.uniform(0.1, 0.6, 2)])).astype(int).tolist()
        if rng.random() < 0.7:
            cv2.rectangle(room, (x, y), (x + width, y + height), colour().tolist(), -1)
        else:
            cv2.circle(room, (x, y), width // 2, colour().tolist(), -1)
    soft = cv2.GaussianBlur(room, (0, 0), float(rng.uniform(2, 6)))
    weave = cv2.resize(rng.standard_normal((size // 3, size // 3), dtype=np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return soft + float(rng.uniform(1, 5)) * weave[..., None]
