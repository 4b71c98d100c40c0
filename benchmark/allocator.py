"""How a process holds the memory of its tensors, and gives it back."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
from collections.abc import Callable

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Parameters of glibc's `mallopt`, as its malloc.h numbers them."""

KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: -1, TOP_PAD: 64 * 2**20}
"""No block gets a mapping of its own, nothing that is freed goes back to the system, and more comes 64 MiB at a time. (What threads
other than the first take in one block above 64 MiB is mapped all the same.)"""


@functools.cache
def keep_memory(device: str = "cpu") -> bool:
    """Ask the C library to keep what is freed for the next step, where a CPU computes it; whether it agreed.

    Each step takes and frees tensors of the same sizes. glibc gives large ones back to the system at once, and gets them anew page
    by page, each filled with zeros first; `benchmark.speed.allocator` measures what that costs. No number changes. The process
    holds the most that it ever needed, with gaps some hundredths (Meso-4: a tenth to a quarter) more, until `give_back` or its end.

    Other C libraries have no such switch, and are left as they are. Where another allocator stands in glibc's place (preloaded, or
    torch's own mimalloc on some platforms), this does nothing.
    """
    mallopt = _of_libc("mallopt") if device == "cpu" else None
    return mallopt is not None and all(mallopt(parameter, value) for parameter, value in KEEP.items())


def give_back() -> None:
    """Give the system what is free, between two cells of one process: the next may need less, and on a GPU another process more.

    A cell's tensors lie in cycles, which are collected first.
    """
    import torch  # only here: launchers import this module, and need no torch to hand out cells

    gc.collect()
    if torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):  # after a CUDA error nothing is given back until the process ends
            torch.cuda.empty_cache()
    trim = _of_libc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_libc(name: str) -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # musl and macOS have neither function; Windows has no such library
        return None
    return function
