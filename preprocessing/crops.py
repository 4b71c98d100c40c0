"""A sequence of faces that are cut out already -> the same encoded faces as a video's, resized instead of aligned.

Where the detector sees a face in the crop, its landmarks are kept; elsewhere a face has none, an array of shape (0, 2).
"""

from __future__ import annotations

import tarfile
import time
from collections import defaultdict
from collections.abc import Iterator

import cv2
import numpy as np

from preprocessing import codec
from preprocessing.faces import Detector, Image, Points
from preprocessing.frames import UnreadableVideo
from preprocessing.images import list_images, read_images
from preprocessing.layouts import Video
from preprocessing.sampling import sample
from preprocessing.settings import Settings
from preprocessing.work import WHOLE_VIDEO, EncodedFace, FrameRow, Parts, VideoFaces

NO_LANDMARKS = "the crop is kept as it came; no landmarks were found in it"


def take_crops(video: Video, settings: Settings, detector: Detector) -> Iterator[VideoFaces]:
    """Everything a store keeps of a sequence of the kind "crops", in parts.

    An image whose name is no frame number of its own is not used: it has a ledger row with a number below -1.

    Args:
        video: a folder of images, or such a folder in a tar archive; an image's name is its frame number.
        settings: images sampled as its settings say are kept at `size`.
        detector: looks for landmarks.

    Raises:
        UnreadableVideo: if there are no images, or they cannot be read to their end.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    found = Parts(video)
    start = time.perf_counter()
    try:
        table, odd = list_images(video.path, video.inside)
        if not table:
            raise UnreadableVideo(odd[0] if odd else "no images")
        for at, reason in enumerate(odd, start=1):
            found.add(FrameRow(WHOLE_VIDEO - at, "unreadable", reason))
        numbers = list(table)
        sampled = (numbers[i] for i in sample(len(numbers), settings.sampling, settings.frames, settings.stride))
        wanted = {table[number]: number for number in sampled}
        for name, image in read_images(video.path, video.inside, wanted):
            seconds["decode"] += time.perf_counter() - start
            _add(found, wanted[name], image, settings, detector, seconds)
            yield from found.full()
            start = time.perf_counter()
    except (OSError, EOFError, tarfile.TarError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"damaged archive ({type(error).__name__})"
        raise UnreadableVideo(f"cannot be opened: {reason}") from error
    yield found.last(dict(seconds))


def _add(
    found: Parts, number: int, image: Image | None, settings: Settings, detector: Detector, seconds: defaultdict[str, float]
) -> None:
    if image is None:
        found.add(FrameRow(number, "unreadable", "missing or damaged"))
        return
    start = time.perf_counter()
    crop = fit(image, settings.size)
    points = find_landmarks(detector, crop)
    located = time.perf_counter()
    seconds["landmarks"] += located - start
    face = EncodedFace(number, codec.encode_image(crop, settings.image_format), codec.encode_array(points), None)
    found.add(FrameRow(number, "face", "" if len(points) else NO_LANDMARKS, codec.digest(crop, points, None)), face)
    seconds["encode"] += time.perf_counter() - located


def fit(image: Image, size: int) -> Image:
    """An image (H, W, 3) as (size, size, 3): black borders make it square, then INTER_AREA shrinks or INTER_CUBIC enlarges it."""
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    if height != width:
        image = np.pad(image, ((top, side - height - top), (left, side - width - left), (0, 0)))
    if side == size:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC), np.uint8)


def find_landmarks(detector: Detector, crop: Image) -> Points:
    """The landmarks (L, 2) float32 of the largest face in a crop, (0, 2) where the detector finds none."""
    boxes = detector.boxes(crop, 0) or detector.boxes(crop, 1)
    if not boxes:
        return np.empty((0, 2), np.float32)
    return np.asarray(detector.landmarks(crop, max(boxes, key=lambda b: b.area)), np.float32)
