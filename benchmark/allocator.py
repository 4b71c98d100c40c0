"""How a process that computes on a CPU holds the memory of its tensors."""

from __future__ import annotations

import ctypes
import functools

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Parameters of glibc's `mallopt`, as its malloc.h numbers them."""

KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: -1, TOP_PAD: 64 * 2**20}
"""No tensor gets a mapping of its own, nothing that is freed goes back to the system, and more comes 64 MiB at a time."""


@functools.cache
def keep_memory() -> bool:
    """Ask the C library to keep what is freed for the next step; whether it does.

    Each step takes and frees tensors of the same sizes. glibc gives large ones back to the system at once, and gets them anew page
    by page, each filled with zeros first; `benchmark.speed.allocator` measures what that costs. No number changes. The process
    holds the most that it ever needed until it ends, and some gaps beside (2 % of a step of Xception or EfficientNet-B4, a quarter
    of one of Meso-4).

    Other C libraries have no such switch, and are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS have none; Windows has no such library
        return False
    told = [mallopt(parameter, value) for parameter, value in KEEP.items()]
    return all(told)
