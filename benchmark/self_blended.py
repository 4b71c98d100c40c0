"""Training on self-blended images: `train: {store: ..., source: sbi}`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.config import ConfigError, Protocol
from benchmark.data import REAL, Annotate, FaceFrames, choose
from benchmark.decoded import Images
from benchmark.examples import names, showings
from benchmark.levels import channels_first
from benchmark.seeding import stream
from benchmark.self_blending import Pair, self_blend
from benchmark.specs import SBI, TrainData
from benchmark.train import Batches, batches_for
from detectors.base import Batch
from preprocessing.store import FaceStore

VALIDATION_SEED = 2**32
"""Of the self-blended faces of a validation set; no run has it, so every cell is judged on the same, and none trains on them."""

Choice = tuple[pd.DataFrame, tuple[str, ...]]
"""Rows of a manifest, and the forgery methods among them; see `benchmark.data.choose`."""


def choose_source(train: TrainData, manifest: pd.DataFrame) -> tuple[Choice, Choice]:
    """The rows to train on and those to validate on.

    With source sbi these are real faces; validation takes the store's own forgeries too, if the split has any, since they are
    what a detector is for. If it has none, its fakes are self-blended as well.

    Raises:
        ConfigError: a method or split that the store lacks.
    """

    def take(methods: Sequence[str], split: str) -> Choice:
        return choose(manifest, train.store, methods, split, train.frames, train.frame_pick)

    if train.source == "forgeries":
        return take(train.methods, train.train_split), take(train.methods, train.val_split)
    forged = sorted(set(manifest.loc[manifest["split"] == train.val_split, "method"]) - {REAL})
    return (take((), train.train_split)[0], train.methods), take(forged, train.val_split)


def source_frames(train: TrainData, chosen: Choice, images: Images, store: FaceStore) -> FaceFrames:
    """Faces of the training store to be looked at or scored; real faces alone are given their self-blended fakes, of a fixed seed.

    Raises:
        ConfigError: see `Blender`.
    """
    rows, methods = chosen
    if train.source == "forgeries" or (rows["method"] != REAL).any():
        return FaceFrames(rows, methods, images)
    fakes = rows.assign(method=SBI, label=1, domain=0, key=rows["key"].astype(str) + f"/{SBI}")
    both = pd.concat([rows, fakes], ignore_index=True)
    return SelfBlendedFrames(both, (SBI,), images, Blender(FaceFrames(rows, (SBI,), images), store))


class Blender:
    """Makes pairs of a real face and its self-blended fake; the same ones whenever and wherever it is asked.

    Args:
        frames: real faces.
        store: their store, for the landmarks, which are read when they are needed.

    Raises:
        ConfigError: a face without 68 or 81 landmarks.
    """

    def __init__(self, frames: FaceFrames, store: FaceStore) -> None:
        self.frames, self.store = frames, store
        self.keys = frames.rows["key"].astype(str).tolist()
        self.names = names(self.keys)
        counts = {len(store.landmarks(key)): key for key in self.keys}
        wrong = next((count for count in counts if count not in (68, 81)), None)
        if wrong is not None:
            raise ConfigError(
                f"train.source: sbi needs the 68 or 81 landmarks of each real face, but {counts[wrong]} in store {store.path} has "
                f"{wrong or 'none'}; preprocess the videos with the landmark model"
            )

    def pair(self, position: int, *draw: int) -> Pair:
        """The pair of the face at `position`; `draw` (seed, epoch, showing) names its random choices.

        Raises:
            ConfigError: the face's landmarks lie outside of it.
        """
        face = self.frames.images[self.frames.rows["index"].to_numpy()[position]]
        key, scale = self.keys[position], len(face) / self.store.info["settings"]["size"]
        landmarks = (self.store.landmarks(key) + 0.5) * scale - 0.5
        seed, epoch, showing = draw
        try:
            return self_blend(face, landmarks, stream("sbi", seed, epoch, int(self.names[position]), showing))
        except ValueError as error:
            raise ConfigError(f"face {key} of store {self.store.path} cannot be self-blended: {error}") from error


@dataclass(frozen=True)
class SelfBlendedFrames(FaceFrames):
    """Real faces and a fixed self-blended fake of each: the first half of `rows` is real, the second their fakes, in that order."""

    blender: Blender

    def levels(self, positions: NDArray[np.int64]) -> Tensor:
        """(N, 3, S, S) uint8 of the rows at `positions`, made when they are asked for."""
        fake, face = np.divmod(positions, len(self.rows) // 2)
        pairs = (self.blender.pair(int(p), VALIDATION_SEED, 0, 0) for p in face)
        return _levels([pair.fake if is_fake else pair.real for pair, is_fake in zip(pairs, fake, strict=True)])


class SelfBlendedBatches:
    """The order of training: every real face once an epoch, in a pair with its self-blended fake.

    A step holds as many real as fake faces, the fakes being made of the reals beside them (section 3 of the paper). The last step
    is filled from the start of the next shuffle. A pair depends on (seed, epoch, face, showing) alone.

    Args:
        frames: the real training faces; their methods are ("SBI",).
        batch_size: faces in a step, twice the number of pairs.
        seed: of the run.
        store: the faces' store; None where only the number of steps is asked for.
        annotate: reads what a detector needs beyond faces and labels; "masks" are taken from the blend.

    Raises:
        ConfigError: fewer real faces than a step has pairs, or a face without landmarks.
    """

    def __init__(
        self, frames: FaceFrames, batch_size: int, seed: int, store: FaceStore | None, annotate: Annotate | None = None
    ) -> None:
        self.share = batch_size // 2
        if self.share > len(frames):
            raise ConfigError(
                f"protocol.batch_size: {batch_size} asks for {self.share} real faces in one step, but there are only {len(frames)};"
                f" take at most {2 * len(frames)}"
            )
        self.steps = -(-len(frames) // self.share)
        self.frames, self.seed, self.annotate = frames, seed, annotate
        if store is not None:
            self.blender = Blender(frames, store)
            self.threads = torch.get_num_threads()
            videos = frames.rows[["dataset", "method", "video"]].agg("/".join, axis=1)
            self.videos = pd.factorize(videos)[0].astype(np.int64)

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """(steps, share, 3): of each pair the face's position, its showing, and the epoch."""
        generator = stream("order", self.seed, epoch)
        count = self.steps * self.share
        positions = np.concatenate([generator.permutation(len(self.frames)) for _ in range(2)])[:count]
        order = np.stack([positions, showings(positions), np.full(count, epoch)], axis=1)
        return order.reshape(self.steps, self.share, 3)

    def examples(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """(steps, N, 2): name and showing of each face; a pair has the same, so both are augmented alike, as the paper does."""
        named = np.stack([self.blender.names[order[..., 0]], order[..., 1]], axis=-1)
        return np.concatenate([named, named], axis=1)

    def positions(self, step: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of `frames` of one row of `epoch`, in the batch's order; a fake's is the face that it is made of."""
        return np.concatenate([step[:, 0], step[:, 0]])

    def batch(self, step: NDArray[np.int64]) -> Batch:
        """The faces of one row of `epoch`: the reals, then their fakes. A fake is of no video but its own."""
        # Each pair has a generator of its own, so the number of threads changes nothing but the time.
        with ThreadPoolExecutor(self.threads) as pool:
            pairs = list(pool.map(lambda p: self.blender.pair(int(p[0]), self.seed, int(p[2]), int(p[1])), step))
        extra = self.annotate(self.positions(step)) if self.annotate else {}
        if "masks" in extra:
            extra["masks"][len(pairs) :] = torch.from_numpy(np.stack([p.mask > 0 for p in pairs])[:, None]).float()
        videos = self.videos[step[:, 0]]
        return Batch(
            images=_levels([p.real for p in pairs] + [p.fake for p in pairs]),
            labels=torch.arange(2).repeat_interleave(len(pairs)),
            domains=torch.zeros(2 * len(pairs), dtype=torch.int64),
            videos=torch.from_numpy(np.concatenate([videos, videos + len(self.frames)])),
            **extra,
        )


def _levels(faces: list[NDArray[np.uint8]]) -> Tensor:
    return channels_first(np.stack(faces))


def training_batches(
    train: TrainData,
    protocol: Protocol,
    frames: FaceFrames,
    seed: int,
    store: FaceStore | None,
    annotate: Annotate | None = None,
) -> Batches:
    """The order of training that the source and the protocol ask for.

    Raises:
        ConfigError: a step asks for more faces than there are; or self-blended images without balance.
    """
    if train.source == "forgeries":
        return batches_for(protocol, frames, seed, annotate)
    if protocol.class_balance != "domains":
        raise ConfigError(
            f"protocol.class_balance is {protocol.class_balance}, but with train.source sbi every real face comes with its fake; "
            "say class_balance: domains"
        )
    return SelfBlendedBatches(frames, protocol.batch_size, seed, store, annotate)
