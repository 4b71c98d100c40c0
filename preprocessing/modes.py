"""DeepfakeBench's way of making faces against this project's own: every difference is a switch of its own.

`strict` mends what DeepfakeBench's preprocess.py gets wrong, `dfb` repeats it frame by frame, so that its faces, and numbers
trained on them, can be compared. A store records the switches that differ from strict. Not repeated are faults that lose whole
videos' data by accident of their order or name: all masks after the first video without one, and videos of one name in two folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace

from preprocessing.errors import PreprocessingError, did_you_mean


@dataclass(frozen=True)
class Switches:
    """What happens where strict and DeepfakeBench differ; the first of `VALUES` is strict's, the second DeepfakeBench's.

    Attributes:
        frame_count: frames are spread over those counted in the "packets", or over those that OpenCV computes from the "header".
        after_damage: after a frame that cannot be read "go-on" with those behind it, or "stop": the rest of the video is lost.
        first_detection: look at the frame enlarged twice "as-needed", where nothing is seen in the frame itself, or always:
            "enlarged".
        second_detection: "none": the landmarks that aligned the face are moved into the crop. "crop": the detector looks again, at
            the enlarged crop, landmarks are those of what it finds there, and a frame is dropped where it finds nothing.
        crop_channels: the second detection sees "rgb", or red and blue exchanged, "bgr".
        crop_face: of several faces in the crop the second detection takes the "largest", or the detector's "first", the most
            confident one.
        similarity: the alignment's arithmetic: "float64", or mostly "float32", as skimage calculates.
        inside: with "half" a face is refused of whose landmarks fewer than half lie inside the frame; "any" is taken.
    """

    frame_count: str = "packets"
    after_damage: str = "go-on"
    first_detection: str = "as-needed"
    second_detection: str = "none"
    crop_channels: str = "rgb"
    crop_face: str = "largest"
    similarity: str = "float64"
    inside: str = "half"

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value not in VALUES[name]:
                raise PreprocessingError(f"switch {name} is '{value}': {did_you_mean(value, VALUES[name])}")
        if self.second_detection == "none" and (self.crop_channels, self.crop_face) != ("rgb", "largest"):
            raise PreprocessingError(
                "switches crop_channels and crop_face say how the second detection works; they need second_detection=crop"
            )

    def beyond_strict(self) -> dict[str, str]:
        """The switches that differ from strict: what a store records."""
        strict = asdict(STRICT)
        return {name: value for name, value in asdict(self).items() if value != strict[name]}


VALUES: dict[str, tuple[str, str]] = {
    "frame_count": ("packets", "header"),
    "after_damage": ("go-on", "stop"),
    "first_detection": ("as-needed", "enlarged"),
    "second_detection": ("none", "crop"),
    "crop_channels": ("rgb", "bgr"),
    "crop_face": ("largest", "first"),
    "similarity": ("float64", "float32"),
    "inside": ("half", "any"),
}
STRICT = Switches()
DFB = Switches(**{name: values[1] for name, values in VALUES.items()})
MODES = {"strict": STRICT, "dfb": DFB}


def switches_of(mode: str, changes: Mapping[str, str]) -> Switches:
    """A mode's switches, some of them changed.

    Raises:
        PreprocessingError: for a mode, switch or value that does not exist.
    """
    if mode not in MODES:
        raise PreprocessingError(f"unknown mode '{mode}': {did_you_mean(mode, MODES)}")
    known = [field.name for field in fields(Switches)]
    for name in changes:
        if name not in known:
            raise PreprocessingError(f"unknown switch '{name}': {did_you_mean(name, known)}")
    switches = MODES[mode]
    if changes.get("second_detection") == STRICT.second_detection:
        # What the mode says of how it works says nothing without it; what the user says of it is refused.
        switches = replace(switches, **{name: getattr(STRICT, name) for name in ("second_detection", "crop_channels", "crop_face")})
    return replace(switches, **changes)


def parse_switches(words: Iterable[str]) -> dict[str, str]:
    """`name=value` words as a command line gives them; a hyphen in a name counts as an underscore.

    Raises:
        PreprocessingError: for a word of another form.
    """
    changes = {}
    for word in words:
        name, found, value = word.partition("=")
        if not found:
            raise PreprocessingError(f"switch '{word}' must read name=value, e.g. frame_count=header; known: {', '.join(VALUES)}")
        changes[name.strip().replace("-", "_")] = value.strip()
    return changes
