"""Who a drawn person is: some thirty numbers that do not change between frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocessing.synthetic.canvas import Array

SKIN_TONES = np.array(
    [(236, 202, 180), (224, 184, 158), (205, 160, 128), (180, 132, 98), (146, 102, 74), (108, 74, 54)], np.float32
)
HAIR_COLOURS = np.array(
    [(28, 22, 20), (52, 36, 26), (92, 62, 38), (150, 112, 68), (200, 170, 118), (120, 52, 28), (150, 148, 146)], np.float32
)
IRIS_COLOURS = np.array([(58, 36, 22), (88, 60, 32), (92, 110, 62), (70, 104, 140), (108, 120, 126)], np.float32)
HAIR_STYLES = ("straight", "parted", "long", "receding")


@dataclass(frozen=True, eq=False)
class Identity:
    """A drawn person. Lengths in canonical units, factors around 1, amounts in [0, 1], colours RGB (3,) in grey levels."""

    skin: Array
    redness: float  # amount of red on cheeks and nose
    mottle: float  # contrast of the skin's texture, 1 = usual
    hair: Array
    hair_style: str  # one of HAIR_STYLES
    hair_line: float  # y of the hair line in the middle of the forehead
    hair_volume: float  # how far the hair stands out from the skull
    iris: Array
    face_width: float  # factor
    jaw_width: float  # relative widening of the jaw
    chin_drop: float
    forehead_rise: float
    eye_spread: float  # outward shift of each eye
    eye_size: float  # factor
    eye_openness: float  # factor
    eye_tilt: float  # radians, outer corner up where positive
    brow_drop: float
    brow_thickness: float
    brow_arch: float
    nose_width: float  # factor
    nose_drop: float
    nose_height: float  # factor, towards the camera
    mouth_width: float  # factor
    mouth_drop: float
    upper_lip: float  # factor
    lower_lip: float  # factor
    lip_redness: float
    ear_size: float  # factor
    beard: float
    freckles: float
    age: float  # depth of the folds
    cheekbones: float  # factor
    shirt: Array
    texture_seed: int  # for pores, mottle, strands


def draw_identity(rng: np.random.Generator) -> Identity:
    """A random person; the order of the draws is part of the data set's format."""

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    tone = between(0, len(SKIN_TONES) - 1.001)
    base, share = int(tone), tone - int(tone)
    skin = SKIN_TONES[base] * (1 - share) + SKIN_TONES[base + 1] * share
    return Identity(
        skin=(skin * between(0.94, 1.04)).astype(np.float32),
        redness=between(0.0, 0.14),
        mottle=between(0.8, 1.2),
        hair=(HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))] * between(0.85, 1.15)).astype(np.float32),
        hair_style=HAIR_STYLES[int(rng.integers(len(HAIR_STYLES)))],
        hair_line=between(-1.12, -0.92),
        hair_volume=between(0.06, 0.22),
        iris=IRIS_COLOURS[rng.integers(len(IRIS_COLOURS))],
        face_width=between(0.93, 1.07),
        jaw_width=between(-0.10, 0.08),
        chin_drop=between(-0.07, 0.10),
        forehead_rise=between(-0.05, 0.12),
        eye_spread=between(-0.035, 0.035),
        eye_size=between(0.90, 1.15),
        eye_openness=between(0.9, 1.25),
        eye_tilt=between(-0.12, 0.10),
        brow_drop=between(-0.05, 0.05),
        brow_thickness=between(0.035, 0.075),
        brow_arch=between(-0.03, 0.04),
        nose_width=between(0.85, 1.22),
        nose_drop=between(-0.05, 0.06),
        nose_height=between(0.8, 1.2),
        mouth_width=between(0.88, 1.12),
        mouth_drop=between(-0.03, 0.04),
        upper_lip=between(0.75, 1.25),
        lower_lip=between(0.75, 1.25),
        lip_redness=between(0.25, 0.7),
        ear_size=between(0.85, 1.15),
        beard=max(0.0, between(-1.2, 0.75)),
        freckles=max(0.0, between(-1.0, 1.0)),
        age=between(0.0, 1.0),
        cheekbones=between(0.6, 1.3),
        shirt=rng.uniform(20, 220, 3).astype(np.float32),
        texture_seed=int(rng.integers(1 << 30)),
    )
