"""Which frames of a video are looked at, and which may stand in for one without a face."""

from __future__ import annotations

from bisect import bisect_left

from preprocessing.frames import spread

SAMPLINGS = ("fixed-number", "fixed-stride", "every")
REACH = 5
"""A stand-in lies at most so many frames away: these images are held in memory together."""


def sample(count: int, sampling: str, frames: int, stride: int) -> list[int]:
    """Frame numbers in [0, `count`): `frames` evenly spread ones, every `stride`-th from the first, or every one."""
    if sampling == "fixed-number":
        return spread(count, frames)
    return list(range(0, count, stride if sampling == "fixed-stride" else 1))


def stand_ins(failed: int, sampled: list[int], count: int) -> list[int]:
    """Frames that may stand in for `failed`, nearest first, the earlier of two equally near ones first.

    They lie nearer to `failed` than to any other sampled frame, so no frame stands in twice and none is sampled itself.
    """
    at = bisect_left(sampled, failed)
    before = failed - sampled[at - 1] if at > 0 else 2 * REACH + 1
    after = sampled[at + 1] - failed if at + 1 < len(sampled) else 2 * REACH + 1
    candidates = []
    for distance in range(1, REACH + 1):
        if 2 * distance < before:
            candidates.append(failed - distance)
        if 2 * distance < after:
            candidates.append(failed + distance)
    return [number for number in candidates if 0 <= number < count]
