"""One video -> its faces, encoded, and one ledger row for every sampled frame. This is what a worker process runs.

Faces leave in parts of bounded size, so that memory does not grow with the length of a video.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

import cv2

from preprocessing import codec
from preprocessing.faces import Detector, Face, Finder
from preprocessing.frames import FrameIndex, Image, UnreadableVideo, index_frames, read_frames
from preprocessing.layouts import Video
from preprocessing.masks import Masks
from preprocessing.opencv_frames import header_count, read_as_opencv
from preprocessing.quiet import quiet_opencv
from preprocessing.sampling import sample, stand_ins
from preprocessing.settings import Settings

STATUSES = ("face", "no_face", "no_landmarks", "unreadable")
"""How a sampled frame can end."""
MASK = "mask: "
"""How the reason of a face begins whose mask is missing."""
WHOLE_VIDEO = -1
"""The frame number of the one ledger row of a video that gives no frame at all."""
PART_BYTES = 4 << 20
"""A part of a video is handed on when its encoded faces have so many bytes: some 100 faces of 256 x 256 pixels."""


@dataclass(frozen=True)
class FrameRow:
    """One sampled frame: its status, a reason where there is something to say, and the digest of its face's content."""

    frame: int
    status: str
    reason: str = ""
    digest: str = ""


@dataclass(frozen=True)
class EncodedFace:
    """One face as a store keeps it."""

    frame: int
    image: bytes
    landmarks: bytes
    mask: bytes | None


@dataclass
class VideoFaces:
    """Everything a store keeps of one video, or a part of it.

    Attributes:
        video: the video.
        rows: one per sampled frame, by frame number; one row with frame -1 for a video that cannot be read; in parts, the last has
            all of them.
        faces: one per row with status "face"; in parts, any share of them.
        error: why the video cannot be read, or None.
        seconds: time by stage (decode, detect, landmarks, align, encode); all of it is in the last part.
        part: number of the part. 0 begins the video, and begins it anew where parts of it came before.
        more: whether other parts follow.
        size: of the file that the video was read from, bytes; None where there is none, or where it says nothing of the content.
    """

    video: Video
    rows: list[FrameRow]
    faces: list[EncodedFace] = field(default_factory=list)
    error: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    part: int = 0
    more: bool = False
    size: int | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Frames by status; every status is there."""
        found = Counter(row.status for row in self.rows)
        return {status: found[status] for status in STATUSES}

    @property
    def warning(self) -> str | None:
        """What went wrong in a video that can be read: frames that cannot, and the first bad mask or name of an image; or None."""
        sampled = [row for row in self.rows if row.frame > WHOLE_VIDEO]
        lost = [row.frame for row in sampled if row.status == "unreadable"]
        gap = f"{len(lost)} of {len(sampled)} frames are unreadable, the first is frame {lost[0]}" if lost else ""
        if self.video.kind == "crops":  # one without landmarks is nothing unusual; its reason stands in the ledger
            other = next((row.reason for row in self.rows if row.frame < WHOLE_VIDEO), "")
        else:
            other = next((f"frame {row.frame}: {row.reason}" for row in sampled if row.status == "face" and MASK in row.reason), "")
        return _joined(gap, other) or None


def unreadable(video: Video, reason: str) -> VideoFaces:
    """The record of a video that gives no frame."""
    return VideoFaces(video, [FrameRow(WHOLE_VIDEO, "unreadable", reason)], error=reason)


class Parts:
    """The rows and faces of one video while they grow; the faces leave whenever a part is full."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self.rows: dict[int, FrameRow] = {}
        self._faces: list[EncodedFace] = []
        self._bytes = self._number = 0

    def add(self, row: FrameRow, face: EncodedFace | None = None) -> None:
        """The row of one frame, and its face if there is one."""
        self.rows[row.frame] = row
        if face is not None:
            self._faces.append(face)
            self._bytes += len(face.image) + len(face.landmarks) + len(face.mask or b"")

    def full(self) -> Iterator[VideoFaces]:
        """The part that is due now, or none."""
        if self._bytes >= PART_BYTES:
            yield VideoFaces(self.video, [], self._faces, part=self._number, more=True)
            self._faces, self._bytes, self._number = [], 0, self._number + 1

    def last(self, seconds: dict[str, float], error: str | None = None) -> VideoFaces:
        """The rest of the faces, and all rows."""
        rows = [self.rows[number] for number in sorted(self.rows)]
        return VideoFaces(self.video, rows, self._faces, error, seconds, self._number)


def whole(parts: Iterable[VideoFaces]) -> VideoFaces:
    """A video out of its parts, all of it in memory."""
    faces: list[EncodedFace] = []
    for part in parts:
        if part.part == 0:
            faces = []
        faces += part.faces
        if not part.more:
            return replace(part, faces=sorted(faces, key=lambda face: face.frame), part=0)
    raise AssertionError("the last part is missing")


@dataclass(frozen=True)
class Work:
    """Settings and detector, bound: `work.parts(video)` does one video. Picklable, so that worker processes can be given one."""

    settings: Settings
    detector: Detector

    def __call__(self, video: Video) -> VideoFaces:
        """One video in one piece; see `parts`."""
        return whole(self.parts(video))

    def parts(self, video: Video) -> Iterator[VideoFaces]:
        """Sample, detect, align and encode. A video that cannot be read is a result, not an exception."""
        cv2.setNumThreads(1)  # parallelism is over videos
        quiet_opencv()
        try:
            if video.kind == "crops":
                from preprocessing.crops import take_crops  # it builds on this module

                yield from take_crops(video, self.settings, self.detector)
            else:
                yield from _OneVideo(video, self.settings, self.detector).parts()
        except UnreadableVideo as error:
            yield unreadable(video, str(error))


class _OneVideo:
    """A video while it is read. Frames are let go as soon as their face is encoded."""

    def __init__(self, video: Video, settings: Settings, detector: Detector) -> None:
        self.video, self.settings, switches = video, settings, settings.in_force
        self.finder = Finder(detector, settings.size, switches)
        self.read = read_as_opencv if switches.after_damage == "stop" else read_frames
        self.count = None if switches.frame_count == "packets" else header_count
        self.found = Parts(video)
        self.encoding = self.away = 0.0

    def parts(self) -> Iterator[VideoFaces]:
        start, settings = time.perf_counter(), self.settings
        index = index_frames(self.video.path)
        count = index.count if self.count is None else self.count(self.video.path)
        sampled = sample(count, settings.sampling, settings.frames, settings.stride)
        masks = self._masks(sampled)
        for number, image in self.read(self.video.path, index, sampled):
            self._add(number, image, masks)
            yield from self._full()
        if settings.top_up:
            yield from self._top_up(index, sampled, count)
        seconds = {**self.finder.seconds, "encode": self.encoding}
        seconds["decode"] = time.perf_counter() - start - self.away - sum(seconds.values())
        yield self.found.last(seconds)

    def _full(self) -> Iterator[VideoFaces]:
        left = time.perf_counter()
        yield from self.found.full()
        self.away += time.perf_counter() - left

    def _masks(self, numbers: Iterable[int]) -> Masks | None:
        return Masks(self.video.mask, numbers, self.read) if self.video.mask else None

    def _add(self, number: int, image: Image | None, masks: Masks | None, note: str = "") -> bool:
        """The row of one frame, and its face if there is one; whether there is."""
        if image is None:
            stop = self.settings.in_force.after_damage == "stop"
            self.found.add(FrameRow(number, "unreadable", "the video ended before" if stop else "missing or damaged"))
            return False
        choosing = masks is not None and self.settings.face == "mask-overlap"
        mask, problem = masks.at(number, image.shape) if masks and choosing else (None, "")
        face = self.finder.find(image, mask)
        if not isinstance(face, Face):
            self.found.add(FrameRow(number, str(face), _joined(face.reason, problem and f"{MASK}{problem}")))
            return False
        if masks and not choosing:
            mask, problem = masks.at(number, image.shape)
        start = time.perf_counter()
        crop = None if mask is None else face.crop_mask(mask)
        encoded = EncodedFace(
            number,
            codec.encode_image(face.image, self.settings.image_format),
            codec.encode_array(face.landmarks),
            None if crop is None else codec.encode_image(crop, "png"),
        )
        reason = _joined(problem and f"{MASK}{problem}", note)
        self.found.add(FrameRow(number, "face", reason, codec.digest(face.image, face.landmarks, crop)), encoded)
        self.encoding += time.perf_counter() - start
        return True

    def _top_up(self, index: FrameIndex, sampled: list[int], count: int) -> Iterator[VideoFaces]:
        """A neighbour's face for every sampled frame without one, in a second pass; both frames get a row."""
        nearest = {n: stand_ins(n, sampled, count) for n in sampled if self.found.rows[n].status != "face"}
        owner = {candidate: n for n, candidates in nearest.items() for candidate in candidates}
        if not owner:
            return
        masks = self._masks(owner)
        held: dict[int, Image] = {}
        failed: int | None = None
        for number, image in chain(self.read(self.video.path, index, owner), [(-1, None)]):
            if failed is not None and owner.get(number) != failed:
                self._replace(failed, nearest[failed], held, masks)
                held = {}
                yield from self._full()
            failed = owner.get(number)
            if image is not None:
                held[number] = image

    def _replace(self, failed: int, candidates: list[int], held: dict[int, Image], masks: Masks | None) -> None:
        rows = self.found.rows
        for number in candidates:
            if number not in held:
                continue
            if self._add(number, held[number], masks, f"in place of frame {failed}"):
                rows[failed] = replace(rows[failed], reason=_joined(rows[failed].reason, f"replaced by frame {number}"))
                return
            del rows[number]  # it was not sampled


def _joined(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))
