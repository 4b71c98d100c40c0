"""Are these the same faces? Two stores, compared video by video: neither needs to fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocessing import codec
from preprocessing.errors import PreprocessingError
from preprocessing.layouts import METADATA
from preprocessing.store import NOT_CONTENT, FaceStore, Record, face_key, video_key

KINDS = ("only in A", "only in B", "pixels", "landmarks", "mask", "damaged", "label", "split", "identity")
"""How two stores can differ; "label", "split" and "identity" are of videos, the others of faces."""


@dataclass(frozen=True)
class Difference:
    """One face, or one video's metadata, in which two stores differ.

    Attributes:
        kind: one of KINDS.
        key: the face's key, or the video's.
        detail: in words.
        mean: pixels: mean absolute difference in grey levels; landmarks: mean distance in pixels; mask: share of pixels that
            differ; None where there is no such number.
    """

    kind: str
    key: str
    detail: str = ""
    mean: float | None = None


def differences(
    a: FaceStore, b: FaceStore, deep: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> Iterator[Difference]:
    """Every difference, in the order of keys. Videos without a face in either store are passed over.

    Args:
        a: a store.
        b: another.
        deep: decode every face; otherwise a face of which both stores recorded one digest when they were written is the same.
        on_progress: called with (videos done, all videos), counted in both stores.
    """
    total = a.info["counts"]["videos"] + b.info["counts"]["videos"]
    done = 0
    for first, second in _side_by_side(a.records(), b.records()):
        if first is None or second is None:
            yield from _alone(first or second or {}, "only in A" if second is None else "only in B", "")
        else:
            yield from _video(a, b, first, second, deep)
        done += (first is not None) + (second is not None)
        if on_progress is not None:
            on_progress(done, total)


def beside_faces(a: FaceStore, b: FaceStore) -> list[str]:
    """Where two stores have the same faces, labels and splits: in what else their fingerprints see them differ, in words."""
    one, other = ({k: v for k, v in store.info["settings"].items() if k not in NOT_CONTENT} for store in (a, b))
    names = sorted(k for k in {**one, **other} if (k in one, one.get(k)) != (k in other, other.get(k)))
    found = [f"the settings ({', '.join(names)})"] if names else []
    videos = []
    for first, second in _side_by_side(a.records(), b.records()):
        if first is None or second is None:
            videos.append(f"{video_key(first or second or {})}, only in {'B' if first is None else 'A'}")
        elif _without_faces(first) != _without_faces(second):
            videos.append(video_key(first))
    if videos:
        count = "1 video (" if len(videos) == 1 else f"{len(videos)} videos (e.g. "
        found.append(f"frames without a face, of {count}{videos[0]})")
    return found


def _without_faces(record: Record) -> dict[str, Any]:
    frames = [(frame, status) for frame, status, _, _ in record["frames"] if status != "face"]
    return {**{name: record[name] for name in METADATA}, "frames": frames}


def _side_by_side(a: Iterator[Record], b: Iterator[Record]) -> Iterator[tuple[Record | None, Record | None]]:
    """Two runs in the order of keys' bytes -> pairs of one key; None where a key is in one run only."""
    first, second = next(a, None), next(b, None)
    while first is not None or second is not None:
        left = None if first is None else video_key(first).encode()
        right = None if second is None else video_key(second).encode()
        if right is None or (left is not None and left < right):
            yield first, None
            first = next(a, None)
        elif left is None or right < left:
            yield None, second
            second = next(b, None)
        else:
            yield first, second
            first, second = next(a, None), next(b, None)


def _faces(record: Record) -> dict[int, str]:
    return {frame: digest for frame, status, _, digest in record["frames"] if status == "face"}


def _alone(record: Record, kind: str, detail: str) -> Iterator[Difference]:
    for frame in _faces(record):
        yield Difference(kind, face_key(video_key(record), frame), detail)


def _video(a: FaceStore, b: FaceStore, first: Record, second: Record, deep: bool) -> Iterator[Difference]:
    key, left, right = video_key(first), _faces(first), _faces(second)
    if left or right:
        for name in METADATA:
            if first[name] != second[name]:
                yield Difference(name, key, f"{first[name]} in A, {second[name]} in B")
    for frame in sorted({*left, *right}):
        at = face_key(key, frame)
        if frame not in right:
            yield Difference("only in A", at, _why_not(second, frame, "B"))
        elif frame not in left:
            yield Difference("only in B", at, _why_not(first, frame, "A"))
        elif deep or left[frame] != right[frame]:
            yield from _face(a, b, at)


def _why_not(record: Record, frame: int, store: str) -> str:
    for number, status, reason, _ in record["frames"]:
        if number == frame:
            return f"{status.replace('_', ' ')} in {store}" + (f": {reason}" if reason else "")
    return f"not sampled in {store}"


def _face(a: FaceStore, b: FaceStore, key: str) -> Iterator[Difference]:
    contents: list[tuple[Any, ...]] = []
    for name, store in (("A", a), ("B", b)):
        try:
            contents.append((store.image(key), store.landmarks(key), store.mask(key)))
        except (PreprocessingError, ValueError, EOFError) as error:
            yield Difference("damaged", key, f"in {name}: {error}")
    if len(contents) < 2:
        return
    (image, points, mask), (other, others, other_mask) = contents
    if image.shape != other.shape:
        yield Difference("pixels", key, f"{_size(image)} in A, {_size(other)} in B")
    elif not np.array_equal(image, other):
        apart = np.abs(image.astype(np.int16) - other)
        yield Difference("pixels", key, f"largest difference {int(apart.max())}", float(apart.mean()))
    if points.shape != others.shape:
        yield Difference("landmarks", key, f"{len(points)} points in A, {len(others)} in B")
    elif codec.digest(points) != codec.digest(others):
        distance = np.linalg.norm(points.astype(np.float64) - others, axis=1)
        yield Difference("landmarks", key, f"largest distance {distance.max():.3f}", float(distance.mean()))
    if (mask is None) != (other_mask is None):
        yield Difference("mask", key, f"only in {'B' if mask is None else 'A'}")
    elif mask is not None and other_mask is not None:
        if mask.shape != other_mask.shape:
            yield Difference("mask", key, f"{_size(mask)} in A, {_size(other_mask)} in B")
        elif not np.array_equal(mask, other_mask):
            share = float((mask != other_mask).mean())
            yield Difference("mask", key, f"{share:.2%} of the pixels", share)


def _size(image: Any) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
