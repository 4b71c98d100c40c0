"""How far a run is, beside its weights: what a checkpoint keeps of it and a run that goes on takes back."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

import torch
from torch import Tensor

from benchmark import provenance
from benchmark.energy import Meter, energy_of
from results.record import Measure


class Progress:
    """What a run has measured, noted and spent so far.

    Args:
        device: torch's name of the device, whose energy is counted.

    Attributes:
        measures: of every evaluation.
        curve: (step, mean training loss since the evaluation before it).
        pending: the loss of each step since the last evaluation, 0-dim.
        notes: sentences for the record's warnings.
        begun: when the run did, in UTC.
        restarts: how often it went on from a checkpoint.
        meter: of energy.
        cpus: models of the processors that it ran on, the present one last.
    """

    def __init__(self, device: str) -> None:
        self.measures: list[Measure] = []
        self.curve: list[tuple[int, float]] = []
        self.pending: list[Tensor] = []
        self.notes: list[str] = []
        self.begun, self.restarts, self.meter = datetime.now(timezone.utc), 0, Meter(device)
        self.cpus = [provenance.cpu()]
        self._started, self._before = time.monotonic(), 0.0

    def seconds(self) -> float:
        """Spent on the cell, over all its restarts."""
        return self._before + time.monotonic() - self._started

    def state(self) -> dict[str, Any]:
        """All of it for a checkpoint, as plain values."""
        return {
            "notes": self.notes,
            "measures": [m.model_dump(mode="json") for m in self.measures],
            "curve": self.curve,
            "pending": [float(loss) for loss in self.pending],
            "begun": self.begun.isoformat(),
            "seconds": self.seconds(),
            "restarts": self.restarts,
            "energy": self.meter.sample().model_dump(),
            "cpus": self.cpus,
        }

    def take_back(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, one restart later."""
        self.notes = state["notes"]
        self.measures = [Measure.model_validate(m) for m in state["measures"]]
        self.curve = [(int(step), float(loss)) for step, loss in state["curve"]]
        self.pending = [torch.tensor(loss, dtype=torch.float64) for loss in state["pending"]]
        self.begun, self._before = datetime.fromisoformat(state["begun"]), state["seconds"]
        self.restarts = state.get("restarts", 0) + 1
        self.meter.add(energy_of(state))
        self.cpus = [*(cpu for cpu in state.get("cpus", []) if cpu not in self.cpus), *self.cpus]

    def close_curve(self, step: int) -> float:
        """Mean loss of the steps since the last evaluation, which ends them."""
        loss = float(torch.stack([p.double().cpu() for p in self.pending]).mean())
        self.pending = []
        self.curve.append((step, loss))
        return loss
