"""How many faces a dataset will give, from its published counts: for plans made before the dataset is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmark.specs import NO_SPLIT
from preprocessing.layouts import LAYOUTS, Layout

SAMPLED = 32
"""Frames of a video that a plan takes for granted, `dfgrid preprocess`'s own number."""

SPLIT_BY_PAIRS = ("faceforensics++",)
"""Datasets in which every method has as many videos in each split as there are real ones."""


def layout_of(store: str) -> Layout | None:
    """The layout of the dataset that a store is named after (stores/FaceForensics++-c23), or None."""
    name = Path(store).name
    named = [layout for layout in LAYOUTS.values() if layout.url and (name == layout.title or name.startswith(f"{layout.title}-"))]
    return max(named, key=lambda layout: len(layout.title), default=None)


@dataclass(frozen=True)
class Faces:
    """`faces` of some rows: `largest` fake ones of their largest method, `real` ones; not `exact` where they are of all splits."""

    faces: int
    largest: int
    real: int
    exact: bool


@dataclass(frozen=True)
class Expected:
    """The published counts of a dataset.

    Args:
        layout: of the dataset.
    """

    layout: Layout

    def _videos(self, label: int, split: str | None) -> int | None:
        counts = [t.count for t in self.layout.totals if t.label == label and t.split == split]
        return sum(counts) if counts else None

    def split(self, split: str, methods: tuple[str, ...] | None, frames: int | None) -> Faces | None:
        """Faces of a split, or of all splits where its counts are not known; None where nothing is."""
        wanted = None if split == NO_SPLIT else split
        each = min(frames or SAMPLED, SAMPLED)
        real, fake, exact = self._videos(0, wanted), self._videos(1, wanted), True
        if self.layout.name in SPLIT_BY_PAIRS and real is not None:
            forgeries = sum("manipulated" in folder for folder in self._by_folder()) if methods is None else len(methods)
            return Faces((1 + forgeries) * real * each, real * each, real * each, True)
        if real is None or fake is None:
            exact = wanted is None
            whole = self._whole()
            if whole is None:
                return None
            real, fake = whole
        return Faces((real + fake) * each, fake * each, real * each, exact)

    def _whole(self) -> tuple[int, int] | None:
        """(real, fake) videos of all splits: as said, else the sum of the splits, else by folder."""
        said = self._videos(0, None), self._videos(1, None)
        if said[0] is not None and said[1] is not None:
            return said[0], said[1]
        counts = self._by_folder()
        real = sum(count for folder, count in counts.items() if "real" in folder.lower() or "original" in folder)
        return (real, sum(counts.values()) - real) if counts else None

    def _by_folder(self) -> dict[str, int]:
        return {p.folder: p.count for p in self.layout.parts() if p.count and "mask" not in p.folder}

    def faces(self) -> int | None:
        """Faces of the whole dataset, at one compression."""
        counts = self._by_folder()
        if counts:
            return sum(counts.values()) * SAMPLED
        whole = self._whole()
        return None if whole is None else sum(whole) * SAMPLED
