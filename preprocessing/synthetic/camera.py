"""The camera that photographs a scene: white balance, defocus, gamma and sensor noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from preprocessing.synthetic.canvas import Array

Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera. `balance` (3,) are factors per colour, `blur` is the defocus in pixels, `noise` the grain in grey levels."""

    balance: Array
    blur: float
    gamma: float
    noise: float

    @classmethod
    def draw(cls, rng: np.random.Generator, blur: Range, noise: Range) -> Camera:
        """A random camera with defocus and noise in the given ranges."""
        balance = rng.uniform(0.94, 1.06, 3).astype(np.float32)
        return cls(balance, float(rng.uniform(*blur)), float(rng.uniform(0.92, 1.1)), float(rng.uniform(*noise)))

    def expose(self, view: Array) -> Array:
        """A noiseless picture (H, W, 3) in [0, 255] of `view` (H, W, 3)."""
        light = cv2.GaussianBlur(np.clip(view * self.balance, 0, 255), (0, 0), self.blur)
        return 255 * (light / 255) ** np.float32(self.gamma)

    def grain(self, rng: np.random.Generator, picture: Array) -> Array:
        """Sensor noise (H, W, 3) for `picture`: brightness per pixel, colour in 2x2 blocks, stronger where it is bright."""
        height, width = picture.shape[:2]
        brightness = rng.standard_normal((height, width, 1), dtype=np.float32)
        colour = cv2.resize(rng.standard_normal((height // 2, width // 2, 3), dtype=np.float32), (width, height))
        strength = 0.7 + 0.5 * np.sqrt(np.clip(picture, 0, 255) / 255)
        return np.float32(0.8 * self.noise) * (brightness + colour) * strength
