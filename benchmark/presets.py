"""Augmentation presets whose choices are drawn for every face by itself.

A face's generator comes from (seed, epoch, face, showing), and its pixels depend on nothing else: not on the order of the faces,
their batch and its micro-batches, the number of processes, or where a run was resumed. Transforms work on floats; only JPEG rounds
to 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark import transforms
from benchmark.seeding import stream

Generator = np.random.Generator


@dataclass(frozen=True)
class Step:
    """A transform that a face undergoes with probability p.

    Attributes:
        p: the probability.
        draw: a face's generator -> the value for it.
        apply: faces and their values -> faces.
    """

    p: float
    draw: Callable[[Generator], Any]
    apply: Callable[[Tensor, Sequence[Any]], Tensor]


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


MIRROR = Step(0.5, lambda generator: None, transforms.mirrored)
JPEG = Step(0.5, lambda generator: int(generator.integers(40, 101)), transforms.compressed)

DFB: tuple[Step | OneOf, ...] = (
    MIRROR,
    Step(0.5, lambda generator: generator.uniform(-10, 10), transforms.rotated),
    Step(0.5, lambda generator: int(generator.choice([3, 5, 7])), transforms.blurred),
    OneOf(
        0.5,
        (
            Step(1, _contrast_and_brightness(0.1), transforms.rescaled),
            Step(1, lambda generator: generator.normal(0, 0.1), transforms.pca_shifted),
            Step(1, _uniform(20 / 180, 30 / 255, 20 / 255), transforms.hsv_shifted),
        ),
    ),
    JPEG,
)
"""DeepfakeBench's list in its order: flip, rotation, blur, one of brightness and contrast, FancyPCA or HSV at albumentations'
defaults (hue 20 of 180, saturation 30 and value 20 of 255), JPEG. Its settings file for xception sets the rotation's probability to
0; here every detector is rotated, as the same file's default is 0.5."""

PIM: tuple[Step | OneOf, ...] = (
    MIRROR,
    Step(0.3, _uniform(20 / 255, 20 / 255, 20 / 255), transforms.tinted),
    Step(0.3, _uniform(0.3 / 180, 0.3 / 255, 0.3 / 255), transforms.hsv_shifted),
    Step(0.3, _contrast_and_brightness(0.3), transforms.rescaled),
    JPEG,
)
"""For the rows "with augmentation" of PIM's table 4 (Guan et al., IEEE TIFS 2024). The list of that paper is in no openly readable
text that we found; its abstract names none. Some of its tables train on SBI, so this is what SBI's released code does to its pairs:
flip, RGB shift of 20, HSV of 0.3 (of OpenCV's 8-bit units, so hardly any), brightness and contrast of 0.3, JPEG."""

BY_EXAMPLE: dict[str, tuple[Step | OneOf, ...]] = {"dfb": DFB, "pim": PIM}


def choices(preset: Sequence[Step | OneOf], generator: Generator) -> list[tuple[Step, Any] | None]:
    """What happens to one face at each step of a preset: the transform and its value, or None."""
    chosen: list[tuple[Step, Any] | None] = []
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
        images: (N, 3, H, W) in [0, 1]; left as they are.
        seed: of the run.
        epoch: of training.
        examples: (N, 2): each face's name and showing (see `benchmark.examples`).
        draws: the stream of random choices: "augment", or "view" for a second view of the same faces.
    """
    steps = BY_EXAMPLE[preset]
    drawn = [choices(steps, stream(draws, seed, epoch, *map(int, example))) for example in examples]
    # One layout in memory, whatever came: some kernels round otherwise in another.
    images = images.clone(memory_format=torch.contiguous_format)
    for number in range(len(steps)):
        groups: dict[Callable[[Tensor, Sequence[Any]], Tensor], tuple[list[int], list[Any]]] = {}
        for row, chosen in enumerate(face[number] for face in drawn):
            if chosen is not None:
                rows, values = groups.setdefault(chosen[0].apply, ([], []))
                rows.append(row)
                values.append(chosen[1])
        for apply, (rows, values) in groups.items():
            index = torch.tensor(rows).to(images.device, non_blocking=True)
            images[index] = apply(images[index], values)
    return images
