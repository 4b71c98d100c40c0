"""How a checkpoint's training faces were made, so that the faces of other videos and images are made the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.config import ConfigError
from benchmark.specs import TestSet, TrainData
from preprocessing.faces import Dlib
from preprocessing.modes import MODES
from preprocessing.predictor import find_predictor
from preprocessing.settings import Settings
from preprocessing.work import Work

Recorded = Mapping[str, Any]
"""A store's settings, as its store.json keeps them."""


@dataclass(frozen=True)
class Making:
    """How faces are made.

    Attributes:
        work: the settings and the detector.
        said: both in words.
        warnings: a sentence for every way in which these faces are, or may be, other than those of the training.
    """

    work: Work
    said: str
    warnings: tuple[str, ...] = ()


def settings_like(
    trained: Recorded | None,
    checkpoint: str,
    *,
    mode: str | None = None,
    switches: Mapping[str, str] | None = None,
    predictor: Path | None = None,
    frames: int | None = None,
) -> Making:
    """Make faces as a checkpoint's training faces were made, but for what is asked for otherwise.

    Args:
        trained: settings of the training store; None where the checkpoint does not keep them.
        checkpoint: what messages call it.
        mode: another mode.
        switches: single switches, changed.
        predictor: a landmark model's file; None takes the installed one.
        frames: another number of frames per video, evenly spread.

    Raises:
        ConfigError: nobody knows how the training faces were made and neither a mode nor a switch is given; or they were made with
            a landmark model that is not the installed one, and none is given.
        PreprocessingError: a mode, switch or file that does not exist.
    """
    changes = dict(switches or {})
    if trained is not None and _imported(trained) and mode is None and not changes:
        raise ConfigError(
            f"{checkpoint} was trained on faces that were {_mode(trained)}, whose files do not say how they were made; say it with"
            " --mode: dfb for those of its own preprocessing (with its 81-point model as --predictor), or strict"
        )
    settings = Settings() if trained is None or _imported(trained) else Settings.from_recorded(trained)
    if mode is not None:
        settings = replace(settings, mode=mode, switches=changes)
    elif changes:
        settings = replace(settings, switches={**settings.switches, **changes})
    if frames is not None:
        settings = replace(settings, frames=frames, sampling="fixed-number", stride=1)
    file = find_predictor(predictor)
    detector = Dlib(file)
    if predictor is None and trained is not None and not _imported(trained) and trained["detector"] != detector.description:
        raise ConfigError(
            f"{checkpoint} was trained on faces made with {_model(trained)}, but the installed {file.name} is"
            f" {_model({'detector': detector.description})}; give that of the training with --predictor, or --predictor {file} to"
            " score other faces than those of the training"
        )
    recorded = settings.recorded(detector)
    return Making(Work(settings, detector), in_words(recorded), tuple(_warnings(trained, recorded, checkpoint)))


def _warnings(trained: Recorded | None, recorded: Recorded, checkpoint: str) -> list[str]:
    if trained is None:
        return [
            f"{checkpoint} does not say how its training faces were made; these are made with {in_words(recorded)}. Compare with"
            " 'dfgrid store info' of its training store, and give --mode, --switch and --predictor where that differs"
        ]
    if not (differing := differences(trained, recorded)):
        return []
    then, now = differing
    return [f"{checkpoint} was trained on other faces than these: {then} there, {now} here; its scores may suffer"]


def face_warnings(train: TrainData, tests: Sequence[TestSet], settings: Mapping[str, Recorded]) -> list[str]:
    """Sentences about test sets whose faces were made otherwise than the training faces.

    Args:
        train: the training data.
        tests: the test sets.
        settings: name of a store -> the settings that its faces were made with.
    """
    found = {}
    for test in tests:
        if differing := differences(settings[train.store], settings[test.store]):
            then, now = differing
            found[test.store] = f"store {test.store} has other faces than training store {train.store}: {now} there, {then} here"
    return list(found.values())


def differences(one: Recorded, other: Recorded) -> tuple[str, str] | None:
    """In words, that in which the faces of two settings differ, for each; None where a frame gives the same face.

    Which frames are sampled, and which of several faces is taken, does not count.
    """
    differing = [(a, b) for a, b in zip(_parts(one), _parts(other), strict=True) if a != b and a and b]
    if not differing:
        return None
    first, second = (", ".join(part) for part in zip(*differing, strict=True))
    return first, second


def in_words(recorded: Recorded) -> str:
    """The settings as a phrase: "mode strict, 256 pixels, landmark model fbdc2cb80eb9"."""
    return ", ".join(filter(None, _parts(recorded)))


def _parts(recorded: Recorded) -> list[str]:
    """Mode, size and landmark model; the last two are empty where an imported store does not know them."""
    return [_mode(recorded), f"{recorded['size']} pixels" if "size" in recorded else "", _model(recorded)]


def _mode(recorded: Recorded) -> str:
    if _imported(recorded):
        return str(recorded["mode"])
    switches, mode = recorded.get("switches", {}), recorded["mode"]
    of_mode = MODES[mode].beyond_strict() if mode in MODES else {}
    changed = [f"{name}={value}" for name, value in switches.items() if of_mode.get(name) != value]
    changed += [f"{name}={getattr(MODES['strict'], name)}" for name in of_mode if name not in switches]
    return f"mode {mode}" + (f" with {', '.join(sorted(changed))}" if changed else "")


def _model(recorded: Recorded) -> str:
    detector = dict(recorded.get("detector", {}))
    if "predictor_sha256" in detector:
        return f"landmark model {detector['predictor_sha256'][:12]}"
    return f"detector {detector['name']}" if detector else ""


def _imported(recorded: Recorded) -> bool:
    # Preprocessing always records its face detector; an import has none.
    return "detector" not in recorded
