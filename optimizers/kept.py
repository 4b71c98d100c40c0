"""What the second of two passes over the same faces need not compute again (for PIM: Guan et al. 2024, IEEE TIFS, algorithm 1)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class Kept:
    """The first output of some modules in a pass, with the graph behind it, for a second pass to go on from.

    That graph stays whole where the first pass differentiates by nothing in it, and the second pass's backward runs through it. The
    output is what the second pass would compute, unless

    - the module is called again in the pass;
    - it draws random numbers: those of later layers come after them;
    - a hook writes to it;
    - a buffer changes in the first pass, save BatchNorm's own, which do not enter what it makes of a batch.

    Nothing is kept then, nor where gradient checkpointing (or another hook of saved tensors) is at work up to there: in the second
    pass BatchNorm saves less, and checkpointing refuses to compute one pass again as the other.

    What leads to the module is computed again, and its new graph left unused.

    Args:
        modules: whose outputs are looked at.
        buffered: those of the detector that have such other buffers.
        device: the detector's.
    """

    def __init__(self, modules: Iterable[nn.Module], buffered: Sequence[nn.Module], device: torch.device) -> None:
        self._modules, self._buffered, self._device = list(modules), buffered, device
        self._calls: list[nn.Module] = []
        self._first: tuple[nn.Module, Tensor] | None = None
        self._version = 0
        self._spoilt = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """The first pass happens in here, backward included."""
        before = self._buffers()
        with ExitStack() as stack:
            stack.enter_context(instead(saved_tensors_hooks, "__enter__", self._watching(saved_tensors_hooks.__enter__)))
            for module in self._modules:
                stack.enter_context(instead(module, "forward", partial(self._note, module, module.forward)))
            yield
        if self._first is None:
            return
        module, output = self._first
        again = self._calls.count(module) > 1 or output._version != self._version or self._buffers() != before
        if self._spoilt or again:
            self._first = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The second pass happens in here. Once it has taken the output nothing but its graph holds it."""
        if self._first is None:
            yield
            return
        with instead(self._first[0], "forward", partial(self._take, self._first[0].forward)):
            yield

    def _note(self, module: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        self._calls.append(module)
        if self._first is not None:
            return forward(*inputs, **named)
        before = self._generators()
        output = forward(*inputs, **named)
        if isinstance(output, Tensor):
            self._first, self._version = (module, output), output._version
        self._spoilt |= self._generators() != before or not isinstance(output, Tensor)
        return output

    def _watching(self, enter: Callable[[saved_tensors_hooks], None]) -> Callable[[saved_tensors_hooks], None]:
        def watched(hooks: saved_tensors_hooks) -> None:
            self._spoilt |= self._first is None
            enter(hooks)

        return watched

    def _take(self, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        first, self._first = self._first, None
        return forward(*inputs, **named) if first is None else first[1]

    def _buffers(self) -> dict[Tensor, int]:
        """How often each was written to."""
        return {b: b._version for module in self._buffered for b in module._buffers.values() if b is not None}

    def _generators(self) -> list[bytes]:
        """Where those stand that a forward pass may draw from: bytes, since torch compares tensors in a launch and a wait."""
        states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else [])]
        return [ctypes.string_at(state.data_ptr(), state.nbytes) for state in states]


@contextmanager
def instead(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """`owner` (an object, a class, a Python module) has another function of that name for the time being; a network's hooks run as
    ever around its `forward`."""
    own = vars(owner).get(name)
    try:
        setattr(owner, name, function)
        yield
    finally:
        if own is None and name in vars(owner):
            delattr(owner, name)
        elif own is not None:
            setattr(owner, name, own)
