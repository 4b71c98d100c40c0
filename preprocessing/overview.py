"""What is in a store, summed up: numbers for a person to look at."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from preprocessing.store import FaceStore
from preprocessing.work import STATUSES, WHOLE_VIDEO

GROUP = ["dataset", "compression", "method", "split"]
VIDEO = ["dataset", "compression", "method", "video"]


@dataclass(frozen=True)
class Bin:
    """Videos with `low` to `high` faces, both included."""

    low: int
    high: int
    videos: int


@dataclass(frozen=True)
class Overview:
    """A store in numbers.

    Attributes:
        groups: a row per dataset, compression, method and split: videos, identities, unreadable videos, sampled frames, faces;
            index by number.
        faces_per_video: videos by their number of faces, from none to the most; every video is in one bin.
        failures: a row per status and reason of frames without a face: videos, frames (a whole video counts as one); most first.
        settings: as recorded in the store.
        sizes: bytes on disk by file or folder of the store.
    """

    groups: pd.DataFrame
    faces_per_video: list[Bin]
    failures: pd.DataFrame
    settings: dict[str, Any]
    sizes: dict[str, int]


def overview(store: FaceStore, bins: int = 12) -> Overview:
    """Sum up a store.

    Args:
        store: finished or not (`open_store`).
        bins: at most so many bins of the histogram.

    Raises:
        PreprocessingError: if the store's tables cannot be read.
    """
    ledger = store.ledger
    per_video = ledger.assign(face=ledger["status"] == "face").groupby(VIDEO, sort=True, observed=True)["face"].sum()
    return Overview(
        groups(ledger),
        histogram([int(n) for n in per_video], bins),
        failures(ledger),
        dict(store.info["settings"]),
        sizes(store.path),
    )


def groups(ledger: pd.DataFrame) -> pd.DataFrame:
    """Videos, identities, unreadable videos, sampled frames and faces by dataset, compression, method, split; real first."""
    whole = ledger["frame"] == WHOLE_VIDEO
    marked = ledger.assign(whole=whole, sampled=~whole, face=ledger["status"] == "face")
    found = marked.groupby([*GROUP, "label"], sort=True, observed=True).agg(
        videos=("video", "nunique"),
        identities=("identity", "nunique"),
        unreadable=("whole", "sum"),
        frames=("sampled", "sum"),
        faces=("face", "sum"),
    )
    # In the order in which datasets are described: real before forged, train before val before test.
    order = {split: number for number, split in enumerate(("train", "val", "test", "none"))}
    table = found.reset_index()
    table = table.assign(order=table["split"].map(order)).sort_values(["dataset", "compression", "label", "method", "order"])
    return table.drop(columns=["order", "label"]).reset_index(drop=True)


def histogram(counts: list[int], bins: int = 12) -> list[Bin]:
    """Bins of equal width from 0 to the largest count; videos without any face have a bin of their own.

    >>> histogram([0, 1, 4, 4], bins=3)
    [Bin(low=0, high=0, videos=1), Bin(low=1, high=2, videos=1), Bin(low=3, high=4, videos=2)]
    """
    most = max(counts, default=0)
    made = [Bin(0, 0, sum(n == 0 for n in counts))]
    width = -(-most // max(1, bins - 1)) if most else 1
    # Counted down from the largest, so that the last bin, where most videos are, is a full one.
    edges = list(range(most, 0, -width))[::-1]
    for low, high in zip([1, *(e + 1 for e in edges)], edges, strict=False):
        made.append(Bin(low, high, sum(low <= n <= high for n in counts)))
    return made


def failures(ledger: pd.DataFrame) -> pd.DataFrame:
    """Frames without a face by status and reason: columns status, reason, videos, frames; most frames first."""
    lost = ledger[ledger["status"] != "face"]
    if lost.empty:
        return pd.DataFrame(columns=["status", "reason", "videos", "frames"])
    named = lost.assign(key=lost[VIDEO].agg("/".join, axis=1))
    table = named.groupby(["status", "reason"], sort=True, observed=True).agg(videos=("key", "nunique"), frames=("key", "size"))
    table = table.reset_index()
    rank = {status: number for number, status in enumerate(STATUSES)}
    return table.assign(rank=table["status"].map(rank)).sort_values(["frames", "rank"], ascending=[False, True])[
        ["status", "reason", "videos", "frames"]
    ].reset_index(drop=True)  # fmt: skip


def sizes(folder: Path) -> dict[str, int]:
    """Bytes on disk of each file of a store, and of each folder in it (the cache of decoded faces); the largest first."""
    found: dict[str, int] = {}
    for path in folder.iterdir():
        if path.is_dir():
            found[f"{path.name}/"] = sum(_bytes(Path(here, f)) for here, _, files in os.walk(path) for f in files)
        else:
            found[path.name] = _bytes(path)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _bytes(path: Path) -> int:
    status = path.stat()
    return status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
