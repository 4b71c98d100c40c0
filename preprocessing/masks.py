"""The masks of a video's frames, read beside them and held one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from preprocessing.frames import FrameIndex, Image, UnreadableVideo, index_frames

Read = Callable[[Path, FrameIndex, Iterable[int]], Iterator[tuple[int, Image | None]]]


class Masks:
    """Masks by frame number, asked for in rising order, save for a few steps back.

    Args:
        path: the mask video.
        numbers: the frames that may be asked for.
        read: `read_frames` or `read_as_opencv`.
    """

    def __init__(self, path: Path, numbers: Iterable[int], read: Read) -> None:
        self._error, self._recent, self._ended = "", dict[int, Image](), False
        try:
            self._frames = read(path, index_frames(path), numbers)
        except UnreadableVideo as error:
            self._error = str(error)

    def at(self, number: int, shape: tuple[int, ...]) -> tuple[Image | None, str]:
        """The mask (H, W, 3) of a frame of `shape`, or None and why."""
        if self._error:
            return None, self._error
        while not self._ended and number > max(self._recent, default=-1):
            found, mask = next(self._frames, (-1, None))
            if mask is None:  # the missing ones come last
                self._ended = True
                break
            self._recent[found] = mask
            if len(self._recent) > KEPT:
                del self._recent[min(self._recent)]
        if number not in self._recent:
            return None, "frame missing or damaged"
        mask = self._recent[number]
        return (mask, "") if mask.shape == shape else (None, "another size than the video")


KEPT = 11
"""Masks held: of a frame's stand-ins, those before it are asked for after those behind it."""
