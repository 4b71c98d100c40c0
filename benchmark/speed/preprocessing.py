"""Preprocessing beside DeepfakeBench's: `python -m benchmark.speed.preprocessing FOLDER`.

The videos of a folder go through the peer, mode dfb and mode strict in turn, video by video, in one process, so that a busy machine
is busy for all of them; then through both modes with one worker and with several. Times are the process's CPU time, beside the
wall's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmark.speed.peer_preprocessing import Peer, PeerFace
from preprocessing.codec import decode_array, decode_image
from preprocessing.faces import Dlib
from preprocessing.layouts import Video, read_layout
from preprocessing.pipeline import VideoReport, preprocess
from preprocessing.predictor import find_predictor
from preprocessing.settings import Settings
from preprocessing.work import VideoFaces, Work
from preprocessing.writer import StoreWriter

STAGES = ("decode", "detect", "landmarks", "align", "encode", "write")


@dataclass
class Parity:
    """Mode dfb against the peer, counted over videos.

    Attributes:
        videos: compared.
        frames: sampled frames with a face, in either.
        only_one: frames that only one of the two kept.
        landmarks: frames whose landmarks differ.
        crops: frames whose crops differ.
        difference: sum over frames of the crops' mean absolute difference, grey levels.
    """

    videos: int = 0
    frames: int = 0
    only_one: int = 0
    landmarks: int = 0
    crops: int = 0
    difference: float = 0.0

    def add(self, peer: list[PeerFace], ours: VideoFaces) -> None:
        """Compare one video."""
        theirs, mine = {f.frame: f for f in peer}, {f.frame: f for f in ours.faces}
        self.videos += 1
        self.frames += len(theirs.keys() | mine.keys())
        self.only_one += len(theirs.keys() ^ mine.keys())
        for number in theirs.keys() & mine.keys():
            crop = decode_image(mine[number].image).astype(int)
            difference = float(np.abs(crop - theirs[number].crop[..., ::-1]).mean())
            self.difference += difference
            self.crops += difference > 0
            self.landmarks += not np.array_equal(decode_array(mine[number].landmarks), theirs[number].landmarks)

    @property
    def identical(self) -> bool:
        """The same faces, and at least one."""
        return self.frames > 0 and not (self.only_one or self.landmarks or self.crops)

    def __str__(self) -> str:
        mean = self.difference / max(1, self.frames)
        return (
            f"{self.videos} videos, {self.frames} faces: {self.only_one} kept by one only, {self.landmarks} with other landmarks, "
            f"{self.crops} with another crop (mean absolute difference {mean:g})"
        )


@dataclass
class Run:
    """What one way of working took."""

    faces: int = 0
    frames: int = 0
    cpu: float = 0.0
    wall: float = 0.0
    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def rate(self) -> float:
        """Faces per second of CPU time: per core."""
        return self.faces / self.cpu


class Clock:
    """CPU and wall time of a block, added to a `Run`."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __enter__(self) -> None:
        self.began = time.process_time(), time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.run.cpu += time.process_time() - self.began[0]
        self.run.wall += time.perf_counter() - self.began[1]


def side_by_side(videos: list[Video], predictor: Path, folder: Path) -> tuple[dict[str, Run], Parity]:
    """The peer and both modes on each video in turn, in this process, each writing what it writes."""
    cv2.setNumThreads(1)
    peer, detector = Peer(predictor, folder / "peer"), Dlib(predictor)
    runs, parity = {"peer": Run(), "dfb": Run(), "strict": Run()}, Parity()
    works = {mode: Work(Settings(mode=mode, predictor=predictor), detector) for mode in ("dfb", "strict")}
    detector.boxes(np.zeros((80, 80, 3), np.uint8), 0)  # loads the models, as the peer's are loaded
    with (
        StoreWriter(folder / "dfb", works["dfb"].settings.recorded(detector)) as dfb,
        StoreWriter(folder / "strict", works["strict"].settings.recorded(detector)) as strict,
    ):
        for number, video in enumerate(videos):
            with Clock(runs["peer"]):
                theirs = peer.video(video.path, f"{number:05d}")
            runs["peer"].faces += len(theirs)
            for mode, writer in (("dfb", dfb), ("strict", strict)):
                run = runs[mode]
                with Clock(run):
                    done = works[mode](video)
                    began = time.perf_counter()
                    writer.add(done)
                    run.stages["write"] += time.perf_counter() - began
                run.faces += len(done.faces)
                run.frames += len(done.rows)
                for stage, seconds in done.seconds.items():
                    run.stages[stage] += seconds
                if mode == "dfb":
                    parity.add(theirs, done)
    runs["peer"].frames, runs["peer"].stages = runs["dfb"].frames, peer.seconds
    return runs, parity


def peer_threads(videos: list[Video], predictor: Path, folder: Path, threads: int) -> float:
    """Faces per second of wall time of the peer in threads, as DeepfakeBench runs it."""
    peers = [Peer(predictor, folder / f"peer{n}") for n in range(threads)]
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(_peer_share, peer, videos[n::threads]) for n, peer in enumerate(peers)]
        faces = sum(job.result() for job in jobs)
    return faces / (time.perf_counter() - began)


def _peer_share(peer: Peer, videos: list[Video]) -> int:
    return sum(len(peer.video(video.path, video.path.stem)) for video in videos)


def with_workers(videos: list[Video], settings: Settings, out: Path, workers: int) -> tuple[float, float]:
    """Faces per second of `preprocess` by wall time, and faces per second of CPU time of the worker processes.

    The wall time begins when the first video is done: starting processes and loading models, once per run, is left out.
    """
    done: list[tuple[float, int]] = []

    def on_video(report: VideoReport) -> None:
        done.append((time.perf_counter(), report.counts["face"]))

    began = _cpu()
    summary = preprocess(videos, out, settings, workers=workers, on_video=on_video)
    wall = done[-1][0] - done[0][0]
    return sum(faces for _, faces in done[1:]) / wall, summary.counts["faces"] / (_cpu() - began)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def memory(videos: list[Video], settings: Settings) -> list[float]:
    """Peak memory of a fresh worker process after each video, MB."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_watch, args=(theirs, videos, settings))
    process.start()
    theirs.close()
    peaks = [ours.recv() for _ in videos]
    process.join()
    return peaks


def _watch(pipe: Any, videos: list[Video], settings: Settings) -> None:
    work = Work(settings, Dlib(find_predictor(settings.predictor)))
    for video in videos:
        work(video)
        pipe.send(peak_memory())


def peak_memory() -> float:
    """Of this process, MB. From /proc where there is one: elsewhere it includes what the parent held when it started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(runs: dict[str, Run], parity: Parity) -> str:
    """The single-process part as text."""
    lines = [f"mode dfb against the peer: {parity}", ""]
    lines.append(f"{'one process':12}{'faces':>7}{'CPU s':>8}{'wall s':>8}{'faces/s':>9}{'ratio':>7}   share of wall time by stage")
    for name, run in runs.items():
        total = sum(run.stages.values())
        shares = ", ".join(f"{stage} {100 * run.stages[stage] / total:.1f} %" for stage in STAGES)
        ratio = run.rate / runs["peer"].rate
        lines.append(f"{name:12}{run.faces:7}{run.cpu:8.1f}{run.wall:8.1f}{run.rate:9.2f}{ratio:7.2f}   {shares}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="any folder of videos")
    parser.add_argument("--predictor", type=Path, help="a dlib shape predictor; default: the installed 68-point one")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="worker processes; default: the cores")
    parser.add_argument("--videos", type=int, help="only the first so many")
    given = parser.parse_args()
    videos = read_layout(given.folder, "folder")[: given.videos]
    predictor = find_predictor(given.predictor)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        runs, parity = side_by_side(videos, predictor, folder)
        print(report(runs, parity))
        print(f"\n{given.workers} threads of the peer: {peer_threads(videos, predictor, folder, given.workers):.2f} faces/s (wall)")
        for mode in ("dfb", "strict"):
            settings = Settings(mode=mode, predictor=predictor)
            rates = {n: with_workers(videos, settings, folder / f"{mode}{n}", n) for n in (1, given.workers)}
            (one, one_cpu), (all_of_them, all_cpu) = rates[1], rates[given.workers]
            print(
                f"{mode}: 1 process {one:.2f} faces/s, {given.workers} processes {all_of_them:.2f} "
                f"({all_of_them / one:.2f} times); per core-second {one_cpu:.2f} and {all_cpu:.2f}, start included"
            )
            peaks = memory(videos, settings)
            half = (len(peaks) + 1) // 2
            print(f"{mode}: peak memory of a worker after {half} videos {peaks[half - 1]:.0f} MB, after all {peaks[-1]:.0f} MB")


if __name__ == "__main__":
    main()
