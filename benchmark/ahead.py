"""Reading the next faces while the device works on these."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_END: Any = object()


def ahead(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """The same items in the same order, made by a thread of their own, at most `depth` of them before they are asked for.

    One thread makes all of them, one after the other, so random choices keep their order. An error in making an item is raised
    where the item is asked for. When the caller stops early (an error, Ctrl-C, `close`), the thread ends after the item that it
    is making.
    """
    # Two queues that are written in C, and no futures: their Python runs between two steps, where a GPU waits for it.
    wanted: SimpleQueue[bool] = SimpleQueue()
    made: SimpleQueue[tuple[T, BaseException | None]] = SimpleQueue()
    closed = threading.Event()

    def work() -> None:
        while wanted.get() and not closed.is_set():
            try:
                made.put((next(items, _END), None))
            except BaseException as error:
                made.put((_END, error))
                return

    for _ in range(depth):
        wanted.put(True)
    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            wanted.put(True)
            yield item
            item = _END  # or its memory would be held while the next one is waited for
    finally:
        closed.set()
        wanted.put(False)
        try:
            thread.join()
        except KeyboardInterrupt:  # a second Ctrl-C: the thread is at its last item
            thread.join(timeout=5.0)
            raise
