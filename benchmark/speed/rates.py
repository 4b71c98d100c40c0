"""Faces per second that were measured: ways of running a detector, a file of them, and what is faster than what."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from benchmark.speed.paired import median

COLUMNS = ("detector", "size", "batch", "who", "does", "precision", "channels", "compiled", "rates", "machine", "torch", "date")


@dataclass(frozen=True)
class Way:
    """One way of running one detector."""

    who: str
    training: bool
    precision: str
    channels_last: bool
    compiled: bool

    def __str__(self) -> str:
        words = ("train" if self.training else "infer", self.precision, "last" if self.channels_last else "first")
        return f"{self.who:5} {' '.join(f'{w:5}' for w in words)} {'compiled' if self.compiled else 'eager'}"


@dataclass(frozen=True)
class Measured:
    """One way of one detector.

    Attributes:
        detector: our name; the peer's network is the one beside it.
        size: side of the faces, px.
        batch: faces at once.
        way: who did what, and how.
        rates: faces per second, a number for each round; none where the way fails.
        machine: the GPU, or the CPU and torch's number of threads.
        torch: its version.
        date: of the measurement.
    """

    detector: str
    size: int
    batch: int
    way: Way
    rates: tuple[float, ...]
    machine: str
    torch: str
    date: str


ROBUST = 9
"""Rounds from which on a round that something interrupted cannot widen the interval of a ratio: two of them can be left out."""


@dataclass(frozen=True)
class Ratio:
    """The middle of paired ratios with its 95 % interval; without one where there is a single pair."""

    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.low:.2f}–{self.high:.2f})"


def compared(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """How many times as fast `ours` is as `theirs`, round by round: the median and its interval where there are `ROBUST` rounds."""
    if len(ours) < ROBUST:
        return geometric(ours, theirs)
    found = median([a / b for a, b in zip(ours, theirs, strict=True)])
    return Ratio(found.value, found.low, found.high)


def geometric(ours: Iterable[float], theirs: Iterable[float]) -> Ratio:
    """The geometric mean of the rounds' ratios, and Student's interval of the logarithms.

    A dozen ways of running every network leave time for 5 rounds of each on a CPU, and no order statistics of 5 hold a median with
    95 % (`benchmark.speed.paired` needs 6). This supposes logarithms that scatter like a normal law's.
    """
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return Ratio(math.exp(mean), math.nan, math.nan)
    reach = float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


def write(file: Path, measured: Iterable[Measured]) -> None:
    """Add rows to a CSV file, which is made if it is not there."""
    new = not file.exists()
    with file.open("a", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        if new:
            rows.writerow(COLUMNS)
        for m in measured:
            does, channels = "train" if m.way.training else "infer", "last" if m.way.channels_last else "first"
            rates = " ".join(f"{rate:.6g}" for rate in m.rates)
            how = (m.way.who, does, m.way.precision, channels, "yes" if m.way.compiled else "no")
            rows.writerow((m.detector, m.size, m.batch, *how, rates, m.machine, m.torch, m.date))


def read(file: Path) -> list[Measured]:
    """The rows of such a file."""
    with file.open(encoding="utf-8", newline="") as stream:
        return [
            Measured(
                detector=row["detector"],
                size=int(row["size"]),
                batch=int(row["batch"]),
                way=Way(row["who"], row["does"] == "train", row["precision"], row["channels"] == "last", row["compiled"] == "yes"),
                rates=tuple(map(float, row["rates"].split())),
                machine=row["machine"],
                torch=row["torch"],
                date=row["date"],
            )
            for row in csv.DictReader(stream)
        ]
