"""Where cells run: here in worker processes, or on a cluster. A cell that fails is written down and the others go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from filelock import FileLock

from benchmark.config import Cell, ConfigError
from benchmark.costs import longest_first, recorded_seconds
from benchmark.same_name import join
from benchmark.study import Study
from optimizers.registry import RegistryError, did_you_mean
from preprocessing.errors import PreprocessingError
from preprocessing.store import FaceStore
from results.files import RecordError, read_model
from results.index import GridFile, WantedCell, WantedTest, run_command, save_failure
from results.scores import lost_scores

ATTEMPTS = 2
"""How often a cell is started whose worker process died (killed for memory, say) before it is written down as failed."""

LAUNCHERS = {"local": "benchmark.pool:run", "ray": "benchmark.ray_cluster:run"}
"""Name -> "module:function" that is given a `Job`. The module is imported when it is asked for."""

MISTAKES = (ConfigError, RegistryError, PreprocessingError, RecordError)
"""What a user can mend: shown as one sentence, without a traceback."""


@dataclass(frozen=True)
class Event:
    """Something happened to a cell: `stage` is a stage's name, or `finished`, `failed` (with `reason`), `stopped`,
    `busy` (another process runs it), or `WARNING` (with a sentence as its `reason`)."""

    cell: str
    stage: str
    done: int = 0
    total: int = 0
    reason: str = ""


@dataclass
class Outcome:
    """What became of the cells."""

    skipped: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)


@dataclass
class Job:
    """What a launcher is asked to do, and where it says what became of it.

    Attributes:
        todo: cells in the order in which they are best begun.
        folder, data, device, workers, threads, on_event, address, seconds: as in `run_cells`.
        outcome: every cell of `todo` ends up in one of its lists.
        writes: whether this process writes down why a cell failed; of several that run a cell together, one does.
    """

    todo: list[Cell]
    folder: Path
    data: Path
    device: str
    workers: int
    threads: int
    on_event: Callable[[Event], None]
    address: str | None = None
    outcome: Outcome = field(default_factory=Outcome)
    seconds: Mapping[str, float] = field(default_factory=dict)
    writes: bool = True

    def order(self, cells: Iterable[Cell]) -> list[Cell]:
        """The longest first, as far as is measured by now."""
        cells = list(cells)
        return longest_first(cells, {**recorded_seconds(cells, self.folder), **self.seconds})

    def book(self, cell: Cell, reason: str) -> None:
        """Note how a cell ended: "" finished, `STOPPED`, `BUSY`, or why it failed."""
        if reason in ENDINGS:
            stage = ENDINGS[reason]
            getattr(self.outcome, stage).append(cell.id)
            self.on_event(Event(cell.id, stage))
            return
        if self.writes:
            reason = self.write_down(cell, reason)
        self.outcome.failed[cell.id] = reason
        self.on_event(Event(cell.id, "failed", reason=reason))

    def write_down(self, cell: Cell, reason: str) -> str:
        """Keep why a cell failed in its folder; returns the reason, which also says so where that was not possible."""
        target = self.folder / cell.id
        try:
            target.mkdir(parents=True, exist_ok=True)
            if not (target / "cell.yaml").exists():  # it failed before it wrote this itself; `grid retry` reads it
                from benchmark.circumstances import write_cell

                write_cell(cell, target)
            save_failure(target / "failure.json", reason)
        except OSError as error:  # a full disk, say: the other cells go on
            reason += f" (and this cannot be written down: {error.strerror})"
        return reason


STOPPED, BUSY, WARNING = "stopped", "busy", "warning"
ENDINGS = {"": "finished", STOPPED: "stopped", BUSY: "busy"}


def write_index(study: Study, folder: Path, add: bool = False) -> None:
    """Write `grid.json`: what the grid wants, so that tables can show what is missing.

    Args:
        study: the grid, or grids of one name.
        folder: `runs/<grid>`.
        add: keep the cells and tests that the file names already (single cells, trained one after the other).

    Raises:
        ConfigError: a cell that is to be added would share a row or a column with one that is not of its settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "grid.json"
    wanted = [
        WantedCell(
            id=c.id,
            detector=c.detector.title,
            optimizer=c.optimizer.title,
            seed=c.seed,
            optimizer_name=c.optimizer.name,
            part=c.part,
        )
        for c in study.wanted()
    ]
    tests = [WantedTest(name=t.name, role=t.role, part=part.part) for part in study.parts for t in part.tests]
    with FileLock(folder / ".grid.lock"):  # cells that are begun at the same time must not drop each other
        if add and path.exists():
            before: GridFile = read_model(GridFile, path, "grid", f"run `{run_command(folder.name)}`")
            for cell in study.wanted():
                before = join(cell, before, folder)
            wanted = list(({c.id: c for c in before.cells} | {c.id: c for c in wanted}).values())
            tests = list(({t.name: t for t in before.tests} | {t.name: t for t in tests}).values())
        GridFile(name=study.name, title=study.title, tests=tuple(tests), cells=tuple(wanted)).save(path)


def run_cells(
    cells: Iterable[Cell],
    folder: Path,
    data: Path,
    device: str = "cpu",
    workers: int = 1,
    threads: int = 1,
    on_event: Callable[[Event], None] = lambda event: None,
    launcher: str = "local",
    address: str | None = None,
    seconds: Mapping[str, float] | None = None,
) -> Outcome:
    """Run every cell that has no record yet, or whose scores were lost.

    Args:
        cells: what to run; begun with the longest, as far as `seconds` or the records in `folder` tell, those of this call too.
        folder: `runs/<grid>`; each cell has a folder of its own in it.
        data: folder that relative store names belong to.
        device: torch's name of the device.
        workers: cells at the same time; 0: as many as there are GPUs, or groups of `threads` cores.
        threads: of each process; a cell keeps to the number that it was begun with.
        on_event: told about progress, in this process.
        launcher: key of `LAUNCHERS`.
        address: of the cluster, for a launcher that has one.
        seconds: cell id -> what it is expected to take; from the records in `folder` where it is not given.

    Under torchrun every process calls this, and they run the cells together, one after the other (see `benchmark.together`).

    Ctrl-C, and SIGTERM to the launcher `local`, asks the workers to write a checkpoint and stop; a second Ctrl-C ends them at once
    (what is on disk stays whole).

    Raises:
        ConfigError, RecordError: a record that is there cannot be read, or was made from other data or by another plug-in.
    """
    cells = list(cells)
    done = finished(cells, folder, data)
    outcome = Outcome(skipped=[cell.id for cell in cells if cell.id in done])
    todo = [cell for cell in cells if cell.id not in done]
    job = Job(todo, folder, data, device, workers, threads, on_event, address, outcome, seconds or {})
    if todo and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        from benchmark.together import run_together

        run_together(job)
    elif todo:
        job.todo = job.order(todo)
        _launch(launcher, job)
    return outcome


def check_launcher(launcher: str, address: str | None = None) -> None:
    """Refuse a launcher that is not known, that torchrun stands in for, or that has no use for an address.

    Raises:
        ConfigError: one of these.
    """
    if launcher not in LAUNCHERS:
        raise ConfigError(f"unknown launcher '{launcher}', {did_you_mean(launcher, LAUNCHERS)}")
    if launcher != "local" and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(f"--launcher {launcher}: torchrun has started the processes already; start dfgrid without torchrun")
    if address is not None and launcher == "local":
        raise ConfigError(f"--address {address}: the launcher 'local' runs on this machine alone; take --launcher ray")


def _launch(launcher: str, job: Job) -> None:
    check_launcher(launcher, job.address)
    module, _, function = LAUNCHERS[launcher].partition(":")
    getattr(import_module(module), function)(job)


def finished(cells: Iterable[Cell], folder: Path, data: Path) -> set[str]:
    """Ids of the cells that have a record, of these data and plug-ins, and its scores. Each store is opened once.

    Of scores the footer alone is looked at; `dfgrid verify` reads them.

    Raises:
        ConfigError, RecordError: a record that cannot be read, or that was made from others.
    """
    from benchmark.circumstances import finished_record

    fingerprints: dict[str, str] = {}
    done = set()
    for cell in cells:
        if (folder / cell.id / "record.json").exists():
            for name in cell.stores():
                if name not in fingerprints:
                    fingerprints[name] = FaceStore(data / name).fingerprint
            finished_record(cell, folder / cell.id, fingerprints)
            if not lost_scores(folder / cell.id / "scores.parquet"):
                done.add(cell.id)
    return done
