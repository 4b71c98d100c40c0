"""Mode dfb against DeepfakeBench's way, written anew in benchmark/speed: the same frames, landmarks and grey levels."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import av
import cv2
import dlib
import numpy as np
import pytest
from numpy.typing import NDArray
from preprocessing_material import SMALL, Squares, encode, frame, videos

from benchmark.speed.peer_preprocessing import Peer, umeyama
from benchmark.speed.preprocessing import Parity, peak_memory, report, side_by_side
from preprocessing.errors import PreprocessingError
from preprocessing.faces import Box, Dlib, Face, Finder
from preprocessing.frames import UnreadableVideo, index_frames, read_frames, spread
from preprocessing.geometry import FIVE, similarity, similarity_float32, template
from preprocessing.layouts import Video, read_layout
from preprocessing.modes import DFB, STRICT, VALUES, Switches, parse_switches
from preprocessing.opencv_frames import header_count, read_as_opencv
from preprocessing.pipeline import Settings, preprocess
from preprocessing.predictor import find_predictor
from preprocessing.pyramid import Pyramid
from preprocessing.store import FaceStore
from preprocessing.work import Work

ROOT = Path(__file__).parents[1]
BESIDE = ROOT.parent / "shared" / "material" / "asl_gestures"
REAL = "DFGRID_REAL_VIDEOS"


@pytest.fixture(scope="module")
def peer() -> Peer:
    return Peer(find_predictor())


@pytest.fixture(scope="module")
def detector() -> Dlib:
    return Dlib(find_predictor())


def test_parity_on_drawn_videos(data: Path, tmp_path: Path) -> None:
    found = read_layout(data / "mini-a", "faceforensics++")
    chosen = [found[n] for n in spread(len(found), 5)]
    runs, result = side_by_side(chosen, find_predictor(), tmp_path)
    assert result.identical, str(result)
    assert result.frames >= 8
    assert runs["peer"].faces == runs["dfb"].faces == result.frames
    assert "0 kept by one only" in report(runs, result)
    # Of the whole process, in MB; what other tests have taken before is in it.
    assert 50 < peak_memory() < 100_000


def test_parity_on_real_videos(peer: Peer, detector: Dlib) -> None:
    """All videos of the folder that the variable names; of the material that may lie beside the checkout, the first two."""
    folder = Path(os.environ.get(REAL) or BESIDE)
    if not folder.is_dir():
        pytest.skip(f"no real videos: {REAL} names no folder, and there is none at ../shared/material/asl_gestures")
    found = read_layout(folder, "folder")
    work, result = Work(Settings(mode="dfb"), detector), Parity()
    for video in found if os.environ.get(REAL) else found[:2]:
        result.add(peer.video(video.path, video.video), work(video))
    assert result.identical, str(result)
    assert result.difference == 0


def test_parity_notices_what_differs(data: Path, peer: Peer, detector: Dlib) -> None:
    video = read_layout(data / "mini-a", "faceforensics++")[0]
    theirs = peer.video(video.path, "x")
    result = Parity()
    result.add(theirs, Work(Settings(), detector)(video))  # strict: other landmarks
    assert result.landmarks == result.frames > 0
    result.add(theirs, Work(Settings(mode="dfb", frames=1), detector)(video))
    assert result.only_one > 0
    assert not result.identical


def opencv(path: Path) -> list[NDArray[np.uint8]]:
    """All frames; with one thread, since several make different images of a damaged video at each reading."""
    capture, images = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]), []
    while True:
        found, image = capture.read()
        if not found:
            return images
        images.append(np.asarray(image[..., ::-1], dtype=np.uint8))


@pytest.mark.parametrize("name", ["plain.mp4", "plain.mkv", "plain.avi", "cut.mp4", "damaged.mkv", "zeroed.mp4"])
def test_frames_are_those_of_opencv(name: str, tmp_path: Path) -> None:
    path = encode(tmp_path / name, [frame(n) for n in range(60)], header_first=name == "cut.mp4", g="20", crf="10", bf="3")
    data = bytearray(path.read_bytes())
    if name == "cut.mp4":
        del data[len(data) * 2 // 3 :]
    elif name == "damaged.mkv":
        for at in np.random.default_rng(1).integers(len(data) // 3, len(data) - 1000, 12):
            data[at] ^= 0x55
    elif name == "zeroed.mp4":
        start = data.find(b"mdat") + 4
        length = data.find(b"moov") - start
        data[start + length // 4 : start + length // 3] = bytes(length // 3 - length // 4)
    path.write_bytes(data)
    reference, index = opencv(path), index_frames(path)
    count = header_count(path)
    assert count == int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))
    read = list(read_as_opencv(path, index, spread(count, 32)))
    assert [n for n, _ in read] == spread(count, 32)
    for number, image in read:
        if number < len(reference):
            assert image is not None
            np.testing.assert_array_equal(image, reference[number])
        else:
            assert image is None
    if name.startswith("plain"):
        assert index.count == 60


def test_a_header_that_promises_too_much_costs_the_last_frame(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", [frame(n) for n in range(40)], header_first=True)
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    made = [Video("toy", "real", 0, "train", "c", "cut", tmp_path / "cut.mp4", "none")]
    preprocess(made, tmp_path / "store", Settings(8, 64, "dfb"), detector=Squares())
    with FaceStore(tmp_path / "store") as store:
        rows = store.ledger.set_index("frame")
        assert rows.index.tolist() == spread(40, 8)
        readable = len(opencv(tmp_path / "cut.mp4"))
        for number, row in rows.iterrows():
            assert row["status"] == ("face" if int(str(number)) < readable else "unreadable")
        assert rows["reason"].iloc[-1] == "the video ended before"


def test_a_video_that_opencv_cannot_open(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="cannot be opened by OpenCV"):
        header_count(tmp_path / "gone.mp4")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
    made = [Video("toy", "real", 0, "train", "s", "sound", tmp_path / "sound.mkv", "none")]
    summary = preprocess(made, tmp_path / "store", Settings(8, 64, "dfb"), detector=Squares())
    assert summary.errors == [("toy/none/real/sound", "no video stream")]


def test_alignment_has_the_rounding_of_float32() -> None:
    rng, differs = np.random.default_rng(0), 0
    for _ in range(300):
        points = template() * rng.uniform(0.3, 2) + rng.normal(0, 6, (5, 2)) + rng.uniform(0, 900, 2)
        points = np.round(points)
        found = similarity_float32(points, template())
        assert found is not None
        np.testing.assert_array_equal(found, umeyama(points.astype(np.float32), template())[:2])
        exact = similarity(points, template())
        assert exact is not None
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=2e-2)
        differs += not np.array_equal(found, exact)
    assert differs > 250
    mirrored = similarity_float32(template() * (-1, 1), template())
    assert mirrored is not None
    assert np.linalg.det(mirrored[:, :2]) > 0
    for useless in (np.zeros((5, 2)), np.full((5, 2), np.nan)):
        assert similarity_float32(useless, template()) is None


def test_the_largest_face_is_that_of_the_whole_pyramid(data: Path) -> None:
    detector = dlib.get_frontal_face_detector()
    pyramid = Pyramid(detector)
    assert pyramid._single is not None, "dlib keeps its settings in another way: the search is right, but no faster"
    video = read_layout(data / "mini-a", "faceforensics++")[0].path
    ((_, face),) = read_frames(video, index_frames(video), [0])
    assert face is not None
    scene = cv2.resize(face, None, fx=1.6, fy=1.6, interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(face, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    both = np.zeros((max(scene.shape[0], small.shape[0]), scene.shape[1] + small.shape[1], 3), np.uint8)
    both[: scene.shape[0], : scene.shape[1]] = scene
    both[: small.shape[0], scene.shape[1] :] = small
    noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    hinted = 0
    for image in (both, noise, face[: face.shape[0] // 2].copy()):
        for upsample in (0, 1):
            boxes = [(r.left(), r.top(), r.right(), r.bottom()) for r in detector(image, upsample)]
            expected = max(boxes, key=lambda b: (b[2] - b[0] + 1) * (b[3] - b[1] + 1), default=None)
            for start in (0, 1, 2, 4, 7):
                found, level = pyramid.largest(image, upsample, start)
                assert found == expected
                hinted += start > 0 and pyramid._from(image, upsample, start) is not None
                assert level >= 0
    assert hinted > 2


def test_strict_finds_the_same_with_and_without_the_shortcut(data: Path, detector: Dlib) -> None:
    class Plain:
        def __init__(self, inner: Dlib) -> None:
            self.boxes, self.landmarks, self.description = inner.boxes, inner.landmarks, inner.description

    for switches in (STRICT, DFB):
        quick, plain = Finder(detector, 256, switches), Finder(Plain(detector), 256, switches)
        for video in read_layout(data / "mini-a", "faceforensics++")[:1]:
            for _, image in read_frames(video.path, index_frames(video.path), [0, 1]):
                assert image is not None
                a, b = quick.find(image), plain.find(image)
                assert isinstance(a, Face)
                assert isinstance(b, Face)
                np.testing.assert_array_equal(a.image, b.image)
                np.testing.assert_array_equal(a.landmarks, b.landmarks)


class Says:
    """A detector that finds what it is told, in the frame (200 x 200) or in the crop, and remembers what it saw there."""

    def __init__(self, frame_boxes: list[Box], crop_boxes: list[Box]) -> None:
        self.frame_boxes, self.crop_boxes = frame_boxes, crop_boxes
        self.description = {"name": "says"}
        self.crops: list[NDArray[np.uint8]] = []
        self.upsamples: list[int] = []

    def boxes(self, image: NDArray[np.uint8], upsample: int) -> list[Box]:
        self.upsamples.append(upsample)
        if image.shape[0] == 200:
            return self.frame_boxes
        self.crops.append(image)
        return self.crop_boxes

    def landmarks(self, image: NDArray[np.uint8], box: Box) -> NDArray[np.float64]:
        points = np.full((68, 2), float(box.left))
        points[list(FIVE)] = template(64) + np.array((box.left, box.top))
        return points


def test_every_switch_of_the_second_detection() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    image[..., 0] = 200
    near, first, largest = Box(60, 60, 119, 119), Box(1, 1, 9, 9), Box(3, 3, 60, 60)
    for switches, channel, left in (
        (DFB, 2, 1),
        (Switches(second_detection="crop"), 0, 3),
        (Switches(second_detection="crop", crop_face="first"), 0, 1),
        (Switches(second_detection="crop", crop_channels="bgr"), 2, 3),
    ):
        says = Says([near], [first, largest])
        face = Finder(says, 64, switches).find(image)
        assert isinstance(face, Face)
        assert says.crops[0][..., channel].max() == 200
        assert face.image[..., 0].max() == 200, "the store's face is RGB"
        assert face.landmarks[0].tolist() == [left, left]
        assert says.upsamples == ([1, 1] if switches is DFB else [0, 1])
    assert Finder(Says([near], []), 64, DFB).find(image) == "no_face"
    assert isinstance(Finder(Says([near], []), 64, STRICT).find(image), Face)
    outside = Box(900, 900, 960, 960)
    assert Finder(Says([outside], []), 64, STRICT).find(image) == "no_landmarks"
    assert isinstance(Finder(Says([outside], []), 64, Switches(inside="any")).find(image), Face)


def test_switches_are_checked_and_recorded() -> None:
    old = {"frames": 4, "size": 64, "mode": "strict", "image_format": "webp", "detector": {"name": "squares"}}
    assert SMALL.recorded(Squares()) == old, "stores made before the switches stay comparable"
    dfb = Settings(4, 64, "dfb").recorded(Squares())
    assert dfb == {**old, "mode": "dfb", "switches": {name: values[1] for name, values in VALUES.items()}}
    mixed = Settings(4, 64, switches=parse_switches(["frame-count=header"]))
    assert mixed.recorded(Squares())["switches"] == {"frame_count": "header"}
    assert Settings(mode="dfb", switches={"similarity": "float64"}).in_force.similarity == "float64"
    for given, words in (
        ({"mode": "dbf"}, "unknown mode 'dbf': did you mean 'dfb'"),
        ({"switches": {"frame_cuont": "header"}}, "unknown switch 'frame_cuont': did you mean 'frame_count'"),
        ({"switches": {"frame_count": "guess"}}, "switch frame_count is 'guess'"),
        ({"switches": {"crop_face": "first"}}, "they need second_detection=crop"),
        ({"face": "smallest"}, "unknown face 'smallest'"),
        ({"sampling": "random"}, "unknown sampling 'random'"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"stride": 3}, "needs the sampling 'fixed-stride'"),
    ):
        with pytest.raises(PreprocessingError, match=words):
            Settings(**given)  # type: ignore[arg-type]
    with pytest.raises(PreprocessingError, match="must read name=value"):
        parse_switches(["header"])


@pytest.mark.parametrize("name", VALUES)
def test_every_switch_of_dfb_can_be_changed_alone(name: str) -> None:
    settings = Settings(4, 64, "dfb", switches={name: VALUES[name][0]})
    apart = {k for k, v in asdict(settings.in_force).items() if v != VALUES[k][1]}
    crop = {"crop_channels", "crop_face"}  # of the second detection, without which they say nothing
    assert apart == {name} | (crop if name == "second_detection" else set())
    assert Settings.from_recorded(settings.recorded(Squares())).in_force == settings.in_force


@pytest.mark.parametrize("mode", ["strict", "dfb"])
def test_a_switch_of_a_detection_that_is_not_made_is_refused(mode: str) -> None:
    with pytest.raises(PreprocessingError, match="they need second_detection=crop"):
        Settings(mode=mode, switches={"second_detection": "none", "crop_face": "first"})


def test_a_store_is_continued_only_under_the_same_switches(tmp_path: Path) -> None:
    made = videos(tmp_path, 1)
    header = Settings(4, 64, switches={"frame_count": "header"})
    first = preprocess(made, tmp_path / "store", header, detector=Squares())
    with pytest.raises(PreprocessingError, match=r"begun with switches = \{'frame_count': 'header'\}, not its default"):
        preprocess(made, tmp_path / "store", SMALL, detector=Squares())
    assert first.fingerprint != preprocess(made, tmp_path / "strict", SMALL, detector=Squares()).fingerprint
