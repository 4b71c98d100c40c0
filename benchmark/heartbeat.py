"""A running cell's sign of life: progress.json in its folder, for `dfgrid grid status` and for launchers on other machines."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

FILE = "progress.json"

SECONDS = 1.0
"""From one beat to the next."""

SILENT = 20.0
"""After so many seconds without a beat a cell counts as ended: killed, or its machine gone."""

RATE_OVER = 30.0
"""Seconds over which the rate is taken."""


@dataclass(frozen=True)
class Beat:
    """Where a running cell is.

    Attributes:
        stage, done, total: as a `Report` is told.
        rate: items a second lately; 0 where it is not known yet.
        age: seconds since the beat.
    """

    stage: str
    done: int
    total: int
    rate: float
    age: float

    @property
    def alive(self) -> bool:
        """Whether its process still beats."""
        return self.age < SILENT


class Heartbeat:
    """Writes `FILE` once a second while it is entered, in a thread, so that a long step is no silence; removes it at the end.

    Args:
        folder: the cell's.
        report: what progress is passed on to.
        writes: False in processes that write no files.
    """

    def __init__(self, folder: Path, report: Callable[[str, int, int], None], writes: bool = True) -> None:
        self.path, self._onwards, self._writes = folder / FILE, report, writes
        self._now = ("start", 0, 0)
        self._seen: deque[tuple[float, str, int]] = deque()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def report(self, stage: str, done: int, total: int) -> None:
        """Note progress, and pass it on."""
        self._now = (stage, done, total)
        self._onwards(stage, done, total)

    def __enter__(self) -> Heartbeat:
        if self._writes:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writes:
            self._end.set()
            self._thread.join()
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while True:
            self._write()
            if self._end.wait(SECONDS):
                return

    def _write(self) -> None:
        stage, done, total = self._now
        clock = time.monotonic()
        self._seen.append((clock, stage, done))
        while self._seen[0][1] != stage or clock - self._seen[0][0] > RATE_OVER:
            self._seen.popleft()
        since, _, before = self._seen[0]
        rate = (done - before) / (clock - since) if clock > since else 0.0
        content = {"stage": stage, "done": done, "total": total, "rate": rate, "beat": time.time()}
        scratch = self.path.with_name(f".{FILE}.{os.getpid()}.tmp")
        try:
            scratch.write_text(json.dumps(content), encoding="utf-8")
            scratch.replace(self.path)
        except OSError:  # a full disk is told of where it does harm: at the next checkpoint
            return


def read_beat(folder: Path) -> Beat | None:
    """The last beat of a cell, alive or not; None without one."""
    try:
        c = json.loads((folder / FILE).read_text(encoding="utf-8"))
        age = max(0.0, time.time() - float(c["beat"]))
        return Beat(str(c["stage"]), int(c["done"]), int(c["total"]), float(c["rate"]), age)
    except (OSError, ValueError, KeyError, TypeError):
        return None
