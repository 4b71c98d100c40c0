"""Training without any balance: every face once an epoch, shuffled, as a plain data loader shows them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark import examples
from benchmark.data import Annotate, FaceFrames
from benchmark.reading import ConfigError
from benchmark.seeding import stream
from detectors.base import Batch


class PlainBatches:
    """Every face once an epoch, shuffled; the last step holds what is left. The order depends on (seed, epoch) alone.

    A fake belongs to its method's domain. Real faces have none of their own: they are dealt to the domains in turn.

    Args:
        frames: the training faces.
        batch_size: faces in a step.
        seed: of the run.
        repeat_real: list the real faces once for each domain, as DeepfakeBench does for a list of forgeries; each copy belongs to
            another domain.
        annotate: reads what a detector needs beyond faces and labels (see `benchmark.needs`).

    Raises:
        ConfigError: fewer faces than one step asks for.
    """

    def __init__(
        self, frames: FaceFrames, batch_size: int, seed: int, repeat_real: bool = False, annotate: Annotate | None = None
    ) -> None:
        domain, count = frames.rows["domain"].to_numpy(), len(frames.methods)
        fakes, reals = np.flatnonzero(domain >= 0), np.flatnonzero(domain == -1)
        copies = count if repeat_real else 1
        self.rows = np.concatenate([fakes, *[reals] * copies])
        self.domains = np.concatenate([domain[fakes], *((np.arange(len(reals)) + copy) % count for copy in range(copies))])
        if batch_size > len(self.rows):
            raise ConfigError(f"protocol.batch_size: {batch_size} is more than the {len(self.rows)} training faces; take fewer")
        self.steps = -(-len(self.rows) // batch_size)
        self.frames, self.seed, self.size = frames, seed, batch_size
        self.labels = (domain[self.rows] >= 0).astype(np.int64)
        self.videos, self.annotate = frames.video_numbers(), annotate

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """For each step the places of its faces in `rows`."""
        order = stream("order", self.seed, epoch).permutation(len(self.rows))
        return [order[start : start + self.size] for start in range(0, len(order), self.size)]

    def examples(self, order: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        """For each step of an epoch (N, 2): each face's name, and how often the epoch has shown it before."""
        known = examples.names(self.frames.rows["key"].astype(str))
        positions = self.rows[np.concatenate(order)]
        named = np.stack([known[positions], examples.showings(positions)], axis=1)
        return np.split(named, np.cumsum([len(step) for step in order])[:-1])

    def positions(self, step: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of `frames` of one entry of `epoch`."""
        found: NDArray[np.int64] = self.rows[step]
        return found

    def batch(self, step: NDArray[np.int64]) -> Batch:
        """The faces of one entry of `epoch`, as 8-bit levels."""
        positions = self.positions(step)
        return Batch(
            images=self.frames.levels(positions),
            labels=torch.from_numpy(self.labels[step]),
            domains=torch.from_numpy(self.domains[step]),
            videos=torch.from_numpy(self.videos[positions]),
            **(self.annotate(positions) if self.annotate else {}),
        )
