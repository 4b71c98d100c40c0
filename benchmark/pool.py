"""The launcher `local`: cells in worker processes of this machine, one for each GPU or group of cores."""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.allocator import give_back
from benchmark.config import Cell
from benchmark.launch import ATTEMPTS, BUSY, STOPPED, WARNING, Event, Job

AGAIN = "again"
"""Why a cell is not booked yet: it is started once more."""

SIGNALS = {signal.SIGINT, signal.SIGTERM}
"""What asks a launcher to stop."""


def run(job: Job) -> None:
    """Run a job's cells in worker processes of this machine; see `benchmark.launch.run_cells`."""
    _Pool(job).run()


def slots(device: str, workers: int, threads: int) -> list[str]:
    """The device of each cell that runs at the same time: with `cuda`, one GPU after the other.

    Args:
        device: torch's name of the device.
        workers: how many; 0: one for each GPU, or for each group of `threads` cores that this process may use.
        threads: of each.
    """
    import torch

    gpus = torch.cuda.device_count() if device == "cuda" else 0
    if not workers:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = gpus or (1 if device.startswith("cuda") else max(1, cores // threads))
    return [f"cuda:{i % gpus}" if gpus else device for i in range(workers)]


class _Worker:
    """One process at a time that cells are handed to, on one device; another takes its place when it dies.

    Each has an executor and a queue of its own: a process that is killed breaks the first and may leave the second locked.
    """

    def __init__(self, device: str, threads: int, stop: Any) -> None:
        self.device, self._threads, self._stop = device, threads, stop
        self.start()

    def start(self) -> None:
        """Forget a process that has died, if any; the next cell starts one."""
        context = mp.get_context("spawn")  # fork would copy torch's threads in an undefined state
        self._events: Any = context.Queue()
        self.executor = ProcessPoolExecutor(1, context, _start_worker, (self._events, self._stop, self._threads))

    def submit(self, cell: Cell, folder: Path, data: Path) -> Future[str]:
        """Hand out a cell."""
        task = (cell.model_dump(mode="json"), str(folder / cell.id), str(data), self.device, self._threads)
        # The process that this may start inherits the mask: a Ctrl-C, which the terminal sends to all, and the SIGTERM that a batch
        # system does, are for the parent alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return self.executor.submit(_run_one, *task)
        except BrokenProcessPool:  # it died with nothing to do
            self.start()
            return self.executor.submit(_run_one, *task)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def told(self) -> Iterator[Event]:
        """What the process has said since the last call."""
        while True:
            try:
                yield self._events.get_nowait()
            except queue.Empty:
                return

    def kill(self) -> None:
        """End the process at once."""
        for process in list((self.executor._processes or {}).values()):
            process.kill()


class _Pool:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.stop: Any = mp.get_context("spawn").Event()
        self.waiting = list(job.todo)
        self.attempts = {cell.id: 0 for cell in job.todo}
        devices = slots(job.device, job.workers, job.threads)[: len(job.todo)]
        self.workers = [_Worker(device, job.threads, self.stop) for device in devices]
        self.free = list(self.workers)
        self.running: dict[Future[str], tuple[Cell, _Worker]] = {}
        self.interrupted = False

    def run(self) -> None:
        """Hand out cells until none is left; the cell of a worker that died is tried again, and no other one notices."""
        with self._terminated_as_interrupted():
            self._run()

    @contextmanager
    def _terminated_as_interrupted(self) -> Iterator[None]:
        """SIGTERM, with which batch systems announce the end, is a first Ctrl-C; after one it changes nothing."""
        if threading.current_thread() is not threading.main_thread():  # there alone does Python handle signals
            yield
            return

        def interrupt(number: int, frame: object) -> None:
            if not self.interrupted:
                self.interrupted = True
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _run(self) -> None:
        try:
            while self.waiting or self.running:
                while self.waiting and self.free:
                    self._hand_out()
                done, _ = wait(self.running, timeout=0.2, return_when=FIRST_COMPLETED)
                self._forward()
                for future in done:
                    self._book(future)
        except KeyboardInterrupt:
            self.interrupted = True
            self.stop.set()
            self._wait_for_checkpoints()
            begun = {cell.id for cell, _ in self.running.values()}
            for future, (cell, _) in self.running.items():
                whole = future.done() and not future.cancelled() and future.exception() is None
                self.job.book(cell, future.result() if whole else STOPPED)
            self.job.outcome.stopped += [cell.id for cell in self.waiting if cell.id not in begun]
        finally:
            self._forward()
            for worker in self.workers:
                worker.executor.shutdown(wait=not self.stop.is_set(), cancel_futures=True)

    def _hand_out(self) -> None:
        cell, worker = self.waiting[0], self.free[0]
        self.running[worker.submit(cell, self.job.folder, self.job.data)] = (cell, worker)
        self.attempts[cell.id] += 1
        self.waiting, self.free = self.waiting[1:], self.free[1:]

    def _book(self, future: Future[str]) -> None:
        from benchmark.memory import spoils_its_process

        cell, worker = self.running[future]
        try:
            reason = future.result()
        except BrokenProcessPool:
            worker.executor.shutdown(wait=False)
            worker.start()
            reason = "its worker process was killed (out of memory?)"
            if self.attempts[cell.id] < ATTEMPTS:
                self.waiting.insert(0, cell)
                reason = AGAIN
        except Exception as error:  # of the executor, or beside the cell's own work: the other cells go on
            reason = f"{type(error).__name__}: {error}"
        if spoils_its_process(reason):
            worker.executor.shutdown(wait=False)
            worker.start()
        del self.running[future]
        self.free.append(worker)
        if reason != AGAIN:
            self.job.book(cell, reason)
            self.waiting = self.job.order(self.waiting)

    def _forward(self) -> None:
        for worker in self.workers:
            for event in worker.told():
                self.job.on_event(event)

    def _wait_for_checkpoints(self) -> None:
        try:
            for worker in self.workers:
                worker.executor.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:
            for worker in self.workers:
                worker.kill()


_events: Any = None
_stop: Any = None


def _start_worker(events: Any, stop: Any, threads: int) -> None:
    """Once per worker process: its threads, Ctrl-C and SIGTERM left to the parent, and no life without it."""
    global _events, _stop
    threading.Thread(target=_follow_parent, daemon=True).start()
    import cv2
    import torch

    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(threads)
    # Nobody reads after a Ctrl-C, and a process that ends waits for its queue to be read unless it is told not to.
    events.cancel_join_thread()
    _events, _stop = events, stop


def _follow_parent() -> None:
    """End this process when the parent has ended, however: its cell would stay locked, and the next run be refused."""
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_one(settings: dict[str, Any], folder: str, data: str, device: str, threads: int) -> str:
    """One cell in a worker process; returns "" or the reason why there is no record."""
    cell = Cell.model_validate(settings)
    last = 0.0

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last > 0.2:
            last = time.monotonic()
            _events.put(Event(cell.id, stage, done, total))

    def tell(note: str) -> None:
        _events.put(Event(cell.id, WARNING, reason=note))

    return run_one(cell, Path(folder), Path(data), device, threads, report, _stop.is_set, tell)


def run_one(
    cell: Cell,
    folder: Path,
    data: Path,
    device: str,
    threads: int,
    report: Callable[[str, int, int], None],
    should_stop: Callable[[], bool],
    tell: Callable[[str], None],
) -> str:
    """One cell in this process; returns "" or the reason why there is no record: `STOPPED`, `BUSY`, or a sentence."""
    from benchmark.mishaps import why_it_failed
    from benchmark.run import Busy, run_cell
    from benchmark.train import Stopped

    try:
        run_cell(cell, folder, data, device, threads, report, should_stop, tell=tell)
    except Stopped:
        return STOPPED
    except Busy:
        return BUSY
    except Exception as error:  # one broken cell must not end the grid
        return why_it_failed(error, folder)
    finally:
        give_back()
    return ""
