"""A trained detector out of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import checkpoint
from benchmark.allocator import keep_memory
from benchmark.config import ConfigError
from benchmark.specs import DetectorSpec
from detectors import DETECTORS
from detectors.base import Detector
from detectors.layout import channels_last
from optimizers.registry import RegistryError


@dataclass(frozen=True)
class Restored:
    """A detector as it was at a step of its training.

    Attributes:
        detector: on its device, in evaluation mode.
        name: its label in the grid, else its registry name.
        step: optimizer steps until then.
        faces: the settings that its training faces were made with, as their store keeps them; None in checkpoints that are too old.
        notes: what their store notes of them.
    """

    detector: Detector
    name: str
    step: int
    faces: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def restore(path: Path, device: str = "cpu") -> Restored:
    """Build the detector of a checkpoint and load its weights. Plug-ins that it comes from must have been loaded.

    Raises:
        ConfigError: no file, no checkpoint of ours, another format, a detector that is not registered or has changed since.
    """
    state = checkpoint.load(path)
    try:
        spec = DetectorSpec.model_validate(state["cell"]["detector"])
        weights, step = state["detector"], int(state["step"])
        faces, notes = _faces(state["faces"]) if "faces" in state else (None, ())
    except KeyError as error:
        raise ConfigError(f"{path} is no checkpoint of a dfgrid cell: it lacks its {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no checkpoint of a dfgrid cell: {str(error).splitlines()[0]}") from error
    # The weights come from the checkpoint; the file or the download that training began with need not be here.
    keep_memory(device)
    try:
        detector: Detector = DETECTORS.build(spec.name, **spec.without_weights)
    except RegistryError as error:
        raise ConfigError(f"{path} holds a detector that cannot be built: {error} (a plug-in's needs --plugin FILE)") from error
    try:
        detector.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ConfigError(
            f"{path} does not fit detector '{spec.name}', which has changed since it was trained: {reason}"
        ) from error
    channels_last(detector.to(device))
    return Restored(detector.eval(), spec.title, step, faces, notes)


def _faces(kept: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    settings = kept["settings"]
    if not isinstance(settings, dict) or not isinstance(settings.get("mode"), str):
        raise ValueError("it does not say in which mode its training faces were made")
    return settings, tuple(map(str, kept["notes"]))
