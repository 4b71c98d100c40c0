"""A store -> the folders, JSON files and LMDBs that DeepfakeBench reads.

Written below the given folder, which takes the place of DeepfakeBench's own `datasets`:

    rgb/<dataset>/.../frames/<video>/000.png       and landmarks/<video>/000.npy, masks/<video>/000.png
    dataset_json/<dataset>.json                    paths "./datasets/rgb/...", which its loader takes as they are
    lmdb/<dataset>_lmdb/, dataset_json_v3/         where asked: back-slash keys, and landmarks as 32-bit integers

A leaf also says our "video", "method" and "identity", which DeepfakeBench's loader passes over, so that an import of the export
gives the same store. A video of the split "none" stands under "none", which the loader does not ask for; where a whole dataset has
no split, under "test" as well.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing import codec
from preprocessing.errors import PreprocessingError
from preprocessing.interop.lmdb_writer import LmdbWriter
from preprocessing.interop.names import COMPRESSIONS, FF, LABELS, REAL, WITH_COMPRESSION, folder_for, label_of
from preprocessing.layouts import NO_COMPRESSION
from preprocessing.store import FaceStore, Record, face_key, video_key

PREFIX = "./datasets/rgb/"
SPLIT_KEYS = ("train", "val", "test")
FF_REAL, SHIFTED = "FF-real", "FF-FH"


@dataclass
class Export:
    """What an export wrote.

    Attributes:
        out: the folder.
        files: the JSON files.
        videos: exported videos.
        faces: exported faces.
        notes: what to do or to know before using it in DeepfakeBench.
    """

    out: Path
    files: list[Path] = field(default_factory=list)
    videos: int = 0
    faces: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Target:
    """Where one video goes: `folder` holds frames/, landmarks/, masks/; `video` is the folder's name in these."""

    top: str
    label: str
    level: str | None
    folder: str
    video: str

    def path(self, kind: str, frame: int, suffix: str = "png") -> str:
        return f"{self.folder}/{kind}/{self.video}/{frame:03d}.{suffix}"


def export_deepfakebench(
    store: FaceStore,
    out: str | Path,
    *,
    name: str | None = None,
    with_lmdb: bool = False,
    on_video: Callable[[int, int], None] | None = None,
) -> Export:
    """Write a store's faces as DeepfakeBench reads them. JSON files come last, so a run that was ended is simply done again.

    Args:
        store: the store.
        out: the folder.
        name: overrides the dataset's name; a name that DeepfakeBench knows gives the labels that it knows.
        with_lmdb: write LMDBs and their JSON files as well.
        on_video: called with (videos done, all videos).

    Raises:
        PreprocessingError: a folder with an export, names that DeepfakeBench cannot take, a full disk.
    """
    out = Path(out).expanduser()
    plan = _plan(store, name)
    result = Export(out)
    present = [f for f in _json_files(out, plan, with_lmdb) if f.exists()]
    if present:
        raise PreprocessingError(f"{present[0]} exists already; give another folder, or remove the old export")
    trees: dict[str, dict[str, Any]] = defaultdict(dict)
    without_split = _without_split(store, name)
    writers: dict[str, LmdbWriter] = {}
    try:
        for record in store.records():
            target = plan.get(video_key(record))
            if target is None:
                continue
            if with_lmdb and target.top not in writers:
                writers[target.top] = LmdbWriter(out / "lmdb" / f"{target.top}_lmdb")
            leaf = _write_video(store, record, target, out / "rgb", writers.get(target.top))
            _hang(trees[target.top], target, record, leaf, (name or record["dataset"]) in without_split)
            result.videos += 1
            result.faces += len(leaf["frames"])
            if on_video is not None:
                on_video(result.videos, len(plan))
        for top, tree in _documents(trees).items():
            result.files.append(_write_json(out / "dataset_json", top, tree, lambda path: PREFIX + path))
            if with_lmdb:
                result.files.append(_write_json(out / "dataset_json_v3", top, tree, lambda path: path.replace("/", "\\")))
    except OSError as error:
        raise PreprocessingError(f"cannot write to {out}: {error.strerror or error}; make room and export again") from error
    finally:
        for writer in writers.values():
            writer.close()
    result.notes = _notes(store, plan, out, without_split, with_lmdb)
    left = store.info["counts"]["videos"] - len(plan)
    if left:
        result.notes.append(f"{left} videos without a face are left out")
    return result


def _plan(store: FaceStore, name: str | None) -> dict[str, _Target]:
    """A target for each video with faces; refuses names that would mix or break.

    Raises:
        PreprocessingError: naming the video.
    """
    if name is not None and (not name.strip() or set(name) & set("/\\\0") or name in (".", "..")):
        raise PreprocessingError(f"a dataset cannot be called '{name}': give a plain name without slashes, such as FaceForensics++")
    plan: dict[str, _Target] = {}
    taken: dict[tuple[str | None, ...], str] = {}
    levels: dict[str, set[str]] = defaultdict(set)
    for record in store.records():
        levels[name or record["dataset"]].add(record["compression"])
    datasets = {record["dataset"] for record in store.records()} if name else set()
    if len(datasets) > 1:
        raise PreprocessingError(f"one name for {', '.join(sorted(datasets))} would mix them; export without a name")
    for record in store.records():
        if not any(status == "face" for _, status, _, _ in record["frames"]):
            continue  # DeepfakeBench's loader breaks at a video without frames
        key, dataset = video_key(record), name or record["dataset"]
        if dataset in WITH_COMPRESSION and record["compression"] not in COMPRESSIONS:
            raise PreprocessingError(
                f"DeepfakeBench's {dataset} has its videos under {', '.join(COMPRESSIONS[:-1])} or {COMPRESSIONS[-1]}, and '{key}'"
                " has no such level; export under another --name"
            )
        target = _target(record, dataset, len(levels[dataset]) > 1)
        if "frames" in f"{target.folder}/{target.video}":
            raise PreprocessingError(
                f"'{key}' cannot be exported: DeepfakeBench replaces the word 'frames' wherever a path has it; rename the video"
            )
        names = (target.folder, target.video), (target.top, target.label, target.level, target.video)
        other = next((taken[n] for n in names if n in taken), key)
        taken.update(dict.fromkeys(names, key))
        if other != key:
            raise PreprocessingError(
                f"'{other}' and '{key}' would both go to {target.folder}/frames/{target.video}; rename one of them"
            )
        plan[key] = target
    return plan


def _target(record: Record, dataset: str, several: bool) -> _Target:
    method, compression = record["method"], record["compression"]
    nested = dataset in WITH_COMPRESSION
    top = dataset
    if several and not nested and compression != NO_COMPRESSION:
        top = f"{dataset}_{compression}"  # without the level, DeepfakeBench needs a file for each
    folder = folder_for(dataset, compression, method, record["identity"])
    return _Target(top, label_of(dataset, method), compression if nested else None, folder, record["video"].replace("/", "__"))


def _json_files(out: Path, plan: dict[str, _Target], with_lmdb: bool) -> list[Path]:
    trees: dict[str, dict[str, Any]] = defaultdict(dict)
    for target in plan.values():
        trees[target.top][target.label] = {}
    folders = ("dataset_json", "dataset_json_v3") if with_lmdb else ("dataset_json",)
    return [out / folder / f"{top}.json" for folder in folders for top in _documents(trees)]


def _documents(trees: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """File name -> labels. FaceForensics++ is spread as DeepfakeBench has it: FaceShifter apart, and a file for each forgery."""
    found = {}
    for top, tree in trees.items():
        if top != FF:
            found[top] = tree
            continue
        found[FF] = {label: splits for label, splits in tree.items() if label != SHIFTED}
        real = {FF_REAL: tree[FF_REAL]} if FF_REAL in tree else {}
        for label in tree:
            if label not in (FF_REAL, SHIFTED) and label in LABELS:
                found[label] = {**real, label: tree[label]}
        if SHIFTED in tree:
            found["FaceShifter"] = {SHIFTED: tree[SHIFTED], **real}
    return found


def _without_split(store: FaceStore, name: str | None) -> set[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for record in store.records():
        splits[name or record["dataset"]].add(record["split"])
    return {dataset for dataset, found in splits.items() if found == {"none"}}


def _write_video(store: FaceStore, record: Record, target: _Target, root: Path, writer: LmdbWriter | None) -> dict[str, Any]:
    """One video's files. Returns its leaf, with paths from the root of all datasets."""
    key = video_key(record)
    leaf: dict[str, Any] = {"label": target.label, "frames": []}
    masks = []
    values: dict[str, bytes] = {}
    for frame, status, _, _ in record["frames"]:
        if status != "face":
            continue
        at = face_key(key, frame)
        files = {target.path("frames", frame): codec.encode_image(store.image(at), "png")}
        leaf["frames"].append(target.path("frames", frame))
        landmarks, mask = store.landmarks(at), store.mask(at)
        values.update(files)
        if len(landmarks):
            files[target.path("landmarks", frame, "npy")] = codec.encode_array(landmarks)
            values[target.path("landmarks", frame, "npy")] = np.rint(landmarks).astype("<i4").tobytes()
        if mask is not None:
            masks.append(target.path("masks", frame))
            files[masks[-1]] = values[masks[-1]] = codec.encode_image(mask, "png")
        for path, data in files.items():
            _write(root / path, data)
    if writer is not None:
        writer.put(values)
    if masks:
        leaf["masks"] = masks
    return {**leaf, "video": record["video"], "method": record["method"], "identity": record["identity"]}


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _hang(tree: dict[str, Any], target: _Target, record: Record, leaf: dict[str, Any], without_split: bool) -> None:
    splits = tree.setdefault(target.label, {split: {} for split in SPLIT_KEYS})
    for split in (record["split"], *(("test",) if without_split else ())):
        videos = splits.setdefault(split, {})
        for one in splits.values() if target.level is not None else ():
            one.setdefault(target.level, {})
        (videos if target.level is None else videos[target.level])[target.video] = leaf


def _write_json(folder: Path, top: str, tree: dict[str, Any], path: Callable[[str], str]) -> Path:
    """A dataset's file, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{top}.json"
    part = file.with_suffix(".tmp")
    with part.open("w", encoding="utf-8") as stream:
        json.dump({top: _with_paths(tree, path)}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, file)
    return file


def _with_paths(node: dict[str, Any], path: Callable[[str], str]) -> dict[str, Any]:
    if isinstance(node.get("frames"), list):
        return {k: [path(p) for p in v] if k in ("frames", "masks") else v for k, v in node.items()}
    return {key: _with_paths(value, path) for key, value in node.items()}


def _notes(store: FaceStore, plan: dict[str, _Target], out: Path, without_split: set[str], with_lmdb: bool) -> list[str]:
    notes = [f"link or move {out} to 'datasets' in DeepfakeBench's folder, and set dataset_json_folder to datasets/dataset_json"]
    new = sorted({(t.label, int(video.split("/")[2] != REAL)) for video, t in plan.items() if t.label not in LABELS})
    if new:
        words = ", ".join(f"{label}: {value}" for label, value in new)
        notes.append(f"add to label_dict in DeepfakeBench's train_config.yaml and test_config.yaml: {words}")
    for dataset in sorted(without_split):
        notes.append(f"{dataset} has no split: all its videos are in test")
    if with_lmdb:
        notes.append(
            "landmarks in the LMDBs are rounded to whole pixels, because DeepfakeBench reads integers there; the .npy files keep"
            " their fractions"
        )
        notes.append("copy dataset_json_v3 to preprocessing/dataset_json_v3, where DeepfakeBench looks when lmdb is on")
        if any(target.label == SHIFTED for target in plan.values()):
            notes.append(f"for FaceShifter, link lmdb/FaceShifter_lmdb to lmdb/{FF}_lmdb, which holds its faces")
        counts = sorted({n for n in _landmark_counts(store) if n != 81})
        if counts:
            notes.append(
                f"the faces have {', '.join(map(str, counts))} landmarks and DeepfakeBench reads 81 from an LMDB: "
                "keep with_landmark off there"
            )
    return notes


def _landmark_counts(store: FaceStore) -> Iterator[int]:
    for record in store.records():
        first = next((frame for frame, status, _, _ in record["frames"] if status == "face"), None)
        if first is not None:
            yield len(store.landmarks(face_key(video_key(record), first)))
