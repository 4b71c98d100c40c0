"""Several processes that share each step's examples: what is summed over them, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from optimizers.vector import Vector

T = TypeVar("T")


class Ranks:
    """The processes of torch's default group, each with its part of every step.

    Every method is a collective: all ranks must call it, in the same order. What the host needs to know goes through a gloo group,
    so that no rank waits for its GPU.

    Args:
        patience: how long a rank waits for the others before it gives up; torch's own default if None.

    Attributes:
        rank: index of this process; 0 writes files.
        size: number of processes.
    """

    def __init__(self, patience: timedelta | None = None) -> None:
        if not dist.is_initialized():
            raise RuntimeError("torch.distributed.init_process_group must have been called")
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._host: Any = dist.new_group(backend="gloo", timeout=patience)

    def gather(self, value: Any) -> list[Any]:
        """`value` of every rank, in order of rank; anything that can be pickled."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._host)
        return found

    def first(self, work: Callable[[], T]) -> T:
        """What `work` returns on rank 0, where alone it is done; an error there is raised on every rank."""
        told: tuple[Any, Exception | None] = (None, None)
        if self.rank == 0:
            try:
                told = (work(), None)
            except Exception as error:  # raised below, on all ranks
                told = (None, error)
        value, failure = self.gather(told)[0]
        if failure is not None:
            raise failure
        found: T = value
        return found

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether some rank says yes."""
        told = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self._host)
        return tuple(bool(flag) for flag in told.tolist())

    def sum(self, vector: Vector, leaves: Sequence[Tensor]) -> Vector:
        """The sum of a vector over `leaves`. A leaf that no rank's vector has is in none; a rank that lacks one adds zero."""
        held = torch.tensor([leaf in vector.parts for leaf in leaves], dtype=torch.uint8)
        dist.all_reduce(held, dist.ReduceOp.MAX, group=self._host)
        wanted = [leaf for leaf, some in zip(leaves, held.tolist(), strict=True) if some]
        parts = [vector.parts[leaf] if leaf in vector.parts else torch.zeros_like(leaf, requires_grad=False) for leaf in wanted]
        return Vector(dict(zip(wanted, self.summed(parts), strict=True)))

    def summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor summed, by one collective for each dtype."""
        return _flat(tensors, dist.all_reduce)

    def average_buffers(self, detector: nn.Module, share: float) -> None:
        """The mean of every floating-point buffer, weighted by the rank's share of the examples; of a counter, the largest.

        A rank without examples has seen nothing that could move a buffer, and its own do not count.
        """
        real = [b for b in detector.buffers() if b.is_floating_point()]
        whole = [b for b in detector.buffers() if not b.is_floating_point()]
        mine = [b * share if share else torch.zeros_like(b) for b in real]
        with torch.no_grad():
            for buffers, found in (
                (real, self.summed(mine)),
                (whole, _flat(whole, lambda flat: dist.all_reduce(flat, dist.ReduceOp.MAX))),
            ):
                if buffers:
                    torch._foreach_copy_(buffers, found)

    def same_everywhere(self, detector: nn.Module) -> None:
        """Give every rank the weights and buffers of rank 0."""
        tensors = [t.detach() for t in (*detector.parameters(), *detector.buffers())]
        with torch.no_grad():
            torch._foreach_copy_(tensors, _flat(tensors, lambda flat: dist.broadcast(flat, 0)))


def _flat(tensors: Sequence[Tensor], collective: Callable[[Tensor], Any]) -> list[Tensor]:
    """The tensors after a collective that works in place on one flat copy of those of each dtype."""
    found: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        chosen = [i for i, t in enumerate(tensors) if t.dtype == dtype]
        flat = torch.cat([tensors[i].reshape(-1) for i in chosen])
        collective(flat)
        pieces = flat.split([tensors[i].numel() for i in chosen])
        found |= {i: piece.view_as(tensors[i]) for i, piece in zip(chosen, pieces, strict=True)}
    return [found[i] for i in range(len(tensors))]
