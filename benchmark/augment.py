"""Augmentation: presets by name, drawn so that workers and micro-batches do not change a pixel.

`none`, `flip` and `light` are drawn per (seed, epoch, step); the presets of `benchmark.presets` per (seed, epoch, face).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.levels import as_floats
from benchmark.presets import BY_EXAMPLE, augment_examples
from benchmark.seeding import stream

Augmentation = Callable[[Tensor, np.random.Generator], Tensor]
"""(N, 3, H, W) in [0, 1] and the generator of this step -> the same shape and range."""


def none(images: Tensor, generator: np.random.Generator) -> Tensor:
    """The faces as they are."""
    return images


def flip(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Each face mirrored left to right with probability 1/2."""
    mirrored = torch.from_numpy(generator.random(len(images)) < 0.5).to(images.device)
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)


def light(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Flip, shift by up to 4 % of the side (edges repeated), brightness +-0.1, contrast x 0.9 to 1.1 about the image's mean."""
    n, side = len(images), images.shape[-1]
    images = flip(images, generator)
    reach = max(1, round(0.04 * side))
    offsets = generator.integers(0, 2 * reach + 1, size=(n, 2))
    padded = torch.nn.functional.pad(images, (reach,) * 4, mode="replicate")
    images = torch.stack([p[:, dy : dy + side, dx : dx + side] for p, (dy, dx) in zip(padded, offsets, strict=True)])
    brightness = torch.from_numpy(generator.uniform(-0.1, 0.1, n)).to(images).view(-1, 1, 1, 1)
    contrast = torch.from_numpy(generator.uniform(0.9, 1.1, n)).to(images).view(-1, 1, 1, 1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp(0, 1)


PRESETS: dict[str, Augmentation] = {"none": none, "flip": flip, "light": light}

BY_FACE = frozenset({"none", *BY_EXAMPLE})
"""Presets under which a face does not depend on the step that shows it: many steps' faces may be augmented in one go."""


def augment(
    preset: str,
    images: Tensor,
    seed: int,
    epoch: int,
    step: int,
    draws: str = "augment",
    examples: NDArray[np.int64] | None = None,
) -> Tensor:
    """Apply a preset to the faces of one step; the whole step at once, before it is cut into micro-batches.

    (N, 3, S, S) uint8 -> float32 in [0, 1] of the same shape.

    `draws` names the stream of random choices: "augment", or "view" for a second view of the same faces. `examples` ((N, 2), see
    `benchmark.examples`) says which faces these are; the presets that are drawn face by face need it.
    """
    if preset in BY_EXAMPLE:
        if examples is None:
            raise ValueError(f"augmentation '{preset}' is drawn face by face and needs to know which faces these are")
        return augment_examples(preset, images, seed, epoch, examples, draws)
    return PRESETS[preset](as_floats(images), stream(draws, seed, epoch, step))
