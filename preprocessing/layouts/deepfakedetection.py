"""DeepFakeDetection (Google and Jigsaw, 2019): actors' videos and their forgeries, in FaceForensics++'s folders. No split."""

from __future__ import annotations

import re
from pathlib import Path

from preprocessing.errors import PreprocessingError
from preprocessing.layouts.base import Doubt, Layout, Note, Part, Video, by_stem, ignore, instead, need_folder
from preprocessing.layouts.faceforensics import COMPRESSIONS

REAL = "original_sequences/actors"
FORGED = "manipulated_sequences/DeepFakeDetection"
NAMES = {REAL: re.compile(r"(\d+)__.+"), FORGED: re.compile(r"(\d+_\d+)__.+__[^_]+")}


class DeepFakeDetection(Layout):
    """Actors' videos ("01__scene") and their forgeries ("01_02__scene__CODE": target, source), at one compression level.

    The dataset has no official split: every video has the split "none". The same actors act in most videos, so no split of one's
    own by video keeps people apart.
    """

    name = "deepfakedetection"
    title = "DeepFakeDetection"
    url = "https://github.com/ondyari/FaceForensics"
    terms = (
        "FaceForensics terms of use: FaceForensics++'s form and download script (-d DeepFakeDetection_original, DeepFakeDetection)"
    )
    tree = """\
original_sequences/actors/<c23|c40|raw>/videos/01__exit_phone_room.mp4
manipulated_sequences/DeepFakeDetection/<c23|c40|raw>/videos/01_02__exit_phone_room__YVGY8LOK.mp4
manipulated_sequences/DeepFakeDetection/masks/videos/01_02__exit_phone_room__YVGY8LOK.mp4     (optional)"""
    counts = "363 real (28 actors), 3068 fake, at each of raw, c23 and c40"
    sources = (
        "dataset/README.md of github.com/ondyari/FaceForensics: 363 originals, 3068 manipulated videos ('Space requirement');"
        " 28 actors; the figure in Celeb-DF's README says 3068 too"
    )
    uncertain = "elsewhere the forged videos are 'over 3000' (same README, above) or 3000 (DeepfakeBench's README)"
    splits = "none: the dataset has no official split, so it is for testing (split 'none'); training on it warns"
    peer = "DeepfakeBench puts every video into train, val and test, and needs FaceForensics++ in the same folder"
    people_shared = True

    def matches(self, root: Path) -> bool:
        """True where one of the dataset's two folders exists; FaceForensics++ is asked first."""
        return (root / REAL).is_dir() or (root / FORGED).is_dir()

    def videos(self, root: Path, *, dataset: str | None = None, compression: str = "c23", note: Note = ignore) -> list[Video]:
        """See `Layout.videos`."""
        need_folder(root)
        name = dataset or self.title
        found: list[Video] = []
        odd: list[str] = []
        masks = by_stem(root / FORGED / "masks")
        for label, folder in enumerate((REAL, FORGED)):
            method = self.title if label else "real"
            for stem, path in by_stem(root / folder / compression).items():
                match = NAMES[folder].fullmatch(stem)
                if match is None:
                    odd.append(path.name)
                people = match[1] if match else stem
                mask = masks.get(stem) if label else None
                found.append(Video(name, method, label, "none", people, stem, path, compression, mask))
        if not found:
            levels = [c for c in COMPRESSIONS if any((root / folder / c).is_dir() for folder in (REAL, FORGED))]
            has = f"; it has {', '.join(levels)}" if levels else f"; they are expected in {REAL} and {FORGED}{instead(root)}"
            raise PreprocessingError(f"{root} has no DeepFakeDetection videos of compression '{compression}'{has}")
        if odd:
            note(Doubt(f"{len(odd)} names tell no actors ('01__scene', '01_02__scene__CODE'), e.g. {odd[0]}"))
        if (root / "original_sequences/youtube" / compression).is_dir():
            note(f"{root} holds FaceForensics++ too, which is not read now: preprocess it with --layout faceforensics++")
        note(f"{name} has no official split: all {len(found)} videos get the split 'none'")
        return found

    def parts(self, compression: str = "c23") -> tuple[Part, ...]:
        """See `Layout.parts`."""
        return Part(f"{REAL}/{compression}", 363), Part(f"{FORGED}/{compression}", 3068), Part(f"{FORGED}/masks", 3068, "note")
