"""What a detector needs beyond labelled faces: provided, or refused in one sentence before training begins."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.by_detector import AUGMENTED, BY_DETECTOR
from benchmark.config import ConfigError, Protocol
from benchmark.data import REAL, Annotate, FaceFrames
from detectors.base import NEEDS, Detector
from optimizers.registry import did_you_mean
from preprocessing.store import FaceStore


def check_needs(name: str, detector: Detector, protocol: Protocol, methods: int) -> None:
    """Refuse a detector that this protocol cannot give what it needs.

    Args:
        name: what the user calls the detector.
        detector: it.
        protocol: of the cell.
        methods: how many forgery methods the cell trains on.

    Raises:
        ConfigError: names the need and the key to change.
    """
    if isinstance(detector.needs, str):
        raise ConfigError(f"detector '{name}' has needs = '{detector.needs}', one string; write needs = ('{detector.needs}',)")
    for need in detector.needs:
        if need not in NEEDS:
            raise ConfigError(f"detector '{name}' needs '{need}', which nothing provides: {did_you_mean(need, NEEDS)}")
    if "views" in detector.needs and protocol.augment == "none":
        meant = f" ({BY_DETECTOR} means none for it)" if AUGMENTED.get(name.removeprefix("dfb-")) == "none" else ""
        raise ConfigError(
            f"protocol.augment is none, but detector '{name}' learns from two augmentations of each face, which would be the same; "
            f"take flip or light{meant}"
        )
    if "pairs" in detector.needs and protocol.micro_batch == 1:
        raise ConfigError(
            f"protocol.micro_batch is 1, but detector '{name}' learns from pairs of a real and a fake face; take at least 2"
        )
    _check_together(name, detector.least_micro_batch, protocol)
    if "pairs" in detector.needs and protocol.class_balance == "none":
        raise ConfigError(
            f"protocol.class_balance is none, but detector '{name}' learns from pairs of a real and a fake face; take domains"
        )
    if "methods" in detector.needs and detector.methods < methods:
        raise ConfigError(
            f"detector '{name}' tells {detector.methods} forgery methods apart, but train.methods names {methods}; "
            f"give it the setting methods: {methods}"
        )
    for need in ("masks", "landmarks"):
        if need in detector.needs and protocol.augment != "none":
            raise ConfigError(
                f"protocol.augment is {protocol.augment}, but detector '{name}' needs {need}, which augmentation does not move "
                "with the face; take none"
            )


def _check_together(name: str, least: int, protocol: Protocol) -> None:
    """Refuse micro-batches of fewer than `least` faces, which a detector compares with each other; see `train.micro_batches`."""

    def fewest(at_most: int) -> int:
        return protocol.batch_size // -(-protocol.batch_size // at_most)

    compares = f"but detector '{name}' compares faces with each other"
    if protocol.batch_size < least:
        raise ConfigError(f"protocol.batch_size is {protocol.batch_size}, {compares}; take at least {least}")
    given = protocol.micro_batch or protocol.batch_size
    if fewest(given) < least:
        enough = next(size for size in range(least, protocol.batch_size + 1) if fewest(size) >= least)
        raise ConfigError(
            f"protocol.micro_batch is {given}, which lets no more than {fewest(given)} of {protocol.batch_size} faces through in "
            f"some pass, {compares}; take {enough}, or none"
        )


def annotator(name: str, detector: Detector, store: FaceStore, frames: FaceFrames) -> Annotate | None:
    """Masks and landmarks of the training faces, where the detector needs them.

    Returns:
        A function for `BalancedBatches`, or None where the detector needs neither.

    Raises:
        ConfigError: the store lacks the mask of a forged face, or has faces without landmarks or with other numbers of them.
    """
    keys = frames.rows["key"].to_numpy()
    real = (frames.rows["method"] == REAL).to_numpy()
    size = detector.size
    wanted: dict[str, Callable[[int], NDArray[np.float32]]] = {}
    if "masks" in detector.needs:
        bare = [key for key, is_real in zip(keys, real, strict=True) if not is_real and store.mask(key) is None]
        if bare:
            raise ConfigError(
                f"detector '{name}' needs masks, but store {store.path} has none of {len(bare)} forged training faces ({bare[0]}); "
                "take methods that come with masks, or another detector"
            )
        wanted["masks"] = lambda row: _mask(store, keys[row], size)
    if "landmarks" in detector.needs:
        counts = {len(store.landmarks(key)) for key in keys}
        if len(counts) != 1 or 0 in counts:
            raise ConfigError(
                f"detector '{name}' needs landmarks, but the training faces of store {store.path} have "
                f"{' or '.join(map(str, sorted(counts)))} of them; preprocess videos with the landmark model"
            )
        wanted["landmarks"] = lambda row: _landmarks(store, keys[row], size)
    if not wanted:
        return None

    def annotate(positions: NDArray[np.int64]) -> dict[str, Tensor]:
        return {field: torch.from_numpy(np.stack([read(int(row)) for row in positions])) for field, read in wanted.items()}

    return annotate


def _mask(store: FaceStore, key: str, size: int) -> NDArray[np.float32]:
    """(1, size, size), 1 where forged; a real face without a mask is forged nowhere."""
    mask = store.mask(key)
    if mask is None:
        return np.zeros((1, size, size), np.float32)
    nearest = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST)
    return (nearest[None] > 0).astype(np.float32)


def _landmarks(store: FaceStore, key: str, size: int) -> NDArray[np.float32]:
    """(L, 2), x and y in px of the face at `size`, where 0 is the middle of the first pixel, as it is for the resized face."""
    height, width = store.image(key).shape[:2]
    return ((store.landmarks(key) + 0.5) * np.array([size / width, size / height]) - 0.5).astype(np.float32)
