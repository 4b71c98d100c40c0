"""Writing H.264 files whose bytes depend on nothing but their pixels, the settings and the encoder's version."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from preprocessing.frames import as_file

FRAMES_PER_SECOND = 25
LOSSLESS = 0  # as a constant quantizer
VECTOR = 64  # px


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]], quality: int) -> None:
    """Encode `frames` (H, W, 3) RGB with x264 into `path`, which appears only when it is complete.

    Args:
        path: an mp4 file; its folder is made.
        frames: at least one; even height and width.
        quality: x264's constant rate factor (larger is worse; FaceForensics++ has 23 and 40), or LOSSLESS.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    # One thread: with several, x264 chooses other bits. bitexact: no version string and no clock in the container.
    options = {"preset": "medium", "threads": "1", "qp" if quality == LOSSLESS else "crf": str(quality)}
    if any(side % VECTOR for side in frames[0].shape[:2]):
        # Beside such pictures x264's vector code reads memory that nobody wrote: 5 to 40 % of the files came out different.
        options["x264-params"] = "asm=0"
    with av.open(as_file(partial), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for number, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """Write `text` into `path`, which appears only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, path)
