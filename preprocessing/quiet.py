"""Keeps OpenCV, and what it was built with, from writing to the terminal: what they complain of ends in the ledger as a reason."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_lock = threading.Lock()
_users = 0
_kept = -1


def quiet_opencv() -> None:
    """Silence OpenCV's log and that of the FFmpeg inside it, in this process; call before a video is opened.

    What the user has set in OPENCV_LOG_LEVEL or OPENCV_FFMPEG_LOGLEVEL stays. PyAV keeps FFmpeg's log to itself unless asked.
    """
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read when OpenCV first opens a video


@contextmanager
def no_stderr() -> Iterator[None]:
    """What is written to the process's standard error inside is dropped: libjpeg and libpng know no other way to be silenced.

    Threads may be inside together; the last to leave gives standard error back.
    """
    global _users, _kept
    with _lock:
        if _users == 0:
            _kept = _drop()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0 and _kept >= 0:
                os.dup2(_kept, 2)
                os.close(_kept)


def _drop() -> int:
    """Point standard error nowhere; a descriptor of where it pointed, or -1 where the process has none."""
    try:
        kept = os.dup(2)
    except OSError:
        return -1
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return kept
