"""Sampling and decoding: the right frames, OpenCV's pixels, and damage reported instead of hidden."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from preprocessing_material import clip, encode, frame

from preprocessing.frames import UnreadableVideo, index_frames, read_frames, spread

FORMATS: dict[str, dict[str, str]] = {
    "h264.mp4": {},
    "many_b_frames.mkv": {"bf": "8", "b_adapt": "2", "g": "250"},
    "h264.avi": {},  # presentation times are wrong in this container
    "mpeg4.avi": {"codec": "mpeg4"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "full_chroma.mp4": {"pixels": "yuv444p"},
    "full_range.mp4": {"pixels": "yuvj420p"},
    "ten_bit.mp4": {"pixels": "yuv420p10le"},
}


def opencv(path: Path) -> list[NDArray[np.uint8]]:
    capture, images = cv2.VideoCapture(str(path)), []
    while True:
        found, image = capture.read()
        if not found:
            return images
        images.append(np.asarray(image[..., ::-1], dtype=np.uint8))


def swscale_of_opencv() -> tuple[int, int]:
    found = re.search(r"swscale:\s+YES \((\d+)\.(\d+)", cv2.getBuildInformation())
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


@pytest.mark.parametrize("name", FORMATS)
def test_pixels_are_those_of_opencv(name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-20, 20, (96, 128, 3))
    images = [np.clip(frame(n) + noise, 0, 255).astype(np.uint8) for n in range(30)]
    path = encode(tmp_path / name, images, **FORMATS[name])
    if "10" in FORMATS[name].get("pixels", "") and swscale_of_opencv() != av.library_versions["libswscale"][:2]:
        pytest.skip("more than 8 bits are rounded differently by different versions of swscale, and OpenCV brings its own")
    reference = opencv(path)
    index = index_frames(path)
    assert index.count == len(reference) == 30
    read = dict(read_frames(path, index, [29, 0, 7, 8, 21]))
    assert sorted(read) == [0, 7, 8, 21, 29]
    for number, image in read.items():
        assert image is not None
        np.testing.assert_array_equal(image, reference[number])


def turn(path: Path, degrees: int) -> None:
    """Write a rotation into an MP4's track header, as a phone held upright does."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4 + 4 + 20 + 16  # version 0: flags, times and ids, then reserved fields, then the matrix
    one = 1 << 16
    assert struct.unpack_from(">9i", data, at) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    struct.pack_into(">9i", data, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_videos_are_upright_as_in_opencv(degrees: int, tmp_path: Path) -> None:
    path = clip(tmp_path / "phone.mp4", 3)
    turn(path, degrees)
    ((_, image),) = read_frames(path, index_frames(path), [1])
    assert image is not None
    assert image.shape == ((128, 96, 3) if degrees != 180 else (96, 128, 3))
    np.testing.assert_array_equal(image, opencv(path)[1])


def test_spread() -> None:
    assert spread(110, 32) == np.linspace(0, 109, 32, dtype=int).tolist()
    assert spread(3, 32) == [0, 1, 2]
    assert spread(300, 1) == [0]
    assert (spread(301, 32)[0], spread(301, 32)[-1], len(spread(301, 32))) == (0, 300, 32)


def test_a_cut_video_is_sampled_to_its_promised_end(tmp_path: Path) -> None:
    path = encode(tmp_path / "cut.mp4", [frame(n) for n in range(40)], header_first=True)
    assert index_frames(path).count == 40
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    index = index_frames(path)
    assert index.count == 40, "the header promises 40 frames"
    assert index.times is not None
    read = dict(read_frames(path, index, spread(index.count, 8)))
    assert sorted(read) == spread(40, 8)
    assert read[0] is not None
    assert read[39] is None


def test_damage_costs_frames_not_the_video(tmp_path: Path) -> None:
    path = encode(tmp_path / "damaged.mp4", [frame(n) for n in range(60)], g="20")
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 4
    length = data.find(b"moov") - start
    data[start + length // 4 : start + length // 2] = bytes(length // 2 - length // 4)
    path.write_bytes(data)
    index = index_frames(path)
    read = dict(read_frames(path, index, range(60)))
    assert sorted(read) == list(range(60))
    assert any(image is None for image in read.values())
    assert read[59] is not None


def test_frames_that_the_decoder_marks_as_damaged_are_missing(tmp_path: Path) -> None:
    path = encode(tmp_path / "damaged.mkv", [frame(n) for n in range(60)], g="20", crf="10")
    data = bytearray(path.read_bytes())
    for at in np.random.default_rng(1).integers(len(data) // 3, len(data) - 1000, 12):
        data[at] ^= 0x55
    path.write_bytes(data)
    with av.open(str(path)) as container:
        marked = {f.pts for f in container.decode(video=0) if f.is_corrupt}
    index = index_frames(path)
    assert index.times is not None
    assert marked, "the test needs damage that the decoder notices"
    for number, image in read_frames(path, index, range(60)):
        assert image is None or index.times[number] not in marked


@pytest.mark.parametrize(
    ("name", "content", "words"), [("zero.mp4", b"", "empty"), ("text.mp4", b"no video " * 99, "cannot be opened")]
)
def test_unreadable_videos(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableVideo, match=words) as caught:
        index_frames(tmp_path / name)
    assert str(tmp_path) not in str(caught.value), "reasons are kept in stores, where no path of this machine belongs"


def test_missing_and_soundtrack_only(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="No such file"):
        index_frames(tmp_path / "gone.mp4")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
    with pytest.raises(UnreadableVideo, match="no video stream"):
        index_frames(tmp_path / "sound.mkv")
