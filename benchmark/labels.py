"""What tables call a cell that was set by hand: its name and what is set otherwise than by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.config import Cell, default_base
from benchmark.specs import DetectorSpec
from detectors import DETECTORS
from optimizers import OPTIMIZERS
from optimizers.bases import BASES


def detector_label(detector: DetectorSpec) -> str:
    """Such as `meso4 size=64`; empty where all is as by default, and the name says it."""
    # Where a file of weights lies is this machine's matter; what is in it goes with the record.
    file = detector.weights_file
    settings = detector.settings | ({} if file is None else {"weights": file.name})
    words = _other(settings, DETECTORS.settings(detector.name))
    return " ".join([detector.name, *words]) if words else ""


def optimizer_label(cell: Cell) -> str:
    """Such as `sam rho=0.1 base=adam lr=0.01`; empty where all is as by default, and the name says it."""
    rule, base = cell.optimizer, cell.base
    words = _other(rule.settings, OPTIMIZERS.settings(rule.name))
    if base.name != default_base(rule.name):
        words.append(f"base={base.name}")
    words += _other(base.settings, BASES[base.name].resolve())
    return " ".join([rule.name, *words]) if words else ""


def _other(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items() if key not in defaults or defaults[key] != value]
