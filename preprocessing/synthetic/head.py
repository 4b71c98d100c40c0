"""A head under one light: what stays the same in all frames of a video, painted once on the canonical canvas.

Height field -> normals -> wrapped Lambert and Blinn-Phong shading, times an albedo with pores, mottle, freckles and beard, times
hand-placed ambient occlusion; then ears and hair (hair.py). Eyes, brows and mouth are added per frame by features.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from preprocessing.synthetic import hair
from preprocessing.synthetic.canvas import (
    COLUMNS,
    PIXELS_PER_UNIT,
    ROWS,
    WHOLE,
    Array,
    Points,
    X,
    Y,
    curve,
    darken,
    noise,
    paint,
    smoothstep,
)
from preprocessing.synthetic.identity import Identity
from preprocessing.synthetic.landmarks import JAW, LEFT_EYE, NOSE_BASE, OUTER_LIPS, RIGHT_EYE, Expression, place

SIDES = (-1, 1)


@dataclass(frozen=True, eq=False)
class Light:
    """One lamp and an even surrounding: unit vector towards the lamp (x, y, z) and strengths as fractions of full white."""

    direction: Array
    ambient: float
    diffuse: float
    specular: float


class Head:
    """The painted head of `identity` under `light`.

    Attributes:
        texture (ROWS, COLUMNS, 3): shaded colour in grey levels, without eyes, brows and mouth.
        opacity (ROWS, COLUMNS): 1 inside the head, 0 outside.
        depth (ROWS, COLUMNS): height towards the camera in units.
        shade (ROWS, COLUMNS): light received, as a factor of albedo.
        grain (ROWS, COLUMNS): fine unit-variance noise for brows and lips.
    """

    def __init__(self, identity: Identity, light: Light) -> None:
        self.identity, self.light = identity, light
        rng = np.random.default_rng(identity.texture_seed)
        points = place(identity, Expression())
        skull_top = -1.42 - identity.forehead_rise
        face = WHOLE.fill(_outline(points, skull_top), blur=0.9)
        self.depth = _depth(identity, points)
        pores = noise(rng, 0.8)
        normals = _normals(self.depth, pores)
        diffuse, gloss = _reflections(normals, light)
        self.shade = light.ambient + light.diffuse * diffuse
        skin = _albedo(identity, face, pores, rng) * (self.shade * _occlusion(identity, points))[..., None]
        skin += (255 * light.specular * light.diffuse) * gloss[..., None]
        ears = _ear_coverage(identity)
        self.texture = _ear_colour(identity, light)
        paint(self.texture, skin, face)
        strands = hair.strands(rng)
        covered = hair.coverage(identity, skull_top, strands)
        darken(self.texture, 0.35 * cv2.GaussianBlur(covered, (0, 0), 3.5) * face)  # the shadow that the hair casts on the forehead
        lit = light.ambient + light.diffuse * np.clip(0.45 + 0.45 * diffuse, 0, 1)
        paint(self.texture, hair.colour(identity, strands, lit, gloss), covered)
        self.opacity: Array = np.maximum(np.maximum(face, ears), covered)
        self.grain = noise(rng, 0.7)


def _outline(points: Points, skull_top: float) -> Points:
    """The face's outline: the jaw landmarks closed by half an ellipse over the skull."""
    angle = np.linspace(np.pi, 2 * np.pi, 15)[1:-1]
    x, y = points[16]
    skull = np.stack([x * 1.02 * np.cos(angle), y + (y - skull_top) * np.sin(angle)], 1)
    return curve(np.vstack([points[JAW], skull[::-1]]), 4)


def _eye_centres(points: Points) -> tuple[tuple[int, Points], tuple[int, Points]]:
    return (-1, points[LEFT_EYE].mean(0)), (1, points[RIGHT_EYE].mean(0))


def _depth(identity: Identity, points: Points) -> Array:
    """An ellipsoid with a nose, eye sockets and balls, cheekbones, brow ridge, folds, lips and chin."""
    ellipsoid = 1 - (X / (1.12 * identity.face_width)) ** 2 - ((Y + 0.12) / 1.62) ** 2
    z = 0.95 * np.sqrt(np.clip(ellipsoid, 0.0025, None))
    z += _nose_depth(identity, points)
    blob = WHOLE.blob
    base, width = points[NOSE_BASE.start + 2, 1], identity.nose_width * identity.face_width
    for side, eye in _eye_centres(points):
        z += 0.085 * identity.nose_height * blob(side * 0.17 * width, base - 0.07, 0.075 * width, 0.085)
        z -= 0.13 * blob(eye[0] - side * 0.02, eye[1] - 0.03, 0.27, 0.17)
        z += 0.075 * blob(eye[0], eye[1], 0.17, 0.11)
        z += 0.07 * identity.cheekbones * blob(side * 0.56 * identity.face_width, 0.16, 0.26, 0.24)
        z += 0.05 * blob(side * 0.36, eye[1] - 0.28, 0.28, 0.10)
        z -= 0.03 * identity.age * blob(side * 0.40 * identity.face_width, 0.52, 0.05, 0.22)
    lips = points[OUTER_LIPS, 1].mean()
    z += 0.07 * blob(0, lips, 0.36, 0.24) - 0.04 * blob(0, lips + 0.30, 0.2, 0.06)
    z += 0.09 * blob(0, points[8, 1] - 0.17, 0.22, 0.16) - 0.02 * blob(0, base + 0.08, 0.045, 0.08)
    return cv2.GaussianBlur(z.astype(np.float32), (0, 0), 1.2).astype(np.float32)


def _nose_depth(identity: Identity, points: Points) -> Array:
    tip, base = points[30, 1], points[33, 1]
    profile = smoothstep(-0.45, tip, Y) * (1 - smoothstep(tip + 0.02, base + 0.05, Y))
    half_width = 0.085 * identity.nose_width * identity.face_width + 0.06 * np.clip(Y + 0.3, 0, 0.8)
    extent = smoothstep(-0.5, -0.2, Y) * (1 - smoothstep(base - 0.05, base + 0.1, Y))
    return identity.nose_height * (0.04 + 0.26 * profile) * np.exp(-((X / half_width) ** 2)) * extent


def _normals(depth: Array, pores: Array) -> Array:
    """Unit normals (3, ROWS, COLUMNS) of the height field, roughened by pores."""
    per_unit = PIXELS_PER_UNIT / 8  # a 3x3 Sobel kernel sums to 8 times the derivative per pixel
    slope_x = cv2.Sobel(depth, cv2.CV_32F, 1, 0, ksize=3) * per_unit + pores * 0.035
    slope_y = cv2.Sobel(depth, cv2.CV_32F, 0, 1, ksize=3) * per_unit + np.roll(pores, 1, 0) * 0.035
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    return np.stack([-slope_x / length, -slope_y / length, 1 / length])


def _reflections(normals: Array, light: Light) -> tuple[Array, Array]:
    """Wrapped Lambert and Blinn-Phong (exponent 22) terms, each (ROWS, COLUMNS) in [0, 1]."""
    halfway = light.direction + np.array((0, 0, 1), np.float32)
    halfway /= np.linalg.norm(halfway)
    facing_lamp = (normals * light.direction[:, None, None]).sum(
        0
    )  # spelled out: a BLAS product may differ from machine to machine
    facing_half = (normals * halfway[:, None, None]).sum(0)
    return np.clip((facing_lamp + 0.25) / 1.25, 0, 1), np.clip(facing_half, 0, 1) ** 22


def _albedo(identity: Identity, face: Array, pores: Array, rng: np.random.Generator) -> Array:
    """Skin colour (ROWS, COLUMNS, 3): pores, mottle of two sizes, redness, freckles, beard shadow."""
    variation = 1 + 0.018 * noise(rng, 9) + 0.02 * pores + 0.035 * identity.mottle * noise(rng, 2.2)
    skin = identity.skin * variation[..., None]
    blob = WHOLE.blob
    for side in SIDES:
        cheek = blob(side * 0.52 * identity.face_width, 0.22, 0.25, 0.2)
        paint(skin, identity.skin * (1.02, 0.74, 0.72), 1.6 * identity.redness * cheek)
    paint(skin, identity.skin * (1.02, 0.78, 0.74), identity.redness * blob(0, 0.25, 0.14, 0.12))
    if identity.freckles > 0.4:
        spots = cv2.GaussianBlur((rng.random((ROWS, COLUMNS)) > 0.985).astype(np.float32), (0, 0), 0.9) * 2.2
        where = np.clip(blob(-0.45, 0.1, 0.4, 0.3) + blob(0.45, 0.1, 0.4, 0.3), 0, 1)
        paint(skin, identity.skin * (0.78, 0.64, 0.55), np.clip(spots, 0, 1) * 0.5 * identity.freckles * where)
    if identity.beard > 0.05:
        region = smoothstep(0.30, 0.62, Y + 0.25 * np.abs(X)) * face * (1 - blob(0, 0.05, 0.42, 0.38))
        stubble = np.clip(0.6 + 0.35 * noise(rng, 0.8), 0, 1)
        paint(skin, identity.hair * 0.9, np.clip(region * stubble * identity.beard * 0.95, 0, 0.9))
    return skin


def _occlusion(identity: Identity, points: Points) -> Array:
    """The share of light that reaches the skin: less in sockets, under the nose, in folds and at the rim; at least 0.25."""
    blob = WHOLE.blob
    base, lips = points[33, 1], points[OUTER_LIPS, 1].mean()
    width = identity.nose_width * identity.face_width
    lost = np.zeros((ROWS, COLUMNS), np.float32)
    for side, eye in _eye_centres(points):
        lost += 0.30 * blob(eye[0] - side * 0.10, eye[1] - 0.09, 0.16, 0.085) + 0.14 * blob(eye[0], eye[1] + 0.13, 0.2, 0.06)
        lost += 0.55 * blob(side * 0.085 * width, base - 0.025, 0.05 * width, 0.032)
        lost += 0.22 * blob(side * 0.225 * width, base - 0.06, 0.03, 0.075)
        fold = np.exp(-(((X - side * (0.27 * width + 0.22 * (Y - base + 0.1))) / 0.045) ** 2))
        extent = smoothstep(base - 0.15, base, Y) * (1 - smoothstep(lips - 0.03, lips + 0.13, Y))
        lost += (0.10 + 0.18 * identity.age) * fold * extent
    lost += 0.20 * blob(0, base + 0.03, 0.16 * width, 0.04) + 0.22 * blob(0, points[57, 1] + 0.06, 0.2, 0.045)
    lost += 0.25 * smoothstep(0.80, 1.02, np.abs(X) / identity.face_width) * smoothstep(-0.5, 0.4, Y)
    return np.clip(1 - lost, 0.25, 1)


def _ear_coverage(identity: Identity) -> Array:
    ear = np.array([(1.0, -0.32), (1.10, -0.36), (1.155, -0.25), (1.13, -0.05), (1.08, 0.12), (1.03, 0.16), (0.97, 0.0)])
    left, right = (WHOLE.fill(curve(ear * (side * identity.face_width, identity.ear_size)), blur=0.9) for side in SIDES)
    return np.maximum(left, right)


def _ear_colour(identity: Identity, light: Light) -> Array:
    colour = identity.skin * np.array((0.80, 0.70, 0.66), np.float32) * np.float32(light.ambient + light.diffuse * 0.55)
    image = np.broadcast_to(colour, (ROWS, COLUMNS, 3)).astype(np.float32)
    for side in SIDES:
        darken(image, 0.35 * WHOLE.blob(side * 1.08 * identity.face_width, -0.12 * identity.ear_size, 0.03, 0.14))
    return image
