"""What a piece of work asks of the device, whatever the noise: launches, waits and peak memory, counted by torch's profiler."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

NO_KERNEL = frozenset(
    "aten::" + name
    for name in (
        *("empty", "empty_like", "empty_strided", "resize_", "set_", "_has_compatible_shallow_copy_type"),
        *("detach", "alias", "view", "_unsafe_view", "expand", "as_strided", "t", "transpose", "permute", "select", "slice"),
        *("narrow", "squeeze", "unsqueeze", "split", "split_with_sizes", "unbind", "lift_fresh"),
    )
)
"""Operators that allocate, look at memory or check types, and run nothing on the device."""

WAITS = frozenset({"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"})
"""Operators whose result the host needs before it can go on."""


os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own remarks would run through the progress bar


@dataclass(frozen=True)
class Count:
    """What some work took.

    Attributes:
        launches: by name, on a GPU the kernels, on a CPU the aten operators that are called from outside aten (a foreach function
            is one).
        waits: how often the host waited for the device.
        peak: largest memory that was allocated at once beyond what was there before, bytes.
    """

    launches: Counter[str]
    waits: int
    peak: int


def count(work: Callable[[], object], device: torch.device) -> Count:
    """Run `work` once under the profiler."""
    return _on_cuda(work, device) if device.type == "cuda" else _on_cpu(work)


def _on_cpu(work: Callable[[], object]) -> Count:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        work()
    events = found.events() or ()
    launches = Counter(e.name for e in events if _called_from_outside(e) and e.name not in NO_KERNEL)
    assert found.profiler is not None
    raw: Any = found.profiler.kineto_results
    memory = sorted((e.start_ns(), e.nbytes()) for e in raw.events() if e.name() == "[memory]")
    held = peak = 0
    for _, change in memory:
        held += change
        peak = max(peak, held)
    return Count(launches, sum(e.name in WAITS for e in events), peak)


def _called_from_outside(event: Any) -> bool:
    if not event.name.startswith("aten::"):
        return False
    parent = event.cpu_parent
    while parent is not None:
        if parent.name.startswith("aten::"):
            return False
        parent = parent.cpu_parent
    return True


def _is_kernel(event: Any) -> bool:
    """Neither a copy nor a fill, nor the name that torch gives to a stretch of the GPU's time, such as an optimizer's step."""
    copied = event.name.startswith(("Memcpy", "Memset"))
    return event.device_type == DeviceType.CUDA and not copied and not getattr(event, "is_user_annotation", False)


def _on_cuda(work: Callable[[], object], device: torch.device) -> Count:
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as found:
        work()
        torch.cuda.synchronize(device)
    kernels = Counter(e.name for e in found.events() or () if _is_kernel(e))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    peak = torch.cuda.max_memory_allocated(device) - before
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return Count(kernels, sum("synchronizing CUDA operation" in str(w.message) for w in said), peak)
