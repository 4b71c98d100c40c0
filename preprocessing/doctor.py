"""Looks at a dataset's folder before hours are spent on it: what is missing, doubled, leaking, unreadable, or too large."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path
from unicodedata import normalize

from preprocessing.errors import PreprocessingError
from preprocessing.layouts import Doubt, Layout, Video, check_unique, find_layout
from preprocessing.layouts.base import find_videos, need_folder
from preprocessing.peer_splits import read_peer_file, split_errors
from preprocessing.peer_trees import count_errors, frame_errors, tree_errors
from preprocessing.probe import File, Probe, estimate, probe_all
from preprocessing.quiet import quiet_opencv
from preprocessing.settings import Settings
from preprocessing.store import FACES

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing about a dataset.

    Attributes:
        severity: "error": preprocessing would stop, or labels or splits would be wrong. "warning": something is missing or leaks.
            "note": worth knowing, nothing is wrong.
        sentence: what it is.
        examples: names of files or videos that show it; not all of them.
    """

    severity: str
    sentence: str
    examples: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        assert self.severity in SEVERITIES


def check(
    root: str | Path,
    layout: str = "auto",
    compression: str = "c23",
    *,
    name: str | None = None,
    out: str | Path | None = None,
    settings: Settings | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Everything that can be said of a dataset's folder without decoding its videos.

    Args:
        root: the dataset's folder.
        layout: as for `read_layout`.
        compression: level to look at, where the dataset has several.
        name: as for `read_layout`.
        out: where the store would be written, for the free space; default: the dataset's disk.
        settings: those of the store, for its size; default: the default ones.
        on_progress: called with (files probed, all files).

    Returns:
        Errors, then warnings, then notes.

    Raises:
        PreprocessingError: no such folder or layout. What is wrong with the dataset itself is a finding.
    """
    quiet_opencv()
    folder = need_folder(Path(root).expanduser())
    said: list[str] = []
    found: list[Finding] = []
    videos: list[Video] = []
    chosen = find_layout(folder, layout, said.append)
    try:
        videos = chosen.videos(folder, dataset=name, compression=compression, note=said.append)
        check_unique(videos)
    except PreprocessingError as error:
        found.append(Finding("error", str(error)))
    found += [Finding("warning" if isinstance(s, Doubt) else "note", str(s)) for s in said]
    found += chain(_tree(chosen, folder, compression), _totals(chosen, videos), _doubles(chosen, folder, compression))
    found += chain(_overlaps(chosen, videos), _copies(videos), _splits(chosen, videos))
    probes = _probe(chosen, folder, compression, videos, on_progress)
    found += chain(_unreadable(folder, probes), _peer(chosen, folder, videos))
    found += _space(videos, probes, Path(out).expanduser() if out else folder, settings or Settings())
    return sorted(found, key=lambda f: SEVERITIES.index(f.severity))


def _some(names: Iterable[object]) -> tuple[str, ...]:
    return tuple(sorted(map(str, names))[:5])


def _tree(layout: Layout, root: Path, compression: str) -> Iterator[Finding]:
    absent = [file for file in layout.split_files if not (root / file).is_file()]
    if absent:
        yield Finding(
            "error", f"{len(absent)} of the {len(layout.split_files)} files with the official splits are missing", _some(absent)
        )
    missing: dict[str, list[str]] = defaultdict(list)
    for part in layout.parts(compression):
        place = part.place(root)
        if place is None:
            missing[part.absent].append(part.folder)
        elif part.count is not None and (count := len(find_videos(place))) != part.count:
            # A folder that the layout can do without is worth a note only.
            severity = "note" if part.absent == "note" else "warning"
            yield Finding(severity, f"{part.folder} has {count} videos; {layout.title} has {part.count} there")
    words = {"error": "needed", "warning": "of the dataset", "note": "that are optional"}
    for severity, folders in missing.items():
        yield Finding(severity, f"{len(folders)} folders {words[severity]} are missing", tuple(folders[:5]))


def _totals(layout: Layout, videos: Sequence[Video]) -> Iterator[Finding]:
    for total in layout.totals if videos else ():
        count = total.found(videos)
        if count != total.count:
            known = f" (some sources count {' or '.join(map(str, total.also))})" if total.also else ""
            yield Finding(
                "note" if count in total.also else "warning", f"{count} videos are {total}; {layout.title} has {total.count}{known}"
            )


def _doubles(layout: Layout, root: Path, compression: str) -> Iterator[Finding]:
    for part in layout.parts(compression):
        place = part.place(root)
        stems: dict[str, list[str]] = defaultdict(list)
        for path in find_videos(place) if place else ():
            stems[normalize("NFC", path.stem)].append(path.relative_to(root).as_posix())
        twice = {stem: files for stem, files in stems.items() if len(files) > 1}
        if twice:
            examples = tuple(" and ".join(files[:2]) for files in list(twice.values())[:5])
            if layout.named_by_stem:
                yield Finding("error", f"{len(twice)} names occur more than once in {part.folder}; keep one file of each", examples)
            else:
                sentence = f"{len(twice)} names occur in several folders of {part.folder}: kept apart here, merged by DeepfakeBench"
                yield Finding("note", sentence, examples)


def _overlaps(layout: Layout, videos: Sequence[Video]) -> Iterator[Finding]:
    clips: dict[tuple[int, str, str], set[str]] = defaultdict(set)
    groups: dict[str, dict[str, set[str]]] = {"people": defaultdict(set), "pairs": defaultdict(set)}
    for video in videos:
        if video.split == "none" or video.kind == "crops":
            continue
        side = "test" if video.split == "test" else "train"
        clips[video.label, video.method, video.path.stem if layout.named_by_stem else video.video].add(side)
        people = sorted(video.identity.split("_"))
        for person in people:
            groups["people"][person].add(side)
        if len(people) == 2:
            groups["pairs"]["_".join(people)].add(side)
    shared = [name for (_, _, name), sides in clips.items() if len(sides) == 2]
    if shared:
        yield Finding("error", f"{len(shared)} videos are in training (or validation) and in test", _some(shared))
    for word, table in groups.items():
        both = [who for who, sides in table.items() if len(sides) == 2]
        if both:
            tested = sum("test" in sides for sides in table.values())
            why = "; the official splits are so, and results there are not on unseen people" if layout.people_shared else ""
            words = "identity pairs" if word == "pairs" else "people (or targets)"
            sentence = f"{len(both)} of the {tested} {words} of the test split are in training or validation too{why}"
            yield Finding("note" if layout.people_shared else "warning", sentence, _some(both))


def _copies(videos: Sequence[Video]) -> Iterator[Finding]:
    by_size: dict[int, list[Video]] = defaultdict(list)
    for video in videos:
        if video.kind == "video" and (size := _size(video.path)) > 0:
            by_size[size].append(video)
    leaks: list[str] = []
    same: list[str] = []
    for alike in by_size.values():
        by_content: dict[str, list[Video]] = defaultdict(list)
        for video in alike if len(alike) > 1 else ():
            by_content[_ends(video.path)].append(video)
        for copies in by_content.values():
            if len(copies) > 1:
                named = " = ".join(v.path.name if v.split == "none" else f"{v.split} {v.method}/{v.path.name}" for v in copies[:3])
                (leaks if len({(v.split, v.label) for v in copies}) > 1 else same).append(named)
    if leaks:
        yield Finding("error", f"{len(leaks)} files are there again in another split or class, under another name", _some(leaks))
    if same:
        yield Finding("warning", f"{len(same)} files are there more than once in one split, under several names", _some(same))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _ends(path: Path) -> str:
    """A digest of a file's first and last 64 KiB, enough to tell two encoded videos of one size apart."""
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16)
            file.seek(max(0, _size(path) - (1 << 16)))
            return sha256(start + file.read()).hexdigest()
    except OSError:
        return str(path)


def _splits(layout: Layout, videos: Sequence[Video]) -> Iterator[Finding]:
    if layout.splits:
        yield Finding("note", f"splits: {layout.splits}")
    for split in ("train", "test"):
        for label, word in enumerate(("real", "fake")):
            inside = [v for v in videos if v.split == split]
            if inside and all(v.label != label for v in inside):
                yield Finding("error", f"the {split} split has no {word} videos")


def _probe(
    layout: Layout, root: Path, compression: str, videos: Sequence[Video], on_progress: Callable[[int, int], None] | None
) -> dict[File, Probe]:
    files: list[File] = []
    for video in videos:
        files.append((video.path, video.kind, video.inside))
        if video.mask is not None:
            files.append((video.mask, "video", ""))
    if not videos:  # the layout could not be read; its folders still can
        places = (part.place(root) for part in layout.parts(compression))
        files = [(path, "video", "") for place in places if place for path in find_videos(place)]
    return probe_all(files, on_progress)


def _unreadable(root: Path, probes: Mapping[File, Probe]) -> Iterator[Finding]:
    def where(file: File) -> str:
        path, _, inside = file
        return f"{path.relative_to(root) if path.is_relative_to(root) else path}{' ' + inside if inside else ''}"

    bad = [f"{where(file)}: {found.reason}" for file, found in probes.items() if found.reason is not None]
    if bad:
        yield Finding("error", f"{len(bad)} of {len(probes)} files cannot be read; download them again", _some(bad))
    cut = [f"{where(file)}: {found.cut}" for file, found in probes.items() if found.reason is None and found.cut is not None]
    if cut:
        words = "files are cut short: the frames beyond their end are missing; download them again"
        yield Finding("error", f"{len(cut)} of {len(probes)} {words}", _some(cut))
    odd = [f"{where(file)}: {why}" for file, found in probes.items() if found.reason is None for why in found.odd]
    if odd:
        yield Finding("warning", f"{len(odd)} images have no frame number of their own; they are left out", _some(odd))


def _space(videos: Sequence[Video], probes: Mapping[File, Probe], out: Path, settings: Settings) -> Iterator[Finding]:
    if not videos:
        return
    try:
        needed = estimate(videos, probes, settings)
    except PreprocessingError as error:
        yield Finding("warning", str(error))
        return
    each = {"fixed-number": f"{settings.frames} in each", "fixed-stride": f"one in {settings.stride}", "every": "all of them"}
    words = f"{len(videos)} videos have {needed.frames} frames to sample ({each[settings.sampling]})"
    words += f", a store of about {_gb(needed.size)}"
    if needed.guessed:
        words += f"; {needed.guessed} headers do not say how many frames there are, these videos are guessed"
    there = sum(f.stat().st_blocks * 512 for f in out.rglob("*") if f.is_file()) if (out / FACES).is_file() else 0
    if there:
        words += f", {_gb(there)} of it there already"
    place = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    if not place.is_dir():
        yield Finding("error", f"a store cannot be written to {out}: {place} is a file")
        return
    free = shutil.disk_usage(place).free
    yield Finding("error" if needed.size - there > free else "note", f"{words}; {_gb(free)} are free in {place}")


def _gb(size: int) -> str:
    number, unit = (size / 1e9, "GB") if size >= 10**9 else (size / 1e6, "MB")
    return f"{number:.2g} {unit}" if number < 10 else f"{number:.0f} {unit}"


def _peer(layout: Layout, root: Path, videos: Sequence[Video]) -> Iterator[Finding]:
    if layout.peer:
        yield Finding("note", f"if you compare: {layout.peer}")
    for sentence, examples in tree_errors(layout.name, root, videos):
        yield Finding("note", f"if you compare: {sentence}", _some(examples))
    for file in sorted([*root.glob("*.json"), *root.glob("dataset_json*/*.json")]):
        classes = read_peer_file(file)
        if classes is None:
            continue
        where = file.relative_to(root).as_posix()
        errors = [*split_errors(classes), *count_errors(classes), *frame_errors(classes, root)]
        for sentence, examples in errors:
            yield Finding("warning", f"{where} (DeepfakeBench): {sentence}", _some(examples))
        if not errors:
            yield Finding("note", f"{where} (DeepfakeBench): none of its known split errors")
