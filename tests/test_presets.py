"""Augmentation that is drawn face by face."""

import colorsys

import cv2
import numpy as np
import pytest
import torch

from benchmark import transforms
from benchmark import transforms_batched as batched
from benchmark.augment import augment
from benchmark.examples import names, showings
from benchmark.levels import as_floats
from benchmark.presets import BY_EXAMPLE, DFB, DFB_NO_ROTATION, PIM, OneOf, augment_examples, choices, step_by_step
from benchmark.seeding import stream

torch.set_num_threads(1)

PRESETS = sorted(BY_EXAMPLE)
OPENCV = int(cv2.__version__.split(".")[0])


def faces(count: int = 12, size: int = 32) -> torch.Tensor:
    """Smooth faces of 8-bit levels, channels last in memory as the training loop has them."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return smooth.mul(255).round().to(torch.uint8).contiguous(memory_format=torch.channels_last)


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
    assert whole.dtype == torch.float32
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal((whole * 255).round() / 255, whole)  # the levels of 8 bits, no others
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert torch.equal(whole, augment_examples(preset, images, 1, 2, ids))
    order = torch.tensor([7, 3, 11, 0, 5])
    assert torch.equal(augment_examples(preset, images[order], 1, 2, ids[order.numpy()]), whole[order])
    for i in range(len(images)):
        alone = augment_examples(preset, images[i : i + 1].contiguous(), 1, 2, ids[i : i + 1])
        assert torch.equal(alone, whole[i : i + 1]), i
    # And on another device, whose way is tried here on the CPU.
    drawn = [choices(BY_EXAMPLE[preset], stream("augment", 1, 2, *map(int, example))) for example in ids]
    batch = step_by_step(images, drawn)
    for i in range(len(images)):
        assert torch.equal(step_by_step(images[i : i + 1].contiguous(), drawn[i : i + 1]), batch[i : i + 1]), i


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
        sides = [face[2][1] for face in drawn if face[2]]
        assert set(sides) == {3, 5, 7}
        for side, share in ((3, 0.2), (5, 0.4), (7, 0.4)):
            assert abs(sides.count(side) / len(sides) - share) < 4 * (0.25 / len(sides)) ** 0.5


def noisy(count: int = 6, size: int = 64) -> np.ndarray:
    """(N, S, S, 3): smooth faces with a grain."""
    smooth = faces(count, size).permute(0, 2, 3, 1).numpy().astype(int)
    return np.clip(smooth + np.random.default_rng(0).normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def test_transforms_do_what_they_say() -> None:
    face = noisy()[0]
    assert np.array_equal(transforms.mirrored(face), face[:, ::-1])
    assert np.array_equal(transforms.rotated(face, 0.0), face)
    # A quarter of a turn moves every pixel onto another; it turns about (S / 2, S / 2), so row 0 comes from outside, mirrored.
    assert np.array_equal(transforms.rotated(face, 90.0)[1:], np.rot90(face)[:-1])
    assert np.array_equal(
        transforms.rescaled(face, (1.1, -0.05)), np.clip(face * np.float32(1.1) - np.float32(12.75), 0, 255).astype(np.uint8)
    )
    tinted = transforms.tinted(face, (25.5, 0.0, -25.5)).astype(int)
    assert np.array_equal(tinted, np.clip(np.floor(face + np.array([25.5, 0, -25.5])), 0, 255))
    better, worse = (np.abs(transforms.compressed(face, quality).astype(int) - face).mean() for quality in (100, 40))
    assert 0 < better < worse < 25
    swapped = cv2.imdecode(cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    assert np.array_equal(transforms.compressed(face, 60), swapped)


def test_hue_saturation_and_value_are_shifted() -> None:
    face = noisy()[1]
    face[0, 0] = 128  # grey has no hue and, with less saturation, stays grey
    assert np.abs(transforms.hsv_shifted(face, (0.0, 0.0, 0.0)).astype(int) - face).max() <= 5  # 180 hues and 256 saturations
    moved = transforms.hsv_shifted(face, (10.0, -20.0, 15.0)).astype(int)
    assert np.ptp(moved[0, 0]) == 0
    for row in range(64):
        for column in range(64):
            h, s, v = colorsys.rgb_to_hsv(*(face[row, column] / 255).tolist())
            want = colorsys.hsv_to_rgb((h + 10 / 180) % 1, min(max(s - 20 / 255, 0), 1), min(max(v + 15 / 255, 0), 1))
            assert np.abs(moved[row, column] - 255 * np.array(want)).max() < 7
    # Shifts are rounded down: +0.3 of OpenCV's units is nothing, -0.3 is one unit.
    hue, saturation, value = transforms.hsv_tables((-0.3, 0.3, -0.3))[:, [0, 1, 100, 179]].tolist()
    assert (hue, saturation, value) == ([179, 0, 99, 178], [0, 1, 100, 179], [0, 0, 99, 178])


def test_pca_moves_along_the_colours_that_vary_most() -> None:
    face = noisy()[2]
    values, vectors = np.linalg.eigh(np.cov(face.reshape(-1, 3) / 255.0, rowvar=False))
    vectors = vectors * np.where(vectors.sum(0) < 0, -1, 1)
    for alpha in (0.1, -0.25, 3.0):
        shift = np.floor(255 * (vectors @ (alpha * values)))
        assert np.abs(shift).max() > 0
        assert np.array_equal(transforms.pca_shifted(face, alpha), np.clip(face.astype(int) + shift, 0, 255))


SAME = (
    (transforms.mirrored, batched.mirrored, [None] * 6),
    *((transforms.blurred, batched.blurred, [side, 3, 5, 7, 5, 3]) for side in (3, 5, 7)),
    (transforms.rescaled, batched.rescaled, [(0.9 + 0.04 * i, 0.05 - 0.03 * i) for i in range(6)]),
    (transforms.tinted, batched.tinted, [(17.3 - 5 * i, -3.1 + i, 0.3) for i in range(6)]),
    (transforms.pca_shifted, batched.pca_shifted, [0.3 - 0.1 * i for i in range(6)]),
    (transforms.compressed, batched.compressed, [40, 60, 80, 100, 95, 71]),
)


@pytest.mark.parametrize("case", range(len(SAME)))
def test_the_batched_transforms_give_the_same_levels(case: int) -> None:
    one, many, values = SAME[case]
    images = noisy()
    together = many(torch.from_numpy(images).permute(0, 3, 1, 2), values).permute(0, 2, 3, 1).numpy()
    for face, value, row in zip(images, values, together, strict=True):
        assert np.array_equal(one(face, value), row)


@pytest.mark.parametrize("name", ["rotated", "hsv_shifted"])
def test_where_opencv_rounds_by_its_build_one_level_may_differ(name: str) -> None:
    images = noisy(6, 128)
    values = [(-20.0 + 8 * i, 30.0 - 11 * i, -20.0 + 7 * i) if name == "hsv_shifted" else -10.0 + 3.3 * i for i in range(6)]
    together = getattr(batched, name)(torch.from_numpy(images).permute(0, 3, 1, 2), values).permute(0, 2, 3, 1).numpy()
    apart = np.abs(np.stack([getattr(transforms, name)(*pair) for pair in zip(images, values, strict=True)]).astype(int) - together)
    assert apart.max() <= (1 if OPENCV >= 5 or name == "hsv_shifted" else 2)
    assert (apart > 0).mean() < (0.01 if OPENCV >= 5 else 0.4)  # older builds turn in steps of 1/32 px, or round HSV to the nearest


def test_hsv_is_opencvs_for_every_colour() -> None:
    levels = np.arange(0, 256, 3, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(1, -1, len(levels), 3)
    hsv = batched._to_hsv(torch.from_numpy(colours).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()[0]
    assert np.array_equal(hsv, cv2.cvtColor(colours[0], cv2.COLOR_RGB2HSV))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_one_thing_on_every_device(preset: str) -> None:
    """The batched way, here on the CPU, beside the one by OpenCV: two faces of three are equal to the bit."""
    images, ids = torch.from_numpy(noisy(48, 64)).permute(0, 3, 1, 2), examples(48)
    drawn = [choices(BY_EXAMPLE[preset], stream("augment", 1, 2, *map(int, example))) for example in ids]
    apart = (step_by_step(images, drawn).float() - augment_examples(preset, images, 1, 2, ids) * 255).abs()
    equal = (apart.flatten(1).max(1).values < 0.5).float().mean()
    assert equal > (0.6 if OPENCV >= 5 else 0.3)
    assert apart.mean() < (0.05 if OPENCV >= 5 else 0.3)


@pytest.mark.parametrize("preset", PRESETS)
def test_threads_change_no_pixel(preset: str) -> None:
    images, ids = torch.from_numpy(noisy(24, 64)).permute(0, 3, 1, 2), examples(24)
    opencvs, ours = cv2.getNumThreads(), torch.get_num_threads()
    seen = []
    try:
        for theirs, own in ((1, 1), (4, 1), (1, 3)):
            cv2.setNumThreads(theirs)
            torch.set_num_threads(own)
            seen.append(augment_examples(preset, images, 1, 2, ids))
    finally:
        cv2.setNumThreads(opencvs)
        torch.set_num_threads(ours)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_xception_is_augmented_alike_but_not_rotated() -> None:
    for i in range(200):
        turned, upright = (choices(BY_EXAMPLE[name], stream("augment", 0, 0, i, 0)) for name in ("dfb", "dfb-no-rotation"))
        assert upright[1] is None
        if turned[1] is None:
            assert upright == turned
    assert [step for i, step in enumerate(DFB) if i != 1] == [step for i, step in enumerate(DFB_NO_ROTATION) if i != 1]


def test_levels_become_the_nearest_floats() -> None:
    every = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    floats = as_floats(every)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(floats, (every.double() / 255).float())
    assert as_floats(floats) is floats


def test_names_and_showings() -> None:
    assert names(["a", "b"]).tolist() == names(["b", "a"]).tolist()[::-1]
    assert (names(["a", "b"]) >= 0).all()
    assert showings(np.array([4, 2, 4, 4, 2, 0])).tolist() == [0, 0, 1, 2, 1, 0]
