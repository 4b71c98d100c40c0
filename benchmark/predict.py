"""Videos and images -> a detector's scores: the faces that preprocessing makes, without a store."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.config import ConfigError
from benchmark.data import FaceFrames
from benchmark.decoded import resize
from benchmark.evaluate import Diverged, score
from detectors.base import Detector
from preprocessing.codec import decode_image, read_image
from preprocessing.faces import Face, Finder
from preprocessing.frames import NOT_A_FILE, not_a_file
from preprocessing.layouts import NO_COMPRESSION, Video
from preprocessing.layouts.base import VIDEO_SUFFIXES, find_videos
from preprocessing.quiet import no_stderr, quiet_opencv
from preprocessing.strip import Tile, score_strip
from preprocessing.work import WHOLE_VIDEO, FrameRow, Work

Image = NDArray[np.uint8]
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FRAME_COLUMNS = ["input", "frame", "status", "reason", "score"]
STRIPS = "strips"
VIDEO_COLUMNS = ["input", "kind", "frames", "faces", "score", "reason", "strip"]


@dataclass(frozen=True)
class Input:
    """One video or image; `name` is what tables call it: the path as it was given."""

    name: str
    path: Path
    kind: str


@dataclass(frozen=True)
class ScoredFrame:
    """One sampled frame, as a store's ledger has it; with its face (S, S, 3) uint8 and P(fake) where there is one."""

    frame: int
    status: str
    reason: str
    face: Image | None = None
    score: float | None = None


@dataclass(frozen=True)
class Scored:
    """An input with its frames, by number. A video that cannot be read has one frame with the number -1."""

    input: Input
    frames: list[ScoredFrame]

    @property
    def scores(self) -> list[float]:
        """P(fake) of the frames with a face."""
        return [f.score for f in self.frames if f.score is not None]

    @property
    def score(self) -> float | None:
        """Mean P(fake) over the frames with a face, as `benchmark.metrics.per_video` takes it; None without any face."""
        return float(np.mean(self.scores)) if self.scores else None

    @property
    def sampled(self) -> int:
        """How many frames were looked at."""
        return sum(f.frame != WHOLE_VIDEO for f in self.frames)

    @property
    def unreadable(self) -> bool:
        """Whether the input gave no frame at all."""
        return all(f.status == "unreadable" for f in self.frames)

    @property
    def reason(self) -> str:
        """Why there is no score; empty where there is one."""
        if self.scores:
            return ""
        if self.unreadable:
            return next(f.reason for f in self.frames)
        found = sorted({f.status.replace("_", " ") for f in self.frames})
        return f"{', '.join(found)} in {len(self.frames)} sampled frame{'s' if len(self.frames) > 1 else ''}"


def find_inputs(given: Sequence[Path], leave_out: Path | None = None) -> list[Input]:
    """The videos and images that paths stand for: files, and all below folders, each file once.

    Args:
        given: files and folders. A file is an image if its name ends like one, else a video.
        leave_out: a folder below the given ones that is not looked into: the one that results go to.

    Raises:
        ConfigError: a path that does not exist or is a pipe or a device, a folder without any video or image, or one that the
            results would go into.
    """
    found: dict[str, Input] = {}
    for path in given:
        if not path.exists():
            raise ConfigError(f"{_text(path)} does not exist; give videos, images or folders of them")
        if not_a_file(path):
            raise ConfigError(f"{_text(path)} {NOT_A_FILE}; save what comes out of it to a file and give that")
        files = [path]
        if path.is_dir():
            files = find_videos(path, (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))
            if leave_out is not None and _takes_results(path, leave_out):
                raise ConfigError(
                    f"the results would be mixed into folder {_text(path)}; give another --out,"
                    f" such as {_text(path / 'predictions')}"
                )
            if leave_out is not None and leave_out.resolve() not in path.resolve().parents:
                files = [f for f in files if leave_out.resolve() not in f.resolve().parents]
            if not files:
                raise ConfigError(f"folder {_text(path)} holds no videos or images (.mp4, .mkv, .avi, .png, .jpg and the like)")
        for file in files:
            kind = "image" if file.suffix.lower() in IMAGE_SUFFIXES else "video"
            found.setdefault(os.path.realpath(file), Input(_text(file), file, kind))
    return list(found.values())


def _takes_results(folder: Path, out: Path) -> bool:
    inside = (folder.resolve(), *folder.resolve().parents)
    return folder.resolve() == out.resolve() or (out / "strips").resolve() in inside


def predict(inputs: Iterable[Input], detector: Detector, work: Work, batch_size: int = 64) -> Iterator[Scored]:
    """Score inputs, one after the other, so that memory does not grow with their number.

    The faces are those of a store with the same settings: crops of `work.settings.size`, brought to the detector's size as
    for training and testing.

    Raises:
        ConfigError: if the detector's scores are not finite.
    """
    for given in inputs:
        rows, faces = _faces_of_image(given.path, work) if given.kind == "image" else _faces_of_video(given.path, work)
        try:
            scores = score_faces(detector, list(faces.values()), batch_size)
        except Diverged as error:
            raise ConfigError(f"{given.name}: {error}; take another checkpoint") from error
        by_frame = dict(zip(faces, scores, strict=True))
        frames = [ScoredFrame(r.frame, r.status, r.reason, faces.get(r.frame), by_frame.get(r.frame)) for r in rows]
        yield Scored(given, frames)


def score_faces(detector: Detector, faces: Sequence[Image], batch_size: int = 64) -> list[float]:
    """P(fake) of each face (S, S, 3) uint8 RGB, brought to the detector's size."""
    if not faces:
        return []
    images = np.stack([resize(face, detector.size) for face in faces])
    rows = pd.DataFrame({"index": np.arange(len(faces)), "frame": np.arange(len(faces)), "label": 0})
    rows = rows.assign(dataset="", method="", video="", key="")
    return [float(s) for s in score(detector, FaceFrames(rows, (), images), batch_size)["score"]]


def _faces_of_video(path: Path, work: Work) -> tuple[list[FrameRow], dict[int, Image]]:
    done = work(Video("predict", "real", 0, "none", "", "input", path, NO_COMPRESSION))
    return done.rows, {face.frame: decode_image(face.image) for face in done.faces}


def _faces_of_image(path: Path, work: Work) -> tuple[list[FrameRow], dict[int, Image]]:
    if not_a_file(path):
        return [FrameRow(WHOLE_VIDEO, "unreadable", NOT_A_FILE)], {}
    try:
        data = path.read_bytes()
    except OSError as error:
        return [FrameRow(WHOLE_VIDEO, "unreadable", f"cannot be opened: {error.strerror}")], {}
    if not data:
        return [FrameRow(WHOLE_VIDEO, "unreadable", "the file is empty")], {}
    quiet_opencv()
    with no_stderr():
        bgr = read_image(data, cv2.IMREAD_COLOR)  # upright, as its EXIF data ask
    if bgr is None:
        return [FrameRow(WHOLE_VIDEO, "unreadable", "is no image that OpenCV can decode")], {}
    image = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    face = Finder(work.detector, work.settings.size, work.settings.in_force).find(image)
    if isinstance(face, Face):
        return [FrameRow(0, "face")], {0: face.image}
    return [FrameRow(0, str(face), face.reason)], {}


class Results:
    """What a prediction leaves in a folder: frames.csv, videos.csv and a strip per input. Written input by input.

    Args:
        folder: made if missing; what an earlier prediction left in it is replaced.
        head: a phrase for the strips that says what scored.

    Raises:
        ConfigError: if the folder cannot be written.
    """

    def __init__(self, folder: Path, head: str = "") -> None:
        self.folder, self.head = folder, head
        self._taken: set[str] = set()

    def __enter__(self) -> Results:
        try:
            (self.folder / STRIPS).mkdir(parents=True, exist_ok=True)
            for strip in _strips(self.folder / "videos.csv"):
                strip.unlink(missing_ok=True)
            self._files = [(self.folder / n).open("w", newline="", encoding="utf-8") for n in ("frames.csv", "videos.csv")]
        except OSError as error:
            raise self._mistake(error) from error
        self._frames, self._videos = (csv.writer(file) for file in self._files)
        self._write(self._frames, [FRAME_COLUMNS])
        self._write(self._videos, [VIDEO_COLUMNS])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for file in self._files:
            file.close()

    def add(self, scored: Scored) -> None:
        """Write one input's rows and its strip."""
        name = scored.input.name
        self._write(self._frames, [[name, f.frame, f.status, f.reason, _number(f.score)] for f in scored.frames])
        strip = f"{STRIPS}/{self._free_name(scored.input.path)}.png"
        row = [name, scored.input.kind, scored.sampled, len(scored.scores), _number(scored.score), scored.reason, strip]
        self._write(self._videos, [row])
        verdict = f"no score: {scored.reason}"
        if scored.score is not None:
            verdict = f"P(fake) {scored.score:.3f}, mean of {len(scored.scores)} faces in {scored.sampled} sampled frames"
        tiles = [Tile(_caption(scored.input, f), f.status, f.face, f.score) for f in scored.frames]
        score_strip(self.folder / strip, name, " - ".join(filter(None, (verdict, self.head))), tiles)

    def _free_name(self, path: Path) -> str:
        """The file's own name; numbered where another input has it."""
        base = path.name.encode(errors="replace")[:200].decode(errors="ignore")
        name, number = base, 2
        while name.casefold() in self._taken:
            name, number = f"{base}-{number}", number + 1
        self._taken.add(name.casefold())
        return name

    def _write(self, writer: Any, rows: Iterable[list[Any]]) -> None:
        try:
            writer.writerows(rows)
            for file in self._files:
                file.flush()
        except OSError as error:
            raise self._mistake(error) from error

    def _mistake(self, error: OSError) -> ConfigError:
        return ConfigError(f"cannot write the results to {self.folder}: {error.strerror or error}; make room or give another --out")


def _strips(videos: Path) -> list[Path]:
    """The strips of an earlier prediction, by its own table; none where the file is another's."""
    try:
        with videos.open(newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error):  # none there, empty, or no table
        return []
    if head != VIDEO_COLUMNS:
        return []
    named = [Path(row[-1]) for row in rows if len(row) == len(head)]
    return [videos.parent / strip for strip in named if strip.parent == Path(STRIPS) and strip.suffix == ".png"]


def _caption(given: Input, frame: ScoredFrame) -> str:
    return "" if given.kind == "image" else f"frame {frame.frame}" if frame.frame != WHOLE_VIDEO else "whole video"


def _number(score: float | None) -> str:
    return "" if score is None else repr(score)


def _text(path: Path) -> str:
    """A path as text that can be printed; names that are no UTF-8 lose the bytes that are none."""
    return os.fsencode(path).decode("utf-8", "replace")
