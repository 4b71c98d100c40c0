"""One video -> its faces, encoded, and one ledger row for every sampled frame. This is what a worker process runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import cv2

from preprocessing import codec
from preprocessing.faces import Detector, Face, Finder
from preprocessing.frames import FrameIndex, Image, UnreadableVideo, index_frames, read_frames
from preprocessing.layouts import Video
from preprocessing.masks import Masks
from preprocessing.opencv_frames import header_count, read_as_opencv
from preprocessing.sampling import sample, stand_ins
from preprocessing.settings import Settings

STATUSES = ("face", "no_face", "no_landmarks", "unreadable")
"""How a sampled frame can end."""
MASK = "mask: "
"""How the reason of a face begins whose mask is missing."""
WHOLE_VIDEO = -1
"""The frame number of the one ledger row of a video that gives no frame at all."""


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
    """Everything a store keeps of one video.

    Attributes:
        video: the video.
        rows: one per sampled frame, by frame number; one row with frame -1 for a video that cannot be read.
        faces: one per row with status "face".
        error: why the video cannot be read, or None.
        seconds: time by stage (decode, detect, landmarks, align, encode).
    """

    video: Video
    rows: list[FrameRow]
    faces: list[EncodedFace] = field(default_factory=list)
    error: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Frames by status; every status is there."""
        found = Counter(row.status for row in self.rows)
        return {status: found[status] for status in STATUSES}

    @property
    def warning(self) -> str | None:
        """The first thing that went wrong without costing a face (a mask that cannot be read), or None."""
        if self.video.kind == "crops":
            return None  # a crop without landmarks is nothing unusual; its reason stands in the ledger
        return next((f"frame {row.frame}: {row.reason}" for row in self.rows if row.status == "face" and MASK in row.reason), None)


def unreadable(video: Video, reason: str) -> VideoFaces:
    """The record of a video that gives no frame."""
    return VideoFaces(video, [FrameRow(WHOLE_VIDEO, "unreadable", reason)], error=reason)


@dataclass(frozen=True)
class Work:
    """Settings and detector, bound: `work(video)` does one video. Picklable, so that worker processes can be given one."""

    settings: Settings
    detector: Detector

    def __call__(self, video: Video) -> VideoFaces:
        """Sample, detect, align and encode. A video that cannot be read is a result, not an exception."""
        cv2.setNumThreads(1)  # parallelism is over videos
        if video.kind == "crops":
            from preprocessing.crops import take_crops  # it builds on this module

            return take_crops(video, self.settings, self.detector)
        return _OneVideo(video, self.settings, self.detector).done()


class _OneVideo:
    """A video's rows and faces while they grow. Frames are let go as soon as their face is encoded."""

    def __init__(self, video: Video, settings: Settings, detector: Detector) -> None:
        self.video, self.settings, switches = video, settings, settings.in_force
        self.finder = Finder(detector, settings.size, switches)
        self.read = read_as_opencv if switches.after_damage == "stop" else read_frames
        self.count = None if switches.frame_count == "packets" else header_count
        self.rows: dict[int, FrameRow] = {}
        self.faces: dict[int, EncodedFace] = {}
        self.encoding = 0.0

    def done(self) -> VideoFaces:
        start, settings = time.perf_counter(), self.settings
        try:
            index = index_frames(self.video.path)
            count = index.count if self.count is None else self.count(self.video.path)
            sampled = sample(count, settings.sampling, settings.frames, settings.stride)
            masks = self._masks(sampled)
            for number, image in self.read(self.video.path, index, sampled):
                self._add(number, image, masks)
            if settings.top_up:
                self._top_up(index, sampled, count)
        except UnreadableVideo as error:
            return unreadable(self.video, str(error))
        seconds = {**self.finder.seconds, "encode": self.encoding}
        seconds["decode"] = time.perf_counter() - start - sum(seconds.values())
        rows, faces = [self.rows[n] for n in sorted(self.rows)], [self.faces[n] for n in sorted(self.faces)]
        return VideoFaces(self.video, rows, faces, seconds=seconds)

    def _masks(self, numbers: Iterable[int]) -> Masks | None:
        return Masks(self.video.mask, numbers, self.read) if self.video.mask else None

    def _add(self, number: int, image: Image | None, masks: Masks | None, note: str = "") -> bool:
        """The row of one frame, and its face if there is one; whether there is."""
        if image is None:
            stop = self.settings.in_force.after_damage == "stop"
            self.rows[number] = FrameRow(number, "unreadable", "the video ended before" if stop else "missing or damaged")
            return False
        choosing = masks is not None and self.settings.face == "mask-overlap"
        mask, problem = masks.at(number, image.shape) if masks and choosing else (None, "")
        face = self.finder.find(image, mask)
        if not isinstance(face, Face):
            self.rows[number] = FrameRow(number, face)
            return False
        if masks and not choosing:
            mask, problem = masks.at(number, image.shape)
        start = time.perf_counter()
        crop = None if mask is None else face.crop_mask(mask)
        self.faces[number] = EncodedFace(
            number,
            codec.encode_image(face.image, self.settings.image_format),
            codec.encode_array(face.landmarks),
            None if crop is None else codec.encode_image(crop, "png"),
        )
        reason = "; ".join(filter(None, (problem and f"{MASK}{problem}", note)))
        self.rows[number] = FrameRow(number, "face", reason, codec.digest(face.image, face.landmarks, crop))
        self.encoding += time.perf_counter() - start
        return True

    def _top_up(self, index: FrameIndex, sampled: list[int], count: int) -> None:
        """A neighbour's face for every sampled frame without one, in a second pass; both frames get a row."""
        nearest = {n: stand_ins(n, sampled, count) for n in sampled if self.rows[n].status != "face"}
        owner = {candidate: n for n, candidates in nearest.items() for candidate in candidates}
        masks = self._masks(owner)
        held: dict[int, Image] = {}
        failed: int | None = None
        for number, image in [*self.read(self.video.path, index, owner), (-1, None)] if owner else []:
            if failed is not None and owner.get(number) != failed:
                self._replace(failed, nearest[failed], held, masks)
                held = {}
            failed = owner.get(number)
            if image is not None:
                held[number] = image

    def _replace(self, failed: int, candidates: list[int], held: dict[int, Image], masks: Masks | None) -> None:
        was = self.rows[failed]
        for number in candidates:
            if number not in held:
                continue
            if self._add(number, held[number], masks, f"in place of frame {failed}"):
                self.rows[failed] = replace(was, reason="; ".join(filter(None, (was.reason, f"replaced by frame {number}"))))
                return
            del self.rows[number]  # it was not sampled
