"""Augmentation that is drawn face by face."""

import colorsys

import cv2
import numpy as np
import pytest
import torch

from benchmark import transforms
from benchmark.augment import augment
from benchmark.examples import names, showings
from benchmark.presets import BY_EXAMPLE, DFB, PIM, OneOf, augment_examples, choices
from benchmark.seeding import stream

torch.set_num_threads(1)

PRESETS = sorted(BY_EXAMPLE)


def faces(count: int = 12, size: int = 32) -> torch.Tensor:
    """Smooth faces, channels last in memory as the training loop has them."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear").contiguous(memory_format=torch.channels_last)


def examples(count: int = 12) -> np.ndarray:
    return np.stack([names(f"key/{i}" for i in range(count)), np.zeros(count, np.int64)], axis=1)


@pytest.mark.parametrize("size", [32, 37])  # 37: rows end in the middle of a vector register
@pytest.mark.parametrize("preset", PRESETS)
def test_a_face_looks_the_same_in_any_batch(preset: str, size: int) -> None:
    images, ids = faces(24, size), examples(24)
    before = images.clone()
    whole = augment_examples(preset, images, 1, 2, ids)
    assert torch.equal(images, before)
    assert whole.shape == images.shape
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert torch.equal(whole, augment_examples(preset, images, 1, 2, ids))
    order = torch.tensor([7, 3, 11, 0, 5])
    assert torch.equal(augment_examples(preset, images[order], 1, 2, ids[order.numpy()]), whole[order])
    for i in range(len(images)):
        alone = augment_examples(preset, images[i : i + 1].contiguous(), 1, 2, ids[i : i + 1])
        assert torch.equal(alone, whole[i : i + 1]), i


@pytest.mark.parametrize("preset", PRESETS)
def test_seed_epoch_showing_and_view_each_draw_anew(preset: str) -> None:
    images, ids = faces(), examples()
    again = ids + np.array([0, 1])
    seen = [
        augment_examples(preset, images, 1, 2, ids),
        augment_examples(preset, images, 2, 2, ids),
        augment_examples(preset, images, 1, 3, ids),
        augment_examples(preset, images, 1, 2, again),
        augment_examples(preset, images, 1, 2, ids, "view"),
    ]
    for i, one in enumerate(seen):
        assert not any(torch.equal(one, other) for other in seen[:i])
    assert torch.equal(augment(preset, images, 1, 2, 99, "view", ids), seen[-1])  # the step plays no part
    with pytest.raises(ValueError, match="needs to know which faces"):
        augment(preset, images, 1, 2, 0)


@pytest.mark.parametrize("preset", [DFB, PIM])
def test_each_transform_occurs_with_its_probability(preset: tuple) -> None:
    count = 2000
    drawn = [choices(preset, stream("augment", 0, 0, i, 0)) for i in range(count)]
    for number, step in enumerate(preset):
        taken = [face[number] for face in drawn if face[number] is not None]
        assert abs(len(taken) / count - step.p) < 4 * (0.25 / count) ** 0.5
        for one in step.steps if isinstance(step, OneOf) else ():
            assert abs(sum(t[0] is one for t in taken) / len(taken) - 1 / len(step.steps)) < 0.06
    # Both ends of each range are reached, and not passed.
    qualities = [face[-1][1] for face in drawn if face[-1]]
    assert (min(qualities), max(qualities)) == (40, 100)
    if preset is DFB:
        angles = [face[1][1] for face in drawn if face[1]]
        assert -10 <= min(angles) < -9.5
        assert 9.5 < max(angles) <= 10
        assert {face[2][1] for face in drawn if face[2]} == {3, 5, 7}


def test_transforms_do_what_they_say() -> None:
    images = faces(4)
    assert torch.equal(transforms.mirrored(images, [None] * 4), images.flip(3))
    assert torch.allclose(transforms.rotated(images, [0.0] * 4), images, atol=1e-5)
    # A quarter of a turn moves every pixel onto another.
    assert torch.allclose(transforms.rotated(images, [90.0] * 4), images.rot90(1, (2, 3)), atol=1e-5)
    for side in (3, 5, 7):
        peer = cv2.GaussianBlur(images[1, 0].numpy(), (side, side), 0)
        assert np.allclose(transforms.blurred(images[:2], [3, side])[1, 0].numpy(), peer, atol=1e-6)
    assert torch.allclose(transforms.rescaled(images, [(1.1, -0.05)] * 4), (images * 1.1 - 0.05).clamp(0, 1))
    assert torch.allclose(transforms.tinted(images, [(0.1, 0.0, -0.1)] * 4)[:, 1], images[:, 1])
    better, worse = (transforms.compressed(images, [quality] * 4).sub(images).abs().mean() for quality in (100, 40))
    assert 0 < better < worse < 0.1


def test_hue_saturation_and_value_are_shifted() -> None:
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    images[0, :, 0, 0] = 0.5  # grey
    shifted = transforms.hsv_shifted(images, [(0.1, 0.05, -0.1), (-0.1, -0.1, 0.1)])
    for face, (turn, fade, light) in enumerate([(0.1, 0.05, -0.1), (-0.1, -0.1, 0.1)]):
        for row in range(6):
            for column in range(6):
                h, s, v = colorsys.rgb_to_hsv(*images[face, :, row, column].tolist())
                s = 0 if s == 0 else min(max(s + fade, 0), 1)
                want = colorsys.hsv_to_rgb((h + turn) % 1, s, min(max(v + light, 0), 1))
                assert torch.allclose(shifted[face, :, row, column], torch.tensor(want), atol=1e-5)


def test_pca_moves_along_the_colours_that_vary_most() -> None:
    images = faces(1)
    moved = (transforms.pca_shifted(images, [0.1]) - images)[0]
    values, vectors = np.linalg.eigh(np.cov(images[0].flatten(1).numpy()))
    vectors = vectors * np.where(vectors.sum(0) < 0, -1, 1)
    inside = (images[0] > 0.1) & (images[0] < 0.9)
    for channel, want in enumerate(vectors @ (0.1 * values)):
        assert torch.allclose(moved[channel][inside[channel]], torch.tensor(want, dtype=torch.float32), atol=1e-5)


def test_names_and_showings() -> None:
    assert names(["a", "b"]).tolist() == names(["b", "a"]).tolist()[::-1]
    assert (names(["a", "b"]) >= 0).all()
    assert showings(np.array([4, 2, 4, 4, 2, 0])).tolist() == [0, 0, 1, 2, 1, 0]
