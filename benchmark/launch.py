"""Where cells run: here, in worker processes. A cell that fails is written down and the others go on."""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.config import Cell, ConfigError
from benchmark.study import Study
from optimizers.registry import RegistryError
from preprocessing.errors import PreprocessingError
from preprocessing.store import FaceStore
from results.index import GridFile, GridIndex, WantedCell, WantedTest, save_failure
from results.record import RecordError

ATTEMPTS = 2
"""How often a cell is started whose worker process died (killed for memory, say) before it is written down as failed."""

MISTAKES = (ConfigError, RegistryError, PreprocessingError, RecordError)
"""What a user can mend: shown as one sentence, without a traceback."""


@dataclass(frozen=True)
class Event:
    """Something happened to a cell: `stage` is a stage's name, or `finished`, `failed` (with `reason`), `stopped`,
    `busy` (another process runs it)."""

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


def write_index(study: Study, folder: Path, add: bool = False) -> None:
    """Write `grid.json`: what the grid wants, so that tables can show what is missing.

    Args:
        study: the grid, or grids of one name.
        folder: `runs/<grid>`.
        add: keep the cells and tests that the file names already (single cells, trained one after the other).
    """
    folder.mkdir(parents=True, exist_ok=True)
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
    if add and (folder / "grid.json").exists():
        before = GridIndex.read(folder).grid
        wanted = [*(c for c in before.cells if c.id not in {w.id for w in wanted}), *wanted]
        tests = [*(t for t in before.tests if t.name not in {n.name for n in tests}), *tests]
    GridFile(name=study.name, title=study.title, tests=tuple(tests), cells=tuple(wanted)).save(folder / "grid.json")


def run_cells(
    cells: Iterable[Cell],
    folder: Path,
    data: Path,
    device: str = "cpu",
    workers: int = 1,
    threads: int = 1,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Outcome:
    """Run every cell that has no record yet.

    Args:
        cells: what to run, in this order.
        folder: `runs/<grid>`; each cell has a folder of its own in it.
        data: folder that relative store names belong to.
        device: torch's name of the device.
        workers: processes.
        threads: of each process; a cell keeps to the number that it was begun with.
        on_event: told about progress, in this process.

    Under torchrun every process calls this, and they run the cells together, one after the other (see `benchmark.together`).

    Ctrl-C asks the workers to write a checkpoint and stop; a second one ends them at once (what is on disk stays whole).

    Raises:
        ConfigError, RecordError: a record that is there cannot be read, or was made from other data or by another plug-in.
    """
    cells = list(cells)
    done = finished(cells, folder, data)
    outcome = Outcome(skipped=[cell.id for cell in cells if cell.id in done])
    todo = [cell for cell in cells if cell.id not in done]
    if todo and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        _run_together(todo, folder, data, device, threads, on_event, outcome)
    elif todo:
        _Pool(todo, folder, data, device, workers, threads, on_event, outcome).run()
    return outcome


def _run_together(
    todo: list[Cell],
    folder: Path,
    data: Path,
    device: str,
    threads: int,
    on_event: Callable[[Event], None],
    outcome: Outcome,
) -> None:
    from benchmark.together import run_together

    def ended(cell: Cell, how: str) -> None:
        (outcome.finished if how == "finished" else outcome.stopped).append(cell.id)
        on_event(Event(cell.id, how))

    def report(cell: Cell) -> Callable[[str, int, int], None]:
        return lambda stage, done, total: on_event(Event(cell.id, stage, done, total))

    run_together(todo, folder, data, device, threads, report, ended)


def finished(cells: Iterable[Cell], folder: Path, data: Path) -> set[str]:
    """Ids of the cells that have a record, of these data and plug-ins. Each store is opened once.

    Raises:
        ConfigError, RecordError: a record that cannot be read, or that was made from others.
    """
    from benchmark.run import finished_record

    fingerprints: dict[str, str] = {}
    done = set()
    for cell in cells:
        if (folder / cell.id / "record.json").exists():
            for name in cell.stores():
                if name not in fingerprints:
                    fingerprints[name] = FaceStore(data / name).fingerprint
            finished_record(cell, folder / cell.id, fingerprints)
            done.add(cell.id)
    return done


class _Pool:
    def __init__(
        self,
        todo: list[Cell],
        folder: Path,
        data: Path,
        device: str,
        workers: int,
        threads: int,
        on_event: Callable[[Event], None],
        outcome: Outcome,
    ) -> None:
        self.folder, self.data, self.device, self.on_event, self.outcome = folder, data, device, on_event, outcome
        self.workers = min(workers, len(todo))
        self.threads = threads
        self.running: dict[Future[str], Cell] = {}
        context = mp.get_context("spawn")  # fork would copy torch's threads in an undefined state
        self.context = context
        self.events: Any = context.Queue()
        self.stop: Any = context.Event()
        self.attempts = {cell.id: 0 for cell in todo}
        self.todo = todo

    def run(self) -> None:
        while self.todo and not self.stop.is_set():
            pool = ProcessPoolExecutor(self.workers, self.context, _start_worker, (self.events, self.stop, self.threads))
            try:
                self._drain(pool)
            except KeyboardInterrupt:
                self.stop.set()
                self._wait_for_checkpoints(pool)
                for future, cell in self.running.items():
                    whole = future.done() and not future.cancelled() and future.exception() is None
                    self._book(cell, future.result() if whole else STOPPED)
                self.outcome.stopped += [cell.id for cell in self.todo]
            finally:
                pool.shutdown(wait=not self.stop.is_set(), cancel_futures=True)

    def _drain(self, pool: ProcessPoolExecutor) -> None:
        """Hand out cells until none is left or the pool breaks; the cells of a broken pool are tried again."""
        waiting, self.todo, self.running = self.todo, [], {}
        broken = False
        try:
            while self.running or (waiting and not broken):
                while waiting and len(self.running) < self.workers and not broken:
                    self._submit(pool, waiting.pop(0))
                done, _ = wait(self.running, timeout=0.2, return_when=FIRST_COMPLETED)
                self._forward()
                for future in done:
                    cell = self.running.pop(future)
                    try:
                        self._book(cell, future.result())
                    except BrokenProcessPool:
                        broken = True
                        if self.attempts[cell.id] < ATTEMPTS:
                            waiting.insert(0, cell)
                        else:
                            self._fail(cell, "its worker process was killed (out of memory?)")
        finally:
            self.todo = waiting

    def _submit(self, pool: ProcessPoolExecutor, cell: Cell) -> None:
        self.attempts[cell.id] += 1
        task = (cell.model_dump(mode="json"), str(self.folder / cell.id), str(self.data), self.device, self.threads)
        # The process that this may start inherits the mask: a Ctrl-C, which the terminal sends to all, is for the parent alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.running[pool.submit(_run_one, *task)] = cell
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _book(self, cell: Cell, reason: str) -> None:
        if not reason:
            self.outcome.finished.append(cell.id)
            self.on_event(Event(cell.id, "finished"))
        elif reason == STOPPED:
            self.outcome.stopped.append(cell.id)
            self.on_event(Event(cell.id, "stopped"))
        elif reason == BUSY:
            self.outcome.busy.append(cell.id)
            self.on_event(Event(cell.id, "busy"))
        else:
            self._fail(cell, reason)

    def _fail(self, cell: Cell, reason: str) -> None:
        target = self.folder / cell.id
        target.mkdir(parents=True, exist_ok=True)
        save_failure(target / "failure.json", reason)
        self.outcome.failed[cell.id] = reason
        self.on_event(Event(cell.id, "failed", reason=reason))

    def _forward(self) -> None:
        while True:
            try:
                self.on_event(self.events.get_nowait())
            except queue.Empty:
                return

    def _wait_for_checkpoints(self, pool: ProcessPoolExecutor) -> None:
        processes = list((pool._processes or {}).values())
        try:
            pool.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:
            for process in processes:
                process.kill()


STOPPED, BUSY = "stopped", "busy"
_events: Any = None
_stop: Any = None


def _start_worker(events: Any, stop: Any, threads: int) -> None:
    """Once per worker process: its threads, Ctrl-C left to the parent, and no life without it."""
    global _events, _stop
    threading.Thread(target=_follow_parent, daemon=True).start()
    import cv2
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(threads)
    _events, _stop = events, stop


def _follow_parent() -> None:
    """End this process when the parent has ended, however: its cell would stay locked, and the next run be refused."""
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_one(settings: dict[str, Any], folder: str, data: str, device: str, threads: int) -> str:
    """One cell in a worker process; returns "" or the reason why there is no record."""
    from benchmark.evaluate import Diverged
    from benchmark.run import Busy, run_cell
    from benchmark.train import Stopped

    cell = Cell.model_validate(settings)
    last = 0.0

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last > 0.2:
            last = time.monotonic()
            _events.put(Event(cell.id, stage, done, total))

    try:
        run_cell(cell, Path(folder), Path(data), device, threads, report, _stop.is_set)
    except Stopped:
        return STOPPED
    except Busy:
        return BUSY
    except (*MISTAKES, Diverged) as error:
        return str(error)
    except Exception as error:  # one broken cell must not end the grid; the whole story is in its folder
        import traceback

        Path(folder, "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return f"{type(error).__name__}: {error} (see {cell.id}/traceback.txt)"
    return ""
