"""Augmentation presets whose choices are drawn for every face by itself.

A face's generator comes from (seed, epoch, face, showing), and its pixels depend on nothing else: not on the order of the faces,
their batch and its micro-batches, the number of threads and processes, or where a run was resumed. Faces are 8-bit levels until the
last step, and every step rounds to them, as albumentations' do and so DeepfakeBench's: on the CPU by OpenCV, face by face; on
another device batched. Both give the same levels but for one level here and there (see `benchmark.transforms_batched`), and so do
OpenCV's own builds and code paths for different processors; the record says which device, processor and version it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark import transforms, transforms_batched
from benchmark.levels import WHITE, as_floats, channels_first
from benchmark.seeding import stream
from benchmark.transforms import One
from benchmark.transforms_batched import Many, put_back, rows_of

Generator = np.random.Generator


@dataclass(frozen=True)
class Step:
    """A transform that a face undergoes with probability p.

    Attributes:
        p: the probability.
        draw: a face's generator -> the value for it.
        one: a face and its value -> the face, on the CPU.
        many: faces and their values -> faces, on another device.
    """

    p: float
    draw: Callable[[Generator], Any]
    one: One
    many: Many


@dataclass(frozen=True)
class OneOf:
    """With probability p one of several transforms, each as likely."""

    p: float
    steps: tuple[Step, ...]


def _uniform(*limits: float) -> Callable[[Generator], tuple[float, ...]]:
    """Values between -limit and limit, one for each limit."""
    return lambda generator: tuple(generator.uniform(-np.asarray(limits), limits).tolist())


def _contrast_and_brightness(limit: float) -> Callable[[Generator], tuple[float, float]]:
    return lambda generator: (1 + generator.uniform(-limit, limit), generator.uniform(-limit, limit))


def _blur_side(generator: Generator) -> int:
    """albumentations draws 3 to 7 and makes an even side odd by adding 1: so 3, 5 and 7 come 1 : 2 : 2."""
    return int(generator.integers(3, 8)) | 1


def _rotation(p: float) -> Step:
    return Step(p, lambda generator: float(generator.uniform(-10, 10)), transforms.rotated, transforms_batched.rotated)


MIRROR = Step(0.5, lambda generator: None, transforms.mirrored, transforms_batched.mirrored)
BLUR = Step(0.5, _blur_side, transforms.blurred, transforms_batched.blurred)
JPEG = Step(0.5, lambda generator: int(generator.integers(40, 101)), transforms.compressed, transforms_batched.compressed)
COLOUR = OneOf(
    0.5,
    (
        Step(1, _contrast_and_brightness(0.1), transforms.rescaled, transforms_batched.rescaled),
        Step(1, lambda generator: float(generator.normal(0, 0.1)), transforms.pca_shifted, transforms_batched.pca_shifted),
        Step(1, _uniform(20, 30, 20), transforms.hsv_shifted, transforms_batched.hsv_shifted),
    ),
)

DFB: tuple[Step | OneOf, ...] = (MIRROR, _rotation(0.5), BLUR, COLOUR, JPEG)
"""DeepfakeBench's list in its order: flip, rotation, blur, one of brightness and contrast, FancyPCA or HSV at albumentations'
defaults (hue 20 of 180, saturation 30 and value 20 of 255), JPEG."""

DFB_NO_ROTATION: tuple[Step | OneOf, ...] = (MIRROR, _rotation(0), BLUR, COLOUR, JPEG)
"""The same under DeepfakeBench's settings for xception, which set the rotation's probability to 0."""

PIM: tuple[Step | OneOf, ...] = (
    MIRROR,
    Step(0.3, _uniform(20, 20, 20), transforms.tinted, transforms_batched.tinted),
    Step(0.3, _uniform(0.3, 0.3, 0.3), transforms.hsv_shifted, transforms_batched.hsv_shifted),
    Step(0.3, _contrast_and_brightness(0.3), transforms.rescaled, transforms_batched.rescaled),
    JPEG,
)
"""For the rows "with augmentation" of PIM's table 4 (Guan et al., IEEE TIFS 2024). The list of that paper is in no openly readable
text that we found; its abstract names none. Some of its tables train on SBI, so this is what SBI's released code does to its pairs:
flip, RGB shift of 20, HSV of 0.3 (of 8-bit units: it lowers by one or does nothing), brightness and contrast of 0.3, JPEG."""

BY_EXAMPLE: dict[str, tuple[Step | OneOf, ...]] = {"dfb": DFB, "dfb-no-rotation": DFB_NO_ROTATION, "pim": PIM}

Choice = tuple[Step, Any] | None


def choices(preset: Sequence[Step | OneOf], generator: Generator) -> list[Choice]:
    """What happens to one face at each step of a preset: the transform and its value, or None."""
    chosen: list[Choice] = []
    for step in preset:
        if generator.random() >= step.p:
            chosen.append(None)
            continue
        one = step.steps[int(generator.integers(len(step.steps)))] if isinstance(step, OneOf) else step
        chosen.append((one, one.draw(generator)))
    return chosen


def augment_examples(
    preset: str, images: Tensor, seed: int, epoch: int, examples: NDArray[np.int64], draws: str = "augment"
) -> Tensor:
    """Apply a preset of `BY_EXAMPLE`.

    Args:
        preset: its name.
        images: (N, 3, S, S) uint8 RGB; left as they are.
        seed: of the run.
        epoch: of training.
        examples: (N, 2): each face's name and showing (see `benchmark.examples`).
        draws: the stream of random choices: "augment", or "view" for a second view of the same faces.

    Returns:
        (N, 3, S, S) float32 in [0, 1], channels last in memory.
    """
    assert images.dtype == torch.uint8, "presets work on 8-bit faces"
    drawn = [choices(BY_EXAMPLE[preset], stream(draws, seed, epoch, *map(int, example))) for example in examples]
    if images.device.type == "cpu":
        return _face_by_face(images, drawn)
    return as_floats(step_by_step(images, drawn))


def _face_by_face(images: Tensor, drawn: Sequence[Sequence[Choice]]) -> Tensor:
    faces = images.permute(0, 2, 3, 1).contiguous().numpy()
    result = np.empty(faces.shape, np.float32)

    def make(row: int) -> None:
        face = faces[row]
        for chosen in drawn[row]:
            if chosen is not None:
                face = chosen[0].one(face, chosen[1])
        np.divide(face, WHITE, out=result[row])

    threads = torch.get_num_threads()
    if threads == 1:
        for row in range(len(faces)):
            make(row)
    else:
        # OpenCV lets go of Python's lock. Faces know nothing of each other, so the number of threads changes only the time.
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(make, range(len(faces))))
    return channels_first(result)


def step_by_step(images: Tensor, drawn: Sequence[Sequence[Choice]]) -> Tensor:
    """(N, 3, S, S) uint8 on any device, and what `choices` gave for each -> the same; a step is done to all its faces at once."""
    images, places = images.contiguous(), list(range(len(images)))  # which face each row is
    for chosen in zip(*drawn, strict=True):
        groups: dict[Many | None, tuple[list[int], list[Any]]] = {}
        for row, face in enumerate(places):
            choice = chosen[face]
            rows, values = groups.setdefault(choice and choice[0].many, ([], []))
            rows.append(row)
            values.append(choice and choice[1])
        # The groups are joined and not written back: deterministic kernels that write to indices sort them first.
        parts = [
            rows_of(images, rows) if many is None else many(rows_of(images, rows), values)
            for many, (rows, values) in groups.items()
        ]
        images = torch.cat(parts)
        places = [places[row] for rows, _ in groups.values() for row in rows]
    return put_back(images, places)
