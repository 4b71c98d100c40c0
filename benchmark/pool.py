"""The launcher `local`: cells in worker processes of this machine, one for each GPU or group of cores."""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from benchmark.config import Cell
from benchmark.launch import ATTEMPTS, BUSY, MISTAKES, STOPPED, Event, Job


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


class _Pool:
    def __init__(self, job: Job) -> None:
        self.job, self.outcome = job, job.outcome
        self.free = slots(job.device, job.workers, job.threads)[: len(job.todo)]
        self.workers, self.threads = len(self.free), job.threads
        self.on_device: dict[str, str] = {}
        self.running: dict[Future[str], Cell] = {}
        context = mp.get_context("spawn")  # fork would copy torch's threads in an undefined state
        self.context = context
        self.events: Any = None
        self.stop: Any = context.Event()
        self.attempts = {cell.id: 0 for cell in job.todo}
        self.todo = job.todo

    def run(self) -> None:
        while self.todo and not self.stop.is_set():
            # A queue for each pool: a worker that is killed while it writes leaves its queue locked for all others.
            self.events = self.context.Queue()
            pool = ProcessPoolExecutor(self.workers, self.context, _start_worker, (self.events, self.stop, self.threads))
            try:
                self._drain(pool)
            except KeyboardInterrupt:
                self.stop.set()
                self._wait_for_checkpoints(pool)
                for future, cell in self.running.items():
                    whole = future.done() and not future.cancelled() and future.exception() is None
                    self.job.book(cell, future.result() if whole else STOPPED)
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
                    self.free.append(self.on_device.pop(cell.id))
                    try:
                        self.job.book(cell, future.result())
                    except BrokenProcessPool:
                        broken = True
                        if self.attempts[cell.id] < ATTEMPTS:
                            waiting.insert(0, cell)
                        else:
                            self.job.book(cell, "its worker process was killed (out of memory?)")
        finally:
            self.todo = waiting

    def _submit(self, pool: ProcessPoolExecutor, cell: Cell) -> None:
        self.attempts[cell.id] += 1
        device = self.on_device[cell.id] = self.free.pop(0)
        job = self.job
        task = (cell.model_dump(mode="json"), str(job.folder / cell.id), str(job.data), device, self.threads)
        # The process that this may start inherits the mask: a Ctrl-C, which the terminal sends to all, is for the parent alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.running[pool.submit(_run_one, *task)] = cell
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _forward(self) -> None:
        while True:
            try:
                self.job.on_event(self.events.get_nowait())
            except queue.Empty:
                return

    def _wait_for_checkpoints(self, pool: ProcessPoolExecutor) -> None:
        processes = list((pool._processes or {}).values())
        try:
            pool.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:
            for process in processes:
                process.kill()


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

    return run_one(cell, Path(folder), Path(data), device, threads, report, _stop.is_set)


def run_one(
    cell: Cell,
    folder: Path,
    data: Path,
    device: str,
    threads: int,
    report: Callable[[str, int, int], None],
    should_stop: Callable[[], bool],
) -> str:
    """One cell in this process; returns "" or the reason why there is no record: `STOPPED`, `BUSY`, or a sentence."""
    from benchmark.evaluate import Diverged
    from benchmark.run import Busy, run_cell
    from benchmark.train import Stopped

    try:
        run_cell(cell, folder, data, device, threads, report, should_stop)
    except Stopped:
        return STOPPED
    except Busy:
        return BUSY
    except (*MISTAKES, Diverged) as error:
        return str(error)
    except Exception as error:  # one broken cell must not end the grid; the whole story is in its folder
        import traceback

        (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return f"{type(error).__name__}: {error} (see {cell.id}/traceback.txt)"
    return ""
