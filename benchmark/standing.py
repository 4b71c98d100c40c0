"""How far a grid is: every cell's state, and when the rest will be done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from benchmark.config import Cell
from benchmark.heartbeat import FILE, Beat, read_beat
from benchmark.reading import read_yaml
from results.index import FAILURE, NOT_RUN, GridIndex, failure
from results.scores import lost_scores

State = Literal["done", "running", "failed", "interrupted", "waiting"]
STATES: tuple[State, ...] = ("done", "running", "failed", "interrupted", "waiting")


@dataclass(frozen=True)
class CellStanding:
    """One cell.

    Attributes:
        id: of the cell.
        state: "interrupted" has a checkpoint, or a record whose scores are lost, and no process that beats.
        detail: of a running cell its stage, of a failed one the reason.
        seconds: of a finished cell what it took; of another what is expected to be left, None where nothing tells.
    """

    id: str
    state: State
    detail: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Standing:
    """A grid: its cells in order."""

    cells: tuple[CellStanding, ...]

    def count(self, state: State) -> int:
        """How many cells are in a state."""
        return sum(cell.state == state for cell in self.cells)

    @property
    def over(self) -> bool:
        """Whether nothing runs."""
        return not self.count("running")

    @property
    def left(self) -> float | None:
        """Seconds until the running and waiting cells are done, by as many processes as run now; None where nothing tells."""
        open_ = [cell for cell in self.cells if cell.state in ("running", "waiting", "interrupted")]
        known = [cell.seconds for cell in open_ if cell.seconds is not None]
        if not open_ or len(known) < len(open_):
            return None if open_ else 0.0
        return max(max(known), sum(known) / max(1, self.count("running")))


def standing(folder: Path) -> Standing:
    """Read the state of runs/<grid>.

    Raises:
        RecordError: no such folder, or its grid.json is missing or broken.
    """
    # Before the records: a cell that ends in between has written its record before its beat is gone.
    beats = {path.parent.name: read_beat(path.parent) for path in folder.glob(f"*/{FILE}")}
    index = GridIndex.read(folder, averages=False)
    took: dict[tuple[str, str], list[float]] = {}
    for record in index.records.values():
        took.setdefault((record.detector.title, record.optimizer.title), []).append(record.provenance.seconds)
    everything = [seconds for times in took.values() for seconds in times]
    everything = everything or [s for wanted in index.grid.cells if (s := _whole(beats.get(wanted.id))) is not None]
    found: dict[str, CellStanding] = {}
    for wanted in index.grid.cells:
        expected = fmean(took.get((wanted.detector, wanted.optimizer), everything) or [float("nan")])
        beat = beats.get(wanted.id)
        found[wanted.id] = _cell(folder / wanted.id, index, beat, None if expected != expected else expected)
    return Standing(tuple(found.values()))


def _cell(folder: Path, index: GridIndex, beat: Beat | None, expected: float | None) -> CellStanding:
    name = folder.name
    recorded = index.records.get(name)
    lost = lost_scores(folder / "scores.parquet") if recorded else ""
    if recorded and not lost:
        return CellStanding(name, "done", seconds=recorded.provenance.seconds)
    if beat is not None and beat.alive:
        return CellStanding(name, "running", in_words(beat), _left(beat, expected))
    if recorded and (folder / FAILURE).exists():
        return CellStanding(name, "failed", failure(folder))
    if recorded:
        return CellStanding(name, "interrupted", f"recorded, but its scores.parquet {lost}; to be made anew", expected)
    reason = index.reasons[name]
    if reason.startswith("failed") or (folder / "record.json").exists():
        return CellStanding(name, "failed", reason.removeprefix("failed: "))
    if reason == NOT_RUN and beat is None:
        return CellStanding(name, "waiting", seconds=expected)
    return CellStanding(name, "interrupted", _after(reason), expected)


def _after(reason: str) -> str:
    """What a reason tells beyond that the cell was interrupted, as its state says that."""
    return "" if reason == NOT_RUN else reason.removesuffix(" (or still running)").removeprefix("interrupted").strip()


def _whole(beat: Beat | None) -> float | None:
    """Seconds that a running cell's training takes at its rate: all that tells of the others until one is done."""
    return beat.total / beat.rate if beat is not None and beat.alive and beat.stage == "train" and beat.rate else None


def in_words(beat: Beat) -> str:
    """`train 120/400, 3.1/s`."""
    rate = f", {beat.rate:.2g}/s" if beat.rate else ""
    return beat.stage + (f" {beat.done}/{beat.total}" if beat.total else "") + rate


def _left(beat: Beat, expected: float | None) -> float | None:
    if beat.stage == "train" and beat.rate:
        return (beat.total - beat.done) / beat.rate
    return expected


def cells_to_retry(folder: Path, failed_only: bool) -> tuple[list[Cell], list[str]]:
    """The failed cells, and the interrupted ones too unless `failed_only`, from their own cell.yaml; and a sentence for each whose
    cell.yaml is missing or cannot be read.

    Raises:
        RecordError: no such grid.
    """
    wanted = ("failed",) if failed_only else ("failed", "interrupted")
    found, unread = [], []
    for cell in standing(folder).cells:
        if cell.state in wanted:
            path = folder / cell.id / "cell.yaml"
            try:
                found.append(Cell.model_validate(read_yaml(path)))
            except ValueError as error:
                unread.append(f"{path} cannot be read ({str(error).splitlines()[0]}); run the grid itself again")
    return found, unread
