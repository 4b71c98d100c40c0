"""Random streams with names, so that what one file looks like never depends on which files were drawn before it."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, *path: str | int) -> np.random.Generator:
    """The generator of `path` under `seed`: equal arguments give equal numbers, different ones independent numbers."""
    key = tuple(zlib.crc32(str(part).encode()) for part in path)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
