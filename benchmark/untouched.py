"""What a pass beside the weights leaves as it was: the weights to the bit, the buffers, the random generators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from optimizers.vector import Vector, aligned, copies


@contextmanager
def moved(parameters: Sequence[Tensor], at: Vector, way_home: str = "copy") -> Iterator[list[Tensor]]:
    """The weights at theta + `at`, and afterwards their very bits back: subtracting the shift would leave rounding errors.

    The sum is written to other memory, which the parameters hold for the time being, so theta's own is never touched. A vector
    that was spent lends its memory. `way_home` "subtract" asks for those rounding errors, as popular code has them.

    Yields theta's tensors, in the order of `at`.
    """
    if not set(at.parts) <= set(parameters):
        raise ValueError("`at` moves a tensor that is no trainable weight of the detector (features are pushed by FeatureShift)")
    moving, home = list(at.parts), [p.data for p in at.parts]
    lent = [aligned(e, w) for e, w in zip(at.parts.values(), home, strict=True) if e.dtype == w.dtype]
    alike = [e for e in lent if e is not None]
    if at.owned and len(alike) == len(home) and way_home == "copy":
        shift, away = home, alike
        at.spent()
    else:
        shift, away = list(at.parts.values()), copies(home)
    if moving:
        torch._foreach_add_(away, shift)
    try:
        for p, there in zip(moving, away, strict=True):
            p.data = there
        yield home
    finally:
        if way_home == "subtract" and moving:
            torch._foreach_copy_(home, torch._foreach_sub(away, shift))
        for p, weights in zip(moving, home, strict=True):
            p.data = weights


def modules_of(detector: nn.Module) -> list[nn.Module]:
    """Every module once, in the order of `detector.modules()`, which takes twice as long: it puts a name together for each."""
    found: dict[nn.Module, None] = {}

    def visit(module: nn.Module) -> None:
        if module not in found:
            found[module] = None
            for child in module._modules.values():
                if child is not None:
                    visit(child)

    visit(detector)
    return list(found)


@contextmanager
def frozen(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Passes that leave every buffer of `modules` as it was.

    BatchNorm must not write at all: with `track_running_stats` off it still normalises by batch statistics in training mode, and
    counts nothing. (With momentum 0 it would count batches, go on with a cumulative average, and turn an Inf into a NaN.) The
    buffers of any other module are few; they are put back.
    """
    norms, others = [], []
    for module in modules:
        if isinstance(module, _BatchNorm):
            norms.append((module.__dict__, module.track_running_stats))  # its own dict: nn.Module's setter looks for tensors first
        else:
            others += [(module, name, buffer) for name, buffer in module._buffers.items() if buffer is not None]
    saved = copies([buffer for _, _, buffer in others])
    try:
        for attributes, _ in norms:
            attributes["track_running_stats"] = False
        yield
    finally:
        for attributes, tracking in norms:
            attributes["track_running_stats"] = tracking
        if others:
            with torch.no_grad():
                torch._foreach_copy_([buffer for _, _, buffer in others], saved)
        for module, name, buffer in others:  # a forward pass may also have put another tensor in its place
            module._buffers[name] = buffer


@contextmanager
def undisturbed(detector: nn.Module, device: torch.device) -> Iterator[None]:
    """Passes in here leave no trace: no buffer of the detector changes, and torch's generators stand afterwards where they stood.

    For a look at the loss beside training. (Weights come home after every pass anyway.)
    """
    with frozen(modules_of(detector)), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def generators(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """State of the generators that a forward pass may draw from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_generators(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    """Put the generators where `generators` found them."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
