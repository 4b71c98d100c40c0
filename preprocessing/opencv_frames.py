"""Frames numbered as OpenCV's VideoCapture numbers them, decoded only as far as needed.

DeepfakeBench reads videos by VideoCapture: frames are as many as its header arithmetic says, the n-th is the n-th that comes out of
the decoder, and the first that does not come ends the video.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame

from preprocessing.frames import FrameIndex, Image, UnreadableVideo, _open, as_file, to_rgb


def header_count(path: Path) -> int:
    """The number of frames that OpenCV reports (CAP_PROP_FRAME_COUNT).

    OpenCV takes it from the container's header or, where that has none (Matroska), computes it from duration and frame rate, which
    may come out one too high.

    Raises:
        UnreadableVideo: if OpenCV cannot open the video or expects no frames.
    """
    capture = cv2.VideoCapture(as_file(path))
    try:
        if not capture.isOpened():
            raise UnreadableVideo("cannot be opened by OpenCV")
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        capture.release()
    if count < 1:
        raise UnreadableVideo(f"OpenCV reports {count} frames")
    return count


class _Damaged(Exception):
    """Times do not tell how OpenCV numbers this video's frames."""


def read_as_opencv(path: Path, index: FrameIndex, wanted: Iterable[int]) -> Iterator[tuple[int, Image | None]]:
    """The wanted frames, until the first that VideoCapture could not read.

    A sound video is decoded as `read_frames` does it, by presentation time and without the frames that nothing refers to. Where
    damage shows, and in containers without trustworthy times, OpenCV itself reads it, with one decoding thread (with several, its
    own images of a damaged video differ from one reading to the next).

    Yields:
        (number, RGB image (H, W, 3) uint8) in order; after them (number, None) for those beyond the last readable frame.

    Raises:
        UnreadableVideo: if the file cannot be opened.
    """
    missing = sorted(set(wanted))
    if index.times is not None:
        try:
            for number, frame in _by_time(path, index, missing):
                missing.remove(number)
                yield number, to_rgb(frame)
        except _Damaged:
            pass
    if index.times is None or any(number < len(index.times) for number in missing):
        for number, image in _by_opencv(path, missing):
            missing.remove(number)
            yield number, image
    for number in missing:
        yield number, None


def _by_time(path: Path, index: FrameIndex, wanted: list[int]) -> Iterator[tuple[int, VideoFrame]]:
    assert index.times is not None
    expected = [number for number in wanted if number < len(index.times)]
    number_at = {index.times[number]: number for number in expected}
    if not expected:
        return
    with _open(path) as (container, stream):
        try:
            for packet in container.demux(stream):
                stream.codec_context.skip_frame = "DEFAULT" if packet.size == 0 or packet.pts in number_at else "NONREF"
                if packet.is_corrupt:
                    raise _Damaged
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise _Damaged
                    if frame.pts is None or frame.pts > index.times[expected[0]]:
                        raise _Damaged  # the one that was due has not come
                    if frame.pts == index.times[expected[0]]:
                        yield expected.pop(0), frame
                        if not expected:
                            return
        except FFmpegError as error:
            raise _Damaged from error


def _by_opencv(path: Path, wanted: list[int]) -> Iterator[tuple[int, Image]]:
    expected = list(wanted)
    # One thread: with more, what FFmpeg puts in the place of damaged parts differs from one reading to the next.
    capture = cv2.VideoCapture(as_file(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        for number in range(expected[-1] + 1):
            if not capture.grab():
                return
            if number == expected[0]:
                readable, image = capture.retrieve()
                if not readable:
                    return
                yield expected.pop(0), np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    finally:
        capture.release()
