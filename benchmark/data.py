"""Faces of stores as training sees them: which rows, in which order, and their pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark import examples
from benchmark.config import ConfigError
from benchmark.decoded import DecodedImages, Images
from benchmark.frame_pick import VIDEO, check_levels, pick_frames
from benchmark.levels import as_floats
from benchmark.seeding import stream
from benchmark.specs import NO_SPLIT, TestSet, TrainData
from detectors.base import Batch

REAL = "real"
"""The method's name of every real video."""

Annotate = Callable[[NDArray[np.int64]], dict[str, Tensor]]
"""Positions of faces -> the fields of `Batch` that only their store holds: "masks", "landmarks"."""


@dataclass(frozen=True)
class FaceFrames:
    """Some faces of one store.

    Attributes:
        rows: rows of the store's manifest plus `domain` (index into `methods`, -1 for a real face) and `index` (into `images`).
        methods: the forgery methods, a domain each.
        images: (M, S, S, 3) uint8 RGB of the whole store.
    """

    rows: pd.DataFrame
    methods: tuple[str, ...]
    images: Images

    def __len__(self) -> int:
        return len(self.rows)

    def video_numbers(self) -> NDArray[np.int64]:
        """(N,): a number for the video of each row."""
        names = self.rows[VIDEO].agg("/".join, axis=1)
        return pd.factorize(names)[0].astype(np.int64)

    def levels(self, positions: NDArray[np.int64]) -> Tensor:
        """(N, 3, S, S) uint8 of the rows at `positions`; in memory with the channels last, as they are stored.

        Where a GPU is at work, in pinned memory, from which it copies while the host goes on.
        """
        shape = (len(positions), *self.images.shape[1:])
        faces = torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_initialized())
        if isinstance(self.images, DecodedImages):
            for face, index in zip(faces.numpy(), self._index[positions], strict=True):
                face[...] = self.images[index]
        else:
            # "clip" writes to `faces` without a copy between; `_index` has seen that no index lies outside.
            np.take(self.images, self._index[positions], axis=0, out=faces.numpy(), mode="clip")
        return faces.permute(0, 3, 1, 2)

    @cached_property
    def _index(self) -> NDArray[np.int64]:
        index = self.rows["index"].to_numpy(np.int64)
        if len(index) and not 0 <= index.min() <= index.max() < len(self.images):
            raise IndexError(f"rows name images {index.min()} to {index.max()}, and there are {len(self.images)}")
        return index

    def pixels(self, positions: NDArray[np.int64]) -> Tensor:
        """The same as float32 in [0, 1]."""
        return as_floats(self.levels(positions))


def choose(
    manifest: pd.DataFrame, store: str, methods: Sequence[str] | None, split: str, frames: int | None, pick: str = "uniform"
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows of a manifest that a cell asks for, real faces included, and the forgery methods in their order.

    Args:
        manifest: a store's manifest.
        store: the store's name, for messages.
        methods: forgery methods; None takes every one that is there.
        split: train, val or test; "none" is that of datasets that ship no splits.
        frames: at most so many faces of each video.
        pick: which of them; see `pick_frames`.

    Raises:
        ConfigError: a method or split that the store lacks, a method without faces in that split, or a video at several
            compression levels.
    """
    present = sorted(set(manifest["method"]) - {REAL})
    wanted = tuple(methods) if methods is not None else tuple(present)
    for method in wanted:
        if method not in present:
            raise ConfigError(f"store {store} has no faces of '{method}'; it has {', '.join(present) or 'no forgeries'}")
    rows = manifest.reset_index(drop=True).rename_axis("index").reset_index()
    rows = rows[(rows["split"] == split) & rows["method"].isin([*wanted, REAL])]
    for method in (*wanted, REAL):
        if not (rows["method"] == method).any():
            splits = set(manifest.loc[manifest["method"] == method, "split"])
            there = f"it has them in {splits_in_words(splits)}" if splits else "training and testing need real faces too"
            raise ConfigError(f"store {store} has no '{method}' faces in split '{split}'; {there}{_how_to_train(splits)}")
    check_levels(rows, store)
    if frames is not None:
        rows = pick_frames(rows, frames, pick)
    domain = {method: i for i, method in enumerate(wanted)} | {REAL: -1}
    return rows.assign(domain=rows["method"].map(domain).astype("int64")).reset_index(drop=True), wanted


def without_face(ledger: pd.DataFrame, methods: Sequence[str], split: str) -> pd.DataFrame:
    """The videos of a split, real ones and those of `methods`, of which no sampled frame has a face.

    Returns:
        Columns dataset, method, video, label; a row a video, in the ledger's order.
    """
    rows = ledger[(ledger["split"] == split) & ledger["method"].isin([*methods, REAL])]
    found = (rows["status"] == "face").groupby([rows[column] for column in VIDEO], observed=True).transform("any")
    return rows.loc[~found, [*VIDEO, "label"]].drop_duplicates(VIDEO).reset_index(drop=True)


def splits_in_words(splits: Iterable[str]) -> str:
    """`test, train`; the split that stands for no split is explained."""
    there = set(splits)
    named = ", ".join(sorted(there - {NO_SPLIT}))
    without = f"'{NO_SPLIT}' (its dataset ships no split for them)" if NO_SPLIT in there else ""
    return " and ".join(filter(None, (named, without)))


def _how_to_train(splits: set[str]) -> str:
    if splits != {NO_SPLIT}:
        return ""
    return (
        f"; a test set takes them with split: {NO_SPLIT}, and training only if asked for with train_split: {NO_SPLIT} and"
        f" val_split: {NO_SPLIT} (dfgrid train: --train-split {NO_SPLIT} --val-split {NO_SPLIT})"
    )


def split_warnings(train: TrainData, tests: Sequence[TestSet]) -> list[str]:
    """Sentences about splits that say less than they seem to: training data without a split, and faces that are used twice."""
    found = []
    if train.train_split == NO_SPLIT:
        found.append(
            f"training on split '{NO_SPLIT}' of store {train.store}: its dataset ships no split, so training, validation and test"
            " faces are the same by construction, unless val_split or a test's split is another one; nothing measured on the same"
            " dataset says anything about unseen faces"
        )
    if train.val_split == train.train_split:
        found.append(
            f"validation uses the training faces (split '{train.val_split}' of store {train.store}); select checkpoints by 'last'"
        )
    for test in tests:
        if test.store == train.store and test.split in (train.train_split, train.val_split):
            use = "trained" if test.split == train.train_split else "validated"
            found.append(f"test set '{test.name}' is split '{test.split}' of store {test.store}, on which the cells are {use}")
    return found


class BalancedBatches:
    """The order of training: every step holds every domain, each with as many real as fake faces.

    An epoch shows the largest domain's fakes once (the last incomplete step is filled from the start of the next shuffle); smaller
    domains are shuffled again and repeated, and so are the real faces, of which a step draws different ones for each domain.
    The order of an epoch depends on (seed, epoch) alone, so a run can be resumed at any step.

    Args:
        frames: the training faces.
        batch_size: faces in a step; a multiple of twice the number of domains.
        seed: of the run.
        annotate: reads what a detector needs beyond faces and labels (see `benchmark.needs`).
    """

    def __init__(self, frames: FaceFrames, batch_size: int, seed: int, annotate: Annotate | None = None) -> None:
        domain = frames.rows["domain"].to_numpy()
        self.fakes = [np.flatnonzero(domain == i) for i in range(len(frames.methods))]
        self.reals = np.flatnonzero(domain == -1)
        self.share = batch_size // (2 * len(self.fakes))
        fewest = min(len(self.reals) // len(self.fakes), *(len(f) for f in self.fakes))
        if self.share > fewest:
            raise ConfigError(
                f"protocol.batch_size: {batch_size} asks for {self.share} faces of each class and domain in one step, "
                f"but there are only {fewest}; take at most {2 * len(self.fakes) * fewest}"
            )
        self.steps = -(-max(len(f) for f in self.fakes) // self.share)
        self.labels = torch.arange(2).repeat_interleave(self.share).repeat(len(self.fakes))
        self.domains = torch.arange(len(self.fakes)).repeat_interleave(2 * self.share)
        self.frames, self.seed, self.annotate = frames, seed, annotate
        self.videos = frames.video_numbers()

    def examples(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """(steps, N, 2) of an epoch's order: each face's name, and how often the epoch has shown it before."""
        positions = order.reshape(-1)
        return np.stack([self._names[positions], examples.showings(positions)], axis=1).reshape(len(order), -1, 2)

    @cached_property
    def _names(self) -> NDArray[np.int64]:
        return examples.names(self.frames.rows["key"].astype(str))

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """(steps, K, 2, share): positions of the faces; axis 2 is real, fake."""
        generator = stream("order", self.seed, epoch)

        def draw(pool: NDArray[np.int64], count: int) -> NDArray[np.int64]:
            rounds = -(-count // len(pool))
            return np.concatenate([generator.permutation(pool) for _ in range(rounds)])[:count]

        k = len(self.fakes)
        order = np.empty((self.steps, k, 2, self.share), np.int64)
        order[:, :, 0] = draw(self.reals, self.steps * k * self.share).reshape(self.steps, k, self.share)
        for i, fakes in enumerate(self.fakes):
            order[:, i, 1] = draw(fakes, self.steps * self.share).reshape(self.steps, self.share)
        return order

    def positions(self, step: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of `frames` of one row of `epoch`, in the batch's order."""
        return step.reshape(-1)

    def batch(self, step: NDArray[np.int64]) -> Batch:
        """The faces of one row of `epoch`, domain by domain, as 8-bit levels."""
        positions = self.positions(step)
        return Batch(
            images=self.frames.levels(positions),
            labels=self.labels,
            domains=self.domains,
            videos=torch.from_numpy(self.videos[positions]),
            **(self.annotate(positions) if self.annotate else {}),
        )
