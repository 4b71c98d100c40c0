"""The launcher `ray`: cells as tasks of an existing Ray cluster, which schedules them and starts again what a lost node took along.

All nodes must see the folders of runs and stores under the same paths, and have the same dfgrid installed. Progress and the wish to
stop travel through the folder of runs. Each cell's lock is there too: a task that Ray starts a second time waits until the lost one
has let go, and goes on from its checkpoint.
"""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from benchmark import provenance
from benchmark.config import Cell, ConfigError
from benchmark.heartbeat import read_beat
from benchmark.launch import BUSY, STOPPED, WARNING, Event, Job
from benchmark.pool import run_one

RETRIES = 3
"""How often Ray starts a cell again whose worker or node was lost."""

LOST = ("WorkerCrashedError", "NodeDiedError", "LocalRayletDiedError", "OutOfMemoryError", "ObjectLostError")
"""Ray's errors, by name, about a worker or a node that is gone, perhaps with the result."""

PATIENCE = 60.0
"""Seconds that a task waits for a cell's lock: the lost worker may outlive its node by some."""

POLL = 0.5

LISTENS = 5.0
"""Seconds that a cluster's address has to take a connection."""

HOST_PORT = re.compile(r"(ray://)?(?P<host>[^/:\[\]]+|\[[^\]/]+\]):(?P<port>\d+)")
"""Addresses that name a host and a port, as the cluster's own or of its server for clients."""


def run(job: Job) -> None:
    """Run a job's cells on the cluster at `job.address`; see `benchmark.launch.run_cells`. `job.workers` is Ray's affair.

    Raises:
        ConfigError: ray is not installed, there is no cluster, or none of its nodes has what a cell asks for.
    """
    ray = _ray()
    mine = not ray.is_initialized()
    if mine:
        _connect(ray, job.address)
    token = job.folder / f".wanted-{uuid.uuid4().hex}"
    try:
        gpus = 1 if job.device.startswith("cuda") else 0
        _check_nodes(ray, job.threads, gpus)
        token.touch()
        # A process a cell: one that ran out of memory may be of no more use (see `benchmark.memory.spoils_its_process`).
        once = ray.remote(max_calls=1)(_task)
        task = once.options(num_cpus=job.threads, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=False)
        folder, data = job.folder.resolve(), job.data.resolve()
        device = "cuda" if gpus else job.device  # Ray shows each task its own GPU alone
        waiting: dict[Any, Cell] = {}
        for cell in job.todo:
            settings = cell.model_dump(mode="json")
            told = (settings, str(folder), str(data), device, job.threads, str(token.resolve()), provenance.code_hash())
            waiting[task.remote(*told)] = cell
        try:
            _follow(ray, job, waiting)
        except KeyboardInterrupt:
            token.unlink(missing_ok=True)
            _stop(ray, job, waiting)
    finally:
        token.unlink(missing_ok=True)
        if mine:
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("the launcher 'ray' needs Ray: pip install 'deepfake-grid[ray]'") from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    _check_there(address)
    try:
        ray.init(address=address or "auto", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"at {address}" if address else "here (and RAY_ADDRESS names none)"
        raise ConfigError(
            f"no Ray cluster answers {where}; start one with `ray start --head`, or name one with --address ({_first_line(error)})"
        ) from error


def _check_there(address: str | None) -> None:
    """See that something listens: Ray itself would wait for ten minutes, deaf to Ctrl-C."""
    named = address if address not in (None, "", "auto") else os.environ.get("RAY_ADDRESS", "")
    found = HOST_PORT.fullmatch(named or "")
    if found is None:  # auto, local, a name without a port: Ray looks here, and at once
        return
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), LISTENS).close()
    except (OSError, OverflowError) as error:
        by = "RAY_ADDRESS" if named != address else "--address"
        raise ConfigError(
            f"no Ray cluster answers at {named}, which {by} names ({getattr(error, 'strerror', None) or error}); start one with "
            f"`ray start --head`, or leave out {by} to take the one on this machine"
        ) from error


def _check_nodes(ray: Any, threads: int, gpus: int) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= threads and node.get("GPU", 0) >= gpus for node in nodes):
        asked = f"{threads} cores" + (" and a GPU" if gpus else "")
        raise ConfigError(f"no node of the Ray cluster has {asked} for a cell; choose other --threads or --device, or add a node")


def _follow(ray: Any, job: Job, waiting: dict[Any, Cell]) -> None:
    """Book tasks as they end, and pass on what running cells write about their progress."""
    while waiting:
        ended, _ = ray.wait(list(waiting), timeout=POLL)
        for reference in ended:
            cell = waiting[reference]
            ending = _result(ray, reference)
            del waiting[reference]
            _book(job, cell, *ending)
        _report(job, waiting)


def _report(job: Job, waiting: dict[Any, Cell]) -> bool:
    """Whether some cell runs."""
    running = False
    for cell in waiting.values():
        beat = read_beat(job.folder / cell.id)
        if beat is not None and beat.alive:
            running = True
            job.on_event(Event(cell.id, beat.stage, beat.done, beat.total))
    return running


def _stop(ray: Any, job: Job, waiting: dict[Any, Cell]) -> None:
    """Wait for the checkpoints of the cells that run, and take back the others; a second Ctrl-C waits no longer."""
    try:
        running = True
        while waiting and running:
            running = _report(job, waiting)  # asked before the wait: a cell stops to beat a moment before its task ends
            ended, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=POLL)
            for reference in ended:
                _book(job, waiting.pop(reference), *_result(ray, reference))
    except KeyboardInterrupt:
        pass
    for reference, cell in waiting.items():
        ray.cancel(reference, force=True)
        job.book(cell, STOPPED)


def _book(job: Job, cell: Cell, reason: str, notes: list[str]) -> None:
    for note in notes:
        job.on_event(Event(cell.id, WARNING, reason=note))
    job.book(cell, reason)


def _result(ray: Any, reference: Any) -> tuple[str, list[str]]:
    """How a task ended, as `run_one` says it, or why Ray has no result of it; and what it noted on the way."""
    try:
        reason, notes = ray.get(reference)
        return reason, notes
    except ray.exceptions.RayTaskError as error:  # before or after the cell itself, such as an import that fails on the node
        return f"its task failed on a node: {error.cause!s}", []
    except ray.exceptions.TaskCancelledError:
        return "its task was cancelled on the cluster, and not by this command; run the same command to go on", []
    except ray.exceptions.RayError as error:
        if isinstance(error, tuple(getattr(ray.exceptions, name) for name in LOST)):
            return f"its worker or node was lost {RETRIES + 1} times ({type(error).__name__}; out of memory?)", []
        return f"Ray has no result of its task ({_in_a_sentence(error)})", []


def _task(
    settings: dict[str, Any], folder: str, data: str, device: str, threads: int, token: str, code: str
) -> tuple[str, list[str]]:
    """One cell on a node; returns what `run_one` does, and what is to be told."""
    import cv2

    cell, runs = Cell.model_validate(settings), Path(folder)
    if not runs.is_dir():
        return (
            f"a node of the cluster sees no folder {folder}; runs and data must lie where all nodes see them under the same path",
            [],
        )
    if provenance.code_hash() != code:
        return "a node of the cluster has another version of dfgrid's code; install the same everywhere", []
    cv2.setNumThreads(1)
    wanted, notes, silent = _Wanted(Path(token)), list[str](), lambda stage, done, total: None
    deadline = time.monotonic() + PATIENCE
    while wanted.now():
        reason = run_one(cell, runs / cell.id, Path(data), device, threads, silent, wanted.no_more, notes.append)
        if reason != BUSY or time.monotonic() > deadline:
            return reason, notes
        time.sleep(1)
    return STOPPED, notes


class _Wanted:
    """Whether the token is still there, looked up once a second."""

    def __init__(self, token: Path) -> None:
        self.token, self.looked, self.there = token, float("-inf"), True

    def now(self) -> bool:
        if time.monotonic() - self.looked > 1:
            self.looked, self.there = time.monotonic(), self.token.exists()
        return self.there

    def no_more(self) -> bool:
        return not self.now()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _in_a_sentence(error: Exception) -> str:
    """An error of Ray's by its first line and, where a node's traceback follows, the last, which says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(dict.fromkeys((f"{type(error).__name__}:" if lines else type(error).__name__, *lines[:1], *lines[-1:])))
