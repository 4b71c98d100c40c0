"""DeepfakeBench's JSON, PNG folders and LMDBs -> a store, resumable as preprocessing videos is."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from preprocessing.codec import check_format
from preprocessing.errors import PreprocessingError
from preprocessing.interop.faces import BAD_LANDMARKS, LOSSY, MISSING, NO_LANDMARKS, Importing, Listed, listed_path
from preprocessing.interop.index import Entry, numbered, read_index
from preprocessing.interop.names import read_own_labels
from preprocessing.interop.sources import Lmdb, Source, close_lmdbs, find_folder, find_lmdb
from preprocessing.interop.splits import settle, split_findings
from preprocessing.layouts import Video
from preprocessing.predictor import sha256
from preprocessing.store import INFO, Record, lacks_frames, read_info, video_key
from preprocessing.work import VideoFaces, unreadable
from preprocessing.workers import Crash, parallel
from preprocessing.writer import StoreWriter, describe

FINDINGS = "findings.txt"
MODE = "imported from DeepfakeBench"


@dataclass
class Import:
    """What an import did, and what the store holds now.

    Attributes:
        out: the store's folder.
        processed: videos done by this run.
        skipped: videos that were in the store already.
        finished_before: the store was finished; this run changed nothing.
        counts: of the whole store, as `preprocess` gives them.
        findings: one sentence per error of the files, also in the store's findings.txt.
        fingerprint: of the store.
    """

    out: Path
    processed: int = 0
    skipped: int = 0
    finished_before: bool = False
    counts: dict[str, Any] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    fingerprint: str = ""


def import_deepfakebench(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    rgb: str | Path | None = None,
    lmdb: str | Path | None = None,
    name: str | None = None,
    labels: Sequence[str] = (),
    compressions: Sequence[str] = (),
    keep_splits: bool = False,
    image_format: str = "webp",
    workers: int = 1,
    retry: bool = False,
    on_video: Callable[[int, int], None] | None = None,
) -> Import:
    """Make a store from DeepfakeBench's files. The pixels stay as they are; nothing is detected or aligned again.

    A run that was ended at any moment is continued by the same call; the finished store is the same. The fingerprint knows the
    faces and their metadata, not whether they came out of PNG files or an LMDB, and not the bytes of the JSON.

    Args:
        files: the dataset's JSON files.
        out: the store's folder.
        rgb: the folder with the PNG frames: of all datasets, of this one, or any that all its frames share.
        lmdb: the LMDB's folder, or the one that holds "<dataset>_lmdb".
        name: overrides the dataset's name.
        labels: "LABEL=METHOD" for labels whose names say nothing; METHOD "real" for real.
        compressions: levels to take; empty takes all that the files list.
        keep_splits: repeat the splits of the files, overlaps included: a video in several splits is stored once for each, named
            "<video>@<split>". Otherwise a video is in one split, see `preprocessing.interop.splits`.
        image_format: "webp" or "png".
        workers: processes; 1 works in this one.
        retry: read the videos again that lack frames (after a download was completed).
        on_video: called with (videos done, all videos).

    Raises:
        PreprocessingError: a file that is missing or of another shape, a folder or LMDB without its frames, a store with other
            settings or videos.
    """
    if not files:
        raise PreprocessingError("no JSON files; give those that DeepfakeBench's rearrange.py wrote")
    if (rgb is None) == (lmdb is None):
        raise PreprocessingError("give either the folder of PNG frames (rgb) or the LMDB's folder (lmdb), one of the two")
    if workers < 1:
        raise PreprocessingError(f"workers must be at least 1, not {workers}")
    check_format(image_format)
    out = Path(out).expanduser()
    if (out / INFO).exists():
        read_info(out)  # refuses another format version before anything is touched
    paths = list(dict.fromkeys(Path(file).expanduser() for file in files))
    settings = {
        "mode": MODE,
        "splits": "as in the files" if keep_splits else "one per video",
        "image_format": image_format,
    }
    try:
        index = read_index(paths, read_own_labels(list(labels)), name, list(compressions))
        settings["json_sha256"] = sorted([path.name, sha256(path)] for path in paths)  # type: ignore[assignment]
        summary = Import(out, findings=[*index.findings])
        sources = _sources(index.entries, rgb, lmdb)
        summary.findings += split_findings(index.entries, keep_splits)
        if not keep_splits:
            summary.findings += _found_again(index.entries, sources)
        listed = [_listed(entry, split) for entry, split in settle(index.entries, keep_splits)]
        listed.sort(key=lambda one: one.video.key)
        _check_unique(listed)
        _fill(summary, settings, listed, Importing(sources, image_format), workers, retry, on_video)
    finally:
        close_lmdbs()
    return summary


def _sources(entries: list[Entry], rgb: str | Path | None, lmdb: str | Path | None) -> dict[str, Source]:
    by_dataset: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_dataset[entry.dataset].append(entry)
    found = {}
    for dataset, some in by_dataset.items():
        framed = [entry for entry in some if entry.frames]
        if not framed:
            raise PreprocessingError(f"none of the {len(some)} videos of {dataset} has frames in the JSON; run rearrange.py again")
        root = Path(rgb if rgb is not None else lmdb or "").expanduser()
        found[dataset] = find_folder(root, framed) if rgb is not None else find_lmdb(root, framed)
    return found


def _found_again(entries: list[Entry], sources: dict[str, Source]) -> list[str]:
    """Celeb-DF's real videos that the JSON lost but the source has: they are added to train, as its missing line would have it."""
    findings = []
    for dataset in sorted({entry.dataset for entry in entries if entry.home.startswith("Celeb-DF")}):
        real = [e for e in entries if e.dataset == dataset and e.label == 0]
        trained = {e.folder[-1] for e in real if "train" in e.splits and e.folder}
        named = {(e.folder[-1] if e.folder else None, e.video) for e in real}
        model = next((e for e in real if e.folder), None)
        for lost in sorted({"Celeb-real", "YouTube-real"} - trained) if trained and model is not None else ():
            videos: dict[str, list[tuple[str, ...]]] = defaultdict(list)
            assert model is not None
            for place in sources[dataset].below((*model.folder[:-1], lost, "frames")):
                if not {(lost, place[-2]), (None, place[-2])} & named:
                    videos[place[-2]].append(place)
            for video, places in videos.items():
                identity = video.rpartition("_")[0] if lost == "Celeb-real" and "_" in video else video
                folder = (*model.folder[:-1], lost)
                entries.append(
                    Entry(dataset, model.compression, "real", video, identity, {"train"}, folder, model.home, numbered(places))
                )
            if videos:
                findings.append(f"{dataset}: {len(videos)} real videos of {lost} that the JSON lost are there and added to train")
    return findings


def _listed(entry: Entry, split: str) -> Listed:
    path = listed_path(next(iter(entry.frames.values()), ()))
    video = Video(
        entry.dataset, entry.method, entry.label, split, entry.identity, entry.video, path, entry.compression
    )  # the sentence of a bad name shows where the frames lie
    return Listed(video, entry.frames, entry.masks)


def _check_unique(listed: list[Listed]) -> None:
    for one, other in pairwise(listed):
        if one.video.key == other.video.key:
            raise PreprocessingError(f"the JSON lists '{one.video.key}' twice, in names that differ only in their form; rename one")


def _fill(
    summary: Import,
    settings: dict[str, Any],
    listed: list[Listed],
    work: Importing,
    workers: int,
    retry: bool,
    on_video: Callable[[int, int], None] | None,
) -> None:
    with StoreWriter(summary.out, settings) as writer:
        known = _known(summary.out, listed, writer.records())
        todo = [one for one in listed if one.video.key not in known or (retry and known[one.video.key])]
        done = summary.skipped = len(listed) - len(todo)
        if on_video is not None:
            on_video(done, len(listed))
        if not todo and (summary.out / INFO).exists():
            summary.finished_before = True
            info = read_info(summary.out)
        else:
            writer.begin()
            with closing(_run(work, todo, workers)) as results:
                for faces in results:
                    writer.add(faces)
                    if faces.more:
                        continue
                    summary.processed += 1
                    if on_video is not None:
                        on_video(done + summary.processed, len(listed))
            info = writer.finish()
        summary.findings += frame_findings(writer.records(), any(isinstance(s, Lmdb) for s in work.sources.values()))
    summary.counts, summary.fingerprint = info["counts"], info["fingerprint"]
    if not summary.finished_before:
        part = summary.out / f"{FINDINGS}.tmp"
        part.write_text("".join(f"{finding}\n" for finding in summary.findings), encoding="utf-8")
        os.replace(part, summary.out / FINDINGS)


def _known(out: Path, listed: list[Listed], records: Iterable[Record]) -> dict[str, bool]:
    """The videos of a begun store -> whether they lack frames."""
    wanted = {one.video.key: describe(one.video) for one in listed}
    known = {}
    for record in records:
        key = video_key(record)
        if key not in wanted:
            raise PreprocessingError(f"store {out} holds {key}, which the JSON does not list now; give another folder")
        for what, value in wanted[key].items():
            if record[what] != value:
                was = f"{what} '{record[what]}' for {key}"
                raise PreprocessingError(f"store {out} has {was}, now it is '{value}'; give another folder")
        known[key] = lacks_frames(record)
    return known


def _run(work: Importing, listed: list[Listed], workers: int) -> Generator[VideoFaces, None, None]:
    if workers == 1 or len(listed) < 2:
        for one in listed:
            yield from work(one)
        return
    with closing(parallel(work, listed, min(workers, len(listed)))) as results:
        for one, done in results:
            yield unreadable(one.video, "decoding it ends the process") if isinstance(done, Crash) else done


def frame_findings(records: Iterable[Record], from_lmdb: bool) -> list[str]:
    """What is missing or damaged in the source, per class."""
    why = " (DeepfakeBench's LMDB writer leaves out every folder with 'video' in its path)" if from_lmdb else ""
    frames: Counter[tuple[str, str]] = Counter()
    videos: Counter[str] = Counter()
    missing_videos: Counter[str] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for record in records:
        name = "/".join(record[part] for part in ("dataset", "compression", "method"))
        rows = [row for row in record["frames"] if row[0] >= 0]
        videos[name] += bool(rows)
        missing_videos[name] += bool(rows) and all(reason == MISSING for _, _, reason, _ in rows)
        for frame, _, reasons, _ in rows:
            for reason in filter(None, reasons.split("; ")):
                frames[name, reason] += 1
                examples.setdefault((name, reason), f"{video_key(record)}/{frame:06d}")
    found = []
    for (name, reason), count in sorted(frames.items()):
        if reason == MISSING and missing_videos[name] == videos[name]:
            found.append(f"{name}: not one of its {count} frames is in the source; the whole class is lost{why}")
        elif reason == MISSING:
            found.append(
                f"{name}: {count} frames that the JSON lists are missing ({missing_videos[name]} whole videos), "
                f"e.g. {examples[name, reason]}"
            )
        elif reason in (NO_LANDMARKS, BAD_LANDMARKS, LOSSY):
            found.append(f"{name}: {count} faces: {reason}; the faces are kept")
        else:
            found.append(f"{name}: {count} frames: {reason}, e.g. {examples[name, reason]}")
    return found
