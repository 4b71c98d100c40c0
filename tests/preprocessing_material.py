"""Videos and a detector for the tests of preprocessing: a green square stands for a face, so that no model is needed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from preprocessing.faces import ARCFACE, FIVE, Box
from preprocessing.layouts import Video
from preprocessing.pipeline import Settings

SMALL = Settings(frames=4, size=64)


def frame(number: int, width: int = 128, height: int = 96, face: bool = True, tint: int = 0) -> NDArray[np.uint8]:
    """A grey gradient, with a green square that moves to the right by two pixels per frame."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = np.stack([100 + x // 2, 60 + y // 2, 100 + (x + y + number) % 64], axis=-1).astype(np.uint8)
    image[..., 0] += np.uint8(tint)
    if face:
        left, top = 20 + 2 * (number % 20), 20
        image[top : top + 48, left : left + 48] = (20, 230, 20)
        cv2.circle(image, (left + 16, top + 16), 5, (20, 150, 20), -1)
    return image


def encode(
    path: Path,
    images: Sequence[NDArray[np.uint8]],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    header_first: bool = False,
    **options: str,
) -> Path:
    """Write a video; an MP4 with `header_first` can be opened even when its end is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", container_options={"movflags": "faststart"} if header_first else {}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        for number, image in enumerate(images):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def clip(path: Path, count: int = 12, face: Callable[[int], bool] = lambda number: True, **details: Any) -> Path:
    """A short H.264 video of `frame`s."""
    return encode(path, [frame(n, face=face(n), **details) for n in range(count)], preset="ultrafast")


def mask_clip(path: Path, count: int = 12, width: int = 128, height: int = 96) -> Path:
    """A mask video: the right half of the green square is forged."""
    images = []
    for number in range(count):
        image = np.zeros((height, width, 3), dtype=np.uint8)
        left = 20 + 2 * (number % 20)
        image[20:68, left + 24 : left + 48] = 255
        images.append(image)
    return encode(path, images, preset="ultrafast", crf="1")


def videos(folder: Path, count: int = 3, **details: Any) -> list[Video]:
    """Real videos v0, v1, ... of one dataset, drawn into `folder`."""
    made = []
    for number in range(count):
        path = clip(folder / f"v{number}.mp4", tint=3 * number, **details)
        made.append(Video("toy", "real", 0, "train", f"v{number}", f"v{number}", path, "none"))
    return made


@dataclass(frozen=True)
class Squares:
    """A detector of green squares; the landmarks lie where an upright face of the square's size has them.

    Attributes:
        pause: seconds to sleep per frame, for tests that kill.
        die: exit code with which to end the process at a frame of an almost white video; negative for a signal.
        once: die only where this file does not exist yet, and make it.
    """

    pause: float = 0.0
    die: int = 0
    once: str = ""

    @property
    def description(self) -> dict[str, str]:
        return {"name": "squares"}

    def boxes(self, image: NDArray[np.uint8], upsample: int) -> list[Box]:
        time.sleep(self.pause)
        if self.die and image.mean() > 250 and not (self.once and os.path.exists(self.once)):
            if self.once:
                Path(self.once).touch()
            if self.die > 0:
                os._exit(self.die)
            os.kill(os.getpid(), -self.die)
        green = (image[..., 1] > 110) & (image[..., 0] < 80)
        if green.sum() < 100:
            return []
        rows, columns = np.nonzero(green.any(axis=1))[0], np.nonzero(green.any(axis=0))[0]
        return [Box(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))]

    def landmarks(self, image: NDArray[np.uint8], box: Box) -> NDArray[np.float64]:
        side = box.right - box.left + 1
        points = np.full((68, 2), 0.5)
        points[list(FIVE)] = (np.array(ARCFACE) + np.array((8, 0))) / 112
        return points * side + (box.left, box.top)


def ff_tree(root: Path, methods: Sequence[str] = ("Deepfakes", "FaceSwap"), count: int = 12) -> Path:
    """A FaceForensics++ tree: identities 000 and 003 in train, 001 and 002 in val, 004 and 005 in test; masks for Deepfakes."""
    pairs = {"train": ("000", "003"), "val": ("001", "002"), "test": ("004", "005")}
    root.mkdir(parents=True, exist_ok=True)
    for split, (a, b) in pairs.items():
        (root / f"{split}.json").write_text(json.dumps([[a, b]]))
        clip(root / "original_sequences/youtube/c23/videos" / f"{a}.mp4", count)
        for method in methods:
            clip(root / "manipulated_sequences" / method / "c23/videos" / f"{a}_{b}.mp4", count, tint=20)
    if "Deepfakes" in methods:
        mask_clip(root / "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4", count)
    return root
