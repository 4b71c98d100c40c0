"""The known errors of DeepfakeBench's split files (the JSONs that its rearrange step writes), found in a file at hand.

The tree of such a file is dataset -> class -> split -> (compression ->) video -> {"label", "frames", ...}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SPLITS = ("train", "val", "test")
CELEB_REAL = ("Celeb-real", "YouTube-real")


@dataclass
class PeerClass:
    """One class of one dataset in such a file.

    Attributes:
        name: "<dataset>/<class>", e.g. "Celeb-DF-v1/CelebDFv1_real".
        splits: split -> video ("c23/000" where the file knows compressions) -> its frames' paths.
        malformed: splits that hold one video's fields where videos should be.
    """

    name: str
    splits: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)


def read_peer_file(file: Path) -> list[PeerClass] | None:
    """The classes of a split file of DeepfakeBench, or None where the file is something else (or no JSON)."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    classes: list[PeerClass] = []
    for dataset, labels in _items(content):
        for label, splits in _items(labels):
            one = PeerClass(f"{dataset}/{label}")
            for split, body in _items(splits):
                if split in SPLITS and isinstance(body, dict):
                    if isinstance(body.get("frames"), list):
                        one.malformed.append(split)
                    one.splits[split] = dict(_videos(body))
            if any(one.splits.values()) or one.malformed:
                classes.append(one)
    return classes or None


def split_errors(classes: list[PeerClass]) -> Iterator[tuple[str, list[str]]]:
    """(sentence, examples) for every known error that is in these classes."""
    for one in classes:
        for split in one.malformed:
            yield f"{one.name}: '{split}' holds the fields of one video instead of videos, what was there is lost", []
        yield from _overlaps(one)
        empty = sorted({v for videos in one.splits.values() for v, frames in videos.items() if not frames})
        if empty:
            yield f"{one.name}: {len(empty)} videos have no frames", empty
        yield from _lost_folder(one)
        if any("source_videos" in _parts(frame) for frame in _all_frames(one)):
            yield f"{one.name}: actors' source videos stand for the real class; DeeperForensics-1.0's authors say they are not", []


def _overlaps(one: PeerClass) -> Iterator[tuple[str, list[str]]]:
    train, val, test = (set(one.splits.get(split, {})) for split in SPLITS)
    if train and train == val == test:
        yield f"{one.name}: train, val and test are the same {len(train)} videos", sorted(train)
        return
    everywhere = train & val & test
    if everywhere and not test <= train:
        yield f"{one.name}: {len(everywhere)} videos are in train, val and test", sorted(everywhere)
    shared = (train & test) - (everywhere if not test <= train else set())
    if shared:
        yield f"{one.name}: {len(shared)} of the {len(test)} test videos are in train too", sorted(shared)
    if val and val == test:
        yield f"{one.name}: val is the same {len(val)} videos as test", sorted(val)
    elif (train & val) - everywhere:
        copied = (train & val) - everywhere
        yield f"{one.name}: {len(copied)} of the {len(val)} val videos are in train too", sorted(copied)


def _lost_folder(one: PeerClass) -> Iterator[tuple[str, list[str]]]:
    if not (one.name.startswith("Celeb-DF") and one.name.lower().endswith("real")):
        return
    train = one.splits.get("train", {})
    there = {folder for frames in train.values() for frame in frames[:1] for folder in CELEB_REAL if folder in _parts(frame)}
    if len(there) == 1:
        lost = next(folder for folder in CELEB_REAL if folder not in there)
        kept = next(iter(there))
        yield f"{one.name}: all {len(train)} real training videos are from {kept}; those of {lost} are lost", []


def _videos(body: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for name, leaf in body.items():
        if not isinstance(leaf, dict):
            continue
        if isinstance(leaf.get("frames"), list):
            yield name, leaf["frames"]
        else:
            yield from ((f"{name}/{video}", inner["frames"]) for video, inner in _items(leaf) if _is_leaf(inner))


def _is_leaf(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("frames"), list)


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    return iter(value.items() if isinstance(value, dict) else ())


def _all_frames(one: PeerClass) -> Iterator[str]:
    return (frame for videos in one.splits.values() for frames in videos.values() for frame in frames[:1])


def _parts(path: str) -> list[str]:
    return str(path).replace("\\", "/").split("/")
