"""Which face is shown for which time: what the random choices of a single face are drawn by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def names(keys: Iterable[str]) -> NDArray[np.int64]:
    """(N,): a number for each key of a store, of 63 bits of its BLAKE2b hash: the same in every store, selection and order."""
    return np.array([int.from_bytes(hashlib.blake2b(k.encode(), digest_size=8).digest(), "big") >> 1 for k in keys], np.int64)


def showings(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M,) positions in the order of an epoch -> (M,): how often the same position stands before."""
    flat = pd.Series(positions)
    return flat.groupby(flat, sort=False).cumcount().to_numpy(np.int64)
