"""Joules of the device that computes, from the counters of its driver; never estimated from a data sheet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results.record import Energy

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the RAPL counters of Intel's and AMD's processors."""

GPU, PROCESSOR = "NVML, the whole GPU", "RAPL, the whole processor"

LOST = "not counted before a restart: "
"""Goes before the reason, which every further restart finds with these words in front of it."""

OFTEN = 30.0
"""Seconds between two looks at the counter, at least; RAPL's runs over in some minutes under load."""

Counter = Callable[[], float]
"""Joules since some moment of the past."""


def energy_of(state: dict[str, Any]) -> Energy:
    """What a checkpoint's run had used; unknown in one of a version that did not ask."""
    return Energy.model_validate(state.get("energy") or {"joules": None, "source": "an older version did not ask"})


class Meter:
    """Adds up what a counter says between calls of `sample`, or of `keep_up`, which whoever works calls now and then.

    Args:
        device: torch's name of the device.
        before: what the cell used before it was interrupted.
    """

    def __init__(self, device: str, before: Energy | None = None) -> None:
        self.source, self._counter = _gpu(device) if device.startswith("cuda") else processor()
        self.joules = 0.0
        self._last, self._looked = self._read(), time.monotonic()
        if before is not None:
            self.add(before)

    def add(self, before: Energy) -> None:
        """Count what the cell used before it was interrupted; from then on nothing is known if nothing was counted there."""
        if before.joules is None or before.source != self.source:
            lost = before.source.rpartition(LOST)[2] if before.joules is None else "it was counted by another counter"
            self.source, self._counter = LOST + lost, None
        else:
            self.joules += before.joules

    def keep_up(self) -> None:
        """Look at the counter if that was long ago."""
        if time.monotonic() - self._looked > OFTEN:
            self.sample()

    def sample(self) -> Energy:
        """What was used until now."""
        if self._counter is not None:
            now = self._read()
            self.joules += max(0.0, now - self._last)
            self._last, self._looked = now, time.monotonic()
        return Energy(joules=self.joules if self._counter is not None else None, source=self.source)

    def _read(self) -> float:
        if self._counter is None:
            return 0.0
        try:
            return self._counter()
        except Exception as error:  # a driver that stops answering must not end a run
            self.source, self._counter = f"the counter stopped: {type(error).__name__}", None
            return 0.0


def processor(folder: Path = POWERCAP) -> tuple[str, Counter | None]:
    """RAPL's counter, summed over packages, with its name; (why there is none, None)."""
    packages = sorted(p for p in folder.glob("*rapl:*") if p.name.count(":") == 1 and (p / "energy_uj").exists())
    if not packages:
        return "this machine shows no RAPL counter", None
    counts = [_Package(p) for p in packages]
    try:
        for count in counts:
            count()
    except OSError as error:
        return f"the RAPL counters cannot be read ({error.strerror})", None
    return PROCESSOR, lambda: math.fsum(count() for count in counts)


class _Package:
    """One package's counter, which starts again at its range."""

    def __init__(self, folder: Path) -> None:
        self.file, self.range = folder / "energy_uj", folder / "max_energy_range_uj"
        self.last, self.turns = 0, 0

    def __call__(self) -> float:
        now = int(self.file.read_text())
        if now < self.last:
            self.turns += int(self.range.read_text())
        self.last = now
        return (self.turns + now) / 1e6


def _gpu(device: str) -> tuple[str, Counter | None]:
    import torch

    try:
        import pynvml
    except ImportError:
        return "the package nvidia-ml-py is not installed", None
    try:
        pynvml.nvmlInit()
        # By its UUID: torch and NVML count differently where CUDA_VISIBLE_DEVICES is set.
        handle: Any = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except (pynvml.NVMLError, AttributeError) as error:
        return f"the driver counts no energy ({error})", None
    return GPU, lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
