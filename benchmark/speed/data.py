"""Reading faces beside DeepfakeBench's way: `python -m benchmark.speed.data STORE`.

The faces of a store are written to PNG files for the peer, and to the cache of decoded faces for us; both then take turns in one
process on one thread, batch by batch, so that a busy machine is busy for both. Ours are checked against the files, level by level.

Cold means that the pages of the files were given back before each batch (posix_fadvise and, for the mapped cache, madvise, both
with DONTNEED). The kernel takes that as advice, and a machine may hold a page elsewhere (a virtual disk, a network share): what is
printed as cold is as cold as a process can make it. Ctrl-C (or SIGTERM) ends the measurement; what is measured by then is printed.
"""

from __future__ import annotations

import argparse
import itertools
import mmap
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmark.allocator import keep_memory
from benchmark.config import ConfigError
from benchmark.data import FaceFrames
from benchmark.decoded import CachedImages, Images, resize
from benchmark.examples import names
from benchmark.presets import augment_examples
from benchmark.speed import peer_data
from benchmark.speed.by_hand import at_least, in_sentences, shown
from benchmark.speed.paired import Median, median
from detectors.base import Detector
from preprocessing.store import FaceStore

READING, END_TO_END = 20.0, 3.0
"""What is aimed at, in images per second over the peer's: faces from a warm cache, and with the dfb augmentation on top."""

Way = Callable[[NDArray[np.int64]], object]
"""Positions of a batch's faces -> its tensor; the same faces for both."""


@dataclass(frozen=True)
class Rates:
    """Images per second, medians over the turns, and how many times as fast ours is: the median of each turn's ratio.

    `turns` says how many there were: fewer than asked for where Ctrl-C ended them.
    """

    peer: float
    ours: float
    ratio: Median
    turns: int


def drop_pages(files: list[Path], mapped: Images | None = None) -> bool:
    """Ask the kernel to forget the files' pages, and those that `mapped` holds; whether it can be asked here at all."""
    if not hasattr(os, "posix_fadvise") or not hasattr(mmap, "MADV_DONTNEED"):
        return False
    if isinstance(mapped, np.memmap):
        mapped._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]  # a page that is mapped is not dropped
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # a page that is not on the disk yet would stay
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
    return True


def take_turns(
    peer: Way,
    ours: Way,
    batches: list[NDArray[np.int64]],
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
) -> Rates:
    """Both ways over the same batches in turn.

    Args:
        peer, ours: the ways.
        batches: what either is given.
        before: called before each batch of either.
        after: called after each batch that both have read; neither is timed.

    Raises:
        KeyboardInterrupt: before both have read a batch; a later one ends the turns.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    try:
        for number, batch in enumerate(batches):
            order = (0, 1) if number % 2 else (1, 0)
            for who in order:
                before()
                started = time.perf_counter()
                (peer, ours)[who](batch)
                seconds[who].append((time.perf_counter() - started) / len(batch))
            after()
    except KeyboardInterrupt:
        if not all(seconds):
            raise
    turns = min(map(len, seconds))
    peers, our = (those[:turns] for those in seconds)
    ratio = median([theirs / own for theirs, own in zip(peers, our, strict=True)])
    return Rates(1 / statistics.median(peers), 1 / statistics.median(our), ratio, turns)


def ways(files: list[Path], frames: FaceFrames, size: int) -> dict[str, tuple[Way, Way]]:
    """The peer's and our way by what is compared: "reading" and "with the dfb augmentation".

    Reading ends where the augmentation begins: the peer's at an 8-bit PIL image and ours at the 8-bit faces of the batch.
    """
    named = names(frames.rows["key"].astype(str))
    normalised = Detector().normalize
    generator, epoch = np.random.default_rng(0), itertools.count()  # every batch is drawn anew, here as there

    def peer_reads(batch: NDArray[np.int64]) -> object:
        return [peer_data.read(files[i], size) for i in batch]

    def we_read(batch: NDArray[np.int64]) -> object:
        return frames.levels(batch)

    def peer_augments(batch: NDArray[np.int64]) -> Tensor:
        faces = (peer_data.augmented(peer_data.read(files[i], size), generator) for i in batch)
        return torch.stack([peer_data.to_tensor(face) for face in faces])

    def we_augment(batch: NDArray[np.int64]) -> Tensor:
        examples = np.stack([named[batch], np.zeros(len(batch), np.int64)], axis=1)
        return normalised(augment_examples("dfb", frames.levels(batch), 0, next(epoch), examples))

    def peer_tensors(batch: NDArray[np.int64]) -> Tensor:
        return torch.stack([peer_data.to_tensor(peer_data.read(files[i], size)) for i in batch])

    def our_tensors(batch: NDArray[np.int64]) -> Tensor:
        return normalised(frames.pixels(batch))

    return {
        "faces before augmentation": (peer_reads, we_read),
        "normalised tensors": (peer_tensors, our_tensors),
        "with the dfb augmentation": (peer_augments, we_augment),
    }


def different_levels(files: list[Path], frames: FaceFrames, size: int) -> int:
    """How many grey levels of the cached faces differ from the files'."""
    different = 0
    for path, i in zip(files, frames.rows["index"], strict=True):
        face = np.asarray(Image.open(path).convert("RGB"), np.uint8)
        different += int(np.count_nonzero(resize(face, size) != frames.images[i]))
    return different


def main() -> None:
    """Print the rates, and whether the targets are met."""
    parser = argparse.ArgumentParser(description="Images per second from disk to a batch, beside DeepfakeBench's way.")
    parser.add_argument("store", type=Path, help="folder of a face store")
    parser.add_argument("--size", type=at_least(1), default=256, help="side of the faces in pixels; default 256")
    parser.add_argument("--faces", type=at_least(1), default=512, help="how many of the store's faces are used; default 512")
    parser.add_argument("--batch-size", type=at_least(1), default=32, help="faces in a batch; default 32")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="times through the faces, cold once; default 3")
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with FaceStore(args.store) as store, tempfile.TemporaryDirectory() as folder:
        rows = store.manifest.reset_index(drop=True).rename_axis("index").reset_index()
        rows = rows.iloc[:: max(1, len(rows) // args.faces)].head(args.faces).reset_index(drop=True)
        if len(rows) < args.batch_size:
            raise ConfigError(f"{len(rows)} faces are fewer than a batch of {args.batch_size}; take a smaller --batch-size")
        with shown("decode faces", len(store.manifest), "face") as one_more:
            images = CachedImages(store, args.size, lambda done, total: one_more(), _no_cache).images
        frames = FaceFrames(rows, (), images)
        files = [Path(folder) / f"{i:06d}.png" for i in range(len(rows))]
        with shown("write files", len(files), "face") as one_more:
            for key, path in zip(rows["key"], files, strict=True):
                cv2.imwrite(str(path), cv2.cvtColor(store.image(key), cv2.COLOR_RGB2BGR))
                one_more()
        _report(files, frames, args.size, args.batch_size, args.rounds)


def _no_cache(sentence: str) -> None:
    raise ConfigError(f"it is the cache of decoded faces that is measured here, and {sentence}")


def _report(files: list[Path], frames: FaceFrames, size: int, batch_size: int, rounds: int) -> None:
    cache = [Path(str(getattr(frames.images, "filename", "")))]
    generator = np.random.default_rng(0)
    whole = len(frames) // batch_size * batch_size
    batches = [b for _ in range(rounds) for b in generator.permutation(len(frames))[:whole].reshape(-1, batch_size)]
    print(f"{len(frames)} faces of {size} px, batches of {batch_size}, one thread; images per second")
    print(f"{'':42} {'peer':>8} {'ours':>9} {'ratio':>7} (95 % interval)")
    measured: dict[str, Rates] = {}
    for name, (peer, ours) in ways(files, frames, size).items():
        for temperature in ("warm", "cold"):

            def forget(cold: bool = temperature == "cold") -> None:
                if cold:
                    drop_pages([*files, *cache], frames.images)

            if temperature == "cold" and not drop_pages([*files, *cache]):
                print(f"{name}, cold: this system cannot drop a file's pages")
                continue
            what = f"{name}, {temperature}"
            some = batches if temperature == "warm" else batches[: len(batches) // rounds]
            try:
                with shown(what, len(some), "batch") as one_more:
                    peer(batches[0]), ours(batches[0])
                    rates = measured[what] = take_turns(peer, ours, some, forget, one_more)
            except KeyboardInterrupt:
                _targets(measured)
                sys.exit(f"Stopped before '{what}' was measured.")
            print(f"{what:42} {rates.peer:8.0f} {rates.ours:9.0f} {rates.ratio:.1f}", flush=True)
            if rates.turns < len(some):
                _targets(measured)
                sys.exit(f"Stopped while '{what}' was measured; its line is of {rates.turns} of {len(some)} batches.")
    _targets(measured)
    try:
        different = different_levels(files, frames, size)
    except KeyboardInterrupt:
        sys.exit("Stopped before the grey levels were compared.")
    print(f"target no grey level lost: {different} differ, {'met' if different == 0 else 'NOT met'}")


def _targets(measured: dict[str, Rates]) -> None:
    for what, target, name in (
        ("faces from a warm cache", READING, "faces before augmentation, warm"),
        ("end to end with the dfb augmentation", END_TO_END, "with the dfb augmentation, warm"),
    ):
        if name in measured:
            found = measured[name].ratio
            print(f"target {what} >= {target:g} x the peer: {found:.1f} x, {found.at_least(target)}", flush=True)


if __name__ == "__main__":
    in_sentences(main)
