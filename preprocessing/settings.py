"""The settings of a preprocessing run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from preprocessing.codec import FORMATS
from preprocessing.errors import PreprocessingError, did_you_mean
from preprocessing.faces import FACES, Detector
from preprocessing.modes import STRICT, Switches, switches_of
from preprocessing.sampling import SAMPLINGS


@dataclass(frozen=True)
class Settings:
    """How videos become faces.

    Attributes:
        frames: frames per video, evenly spread from the first to the last, where `sampling` is "fixed-number".
        size: side of the aligned face in pixels.
        mode: "strict": the detector looks at the frame as it is, and at the frame enlarged twice only where it finds nothing;
            landmarks are found once, in the frame, and moved into the crop. "dfb": as DeepfakeBench does it, frame by frame; see
            `preprocessing.modes.Switches`.
        image_format: "webp" or "png"; both lossless, so it does not change the fingerprint.
        predictor: a dlib shape predictor file (68 or 81 points); None for the installed 68-point one. The path is not recorded, the
            file's SHA-256 is.
        switches: single switches of the mode, changed: {"frame_count": "header"}.
        face: of several faces, the "largest", or with "mask-overlap" the one that the video's mask covers best (intersection over
            union); a video without a mask, a real one, gives its largest.
        sampling: "fixed-number": see `frames`; "fixed-stride": every `stride`-th frame, from the first; "every" frame.
        stride: for "fixed-stride".
        top_up: where a sampled frame gives no face, take the nearest one that does and that is nearer to it than to any other
            sampled frame, at most 5 frames away. The ledger keeps both.

    Raises:
        PreprocessingError: for a value out of range.
    """

    frames: int = 32
    size: int = 256
    mode: str = "strict"
    image_format: str = "webp"
    predictor: str | Path | None = None
    switches: Mapping[str, str] = field(default_factory=dict)
    face: str = "largest"
    sampling: str = "fixed-number"
    stride: int = 1
    top_up: bool = False

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise PreprocessingError(f"frames must be at least 1, not {self.frames}")
        if not 16 <= self.size <= 4096:
            raise PreprocessingError(f"size must lie between 16 and 4096 pixels, not {self.size}")
        if self.stride < 1:
            raise PreprocessingError(f"stride must be at least 1, not {self.stride}")
        if self.stride > 1 and self.sampling != "fixed-stride":
            raise PreprocessingError(f"a stride of {self.stride} needs the sampling 'fixed-stride', not '{self.sampling}'")
        for what, value, known in (
            ("image_format", self.image_format, FORMATS),
            ("face", self.face, FACES),
            ("sampling", self.sampling, SAMPLINGS),
        ):
            if value not in known:
                raise PreprocessingError(f"unknown {what} '{value}': {did_you_mean(value, known)}")
        switches_of(self.mode, self.switches)

    @property
    def in_force(self) -> Switches:
        """The mode's switches with the changes made to them."""
        return switches_of(self.mode, self.switches)

    def recorded(self, detector: Detector) -> dict[str, Any]:
        """What a store keeps of them; a store is continued only under equal settings.

        What came after the first stores is kept only where it differs from what they did, so that they stay comparable.
        """
        recorded: dict[str, Any] = {
            "frames": self.frames,
            "size": self.size,
            "mode": self.mode,
            "image_format": self.image_format,
            "detector": dict(detector.description),
        }
        if switches := self.in_force.beyond_strict():
            recorded["switches"] = switches
        if self.face != "largest":
            recorded["face"] = self.face
        if self.sampling != "fixed-number":
            recorded["sampling"], recorded["frames"] = self.sampling, None
        if self.sampling == "fixed-stride":
            recorded["stride"] = self.stride
        if self.top_up:
            recorded["top_up"] = True
        return recorded

    @classmethod
    def from_recorded(cls, recorded: Mapping[str, Any]) -> Settings:
        """The settings that `recorded` kept; the landmark model, of which only the hash is kept, is the caller's to find.

        Raises:
            PreprocessingError: they are of an imported store, which does not know how its faces were made, or of a later version.
        """
        if "detector" not in recorded:
            raise PreprocessingError(f"faces of the mode '{recorded.get('mode')}' do not say how they were made")
        kept = {name: value for name, value in recorded.items() if name != "detector" and value is not None}
        if unknown := set(kept) - {f.name for f in fields(cls)}:
            raise PreprocessingError(f"the settings hold '{min(unknown)}', which this dfgrid does not know; take a newer one")
        # All switches, not only those beyond strict: a mode may have been changed back to strict in some.
        return cls(**{**kept, "switches": {**asdict(STRICT), **recorded.get("switches", {})}})
