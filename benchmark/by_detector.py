"""`augment: dfb-by-detector`: the augmentation that DeepfakeBench's settings files switch on or off for each detector."""

from __future__ import annotations

from benchmark.reading import ConfigError

BY_DETECTOR = "dfb-by-detector"

AUGMENTED = {
    "xception": "dfb-no-rotation",  # its file sets rotate_prob to 0
    "efficientnet_b4": "dfb",
    "resnet34": "dfb",
    "spsl": "dfb",
    "ucf": "dfb",  # its loader of pairs augments whatever the file says
    "meso4": "none",
    "mesoinception4": "none",
    "core": "none",
    "recce": "none",
    "srm": "none",
    "f3net": "none",
}
"""Detector -> preset; the versions called `dfb-...` have that of their namesake. Survey rows 3.4 #8 and #9 (the detectors' YAML
files, pair_dataset.py:58-59)."""


def augmentation_of(augment: str, detector: str) -> str:
    """The preset that a protocol's `augment` means for a detector.

    Raises:
        ConfigError: it goes by the detector, and DeepfakeBench has no settings for this one.
    """
    if augment != BY_DETECTOR:
        return augment
    preset = AUGMENTED.get(detector.removeprefix("dfb-"))
    if preset is None:
        raise ConfigError(
            f"protocol.augment is {BY_DETECTOR}, but DeepfakeBench has no settings for detector '{detector}'; say augment: none,"
            " or dfb, flip, light, pim"
        )
    return preset
