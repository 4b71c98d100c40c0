"""The largest face of dlib's detector, without looking at every scale: the same box as from the whole pyramid, for less work.

The detector looks for faces of one size, 73 pixels, in a pyramid of images, each five sixths of the one before; the first and
largest images take most of the time and show the smallest faces. Where the face of the frame before says which levels matter, only
those are searched, and what the finer ones could change is checked where it could: of two overlapping boxes the detector keeps the
more confident one, so a coarse box can be lost to a finer one that overlaps it, and to nothing else. Those surroundings are
searched, level by level, for a box more confident than the coarse one. Where there is one, or the coarse levels hold no face,
the whole pyramid is searched after all. The hint therefore changes the time taken, never the box.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

WINDOW, CELL, OFFSET = 73, 8, 5
"""A box on its own level is 73 pixels wide and lies at 5 + 8 i."""
AROUND = 80
"""Pixels around a box, on a finer level, that a box which overlaps it can depend on.

dlib's detector drops a box where the intersection is more than 0.330 of the union or 0.789 of the smaller box. A smaller box that
does so reaches out of the larger by at most half its width, 37 pixels; features take two cells of 8 pixels more, and the start of
the cut is rounded down to a cell.
"""
SMALLEST = 64
"""No level is narrower."""
# How dlib's own file names the scanner's settings: window 80 x 80, at most 1000 levels, none smaller than 64 x 64.
_SCANNER = bytes.fromhex("0150 0150 02e803 0140 0140")
_ONE_LEVEL = bytes.fromhex("0150 0150 0101 0140 0140")


class Pyramid:
    """dlib's frontal face detector, level by level.

    Args:
        detector: `dlib.get_frontal_face_detector()`.
    """

    def __init__(self, detector: Any) -> None:
        import dlib

        self._dlib, self._whole = dlib, detector
        self._twice, self._step = dlib.pyramid_down(2), dlib.pyramid_down(6)
        self._single = _one_level(detector)

    def largest(self, image: Image, upsample: int, start: int = 0) -> tuple[tuple[int, int, int, int] | None, int]:
        """The detection with the largest area.

        Args:
            image: RGB (H, W, 3).
            upsample: 0, or 1 to enlarge the image twice first.
            start: the level to begin at: that of a face found before, or 0 for the whole pyramid. It does not change the box.

        Returns:
            (left, top, right, bottom) or None, and the level it was found on: the next image's `start`.
        """
        found = self._from(image, upsample, start) if start > 0 and upsample <= 1 and self._single is not None else None
        if found is None:
            boxes = list(self._whole(image, upsample))
            if not boxes:
                return None, 0
            box = max(boxes, key=_area)
            found = box, self._level_of(box, upsample)
        box, level = found
        return (box.left(), box.top(), box.right(), box.bottom()), level

    def _from(self, image: Image, upsample: int, start: int) -> tuple[Any, int] | None:
        """The largest box from level `start` on, or None where the whole pyramid must be asked."""
        levels = [image]
        if upsample:
            up = self._twice.rect_up(self._frame(image))
            levels = [self._dlib.resize_image(image, up.bottom() + 1, up.right() + 1)]
        all_levels = self._count(self._frame(levels[0]))
        while len(levels) <= start:
            levels.append(self._step(levels[-1]))
        # Of an image's rectangle, rounded level by level, and of the level's own size, one may reach the smallest level earlier.
        if start >= all_levels or start + self._count(self._frame(levels[-1])) != all_levels:
            return None
        found: list[tuple[Any, int]] = []
        boxes, scores, _ = self._whole.run(levels[start], 0, 0.0)
        for box, score in zip(boxes, scores, strict=True):
            cell = self._cell_of(box)
            if cell is None:
                return None
            window, above = cell
            full = self._step.rect_up(window, start + above)
            if any(self._beaten(levels[n], self._step.rect_down(full, n), score) for n in range(start)):
                return None
            found.append((self._twice.rect_down(full, 1) if upsample else full, start + above))
        return max(found, key=lambda f: _area(f[0])) if found else None

    def _beaten(self, level: Image, box: Any, score: float) -> bool:
        """Whether a box around `box` on this very level is at least as confident as `score`."""
        height, width = level.shape[:2]
        top, left = (max(0, (edge - AROUND) // CELL * CELL) for edge in (box.top(), box.left()))
        bottom, right = min(height, box.bottom() + AROUND), min(width, box.right() + AROUND)
        if bottom - top < CELL or right - left < CELL:
            return False
        cut = np.ascontiguousarray(level[top:bottom, left:right])
        assert self._single is not None
        return len(self._single.run(cut, 0, score)[0]) > 0

    def _cell_of(self, box: Any) -> tuple[Any, int] | None:
        """A box's window on the level where it was found, and that level's number; undoes dlib's `rect_up`, rounding and all."""
        for level in range(64):
            small = self._step.rect_down(self._dlib.drectangle(box), level)
            if small.width() < WINDOW - 4:
                return None
            x, y = (
                round((middle - WINDOW // 2 - OFFSET) / CELL) * CELL + OFFSET
                for middle in ((small.left() + small.right()) / 2, (small.top() + small.bottom()) / 2)
            )
            window = self._dlib.rectangle(x, y, x + WINDOW - 1, y + WINDOW - 1)
            if self._step.rect_up(window, level) == box:
                return window, level
        return None

    def _level_of(self, box: Any, upsample: int) -> int:
        """About: it is a hint."""
        width = box.width() * 2**upsample
        return max(0, round(np.log(width / WINDOW) / np.log(6 / 5)))

    def _frame(self, image: Image) -> Any:
        return self._dlib.rectangle(0, 0, image.shape[1] - 1, image.shape[0] - 1)

    def _count(self, frame: Any) -> int:
        """How many levels dlib makes of an image."""
        levels = 0
        while True:
            frame = self._step.rect_down(frame)
            levels += 1
            if frame.width() < SMALLEST or frame.height() < SMALLEST:
                return levels


def _area(box: Any) -> int:
    return int(box.width() * box.height())


def _one_level(detector: Any) -> Any | None:
    """The same detector for one level only; None where dlib keeps its settings in another way than this module knows."""
    import dlib

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "detector.svm")
        detector.save(str(file))
        data = file.read_bytes()
        if data.count(_SCANNER) != 1 or (detector.detection_window_width, detector.detection_window_height) != (80, 80):
            return None
        file.write_bytes(data.replace(_SCANNER, _ONE_LEVEL))
        return dlib.fhog_object_detector(str(file))
