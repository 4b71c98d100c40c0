"""UADFV (Li, Chang and Lyu, WIFS 2018; Yang, Li and Lyu, ICASSP 2019): 49 real videos and a forgery of each. No split."""

from __future__ import annotations

import re
from pathlib import Path

from preprocessing.errors import PreprocessingError
from preprocessing.layouts.base import NO_COMPRESSION, Layout, Note, Part, Video, by_stem, find_videos, ignore, instead, need_folder

NAMES = {"real": r"\d{4}", "fake": r"\d{4}_fake"}


class UADFV(Layout):
    """real/0000.mp4 and fake/0000_fake.mp4. There is no official split: every video has the split "none"."""

    name = "uadfv"
    title = "UADFV"
    url = "https://github.com/yuezunli/WIFS2018_In_Ictu_Oculi"
    terms = "research only; ask the authors of the papers for the archive"
    tree = """\
real/0000.mp4 ... real/0048.mp4     fake/0000_fake.mp4 ... fake/0048_fake.mp4     (a level videos/ in between is accepted)"""
    counts = "49 real, 49 fake"
    sources = "DeepfakeBench's README and the JSON file of its authors: 49 and 49; the figure in Celeb-DF's README: 49 fake"
    splits = "none: the dataset has no official split, so it is for testing (split 'none'); training on it warns"
    peer = "DeepfakeBench puts every video into train, val and test"
    people_shared = True

    def matches(self, root: Path) -> bool:
        """True where real/ and fake/ exist and every name is as UADFV's ("0000", "0000_fake")."""
        real, fake = ([p.stem for p in find_videos(root / part)] for part in ("real", "fake"))
        return (
            bool(real and fake)
            and all(re.fullmatch(NAMES["real"], stem) for stem in real)
            and all(re.fullmatch(NAMES["fake"], stem) for stem in fake)
        )

    def odd_names(self, root: Path) -> list[str]:
        """The names that alone keep "auto" from taking a folder for UADFV: at most one in ten does not fit."""
        stems = {part: [p.stem for p in find_videos(root / part)] for part in ("real", "fake")}
        odd = [f"{part}/{s}" for part, found in stems.items() for s in found if not re.fullmatch(NAMES[part], s)]
        return odd if all(stems.values()) and 10 * len(odd) <= sum(map(len, stems.values())) else []

    def videos(self, root: Path, *, dataset: str | None = None, compression: str = "c23", note: Note = ignore) -> list[Video]:
        """See `Layout.videos`; `compression` has no meaning here."""
        need_folder(root)
        name = dataset or self.title
        found = [
            Video(name, part, label, "none", stem.removesuffix("_fake"), stem, path, NO_COMPRESSION)
            for label, part in enumerate(("real", "fake"))
            for stem, path in by_stem(root / part).items()
        ]
        if not found:
            raise PreprocessingError(f"{root} has no UADFV videos; they are expected in real/ and fake/{instead(root)}")
        note(f"{name} has no official split: all {len(found)} videos get the split 'none'")
        return found

    def parts(self, compression: str = "c23") -> tuple[Part, ...]:
        """See `Layout.parts`."""
        return Part("real", 49), Part("fake", 49)
