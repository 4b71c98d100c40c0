"""One video -> its faces, encoded, and one ledger row for every sampled frame. This is what a worker process runs."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from preprocessing import codec
from preprocessing.faces import Detector, Face, Finder
from preprocessing.frames import Image, UnreadableVideo, index_frames, read_frames, spread
from preprocessing.layouts import Video
from preprocessing.settings import Settings

STATUSES = ("face", "no_face", "no_landmarks", "unreadable")
"""How a sampled frame can end."""
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
        return next((f"frame {row.frame}: {row.reason}" for row in self.rows if row.status == "face" and row.reason), None)


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
        finder = Finder(self.detector, self.settings.size)
        found: dict[int, Face] = {}
        shapes: dict[int, tuple[int, ...]] = {}
        rows: dict[int, FrameRow] = {}
        start = time.perf_counter()
        try:
            index = index_frames(video.path)
            for number, image in read_frames(video.path, index, spread(index.count, self.settings.frames)):
                if image is None:
                    rows[number] = FrameRow(number, "unreadable", "missing or damaged")
                    continue
                face = finder.find(image)
                if isinstance(face, Face):
                    found[number], shapes[number] = face, image.shape
                else:
                    rows[number] = FrameRow(number, face)
        except UnreadableVideo as error:
            return unreadable(video, str(error))
        masks, problems = _crop_masks(video.mask, found, shapes) if video.mask else ({}, {})
        seconds = dict(finder.seconds)
        seconds["decode"] = time.perf_counter() - start - sum(seconds.values())

        start = time.perf_counter()
        faces = []
        for number, face in found.items():
            mask = masks.get(number)
            faces.append(
                EncodedFace(
                    number,
                    codec.encode_image(face.image, self.settings.image_format),
                    codec.encode_array(face.landmarks),
                    None if mask is None else codec.encode_image(mask, "png"),
                )
            )
            content = codec.digest(face.image, face.landmarks, mask)
            rows[number] = FrameRow(number, "face", problems.get(number, ""), content)
        seconds["encode"] = time.perf_counter() - start
        return VideoFaces(video, [rows[n] for n in sorted(rows)], sorted(faces, key=lambda f: f.frame), seconds=seconds)


def _crop_masks(path: Path, faces: dict[int, Face], shapes: dict[int, tuple[int, ...]]) -> tuple[dict[int, Image], dict[int, str]]:
    """The masks of the frames with a face, and why others have none."""
    masks: dict[int, Image] = {}
    problems: dict[int, str] = {}
    try:
        for number, mask in read_frames(path, index_frames(path), faces):
            if mask is None:
                problems[number] = "mask: frame missing or damaged"
            elif mask.shape != shapes[number]:
                problems[number] = "mask: another size than the video"
            else:
                masks[number] = faces[number].crop_mask(mask)
    except UnreadableVideo as error:
        problems = dict.fromkeys(faces, f"mask: {error}")
    return masks, problems
