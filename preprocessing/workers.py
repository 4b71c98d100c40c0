"""Worker processes that survive bad input: one task in flight each, a crash is pinned to the task that caused it."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar

from preprocessing.errors import PreprocessingError

Task = TypeVar("Task")
Result = TypeVar("Result")


class Crash:
    """In place of a result: the task killed its process twice."""

    def __init__(self, exitcode: int | None) -> None:
        self.exitcode = exitcode


class _Worker(Generic[Task]):
    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")  # fork is unsafe under the threads of OpenCV and torch
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.task: Task | None = None
        self.tries = 0

    def give(self, task: Task, tries: int = 1) -> None:
        self.task, self.tries = task, tries
        with contextlib.suppress(OSError):  # it died meanwhile: the pipe's end is met when waiting
            self.connection.send(task)

    def stop(self) -> int | None:
        self.connection.close()
        self.process.terminate()
        self.process.join()
        return self.process.exitcode


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    # Ctrl-C reaches every process of the terminal; the parent alone decides, and closes the pipes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        connection.send(("ready", None))
        while True:
            task = connection.recv()
            try:
                for answer in _answers(work(task)):
                    connection.send(answer)
            except PreprocessingError as error:
                connection.send(("refused", str(error)))
            except Exception:
                connection.send(("failed", traceback.format_exc()))
    except (EOFError, OSError):
        return  # the parent is gone or needs no more


def _answers(parts: Iterator[Any]) -> Iterator[tuple[str, Any]]:
    """The last part is marked, so that the parent gives the next task before it looks at it."""
    held = next(parts)
    for part in parts:
        yield "part", held
        held = part
    yield "done", held


def parallel(
    work: Callable[[Task], Iterator[Result]], tasks: Iterable[Task], workers: int
) -> Generator[tuple[Task, Result | Crash], None, None]:
    """Do tasks in `workers` processes; results come in order of completion.

    At most one task per worker is in flight and none is queued, so memory does not grow with the number of tasks. Closing the
    generator (or an exception in its consumer) ends the processes.

    Args:
        work: picklable, one for each process. It gives the result in parts, one at least; a process holds two of them at most.
        tasks: picklable.
        workers: number of processes.

    Yields:
        (task, part) for every part in order, or (task, Crash) where the task ended two processes in a row. After a first such end
        the parts come again from the first.

    Raises:
        PreprocessingError: as raised by `work`; or where a process is killed from outside, as it is when memory runs out.
        RuntimeError: if `work` raises anything else (the traceback is in the text), or processes do not start.
    """
    waiting = iter(tasks)
    pool: dict[Connection, _Worker[Task]] = {}
    try:
        for task in waiting:
            worker: _Worker[Task] = _Worker(work)
            pool[worker.connection] = worker
            worker.give(task)
            if len(pool) == workers:
                break
        started: set[Connection] = set()
        while pool:
            for connection in wait(list(pool)):
                assert isinstance(connection, Connection)
                worker = pool[connection]
                try:
                    kind, value = connection.recv()
                except (EOFError, OSError):
                    del pool[connection]
                    replacement, crash = _bury(worker, work, connection in started)
                    assert worker.task is not None
                    if replacement is None:
                        yield worker.task, crash
                        replacement = _next(waiting, work)
                    if replacement is not None:
                        pool[replacement.connection] = replacement
                    continue
                if kind == "ready":
                    started.add(connection)
                    continue
                if kind == "part":
                    assert worker.task is not None
                    yield worker.task, value
                    continue
                if kind == "refused":
                    raise PreprocessingError(value)
                if kind == "failed":
                    raise RuntimeError(f"error in a worker process, at {worker.task}:\n{value}")
                finished = worker.task
                assert finished is not None
                following = next(waiting, None)
                if following is None:
                    del pool[connection]
                    worker.stop()
                else:
                    worker.give(following)
                yield finished, value
    finally:
        for worker in pool.values():
            worker.stop()


def _next(waiting: Iterator[Task], work: Callable[[Task], Any]) -> _Worker[Task] | None:
    task = next(waiting, None)
    if task is None:
        return None
    worker: _Worker[Task] = _Worker(work)
    worker.give(task)
    return worker


def _bury(dead: _Worker[Task], work: Callable[[Task], Any], started: bool) -> tuple[_Worker[Task] | None, Crash]:
    """A new worker at the same task, or none where the task has had its two tries."""
    dead.process.join()
    exitcode = dead.process.exitcode
    dead.connection.close()
    assert dead.task is not None
    if not started:
        raise RuntimeError(
            f"a worker process ended before it began (exit code {exitcode}); is the caller's script guarded by __main__?"
        )
    if exitcode == -signal.SIGKILL:
        raise PreprocessingError("a worker process was killed, perhaps because memory ran out; run again with fewer workers")
    if dead.tries >= 2:
        return None, Crash(exitcode)
    worker: _Worker[Task] = _Worker(work)
    worker.give(dead.task, dead.tries + 1)
    return worker, Crash(exitcode)
