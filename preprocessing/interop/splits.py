"""The splits of DeepfakeBench's files: what is wrong with them, and one honest split for each video.

The rule: a video is never in two splits. Listed for testing and for anything else, it is kept in test; listed for training and
validation, it is kept in train. A dataset whose file repeats all its videos in all splits has no split: "none", for testing only.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from preprocessing.interop.index import Entry

ORDER = ("none", "test", "train", "val")
"""A video listed in several splits is kept in the first of these."""


def settle(entries: list[Entry], keep: bool) -> list[tuple[Entry, str]]:
    """Each video with its split.

    Args:
        entries: the videos.
        keep: repeat the file's own: a video in several splits is taken once for each, named "<video>@<split>".
    """
    if not keep:
        unsplit = without_split(entries)
        return [(e, "none" if _group(e) in unsplit else min(e.splits, key=ORDER.index)) for e in entries]
    settled = []
    for entry in entries:
        several = len(entry.splits) > 1 and "none" not in entry.splits
        for split in sorted(entry.splits) if several else [min(entry.splits, key=ORDER.index)]:
            settled.append((replace(entry, video=f"{entry.video}@{split}") if several else entry, split))
    return settled


def without_split(entries: list[Entry]) -> set[tuple[str, str]]:
    """The (dataset, compression) whose videos are all in train, val and test."""
    split_up = {_group(e) for e in entries if not {"train", "val", "test"} <= e.splits or "none" in e.splits}
    return {_group(e) for e in entries} - split_up


def _group(entry: Entry) -> tuple[str, str]:
    return entry.dataset, entry.compression


def split_findings(entries: list[Entry], keep: bool) -> list[str]:
    """One sentence per error of the files' splits."""
    found: list[str] = []
    classes: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    datasets: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        classes[entry.dataset, entry.compression, entry.method].append(entry)
        datasets[entry.dataset, entry.compression].append(entry)
    unsplit = without_split(entries)
    for key, videos in classes.items():
        found += _class_findings("/".join(key), videos, keep, key[:2] in unsplit)
    for (dataset, compression), videos in datasets.items():
        found += _dataset_findings(f"{dataset}/{compression}", videos, keep)
    return found


def _class_findings(name: str, videos: list[Entry], keep: bool, unsplit: bool) -> list[str]:
    found = []
    empty = [v for v in videos if not v.frames]
    if empty:
        found.append(f"{name}: {len(empty)} of {len(videos)} videos have no frames, e.g. {empty[0].video}")
    listed = {
        split: {v.video for v in videos if split in v.splits and "none" not in v.splits} for split in ("train", "val", "test")
    }
    train, val, test = listed.values()
    if train and train == val == test:
        kept = "they are taken once for each" if keep else "they get the split 'none'" if unsplit else "they are kept in test"
        return [*found, f"{name}: all {len(train)} videos are in train, val and test: there is no split; {kept}"]
    if val and val == test:
        found.append(f"{name}: val and test list the same {len(val)} videos; {_kept(keep, 'test')}")
    elif val & test:
        found.append(f"{name}: {len(val & test)} of {len(test)} test videos are in val too; {_kept(keep, 'test')}")
    if train & test:
        found.append(f"{name}: {len(train & test)} of {len(test)} test videos are in train too; {_kept(keep, 'test')}")
    if (train & val) - test:
        both = (train & val) - test
        found.append(f"{name}: {len(both)} training videos are in val too; {_kept(keep, 'train')}")
    return found


def _kept(keep: bool, split: str) -> str:
    return "they are taken once for each" if keep else f"they are kept in {split} alone"


def _dataset_findings(name: str, videos: list[Entry], keep: bool) -> list[str]:
    found = []
    by_split: dict[str, set[int]] = defaultdict(set)
    for entry, split in settle([v for v in videos if v.frames], keep):
        by_split[split].add(entry.label)
    for split, labels in sorted(by_split.items()):
        if len(labels) == 1 and split != "none":
            found.append(f"{name}: {split} has {'fake' if labels == {1} else 'real'} videos only")
    if name.startswith("Celeb-DF"):
        found += _lost_folders(name, videos)
    if name.startswith("DeeperForensics") and any("source_videos" in v.folder for v in videos):
        found.append(
            f"{name}: the real videos are the source videos, which the dataset's authors do not mean as its real part "
            "(that is FaceForensics++ c23)"
        )
    return found


def _lost_folders(name: str, videos: list[Entry]) -> list[str]:
    real = [v for v in videos if v.label == 0 and v.folder]
    trained = {v.folder[-1] for v in real if "train" in v.splits}
    lost = {"Celeb-real", "YouTube-real"} - trained
    if not trained or not lost:
        return []
    return [
        f"{name}: no video of {', '.join(sorted(lost))} is in the real class of train "
        "(rearrange.py keeps the last folder of real videos only)"
    ]
