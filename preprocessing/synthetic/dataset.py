"""Drawing a whole data set to disk: parallel, resumable, the same bytes from the same seed."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from preprocessing.errors import PreprocessingError
from preprocessing.synthetic.catalogue import SMALLEST, Clip, catalogue, choose_compressions, partner
from preprocessing.synthetic.encode import write_text, write_video
from preprocessing.synthetic.forge import Forgery, Reenactment
from preprocessing.synthetic.scene import Scene

GENERATOR = 1  # raise it whenever a change here alters the pixels
MARKER = "dataset.json"
LOCK = ".drawing.lock"

Frames = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Settings:
    """What a drawn data set is made from; equal settings give equal files. Kept in its folder as dataset.json."""

    style: str
    identities: int
    frames: int
    seed: int
    generator: int = GENERATOR

    def __post_init__(self) -> None:
        catalogue(self.style)
        if self.identities < SMALLEST or self.identities % 2 or self.identities > 1000:
            raise PreprocessingError(f"identities must be an even number from {SMALLEST} to 1000, not {self.identities}.")
        if self.frames < 1:
            raise PreprocessingError(f"frames must be at least 1, not {self.frames}.")
        if self.seed < 0:
            raise PreprocessingError(f"seed must not be negative, but is {self.seed}.")


@dataclass(frozen=True)
class Summary:
    """What a call of `draw_dataset` did: `drawn` files are new, `kept` ones were there already."""

    out: Path
    settings: Settings
    drawn: int
    kept: int
    seconds: float

    def __str__(self) -> str:
        if not self.drawn:
            return f"Nothing to draw: all {self.kept} video files of {self.settings.style} are in {self.out}."
        drew = f"Drew {self.drawn} video files of {self.settings.style} into {self.out} in {self.seconds:.0f} s"
        return f"{drew}; {self.kept} were there already."


@dataclass(frozen=True)
class _Job:
    """The missing files of one pair of people; drawn together, as each is the other's source."""

    out: Path
    settings: Settings
    clips: tuple[Clip, ...]


def plan(style: str, identities: int = 112, compression: str | Sequence[str] = "c23", out: Path | None = None) -> list[str]:
    """The video files of a drawn data set, as POSIX paths relative to it; with `out`, only those that are not there yet.

    Raises:
        PreprocessingError: for settings that cannot be drawn.
    """
    Settings(style, identities, 1, 0)
    clips = catalogue(style).clips(identities, choose_compressions(style, compression))
    return [clip.path for clip in clips if out is None or not (Path(out) / clip.path).exists()]


def draw_dataset(
    out: Path,
    style: str = "mini-a",
    identities: int = 112,
    frames: int = 6,
    seed: int = 0,
    workers: int = 1,
    compression: str | Sequence[str] = "c23",
    on_video: Callable[[str], None] | None = None,
) -> Summary:
    """Draw people, forge them and write H.264 files into `out`; files that are there already are kept.

    The files depend on style, identities, frames, seed and this package's version only, not on `workers` and not on what was
    there before; on one machine they are the same to the byte. An interrupted call leaves whole files: call it again.

    Args:
        out: a new or empty folder, or one drawn into before with the same settings.
        style: "mini-a" (FaceForensics++'s layout) or "mini-b" (Celeb-DF-v2's layout, other people, cameras and swap).
        identities: an even number of people.
        frames: per video, at 25 frames per second.
        seed: of everything.
        workers: processes.
        compression: "c23", "c40" or both for mini-a; another compression may be added to the same folder later.
        on_video: called with the relative path of each new file, in the calling process; `plan` tells their number beforehand.

    Raises:
        PreprocessingError: for settings that cannot be drawn, a folder that holds something else, or a worker that died.
    """
    settings, started, out = Settings(style, identities, frames, seed), time.monotonic(), Path(out)
    if workers < 1:
        raise PreprocessingError(f"workers must be at least 1, not {workers}.")
    clips = catalogue(style).clips(identities, choose_compressions(style, compression))
    with _Locked(out):
        _claim(out, settings)
        missing = [clip for clip in clips if not (out / clip.path).exists()]
        by_pair = groupby(missing, key=lambda clip: clip.target // 2)
        jobs = [_Job(out, settings, tuple(group)) for _, group in by_pair]
        for path in _draw_all(jobs, min(workers, len(jobs))):
            if on_video:
                on_video(path)
    return Summary(out, settings, len(missing), len(clips) - len(missing), time.monotonic() - started)


class _Locked:
    """Only one process draws into a folder at a time."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._lock = FileLock(str(out / LOCK))

    def __enter__(self) -> None:
        if self._out.exists() and not self._out.is_dir():
            raise PreprocessingError(f"{self._out} is a file; name a folder to draw the data set into.")
        self._out.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise PreprocessingError(f"Another process is drawing into {self._out}; wait until it has finished.") from None

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _claim(out: Path, settings: Settings) -> None:
    """Mark an empty folder as this data set's, or check that it is."""
    marker = out / MARKER
    if marker.exists():
        _compare(marker, asdict(settings))
    elif any(entry.name not in (LOCK, f".{MARKER}.part") for entry in out.iterdir()):
        raise PreprocessingError(f"{out} is not empty and has no {MARKER} of a drawn data set; name a new or an empty folder.")
    else:
        write_text(marker, json.dumps(asdict(settings), indent=2) + "\n")
    for name, text in catalogue(settings.style).documents(settings.identities).items():
        if not (out / name).exists():
            write_text(out / name, text)


def _compare(marker: Path, wanted: dict[str, object]) -> None:
    """Refuse a folder that was drawn with other settings than `wanted`."""
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
        differing = [key for key in wanted if found[key] != wanted[key]]
    except (ValueError, KeyError, TypeError):
        raise PreprocessingError(f"{marker} is no record of a drawn data set; delete its folder and draw again.") from None
    if differing:
        key = differing[0]
        raise PreprocessingError(
            f"{marker.parent} was drawn with {key} {found[key]}, not {wanted[key]}; name another folder, or delete that one."
        )


def _draw_all(jobs: list[_Job], workers: int) -> Iterator[str]:
    """Do all jobs; yield the path of each new file."""
    if workers <= 1:
        for job in jobs:
            yield from _draw_pair(job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent) as pool:
        futures = [pool.submit(_draw_pair, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield from future.result()
        except BrokenProcessPool:
            raise PreprocessingError("A drawing process was killed (out of memory?); run again: finished files are kept.") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """End this worker when its parent is gone; a killed parent would leave it waiting for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _draw_pair(job: _Job) -> list[str]:
    """Draw and write the files of one job; their paths."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # small pictures: more threads cost more than they bring, and the processes are the parallelism
    try:
        scenes: dict[int, Scene] = {}
        for target, clips in groupby(job.clips, key=lambda clip: clip.target):
            for number in (target, partner(target)):
                scenes.setdefault(number, Scene(catalogue(job.settings.style).style, number, job.settings.seed))
            _write_target(job, scenes[target], scenes[partner(target)], list(clips))
    finally:
        cv2.setNumThreads(threads)
    return [clip.path for clip in job.clips]


def _write_target(job: _Job, target: Scene, source: Scene, clips: list[Clip]) -> None:
    frames = range(job.settings.frames)
    renders: dict[int, np.ndarray] = {}
    for kind, group in groupby(clips, key=lambda clip: clip.forgery):
        if kind is None:
            pictures = masks = to_bytes(target.photograph(frame)[0] for frame in frames)  # an original has no mask files
        else:
            forgery = kind(target, source, renders) if issubclass(kind, Reenactment) else kind(target, source)
            pictures, masks = forge_video(forgery, frames)
        for clip in group:
            write_video(job.out / clip.path, masks if clip.is_mask else pictures, clip.quality)


def forge_video(forgery: Forgery, frames: Iterable[int]) -> tuple[Frames, Frames]:
    """The forged frames (size, size, 3) and their masks (size, size, 3), 0 or 255."""
    forged = [forgery.forge(frame) for frame in frames]
    masks = (np.repeat(255 * mask[..., None], 3, axis=2) for _, mask in forged)
    return to_bytes(picture for picture, _ in forged), to_bytes(masks)


def to_bytes(pictures: Iterable[np.ndarray]) -> Frames:
    """Grey levels as floats -> uint8, rounded."""
    return [np.round(np.clip(picture, 0, 255)).astype(np.uint8) for picture in pictures]
