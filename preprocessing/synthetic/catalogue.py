"""The two data sets that can be drawn: which files they hold, in whose layout, drawn in what style."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from preprocessing.errors import PreprocessingError
from preprocessing.synthetic.encode import LOSSLESS
from preprocessing.synthetic.forge import CelebSynthesis, Deepfakes, Face2Face, FaceSwap, Forgery, NeuralTextures
from preprocessing.synthetic.scene import Style

SMALLEST = 6  # identities: three pairs, one for each split
_CELEB_QUALITY = 28


@dataclass(frozen=True)
class Clip:
    """One file: its `path` relative to the data set (POSIX), who is on it, by what it was forged (None: it is the original)."""

    path: str
    target: int
    forgery: type[Forgery] | None
    is_mask: bool
    quality: int  # x264's constant rate factor, or encode.LOSSLESS


class Catalogue(Protocol):
    """A data set: its style, the compressions it comes in, its files and its split lists."""

    style: Style
    compressions: dict[str, int]

    def clips(self, identities: int, compressions: Sequence[str]) -> list[Clip]:
        """Every video file for `identities` people, in a fixed order."""

    def documents(self, identities: int) -> dict[str, str]:
        """The split lists: relative path -> text."""


def partner(number: int) -> int:
    """The source of the forgeries of `number`, and the other way round: people come in pairs 2k, 2k + 1."""
    return number ^ 1


class MiniA:
    """FaceForensics++'s layout and names: every person once original and four times forged, with masks; splits by pairs."""

    style = Style(
        name="mini-a",
        size=256,
        face_scale=(0.215, 0.255),
        blur=(0.45, 0.75),
        noise=(1.6, 3.4),
        lamp_side=0.75,
        ambient=(0.34, 0.52),
        turn=1.0,
        colourfulness=0.6,
    )
    compressions = {"c23": 23, "c40": 40}  # noqa: RUF012
    methods = (Deepfakes, Face2Face, FaceSwap, NeuralTextures)

    def clips(self, identities: int, compressions: Sequence[str]) -> list[Clip]:
        """See `Catalogue.clips`."""
        clips = []
        for person in range(identities):
            for name in compressions:
                path = f"original_sequences/youtube/{name}/videos/{person:03d}.mp4"
                clips.append(Clip(path, person, None, False, self.compressions[name]))
            stem = f"{person:03d}_{partner(person):03d}"
            for method in self.methods:
                folder = f"manipulated_sequences/{method.__name__}"
                for name in compressions:
                    clips.append(Clip(f"{folder}/{name}/videos/{stem}.mp4", person, method, False, self.compressions[name]))
                clips.append(Clip(f"{folder}/masks/videos/{stem}.mp4", person, method, True, LOSSLESS))
        return clips

    def documents(self, identities: int) -> dict[str, str]:
        """train.json, val.json and test.json: lists of pairs of ids; about 64, 11 and 25 % of the pairs, at least one each."""
        pairs = [[f"{first:03d}", f"{first + 1:03d}"] for first in range(0, identities, 2)]
        test, val = max(1, round(len(pairs) * 0.25)), max(1, round(len(pairs) * 0.11))
        train = len(pairs) - val - test
        splits = {"train": pairs[:train], "val": pairs[train : train + val], "test": pairs[train + val :]}
        return {f"{split}.json": json.dumps(chosen) + "\n" for split, chosen in splits.items()}


class MiniB:
    """Celeb-DF-v2's layout and names: other people, cameras, codec settings and swap; three quarters are on the test list."""

    style = Style(
        name="mini-b",
        size=224,
        face_scale=(0.225, 0.265),
        blur=(0.6, 1.05),
        noise=(2.5, 5.5),
        lamp_side=0.9,
        ambient=(0.38, 0.58),
        turn=1.15,
        colourfulness=0.9,
    )
    compressions = {"c23": _CELEB_QUALITY}  # noqa: RUF012  (Celeb-DF knows one quality; c23 is what the settings call the usual one)

    def clips(self, identities: int, compressions: Sequence[str]) -> list[Clip]:
        """See `Catalogue.clips`."""
        clips = []
        for person in range(identities):
            clips.append(Clip(self._original(person, identities), person, None, False, _CELEB_QUALITY))
            if self._is_celebrity(person, identities):
                clips.append(Clip(self._synthesis(person), person, CelebSynthesis, False, _CELEB_QUALITY))
        return clips

    def documents(self, identities: int) -> dict[str, str]:
        """List_of_testing_videos.txt: lines of a label (1 real, 0 forged) and a path."""
        celebrities = [p for p in range(identities) if self._is_celebrity(p, identities)]
        strangers = [p for p in range(identities) if not self._is_celebrity(p, identities)]
        lines = []
        for group in (celebrities, strangers):
            pairs = len(group) // 2
            for person in group[: 2 * max(1, round(pairs * 0.75))]:
                lines.append(f"1 {self._original(person, identities)}")
                if person in celebrities:
                    lines.append(f"0 {self._synthesis(person)}")
        return {"List_of_testing_videos.txt": "\n".join(sorted(lines)) + "\n"}

    @staticmethod
    def _is_celebrity(person: int, identities: int) -> bool:
        """Three quarters of the pairs are forged; the others have only originals, as Celeb-DF's YouTube-real has."""
        pairs = identities // 2
        return person // 2 < pairs - max(1, pairs // 4)

    def _original(self, person: int, identities: int) -> str:
        if self._is_celebrity(person, identities):
            return f"Celeb-real/id{person}_0000.mp4"
        return f"YouTube-real/{person:05d}.mp4"

    @staticmethod
    def _synthesis(person: int) -> str:
        return f"Celeb-synthesis/id{person}_id{partner(person)}_0000.mp4"


CATALOGUES: dict[str, Catalogue] = {"mini-a": MiniA(), "mini-b": MiniB()}


def catalogue(style: str) -> Catalogue:
    """The catalogue named `style`; PreprocessingError when there is none."""
    if style not in CATALOGUES:
        raise PreprocessingError(f"There is no drawn data set {style!r}; choose one of {', '.join(CATALOGUES)}.")
    return CATALOGUES[style]


def choose_compressions(style: str, compression: str | Sequence[str]) -> tuple[str, ...]:
    """The compressions asked for, in the catalogue's order; PreprocessingError for one that `style` has not."""
    asked = (compression,) if isinstance(compression, str) else tuple(compression)
    known = catalogue(style).compressions
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        wrong = f"{unknown[0]!r} is no compression" if unknown else "No compression was chosen"
        raise PreprocessingError(f"{wrong} of the drawn data set {style}; choose from {', '.join(known)}.")
    return tuple(name for name in known if name in asked)
