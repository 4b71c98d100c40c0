"""DeepfakeBench's preprocessing, written anew from what it does: the baseline of speed, and the reference of mode `dfb`.

It shares no code with the room `preprocessing`, so that one can check the other. What it does to a video: frames are read one
by one by OpenCV, all of them; the sampled ones are searched by dlib at twice their size; the largest face is aligned by five
landmarks in float32 arithmetic; the crop, as BGR, is searched again at twice its size, and the first face's landmarks there are
kept; without one the frame is dropped. Faces go to PNG files, landmarks to .npy files. The first frame that cannot be read ends the
video.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FRAMES, SIDE, MARGIN = 32, 256, 1.3
POINTS = [37, 44, 30, 49, 55]


@dataclass(frozen=True)
class PeerFace:
    """One kept frame: its number, the crop as BGR (256, 256, 3), and the landmarks (L, 2) in it."""

    frame: int
    crop: NDArray[np.uint8]
    landmarks: NDArray[np.int64]


@dataclass
class Peer:
    """DeepfakeBench's way from a video to files.

    Attributes:
        predictor: the landmark model's file. It is loaded once; DeepfakeBench itself loads it again for every video, which a fair
            baseline leaves out.
        out: folder for the files, or None to write none.
        seconds: wall time by stage.
    """

    predictor: Path
    out: Path | None = None
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __post_init__(self) -> None:
        import dlib

        self._detect: Any = dlib.get_frontal_face_detector()
        self._predict: Any = dlib.shape_predictor(str(self.predictor))

    def video(self, path: Path, name: str) -> list[PeerFace]:
        """The faces of one video, written to `out`/`name`."""
        found = []
        for number, image in self._sampled(path):
            face = self._face(number, image)
            if face is not None:
                found.append(face)
                self._write(face, name)
        return found

    def _sampled(self, path: Path) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        start = time.perf_counter()
        capture = cv2.VideoCapture(str(path))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        wanted = set(np.linspace(0, count - 1, FRAMES, endpoint=True, dtype=int).tolist())
        for number in range(count):
            readable, image = capture.read()
            if not readable:
                break
            if number in wanted:
                self.seconds["decode"] += time.perf_counter() - start
                yield number, np.asarray(image, dtype=np.uint8)
                start = time.perf_counter()
        capture.release()
        self.seconds["decode"] += time.perf_counter() - start

    def _face(self, number: int, image: NDArray[np.uint8]) -> PeerFace | None:
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        rectangles = self._timed("detect", self._detect, rgb, 1)
        if len(rectangles) == 0:
            return None
        largest = max(rectangles, key=lambda r: r.width() * r.height())
        points = self._points(self._timed("landmarks", self._predict, rgb, largest))
        crop = self._timed("align", warp, image, points[POINTS].astype(np.float32))
        again = self._timed("detect", self._detect, crop, 1)
        if len(again) == 0:
            return None
        return PeerFace(number, crop, self._points(self._timed("landmarks", self._predict, crop, again[0])))

    def _points(self, shape: Any) -> NDArray[np.int64]:
        return np.array([[shape.part(i).x, shape.part(i).y] for i in range(shape.num_parts)], dtype=np.int64)

    def _write(self, face: PeerFace, name: str) -> None:
        if self.out is None:
            return
        _, data = self._timed("encode", cv2.imencode, ".png", face.crop)
        start = time.perf_counter()
        frames, landmarks = self.out / "frames" / name, self.out / "landmarks" / name
        for folder in (frames, landmarks):
            folder.mkdir(parents=True, exist_ok=True)
        (frames / f"{face.frame:03d}.png").write_bytes(data.tobytes())
        np.save(landmarks / f"{face.frame:03d}.npy", face.landmarks)
        self.seconds["write"] += time.perf_counter() - start

    def _timed(self, stage: str, do: Any, *given: Any) -> Any:
        start = time.perf_counter()
        result = do(*given)
        self.seconds[stage] += time.perf_counter() - start
        return result


def warp(image: NDArray[np.uint8], five: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The 256 x 256 crop in which five points (5, 2) meet the template as nearly as a similarity can bring them."""
    moved = umeyama(five, targets())
    return np.asarray(cv2.warpAffine(image, moved[:2], (SIDE, SIDE)), dtype=np.uint8)


def targets() -> NDArray[np.float32]:
    """The ArcFace template for 112 x 112, brought to 256 and then towards the middle so that a margin of 1.3 appears around it."""
    eyes_nose_mouth = [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]]
    points: NDArray[np.float32] = np.array(eyes_nose_mouth, dtype=np.float32)
    points[:, 0] += 8.0
    points *= np.float32(SIDE)
    points /= np.float32(112)
    border = SIDE * (MARGIN - 1) / 2
    points += border
    points *= SIDE / (SIDE + 2 * border)
    return points


def umeyama(source: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float64]:
    """Umeyama, PAMI 1991, eq. 38 to 43, as skimage's SimilarityTransform rounds it: (3, 3), homogeneous."""
    mean_source, mean_target = np.mean(source, axis=0), np.mean(target, axis=0)
    centred = source - mean_source
    covariance = (target - mean_target).T @ centred / source.shape[0]
    flip = np.array([1.0, -1.0 if np.linalg.det(covariance) < 0 else 1.0])
    left, singular, right = np.linalg.svd(covariance)
    transform = np.identity(3)
    transform[:2, :2] = left @ np.diag(flip) @ right
    scale = 1.0 / centred.var(axis=0).sum() * (singular @ flip)
    transform[:2, 2] = mean_target - scale * (transform[:2, :2] @ mean_source)
    transform[:2, :2] *= scale
    return transform
