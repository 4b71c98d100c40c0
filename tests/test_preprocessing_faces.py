"""Alignment against an independent Umeyama, the strict way of detecting, and the codec."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from preprocessing.codec import check_format, decode_array, decode_image, decode_mask, digest, encode_array, encode_image
from preprocessing.errors import PreprocessingError
from preprocessing.faces import FIVE, Box, Dlib, Face, Finder, align, similarity, template
from preprocessing.frames import index_frames, read_frames
from preprocessing.layouts import read_layout
from preprocessing.predictor import find_predictor, sha256

TARGETS_256 = [[96.870, 120.433], [158.825, 120.090], [128.044, 155.669], [102.592, 191.939], [153.899, 191.656]]


def umeyama(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Umeyama, PAMI 1991, eq. 40 to 42, by singular values."""
    source, target = np.float64(np.float32(source)), np.float64(np.float32(target))
    a, b = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(b.T @ a / len(a))
    s = np.diag([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    scale = np.trace(np.diag(d) @ s) / np.mean(np.sum(a**2, axis=1))
    turn = u @ s @ vt
    return np.column_stack([scale * turn, target.mean(0) - scale * turn @ source.mean(0)])


def face_points(rng: np.random.Generator) -> NDArray[np.float64]:
    """Plausible landmarks: the template, turned, scaled, moved and jittered."""
    angle, scale = rng.uniform(-0.5, 0.5), rng.uniform(0.2, 1.5)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.tile(template(256).mean(0), (68, 1)).astype(np.float64)
    points[list(FIVE)] = template(256)
    return (points - 128) @ turn.T + rng.uniform(150, 250, 2) + rng.normal(0, 4, (68, 2))


def test_template() -> None:
    np.testing.assert_allclose(template(256), TARGETS_256, atol=5e-4)
    np.testing.assert_allclose(template(128), np.array(TARGETS_256) / 2, atol=5e-4)


def test_similarity_is_umeyamas() -> None:
    for seed in range(200):
        points = face_points(np.random.default_rng(seed))[list(FIVE)]
        found = similarity(points, template(256))
        assert found is not None
        np.testing.assert_allclose(found, umeyama(points, template(256)), rtol=0, atol=1e-10)


def test_similarity_never_mirrors() -> None:
    mirrored = template(256) * (-1, 1)
    found = similarity(mirrored, template(256))
    assert found is not None
    assert np.linalg.det(found[:, :2]) > 0
    np.testing.assert_allclose(found, umeyama(mirrored, template(256)), atol=1e-9)


def test_alignment_moves_image_and_landmarks_together() -> None:
    rng = np.random.default_rng(1)
    points = face_points(rng)
    image = cv2.GaussianBlur(rng.integers(0, 256, (400, 420, 3), dtype=np.uint8), (0, 0), 3)
    face = align(image, points, 256)
    assert face is not None
    reference = cv2.warpAffine(image, umeyama(points[list(FIVE)], template(256)), (256, 256), flags=cv2.INTER_LINEAR, borderValue=0)
    assert np.abs(face.image.astype(int) - reference).max() <= 1
    np.testing.assert_allclose(face.landmarks[list(FIVE)].mean(0), template(256).mean(0), atol=1e-3)
    assert face.landmarks.dtype == np.float32
    back = np.linalg.inv(np.vstack([face.matrix, [0, 0, 1]]))
    np.testing.assert_allclose(np.column_stack([face.landmarks, np.ones(68)]) @ back[:2].T, points, atol=1e-3)


@pytest.mark.parametrize("points", [np.zeros((68, 2)), np.full((68, 2), np.nan), np.random.default_rng(0).normal(-500, 9, (68, 2))])
def test_unusable_landmarks_give_no_face(points: NDArray[np.float64]) -> None:
    assert align(np.zeros((100, 100, 3), np.uint8), points) is None


@dataclass
class Scripted:
    """A detector that says what it is told, and remembers what it was asked."""

    answers: dict[int, list[Box]]
    points: NDArray[np.float64]
    asked: list[int | Box] = field(default_factory=list)
    description: dict[str, str] = field(default_factory=dict)

    def boxes(self, image: NDArray[np.uint8], upsample: int) -> list[Box]:
        self.asked.append(upsample)
        return self.answers[upsample]

    def landmarks(self, image: NDArray[np.uint8], box: Box) -> NDArray[np.float64]:
        self.asked.append(box)
        return self.points


def test_strict_looks_closer_only_where_nothing_is_seen_and_takes_the_largest() -> None:
    image, points = np.zeros((400, 400, 3), np.uint8), face_points(np.random.default_rng(3))
    small, large = Box(0, 0, 9, 9), Box(-5, 0, 40, 30)
    seen_at_once = Scripted({0: [small, large], 1: [small]}, points)
    assert isinstance(Finder(seen_at_once).find(image), Face)
    assert seen_at_once.asked == [0, large]
    seen_closer = Scripted({0: [], 1: [small]}, points)
    assert isinstance(Finder(seen_closer).find(image), Face)
    assert seen_closer.asked == [0, 1, small]
    assert Finder(Scripted({0: [], 1: []}, points)).find(image) == "no_face"
    assert Finder(Scripted({0: [small]}, np.zeros((68, 2)))).find(image) == "no_landmarks"


def test_masks_move_with_the_face_and_are_black_or_white() -> None:
    points = face_points(np.random.default_rng(4))
    image = np.zeros((400, 400, 3), np.uint8)
    cv2.circle(image, (200, 200), 40, (0, 90, 0), -1)  # a coloured mask counts
    image[:5] = 1  # what the encoder leaves in black does not
    face = align(image, points)
    assert face is not None
    mask = face.crop_mask(image)
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(mask > 0, face.image.max(axis=2) > 1)


def test_dlib_on_a_drawn_face(data: Path) -> None:
    detector = pickle.loads(pickle.dumps(Dlib(find_predictor())))
    assert detector.description == {"name": "dlib-hog", "predictor_sha256": sha256(find_predictor())}
    video = read_layout(data / "mini-a", "faceforensics++")[-1].path
    ((_, image),) = read_frames(video, index_frames(video), [0])
    assert image is not None
    face = Finder(detector).find(image)
    assert isinstance(face, Face)
    assert np.abs(face.landmarks[list(FIVE)] - template(256)).max() < 20, "the five points lie near their targets"
    assert Finder(detector).find(np.full((120, 160, 3), 90, np.uint8)) == "no_face"


def test_predictor_that_is_missing_or_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PreprocessingError, match=r"nowhere\.dat does not exist"):
        find_predictor(tmp_path / "nowhere.dat")
    (tmp_path / "junk.dat").write_bytes(b"junk")
    with pytest.raises(PreprocessingError, match="is no dlib shape predictor"):
        Dlib(tmp_path / "junk.dat").boxes(np.zeros((64, 64, 3), np.uint8), 0)
    five = find_predictor().with_name("shape_predictor_5_face_landmarks.dat")
    with pytest.raises(PreprocessingError, match="gives 5 landmarks"):
        Dlib(five).boxes(np.zeros((64, 64, 3), np.uint8), 0)
    monkeypatch.setattr("preprocessing.predictor.PACKAGE", "no_such_package_anywhere")
    with pytest.raises(PreprocessingError, match="pip install no_such_package_anywhere"):
        find_predictor()


@pytest.mark.parametrize("name", ["webp", "png"])
def test_images_come_back_to_the_grey_level(name: str) -> None:
    check_format(name)
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for image in (noise, cv2.GaussianBlur(noise, (0, 0), 9), np.zeros((64, 64, 3), np.uint8), noise[:31, :17]):
        image = np.ascontiguousarray(image)
        np.testing.assert_array_equal(decode_image(encode_image(image, name)), image)


def test_opencv_writes_lossless_webp_too() -> None:
    image = np.random.default_rng(6).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    _, data = cv2.imencode(".webp", image[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])
    np.testing.assert_array_equal(decode_image(data.tobytes()), image)


def test_masks_and_arrays_come_back() -> None:
    mask = np.where(np.random.default_rng(7).random((64, 64)) > 0.5, np.uint8(255), np.uint8(0))
    np.testing.assert_array_equal(decode_mask(encode_image(mask, "png")), mask)
    points = np.random.default_rng(8).normal(size=(81, 2)).astype(np.float32)
    back = decode_array(encode_array(points))
    np.testing.assert_array_equal(back, points)
    assert back.dtype == np.float32
    assert digest(points) != digest(points.astype(np.float64))
    assert digest(mask, None) != digest(mask)
    with pytest.raises(PreprocessingError, match="cannot be decoded"):
        decode_image(b"\x00\x01")
    with pytest.raises(PreprocessingError, match="lossless ones are"):
        check_format("jpeg")
