"""Which frames of a video, and decoding only what those need. Pixels equal those of OpenCV's VideoCapture.

Counting reads every packet instead of trusting the header: Matroska headers have no count, a broken download has a wrong one.
Where the container keeps presentation times, a frame is known by its time, frames that nothing refers to are skipped by the
decoder, and decoding stops after the last wanted frame; elsewhere (AVI, raw streams) frames are counted while decoding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# Containers whose packets carry trustworthy presentation times. AVI's do not: decoded H.264 frames come out under other times.
_TIMED = {"mov", "mp4", "matroska", "webm"}


NOT_A_FILE = "is a pipe or a device, no file"


class UnreadableVideo(Exception):
    """A video that gives no frame at all; the text says why and holds no path."""


@dataclass(frozen=True)
class FrameIndex:
    """What a video holds.

    Attributes:
        count: frames to sample from: those in the file and, where it was cut short, those that its index lists beyond its end.
        times: presentation time of every frame in the file, in order; None where the container has no trustworthy ones.
    """

    count: int
    times: tuple[int, ...] | None


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` frame numbers evenly spread over the first to the last of `count`; fewer where there are fewer frames.

    The numbers are numpy's linspace(0, count - 1, wanted) rounded down, as DeepfakeBench takes them.
    """
    return sorted({int(i) for i in np.linspace(0, count - 1, wanted)})


def index_frames(path: Path) -> FrameIndex:
    """Count the frames of a video exactly.

    Raises:
        UnreadableVideo: if the file cannot be opened or has no video frames.
    """
    times: list[int | None] = []
    dropped = 0
    with _open(path) as (container, stream):
        # A header's count may be wrong; the container's list of frames says what there is, or was before the file was cut short.
        declared = min(stream.frames, len(stream.index_entries))
        try:
            for packet in container.demux(stream):
                if packet.size == 0:  # the packet that flushes the decoder
                    continue
                if packet.is_discard:  # cut away by the container's edit list: decoded, never shown
                    dropped += 1
                else:
                    times.append(packet.pts)
        except FFmpegError:
            pass  # cut short: what follows is missing, and the count below says so
        timed = bool(_TIMED & set(container.format.name.split(",")))
    known = [t for t in times if t is not None]
    if timed and len(set(known)) == len(times):
        count = max(len(times), declared - dropped)
        index = FrameIndex(count, tuple(sorted(known)))
    else:
        with _open(path) as (container, stream):
            index = FrameIndex(sum(1 for _ in _decode_all(container, stream)), None)
    if index.count == 0 or index.times == ():
        raise UnreadableVideo("no video frames")
    return index


def read_frames(path: Path, index: FrameIndex, wanted: Iterable[int]) -> Iterator[tuple[int, Image | None]]:
    """Decode the wanted frames.

    Args:
        path: the video.
        index: of this video.
        wanted: frame numbers; any order.

    Yields:
        (number, RGB image (H, W, 3) uint8), upright, in order of presentation; after them (number, None) for every frame that is
        missing or that the decoder marks as damaged.

    Raises:
        UnreadableVideo: if the file cannot be opened.
    """
    missing = set(wanted)
    last = max(missing, default=-1)
    with _open(path) as (container, stream):
        numbered = (
            enumerate(_decode_all(container, stream)) if index.times is None else _decode_timed(container, stream, index, missing)
        )
        for number, frame in numbered:
            if number in missing and not frame.is_corrupt:
                missing.discard(number)
                yield number, to_rgb(frame)
            if not missing or number >= last:
                break
    for number in sorted(missing):
        yield number, None


def to_rgb(frame: VideoFrame) -> Image:
    """A decoded frame as an upright RGB image with the pixels that OpenCV's VideoCapture gives.

    OpenCV converts with swscale's bicubic chroma filter to BGR, honouring the stream's matrix and range. For 8-bit video
    the filter makes no difference; beyond, other filters and a direct conversion to RGB differ by up to 61 grey levels, and so may
    OpenCV where it carries another version of swscale than PyAV. OpenCV also turns the image as the container asks.
    """
    bgr = frame.to_ndarray(format="bgr24", interpolation="BICUBIC")
    turns = round(frame.rotation / 90) % 4  # quarter turns, counter-clockwise
    upright: Image = np.ascontiguousarray(np.rot90(bgr, turns), dtype=np.uint8)
    return np.asarray(cv2.cvtColor(upright, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def not_a_file(path: Path) -> bool:
    """Whether something other than a file or a folder lies there: opening it might wait for ever."""
    return path.exists() and not path.is_file() and not path.is_dir()


def as_file(path: Path) -> str:
    """The path as FFmpeg, and OpenCV through it, takes it for a file: in "12:30.mp4" it sees a protocol called "12"."""
    return os.path.abspath(path)


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    if not_a_file(path):
        raise UnreadableVideo(NOT_A_FILE)
    if path.is_file() and path.stat().st_size == 0:
        raise UnreadableVideo("the file is empty")
    try:
        container = av.open(as_file(path))
    except (FFmpegError, OSError) as error:
        raise UnreadableVideo(f"cannot be opened: {error.strerror or type(error).__name__}") from error
    with container:
        if not container.streams.video:
            raise UnreadableVideo("no video stream")
        stream = container.streams.video[0]
        # Parallelism is over videos; the decoder's own threads would also delay the effect of skip_frame.
        stream.thread_type = "NONE"
        yield container, stream


def _decode_all(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame that can be decoded, in order of presentation; damaged packets are stepped over."""
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except FFmpegError:
                continue
    except FFmpegError:
        return


def _decode_timed(
    container: InputContainer, stream: VideoStream, index: FrameIndex, wanted: set[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """The wanted frames and those that come with them, numbered by their presentation time."""
    assert index.times is not None
    number_at = {time: number for number, time in enumerate(index.times)}
    times = {index.times[n] for n in wanted if n < len(index.times)}
    try:
        for packet in container.demux(stream):
            stream.codec_context.skip_frame = "DEFAULT" if packet.size == 0 or packet.pts in times else "NONREF"
            try:
                decoded = packet.decode()
            except FFmpegError:
                continue
            for frame in decoded:
                if frame.pts in number_at:
                    yield number_at[frame.pts], frame
    except FFmpegError:
        return
