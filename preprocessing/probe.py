"""What the headers of a dataset's files say, without decoding them, and how large a store of them would be."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from preprocessing.errors import PreprocessingError
from preprocessing.frames import NOT_A_FILE, as_file, not_a_file
from preprocessing.images import list_images, read_images
from preprocessing.layouts import Video
from preprocessing.sampling import sample
from preprocessing.settings import Settings

BYTES_PER_FACE = 50_000
"""A lossless WebP of 256 x 256 pixels; measured 46 to 54 kB on real faces, landmarks included."""
THREADS = 4

File = tuple[Path, str, str]
"""A video's path, kind and place inside an archive; see `Video`."""


@dataclass(frozen=True)
class Probe:
    """What one file's header says.

    Attributes:
        reason: why the file cannot be read, or None.
        frames: how many frames it has; None where the header does not say, as in Matroska.
        odd: a sentence for each image that has no frame number of its own and is left out.
        cut: how much of the file there is, where its index lists more; or None. Only MP4 and QuickTime tell.
    """

    reason: str | None = None
    frames: int | None = None
    odd: tuple[str, ...] = ()
    cut: str | None = None


@dataclass(frozen=True)
class Estimate:
    """How large a store would be.

    Attributes:
        frames: sampled frames, were every video as its header says.
        size: bytes, were there a face in each of them.
        guessed: videos whose header does not say how many frames they have; they are taken to be as long as the others.
    """

    frames: int
    size: int
    guessed: int


def probe(path: Path, kind: str = "video", inside: str = "") -> Probe:
    """Read a video's header, or list a sequence's images and decode the first. Nothing else is decoded."""
    try:
        if kind == "crops":
            table, odd = list_images(path, inside)
            images = list(read_images(path, inside, list(table.values())[:1]))
            if not images:
                return Probe(odd[0] if odd else "no images", 0, tuple(odd))
            return Probe("the first image cannot be decoded" if images[0][1] is None else None, len(table), tuple(odd))
        if path.is_symlink() and not path.exists():
            return Probe("a link to nowhere")
        if not_a_file(path):
            return Probe(NOT_A_FILE)
        if path.stat().st_size == 0:
            return Probe("the file is empty")
        with av.open(as_file(path)) as container:
            if not container.streams.video:
                return Probe("no video stream")
            stream = container.streams.video[0]
            count = stream.frames
            if not count and stream.average_rate and container.duration:
                count = round(container.duration / av.time_base * stream.average_rate)
            reason = None if stream.width and stream.height else "no picture size in the header"
            return Probe(reason, count or None, cut=_cut(container, stream, path.stat().st_size))
    except (FFmpegError, OSError, EOFError, tarfile.TarError) as error:
        return Probe(f"cannot be opened: {getattr(error, 'strerror', None) or type(error).__name__}")


def _cut(container: InputContainer, stream: VideoStream, size: int) -> str | None:
    if "mp4" not in container.format.name.split(","):
        return None
    promised = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    return f"ends after {size} of {promised} bytes" if promised > size else None


def probe_all(files: Iterable[File], on_progress: Callable[[int, int], None] | None = None) -> dict[File, Probe]:
    """`probe` for each of some files.

    Args:
        files: each once or more often; probed once.
        on_progress: called with (files probed, all files).
    """
    jobs = list(dict.fromkeys(files))
    found = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for done, (job, result) in enumerate(zip(jobs, pool.map(lambda job: probe(*job), jobs), strict=True), start=1):
            found[job] = result
            if on_progress is not None:
                on_progress(done, len(jobs))
    return found


def estimate(videos: Sequence[Video], probes: Mapping[File, Probe], settings: Settings) -> Estimate:
    """How large a store of `videos` would be under `settings`. Videos that cannot be read take nothing.

    Raises:
        PreprocessingError: if the sampling depends on the videos' lengths and no header tells one.
    """
    readable = [probes[v.path, v.kind, v.inside] for v in videos]
    readable = [p for p in readable if p.reason is None]
    known = [len(sample(p.frames, settings.sampling, settings.frames, settings.stride)) for p in readable if p.frames is not None]
    guessed = len(readable) - len(known)
    frames = sum(known)
    if guessed and settings.sampling == "fixed-number":
        frames += guessed * settings.frames
    elif guessed and not known:
        raise PreprocessingError(
            f"the size of a store cannot be told: none of {guessed} headers says how many frames its video has"
        )
    elif guessed:
        frames += guessed * sum(known) // len(known)
    return Estimate(frames, int(frames * BYTES_PER_FACE * (settings.size / 256) ** 2), guessed)
