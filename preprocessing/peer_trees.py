"""Known errors of DeepfakeBench's rearrange step that show in a dataset's folder, or only beside its JSON file.

`preprocessing.peer_splits` finds those that show in the JSON file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from preprocessing.layouts import Video
from preprocessing.peer_splits import CELEB_REAL, PeerClass

PNG = b"\x89PNG\r\n\x1a\n"
DEEPER = "DeeperForensics-1.0"
BESIDE_FF = {
    "FF-FH": "manipulated_sequences/FaceShifter",
    "DFD_fake": "manipulated_sequences/DeepFakeDetection",
    "DFD_real": "original_sequences/actors",
}
"""The classes that rearrange deletes from FaceForensics++'s, and the folders that make them."""
COUNTS = {
    ("Celeb-DF-v1/CelebDFv1_real", "test"): (38, 1203),
    ("Celeb-DF-v1/CelebDFv1_fake", "test"): (62, 1933),
    ("Celeb-DF-v1/CelebDFv1_real", "train"): (250, 7946),
    ("Celeb-DF-v1/CelebDFv1_fake", "train"): (795, 25362),
    ("UADFV/UADFV_Real", "test"): (49, 1548),
    ("UADFV/UADFV_Fake", "test"): (49, 1551),
}
"""(class, split) -> videos and frames in the files that DeepfakeBench's authors made (those that public forks carry)."""

Error = tuple[str, list[str]]


def tree_errors(layout: str, root: Path, videos: Sequence[Video]) -> Iterator[Error]:
    """(sentence, examples) for each error that rearrange would make of this folder.

    Args:
        layout: the layout's name.
        root: the dataset's folder.
        videos: of the dataset, as its layout gives them.
    """
    find = _OF_LAYOUT.get(layout)
    if find is not None:
        yield from find(root, videos)


def count_errors(classes: list[PeerClass]) -> Iterator[Error]:
    """Where a file has other numbers of videos or frames than its authors' own file of that dataset."""
    for one in classes:
        for split, listed in one.splits.items():
            expected = COUNTS.get((one.name, split))
            found = len(listed), sum(map(len, listed.values()))
            if listed and expected is not None and found != expected:
                yield f"{one.name}: {split} has {_counted(found)}; the file of DeepfakeBench's authors has {_counted(expected)}", []


def frame_errors(classes: list[PeerClass], root: Path) -> Iterator[Error]:
    """What rearrange does wrong with DeeperForensics-1.0: names that are whole paths, and listed frames that are no images.

    Args:
        classes: of one file.
        root: the dataset's folder, where the frames may lie; frames that are not there are passed over.
    """
    for one in classes:
        if not one.name.startswith(f"{DEEPER}/"):
            continue
        named = {video: frames for listed in one.splits.values() for video, frames in listed.items()}
        paths = sorted(video for video in named if "\\" in video or "/" in video)
        if paths:
            yield f"{one.name}: {len(paths)} videos are named by their whole path, as rearrange names them on Windows", paths
        broken = [frame for frames in named.values() for frame in frames if _is_broken(frame, root)]
        if broken:
            yield (
                f"{one.name}: {len(broken)} listed frames are no PNG files; rearrange passes over the one after each that it drops",
                broken,
            )


def _is_broken(frame: str, root: Path) -> bool:
    _, found, below = str(frame).replace("\\", "/").rpartition(f"{DEEPER}/")
    try:
        return bool(found) and (root / below).read_bytes()[: len(PNG)] != PNG
    except OSError:
        return False


def _counted(counts: tuple[int, int]) -> str:
    return f"{counts[0]} videos and {counts[1]} frames"


def _faceforensics(root: Path, videos: Sequence[Video]) -> Iterator[Error]:
    # A class exists for rearrange where preprocess.py has made frames, and that needs the folder.
    absent = [folder for folder in BESIDE_FF.values() if not (root / folder).is_dir()]
    if absent:
        yield f"DeepfakeBench's rearrange would stop with a KeyError, because {len(absent)} folders are not here", absent
    unknown = [v.path.name for v in videos if v.label == 1 and v.split == "none"]
    if unknown:
        yield f"DeepfakeBench would put {len(unknown)} forged videos that no list names into train, val and test", unknown


def _deeperforensics(root: Path, videos: Sequence[Video]) -> Iterator[Error]:
    unknown = [v.path.name for v in videos if v.label == 1 and v.split == "none"]
    if unknown:
        yield f"DeepfakeBench's rearrange would stop with a NameError at {len(unknown)} forged videos that no list names", unknown


def _celebdf(root: Path, videos: Sequence[Video]) -> Iterator[Error]:
    real = {folder: sum(v.label == 0 and v.split == "train" and folder in v.path.parts for v in videos) for folder in CELEB_REAL}
    if all(real.values()):
        counts = " or ".join(f"{count} of {folder}" for folder, count in real.items())
        yield f"DeepfakeBench would train on one of the two real folders only and lose the other ({counts})", []
    tested = [v.video for v in videos if v.split == "test"]
    if tested:
        yield f"DeepfakeBench would train on all {len(tested)} test videos too", tested


_OF_LAYOUT: dict[str, Callable[[Path, Sequence[Video]], Iterator[Error]]] = {
    "faceforensics++": _faceforensics,
    "deeperforensics-1.0": _deeperforensics,
    "deeperforensics-1.0-source": _deeperforensics,
    "celeb-df-v1": _celebdf,
    "celeb-df-v2": _celebdf,
}
