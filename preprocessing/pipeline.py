"""Videos -> store: parallel, resumable, every sampled frame accounted for."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preprocessing.codec import check_format
from preprocessing.errors import PreprocessingError
from preprocessing.faces import Detector, Dlib, try_detector
from preprocessing.layouts import Video, check_unique
from preprocessing.predictor import find_predictor
from preprocessing.settings import Settings
from preprocessing.store import FACES, INFO, lacks_frames, read_info, video_key
from preprocessing.work import STATUSES, VideoFaces, Work, unreadable
from preprocessing.workers import Crash, parallel
from preprocessing.writer import StoreWriter, describe

__all__ = ["STATUSES", "Settings", "Summary", "VideoReport", "preprocess"]


@dataclass(frozen=True)
class VideoReport:
    """One finished video.

    Attributes:
        video: the video.
        counts: sampled frames by status.
        error: why the video gave no frame, or None.
        warning: what went wrong in a video that can be read (frames that cannot, a mask), or None.
        seconds: time by stage.
    """

    video: Video
    counts: dict[str, int]
    error: str | None
    warning: str | None
    seconds: dict[str, float]


@dataclass
class Summary:
    """What a run did, and what the store holds now.

    Attributes:
        out: the store's folder.
        processed: videos done by this run.
        skipped: videos that were in the store already.
        finished_before: the store was finished and complete; this run changed nothing.
        counts: of the whole store: {"videos", "unreadable_videos", "faces", "frames": {status: n}}.
        errors: (video key, reason) of every unreadable video in the store.
        warnings: (video key, sentence) from this run's videos.
        notes: what to know about the videos as a whole, e.g. that all of a dataset's are real.
        fingerprint: of the store.
        seconds: this run's time by stage, summed over workers.
    """

    out: Path
    processed: int = 0
    skipped: int = 0
    finished_before: bool = False
    counts: dict[str, Any] = field(default_factory=dict)
    errors: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fingerprint: str = ""
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def preprocess(
    videos: Sequence[Video],
    out: str | Path,
    settings: Settings | None = None,
    workers: int = 1,
    on_video: Callable[[VideoReport], None] | None = None,
    detector: Detector | None = None,
    retry: bool = False,
) -> Summary:
    """Fill a store with the faces of `videos`.

    A run that was ended at any moment, by Ctrl-C or kill -9, is continued by the same call; the finished store is the same. A
    finished store is left alone. Videos that a store lacks are added, so a grown dataset is preprocessed by the same call too; a
    store that holds videos which `videos` lacks, or knows them under other metadata, is refused.
    While it grows, a store must have no readers.

    Args:
        videos: as `read_layout` gives them.
        out: the store's folder.
        settings: see `Settings`.
        workers: processes; 1 works in this one.
        on_video: called in this process after each finished video.
        detector: takes the place of dlib's; picklable.
        retry: do the store's videos again that are unreadable, lack frames, or were replaced (after a repaired download).

    Raises:
        PreprocessingError: no videos, two videos with one name, a folder that cannot be written or is being written, a store with
            other settings, videos or format version, a missing predictor; and without `retry` a video whose file is not the one
            that the store was made of, by its size.
    """
    settings = settings or Settings()
    out = Path(out).expanduser()
    if not videos:
        raise PreprocessingError("no videos to preprocess; check the dataset's folder, layout and compression")
    if workers < 1:
        raise PreprocessingError(f"workers must be at least 1, not {workers}")
    check_unique(videos)
    _check_crops(videos, settings)
    check_format(settings.image_format)
    if (out / INFO).exists():
        read_info(out)  # refuses another format version before anything is touched
    work = Work(settings, detector or Dlib(find_predictor(settings.predictor)))
    if not (out / FACES).exists():
        # Before a store is begun. With worker processes the models are theirs: a copy, which has none of its own, is tried instead.
        try_detector(work.detector if workers == 1 else copy(work.detector))
    summary = Summary(out, notes=_one_label_only(videos))
    if settings.face == "mask-overlap" and not any(video.mask for video in videos):
        summary.notes.append("no video has a mask: --face mask-overlap takes the largest face of each")
    with StoreWriter(out, settings.recorded(work.detector)) as writer:
        # Of the frames only whether some are lacking: the records of a big dataset would fill the memory.
        known = {video_key(r): {**r, "frames": None, "lacks": lacks_frames(r)} for r in writer.records()}
        _check_same(out, videos, known)
        replaced = _replaced(videos, known)
        if replaced and not retry:
            raise PreprocessingError(f"store {out} has {_in_words(replaced)}, or give another folder")
        todo = [v for v in videos if v.key not in known or (retry and (known[v.key]["lacks"] or v.key in replaced))]
        summary.skipped = len(videos) - len(todo)
        if not todo and (out / INFO).exists():
            summary.finished_before = True
            info = read_info(out)
        else:
            writer.begin()
            with closing(_run(work, todo, workers)) as results:
                for done in results:
                    start = time.perf_counter()
                    done.size = size_of(done.video)
                    writer.add(done)
                    summary.seconds["write"] += time.perf_counter() - start
                    if not done.more:
                        _account(summary, done, on_video)
            info = writer.finish()
        summary.errors = [(video_key(r), r["error"]) for r in writer.records() if r["error"] is not None]
    summary.counts = info["counts"]
    summary.notes += info.get("notes", [])
    summary.fingerprint = info["fingerprint"]
    return summary


def size_of(video: Video) -> int | None:
    """Bytes of the file that holds a video; None for a folder of images, or where there is no file."""
    try:
        return video.path.stat().st_size if video.path.is_file() else None
    except OSError:
        return None


def _replaced(videos: Sequence[Video], known: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Videos that were read whole from a file of another size -> that size and today's. Older stores know no sizes."""
    sizes = {v.key: (known[v.key]["size"], size_of(v)) for v in videos if "size" in known.get(v.key, {})}
    return {k: (then, now) for k, (then, now) in sizes.items() if now is not None and then != now and not known[k]["lacks"]}


def _in_words(replaced: dict[str, tuple[int, int]]) -> str:
    key, (then, now) = next(iter(replaced.items()))
    example = f"{key} ({then} bytes then, {now} now)"
    if len(replaced) == 1:
        return f"1 video whose file has another size now than when it was read: {example}; read it again with --retry"
    what = f"{len(replaced)} videos whose files have other sizes now than when they were read"
    return f"{what}, e.g. {example}; read them again with --retry"


def _check_crops(videos: Sequence[Video], settings: Settings) -> None:
    """Faces that came cut out are only resized: a store must not claim a setting that was not applied to them."""
    changed = {
        "mode": settings.mode != "strict",
        "switch": bool(settings.switches),
        "face": settings.face != "largest",
        "top-up": settings.top_up,
    }
    named = [name for name, other in changed.items() if other]
    if named and any(v.kind == "crops" for v in videos):
        raise PreprocessingError(
            f"these faces came cut out and are only resized: --{named[0]} has no meaning for them; leave it out"
        )


def _run(work: Work, videos: list[Video], workers: int) -> Generator[VideoFaces, None, None]:
    if workers == 1 or len(videos) < 2:
        for video in videos:
            yield from work.parts(video)
        return
    with closing(parallel(work.parts, videos, min(workers, len(videos)))) as results:
        for video, done in results:
            if isinstance(done, Crash):
                yield unreadable(video, "decoding it ends the process")
            else:
                yield done


def _account(summary: Summary, done: VideoFaces, on_video: Callable[[VideoReport], None] | None) -> None:
    summary.processed += 1
    for stage, seconds in done.seconds.items():
        summary.seconds[stage] += seconds
    if done.warning is not None:
        summary.warnings.append((done.video.key, done.warning))
    if on_video is not None:
        on_video(VideoReport(done.video, done.counts, done.error, done.warning, done.seconds))


def _one_label_only(videos: Sequence[Video]) -> list[str]:
    labels: dict[str, list[int]] = defaultdict(list)
    for video in videos:
        labels[video.dataset].append(video.label)
    words = ("real: nothing here can be trained or scored alone", "fake: nothing here can be trained or scored alone")
    return [
        f"all {len(found)} videos of {dataset} count as {words[found[0]]}"
        for dataset, found in labels.items()
        if len(set(found)) == 1
    ]


def _check_same(out: Path, videos: Sequence[Video], known: dict[str, Any]) -> None:
    wanted = {v.key: v for v in videos}
    extra = [key for key in known if key not in wanted]
    if extra:
        raise PreprocessingError(
            f"store {out} holds {len(extra)} videos that are not among those given, e.g. {extra[0]}; give another folder for these"
        )
    for key, record in known.items():
        for name, value in describe(wanted[key]).items():
            if record[name] != value:
                raise PreprocessingError(
                    f"store {out} has {name} '{record[name]}' for {key}, now it is '{value}'; give another folder"
                )
