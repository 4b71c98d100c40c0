"""One listed video -> its faces as a store keeps them. This is what a worker process runs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocessing import codec
from preprocessing.interop.index import Place
from preprocessing.interop.sources import Source
from preprocessing.layouts import Video
from preprocessing.quiet import no_stderr, quiet_opencv
from preprocessing.work import EncodedFace, FrameRow, Parts, VideoFaces, unreadable

Image = NDArray[np.uint8]

NO_FRAMES = "the JSON lists no frames"
MISSING = "not in the source"
NO_IMAGE = "no image of 8 bits"
NO_LANDMARKS = "no landmarks"
BAD_LANDMARKS = "landmarks: no array of points that can be read"
BAD_MASK = "mask: no image"
OTHER_SIZE = "mask: another size than the face"
LOSSY = "the source is a JPEG file"
POINTS = (68, 81)
FAR = 16
"""Raw landmarks that reach further out than so many sides of the image are no integers, but floats read as such."""


@dataclass(frozen=True)
class Listed:
    """A video to import.

    Attributes:
        video: its metadata; there is no video file, `path` is where its frames lie.
        frames: places by frame number.
        masks: places of masks by frame number, where the JSON lists them.
    """

    video: Video
    frames: dict[int, Place]
    masks: dict[int, Place] = field(default_factory=dict)


@dataclass(frozen=True)
class Importing:
    """Sources and format, bound: `work(listed)` does one video, in parts. Picklable."""

    sources: dict[str, Source]
    image_format: str

    def __call__(self, listed: Listed) -> Iterator[VideoFaces]:
        """Read, check and encode; the video comes in parts. What is missing or damaged is a row of the ledger, not an exception."""
        cv2.setNumThreads(1)  # parallelism is over videos
        quiet_opencv()
        if not listed.frames:
            yield unreadable(listed.video, NO_FRAMES)
            return
        found = Parts(listed.video)
        for number, place in sorted(listed.frames.items()):
            found.add(*self._frame(listed, number, place))
            yield from found.full()
        missing = all(row.reason == MISSING for row in found.rows.values())
        yield found.last({}, "none of its frames is in the source" if missing else None)

    def _frame(self, listed: Listed, number: int, place: Place) -> tuple[FrameRow, EncodedFace | None]:
        source = self.sources[listed.video.dataset]
        data = source.read(place)
        image = None if data is None else _image(data)
        if data is None or image is None:
            return FrameRow(number, "unreadable", MISSING if data is None else NO_IMAGE), None
        landmarks, why = _landmarks(source.read(beside(place, "landmarks", ".npy")), max(image.shape))
        mask, masked = _mask(source.read(listed.masks.get(number, beside(place, "masks"))), image)
        reason = "; ".join(filter(None, (why, masked, LOSSY if data.startswith(b"\xff\xd8") else "")))
        encoded_mask = None if mask is None else codec.encode_image(mask, "png")
        face = EncodedFace(number, self._encode(data, image), codec.encode_array(landmarks), encoded_mask)
        return FrameRow(number, "face", reason, codec.digest(image, landmarks, mask)), face

    def _encode(self, data: bytes, image: Image) -> bytes:
        # A PNG that is to be a PNG stays the very file.
        return data if self.image_format == "png" and data.startswith(b"\x89PNG") else codec.encode_image(image, self.image_format)


def beside(place: Place, kind: str, suffix: str | None = None) -> Place:
    """The place of a frame's landmarks or mask: another folder in place of "frames", and another suffix."""
    name = place[-1] if suffix is None else place[-1].rpartition(".")[0] + suffix
    return (*place[:-3], kind, place[-2], name)


def _image(data: bytes) -> Image | None:
    with no_stderr():
        raw = codec.read_image(data, cv2.IMREAD_UNCHANGED)
        return None if raw is None or raw.dtype != np.uint8 else codec.decode_image(data)


def _mask(data: bytes | None, image: Image) -> tuple[Image | None, str]:
    if data is None:
        return None, ""
    with no_stderr():
        mask = codec.read_image(data, cv2.IMREAD_GRAYSCALE)
    if mask is None:
        return None, BAD_MASK
    return (np.asarray(mask, dtype=np.uint8), "") if mask.shape == image.shape[:2] else (None, OTHER_SIZE)


def _landmarks(data: bytes | None, side: int) -> tuple[NDArray[np.float32], str]:
    nothing = np.empty((0, 2), dtype=np.float32)
    if data is None:
        return nothing, NO_LANDMARKS
    points = _saved(data) if data.startswith(b"\x93NUMPY") else _raw(data, side)
    if (
        points is None
        or points.ndim != 2
        or points.shape[0] not in POINTS
        or points.shape[1] != 2
        or points.dtype.kind not in "iuf"
    ):
        return nothing, BAD_LANDMARKS
    return np.ascontiguousarray(points, dtype=np.float32), ""


def _saved(data: bytes) -> NDArray[Any] | None:
    try:
        points: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    return points


def _raw(data: bytes, side: int) -> NDArray[Any] | None:
    """An array from bytes without dtype and shape: 68 or 81 points of 32 or 64 bits; floats where integers would lie far out."""
    for count in POINTS:
        for bits in (32, 64):
            if len(data) == count * 2 * bits // 8:
                for kind in ("i", "f"):
                    points = np.frombuffer(data, dtype=f"<{kind}{bits // 8}").reshape(count, 2)
                    if np.isfinite(points).all() and (np.abs(points) <= FAR * side).all():
                        return points
    return None


def listed_path(place: Place) -> Path:
    """Where a video's frames lie, for messages."""
    return Path(*place[:-1]) if place else Path()
