"""A sequence of faces that are cut out already -> the same encoded faces as a video's, resized instead of aligned.

Where the detector sees a face in the crop, its landmarks are kept; elsewhere a face has none, an array of shape (0, 2).
"""

from __future__ import annotations

import tarfile
import time
from collections import defaultdict

import cv2
import numpy as np

from preprocessing import codec
from preprocessing.errors import PreprocessingError
from preprocessing.faces import Detector, Image, Points
from preprocessing.frames import UnreadableVideo
from preprocessing.images import list_images, read_images
from preprocessing.layouts import Video
from preprocessing.sampling import sample
from preprocessing.settings import Settings
from preprocessing.work import EncodedFace, FrameRow, VideoFaces, unreadable

NO_LANDMARKS = "the crop is kept as it came; no landmarks were found in it"


def take_crops(video: Video, settings: Settings, detector: Detector) -> VideoFaces:
    """Everything a store keeps of a sequence of the kind "crops". One that cannot be read is a result, not an exception.

    Args:
        video: a folder of images, or such a folder in a tar archive; an image's name is its frame number.
        settings: images sampled as its settings say are kept at `size`.
        detector: looks for landmarks.
    """
    try:
        return _take(video, settings, detector)
    except UnreadableVideo as error:
        return unreadable(video, str(error))


def _take(video: Video, settings: Settings, detector: Detector) -> VideoFaces:
    seconds: defaultdict[str, float] = defaultdict(float)
    start = time.perf_counter()
    try:
        table = list_images(video.path, video.inside)
        numbers = list(table)
        wanted = {
            table[numbers[i]]: numbers[i]
            for i in (sample(len(numbers), settings.sampling, settings.frames, settings.stride) if numbers else [])
        }
        images = {wanted[name]: image for name, image in read_images(video.path, video.inside, wanted)}
    except PreprocessingError as error:
        raise UnreadableVideo(str(error)) from error
    except (OSError, EOFError, tarfile.TarError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"damaged archive ({type(error).__name__})"
        raise UnreadableVideo(f"cannot be opened: {reason}") from error
    if not images:
        raise UnreadableVideo("no images")
    seconds["decode"] = time.perf_counter() - start
    rows, faces = [], []
    for number, image in sorted(images.items()):
        if image is None:
            rows.append(FrameRow(number, "unreadable", "missing or damaged"))
            continue
        crop = fit(image, settings.size)
        start = time.perf_counter()
        points = find_landmarks(detector, crop)
        seconds["landmarks"] += time.perf_counter() - start
        start = time.perf_counter()
        data = codec.encode_image(crop, settings.image_format)
        faces.append(EncodedFace(number, data, codec.encode_array(points), None))
        rows.append(FrameRow(number, "face", "" if len(points) else NO_LANDMARKS, codec.digest(crop, points, None)))
        seconds["encode"] += time.perf_counter() - start
    return VideoFaces(video, rows, faces, seconds=dict(seconds))


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
