"""Every random choice comes from a named stream of the run's seed, so nothing depends on workers, threads or the order of calls."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch

STREAMS = {"order": 1, "augment": 2, "probe": 3, "view": 11, "sbi": 21}
"""Streams drawn apart from torch's own generators: the order of the examples, their augmentation, which of them are probed, and the
augmentation of their second views, and the fakes that are blended out of real faces."""


def stream(name: str, *key: int) -> np.random.Generator:
    """A generator that depends on the name and the key (seed, epoch, ...) alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([STREAMS[name], *key])))


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices), and ask torch for deterministic kernels.

    On CUDA some kernels have no deterministic form; they warn, and the record says that the run may not repeat to the bit.

    Torch would also fill every new tensor with NaN before it is written, so that code that reads what nobody wrote repeats as well.
    That takes 3 to 6 % of a step on a CPU, and no code here reads such memory: the losses are the same bits without it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (libraries that we call may use the global generator)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def seed_rank(seed: int, rank: int) -> None:
    """Another stream of torch's generators for each process of a run, or all would drop the same features of their faces."""
    if rank:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1)[0]))


def random_state(device: str) -> dict[str, Any]:
    """The state of torch's generators, as tensors: what a checkpoint keeps so that dropout goes on where it stopped.

    Of GPUs that of `device` alone, without its number: a run may go on on another GPU of the machine, or of a machine with fewer.
    """
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(device) if device.startswith("cuda") else None}


def restore_random_state(state: dict[str, Any], device: str) -> None:
    """Take back what `random_state` gave, on the device that the run goes on on."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
