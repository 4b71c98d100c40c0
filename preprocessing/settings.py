"""The settings of a preprocessing run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.codec import FORMATS
from preprocessing.errors import PreprocessingError, did_you_mean
from preprocessing.faces import Detector

MODES = ("strict",)


@dataclass(frozen=True)
class Settings:
    """How videos become faces.

    Attributes:
        frames: frames per video, evenly spread from the first to the last.
        size: side of the aligned face in pixels.
        mode: "strict": the detector looks at the frame as it is, and at the frame enlarged twice only where it finds nothing;
            landmarks are found once, in the frame, and moved into the crop.
        image_format: "webp" or "png"; both lossless, so it does not change the fingerprint.
        predictor: a dlib shape predictor file (68 or 81 points); None for the installed 68-point one. The path is not recorded, the
            file's SHA-256 is.

    Raises:
        PreprocessingError: for a value out of range.
    """

    frames: int = 32
    size: int = 256
    mode: str = "strict"
    image_format: str = "webp"
    predictor: str | Path | None = None

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise PreprocessingError(f"frames must be at least 1, not {self.frames}")
        if not 16 <= self.size <= 4096:
            raise PreprocessingError(f"size must lie between 16 and 4096 pixels, not {self.size}")
        for what, value, known in (("mode", self.mode, MODES), ("image_format", self.image_format, FORMATS)):
            if value not in known:
                raise PreprocessingError(f"unknown {what} '{value}': {did_you_mean(value, known)}")

    def recorded(self, detector: Detector) -> dict[str, Any]:
        """What a store keeps of them; a store is continued only under equal settings."""
        return {
            "frames": self.frames,
            "size": self.size,
            "mode": self.mode,
            "image_format": self.image_format,
            "detector": dict(detector.description),
        }
