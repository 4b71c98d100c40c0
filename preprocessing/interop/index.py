"""DeepfakeBench's JSON -> one `Entry` per video, and what is wrong with the file."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from preprocessing.errors import PreprocessingError, did_you_mean
from preprocessing.interop.names import COMPRESSIONS, LABELS, REAL, dataset_of, folder_of, identity_of, is_real, method_of
from preprocessing.layouts import NO_COMPRESSION, SPLITS

LAST_NUMBER = 2**63 - 1
"""The largest frame number that the tables of a store hold."""

Place = tuple[str, ...]
"""The parts of a frame's path, from the dataset's folder on where it is named: ("UADFV", "real", "frames", "0000", "000.png")."""


@dataclass
class Entry:
    """One video of the JSON files; its mentions in several splits and files are united.

    Attributes:
        splits: every split that lists it.
        folder: the parts of its place above "frames": where it lies.
        home: the dataset's folder below the root of all datasets.
        frames: the places of its frames by frame number.
        masks: the places of its masks by frame number, where the file lists them.
    """

    dataset: str
    compression: str
    method: str
    video: str
    identity: str
    splits: set[str] = field(default_factory=set)
    folder: Place = ()
    home: str = ""
    frames: dict[int, Place] = field(default_factory=dict)
    masks: dict[int, Place] = field(default_factory=dict)

    @property
    def label(self) -> int:
        """0 real, 1 fake."""
        return int(self.method != REAL)


@dataclass
class Index:
    """What the JSON files say.

    Attributes:
        entries: one per video.
        findings: one sentence per error of the files.
    """

    entries: list[Entry] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def read_json(file: Path) -> dict[str, Any]:
    """A dataset's JSON file.

    Raises:
        PreprocessingError: if it is missing, no JSON, or of another shape than DeepfakeBench's.
    """
    if not file.is_file():
        raise PreprocessingError(f"{file} is missing; give the JSON that DeepfakeBench's rearrange.py wrote for the dataset")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise PreprocessingError(f"{file} is no JSON: {error}") from error
    shape = f"{file} has another shape than DeepfakeBench's {{dataset: {{label: {{split: {{video: {{label, frames}}}}}}}}}}"
    if not isinstance(content, dict) or not content:
        raise PreprocessingError(f"{shape}: it holds a {type(content).__name__} of {len(content) if content else 0} at the top")
    for dataset, labels in content.items():
        if not isinstance(labels, dict) or not labels:
            raise PreprocessingError(f"{shape}: '{dataset}' holds no labels")
        for label, splits in labels.items():
            if not isinstance(splits, dict) or not set(splits) & set(SPLITS):
                found = ", ".join(list(splits)[:3]) if isinstance(splits, dict) else type(splits).__name__
                raise PreprocessingError(f"{shape}: '{dataset}' / '{label}' holds {found or 'nothing'} in place of splits")
    return content


def read_index(files: list[Path], own_labels: dict[str, str], name: str | None, compressions: list[str]) -> Index:
    """Every video that the JSON files list.

    Args:
        files: the JSON files.
        own_labels: what the user says of labels, label -> method.
        name: overrides the dataset's name.
        compressions: levels to take; empty takes all.

    Raises:
        PreprocessingError: for a missing file, another shape, a method that is "real" but for its case, no videos,
            a label of the user's that no video has, or a `name` for several datasets.
    """
    index = Index()
    by_name: dict[tuple[str, str, str, str], dict[Place, Entry]] = {}
    unknown: dict[str, int] = {}
    contradictions: list[str] = []
    levels: set[str] = set()
    labelled: set[str] = set()
    for file in files:
        for top, labels in read_json(file).items():
            for label, split, compression, video, leaf in _leaves(file, top, labels, index.findings):
                levels.add(compression or NO_COMPRESSION)
                labelled.add(str(leaf["label"]))
                if compressions and compression not in compressions:
                    continue
                if leaf["label"] != label:
                    contradictions.append(f"{top}/{label}/{video} ({leaf['label']})")
                ours = leaf.get("method")
                method = ours if isinstance(ours, str) and ours else method_of(str(leaf["label"]), own_labels)
                if method is not None and method != REAL and is_real(method):
                    where = f"{file}: {top} / {label} / {video}"
                    raise PreprocessingError(f"{where} has the method '{method}'; write '{REAL}', or name the forgery otherwise")
                if method is None:
                    unknown[str(leaf["label"])] = unknown.get(str(leaf["label"]), 0) + 1
                    continue
                _note(by_name, _entry(dataset_of(top), compression, method, video, leaf), split)
    for word in own_labels if labelled else ():
        if word not in labelled:
            raise PreprocessingError(
                f"--label {word}={own_labels[word]}: no video has the label '{word}': {did_you_mean(word, labelled)}"
            )
    _report_labels(index, unknown, contradictions)
    for same in by_name.values():
        index.entries += _told_apart(list(same.values()), index.findings)
    if not index.entries:
        only = f" of compression {', '.join(compressions)}; there is {', '.join(sorted(levels))}" if compressions and levels else ""
        listed = f"lists no videos{only}" if not unknown else f"leaves no video to import: {'; '.join(index.findings)}"
        raise PreprocessingError(f"{', '.join(map(str, files))} {listed}")
    _rename(index.entries, name)
    _report_levels(index)
    return index


def _leaves(
    file: Path, top: str, labels: dict[str, Any], findings: list[str]
) -> Iterator[tuple[str, str, str | None, str, dict[str, Any]]]:
    for label, splits in labels.items():
        for split, content in splits.items():
            where = f"{file.name}: {top} / {label} / {split}"
            if split not in SPLITS or not isinstance(content, dict):
                findings.append(f"{where} is no split of train, val, test and is left out")
                continue
            if isinstance(content.get("frames"), list):
                findings.append(
                    f"{where} holds one video's label and frames in the place of the videos; that video's name is lost here"
                )
                content = {k: v for k, v in content.items() if k not in ("label", "frames", "masks")}
            for name, value in content.items():
                if name in COMPRESSIONS and isinstance(value, dict) and "frames" not in value:
                    for video, leaf in value.items():
                        yield label, split, name, video, _leaf(where, video, leaf, label)
                else:
                    leaf = _leaf(where, name, value, label)
                    yield label, split, _compression(leaf), name, leaf


def _leaf(where: str, video: str, leaf: Any, label: str) -> dict[str, Any]:
    if not isinstance(leaf, dict) or not isinstance(leaf.get("frames"), list):
        raise PreprocessingError(f"{where} / {video} must hold a label and a list of frames, as DeepfakeBench's files do")
    for kind in ("frames", "masks"):
        for path in leaf.get(kind, ()):
            if not isinstance(path, str):
                raise PreprocessingError(f"{where} / {video} lists {path!r} among its {kind}; DeepfakeBench's files list paths")
    return {"label": label, **leaf}


def _compression(leaf: dict[str, Any]) -> str:
    above = parts_of(leaf["frames"][0])[:-3] if leaf["frames"] else ()
    return above[-1] if above and above[-1] in COMPRESSIONS else NO_COMPRESSION


def parts_of(path: str) -> Place:
    """The parts of a path with slashes, back-slashes or both; drive letters and "." are dropped."""
    parts = path.replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", ".") and not (len(part) == 2 and part[1] == ":"))


def place_of(path: str, dataset: str) -> Place:
    """The parts of a path from the dataset's folder on, or all of them where the path does not name that folder."""
    cut = max(path.rfind("/"), path.rfind("\\")) + 1
    return (*_folder_place(path[:cut], folder_of(dataset)), path[cut:])


@lru_cache(maxsize=1024)  # frames come video by video, and a big dataset has millions
def _folder_place(path: str, home: str) -> Place:
    parts = parts_of(path)
    above = parts[:-2]  # what holds "frames" and the video
    return parts[len(above) - 1 - above[::-1].index(home) :] if home in above else parts


def numbered(places: list[Place]) -> dict[int, Place]:
    """Places by frame number: the file's stem, or the digits it ends in; by their order where these do not tell them apart, or are
    more than a store's tables hold (a date with microseconds)."""
    found: dict[int, Place] = {}
    unique = sorted(set(places))
    for place in unique:
        digits = re.search(r"(\d+)$", place[-1].rpartition(".")[0])
        if digits is None or int(digits[1]) in found or int(digits[1]) > LAST_NUMBER:
            return dict(enumerate(unique))
        found[int(digits[1])] = place
    return dict(sorted(found.items()))


def _entry(dataset: str, compression: str | None, method: str, video: str, leaf: dict[str, Any]) -> Entry:
    frames = numbered([place_of(path, dataset) for path in leaf["frames"]])
    first = next(iter(frames.values()), ())
    folder = first[:-3]
    if method == LABELS["DF_fake"] and len(folder) > 1 and folder[-2] == "manipulated_videos":
        method = folder[-1]  # one label stands for eleven variants there
    name = str(leaf.get("video") or video).replace("\\", "/")
    identity = str(leaf.get("identity") or identity_of(folder[-1] if folder else "", name))
    masks = numbered([place_of(path, dataset) for path in leaf.get("masks", ())])
    return Entry(dataset, compression or NO_COMPRESSION, method, name, identity, set(), folder, folder_of(dataset), frames, masks)


def _note(by_name: dict[tuple[str, str, str, str], dict[Place, Entry]], new: Entry, split: str) -> None:
    # A mention without frames says nothing of where the video lies: it belongs to the video of that name that has frames.
    same = by_name.setdefault((new.dataset, new.compression, new.method, new.video), {})
    if () in same and new.frames:
        same[new.folder] = same.pop(())
        same[new.folder].folder, same[new.folder].identity = new.folder, new.identity
    if not new.frames and same:
        known = next(iter(same.values()))
    else:
        known = same.setdefault(new.folder, new)
    known.frames = dict(sorted({**known.frames, **new.frames}.items()))
    known.masks.update(new.masks)
    known.splits.add(split)


def _told_apart(same: list[Entry], findings: list[str]) -> list[Entry]:
    """Videos of one name that lie in several folders are several videos: the folder becomes part of their names."""
    folders = [entry.folder for entry in same]
    if len(same) > 1:
        skip = 0
        while all(len(f) > skip + 1 for f in folders) and len({f[skip] for f in folders}) == 1:
            skip += 1
        findings.append(
            f"{same[0].dataset}: {same[0].method}/{same[0].video} is the name of {len(same)} videos in different folders; "
            "they are told apart by the folder"
        )
        for entry in same:
            entry.video = "/".join((*entry.folder[skip:], entry.video))
    return same


def _report_labels(index: Index, unknown: dict[str, int], contradictions: list[str]) -> None:
    for label, count in unknown.items():
        index.findings.append(
            f"label '{label}' says neither real nor which forgery: its {count} mentions of videos are left out; "
            f"say what it is with --label '{label}=METHOD' or '{label}=real'"
        )
    if contradictions:
        index.findings.append(
            f"{len(contradictions)} videos stand under another label than their own, which is taken: e.g. {contradictions[0]}"
        )


def _report_levels(index: Index) -> None:
    levels: dict[str, set[str]] = defaultdict(set)
    for entry in index.entries:
        if entry.frames:
            levels[f"{entry.dataset}/{entry.method}/{entry.video}"].add(entry.compression)
    several = {video: " and ".join(sorted(found)) for video, found in levels.items() if len(found) > 1}
    if several:
        video = min(several)
        index.findings.append(
            f"{len(several)} videos are there at several compression levels, e.g. {video} at {several[video]}: nothing is trained"
            " or tested on such a store; take one level with --compression"
        )


def _rename(entries: list[Entry], name: str | None) -> None:
    if name is None:
        return
    datasets = {entry.dataset for entry in entries}
    if len(datasets) > 1:
        raise PreprocessingError(f"one name for {', '.join(sorted(datasets))} would mix them; import each into a store of its own")
    for entry in entries:
        entry.dataset = name
