"""DeeperForensics-1.0 (Jiang et al., CVPR 2020): eleven variants of forged videos; the real class lies in another dataset."""

from __future__ import annotations

from pathlib import Path

from preprocessing.errors import PreprocessingError
from preprocessing.layouts.base import (
    NO_COMPRESSION,
    Doubt,
    Layout,
    Note,
    Part,
    Total,
    Video,
    by_stem,
    example,
    find_videos,
    ignore,
    instead,
    need_folder,
    read_text,
)

VARIANTS = (
    "end_to_end",
    *(f"end_to_end_level_{i}" for i in range(1, 6)),
    *(f"end_to_end_mix_{i}_distortions" for i in range(2, 5)),
    "end_to_end_random_level",
    "reenact_postprocess",
)
FORGED = "manipulated_videos"
SPLIT_FILES = {split: f"lists/splits/{split}.txt" for split in ("train", "val", "test")}


class DeeperForensics(Layout):
    """Forged videos "000_M101" (target_source), each variant a method; the lists give splits by name, the same for every variant.

    The dataset's own documentation says that its source videos "are not the 'real' part for detection": the real part is the target
    videos, FaceForensics++'s originals at c23, which it may not pass on. They are expected in target_videos/; a target has the
    split of the forgeries made from it. The layout "deeperforensics-1.0-source" takes the source videos instead.
    """

    name = "deeperforensics-1.0"
    title = "DeeperForensics-1.0"
    url = "https://github.com/EndlessSora/DeeperForensics-1.0/tree/master/dataset"
    terms = "DeeperForensics-1.0 terms of use (non-commercial research): read Terms_of_Use.pdf and fill in the form linked there"
    tree = """\
lists/splits/{train,val,test}.txt                     a name a line, 000_M101.mp4
manipulated_videos/<variant>/000_M101.mp4             end_to_end, end_to_end_level_1 ... _5, end_to_end_mix_2_distortions ... 4,
                                                      end_to_end_random_level, reenact_postprocess
target_videos/000.mp4                                 a link to FaceForensics++'s original_sequences/youtube/c23/videos
source_videos/<actor>/**/M101_*.mp4                   only read by the layout deeperforensics-1.0-source"""
    counts = "11000 fake (11 variants of 1000, split 703, 96, 201); real: 1000 targets of FaceForensics++ c23; 48475 source videos"
    sources = "dataset/README.md of github.com/EndlessSora/DeeperForensics-1.0: 48475 source videos, 11 variants of 1000"
    uncertain = (
        "that README writes the split as 703 : 96 : 21; 1000 videos need 201. DeepfakeBench's README says 50000 real and 10000 fake"
    )
    splits = "official: lists/splits/{train,val,test}.txt for the forged videos; a target follows its forgeries"
    peer = (
        "DeepfakeBench takes the source videos as the real class, all of them in train, val and test; it stops at names that no"
        " list has, and leaves some unreadable frames listed"
    )
    split_files = tuple(SPLIT_FILES.values())
    totals = tuple(Total(n, 1, split, VARIANTS[0]) for split, n in (("train", 703), ("val", 96), ("test", 201)))

    def matches(self, root: Path) -> bool:
        """True where the forged videos or one of the lists lie."""
        return any((root / FORGED / variant).is_dir() for variant in VARIANTS)

    def videos(self, root: Path, *, dataset: str | None = None, compression: str = "c23", note: Note = ignore) -> list[Video]:
        """See `Layout.videos`; `compression` has no meaning here."""
        need_folder(root)
        split_of = read_splits(root)
        name = dataset or self.title
        found = []
        folders = sorted(p for p in (root / FORGED).iterdir() if p.is_dir()) if (root / FORGED).is_dir() else []
        for folder in folders:
            for stem, path in by_stem(folder).items():
                found.append(Video(name, folder.name, 1, split_of.get(stem, "none"), stem, stem, path, NO_COMPRESSION))
        if not found:
            raise PreprocessingError(
                f"{root} has no DeeperForensics-1.0 videos; they are expected in {FORGED}/<variant>{instead(root)}"
            )
        strays = {v.path.name for v in found if v.split == "none"}
        if strays:
            note(Doubt(f"{len(strays)} names of {name} are in no split list and get the split 'none', {example(strays)}"))
        return found + self.real(root, name, split_of, note)

    def real(self, root: Path, name: str, split_of: dict[str, str], note: Note) -> list[Video]:
        """The videos of the real class."""
        targets = by_stem(root / "target_videos")
        if not targets:
            raise PreprocessingError(
                f"{root / 'target_videos'} has no videos: the real class of DeeperForensics-1.0 is FaceForensics++'s"
                " original_sequences/youtube/c23/videos; link that folder there, or take --layout deeperforensics-1.0-source"
            )
        splits: dict[str, set[str]] = {}
        for stem, split in split_of.items():
            splits.setdefault(stem.partition("_")[0], set()).add(split)
        torn = sorted(target for target, found in splits.items() if len(found) > 1)
        if torn:
            raise PreprocessingError(
                f"the forgeries of target {torn[0]} are in several split lists of {root}; use the official lists"
            )
        note(f"the real class of {name} is FaceForensics++'s c23 originals in target_videos, as the dataset's documentation asks")
        return [
            Video(name, "real", 0, next(iter(splits.get(stem, {"none"}))), stem, stem, path, NO_COMPRESSION)
            for stem, path in targets.items()
        ]

    def parts(self, compression: str = "c23") -> tuple[Part, ...]:
        """See `Layout.parts`."""
        forged = (Part(f"{FORGED}/{v}", 1000, "error" if v == VARIANTS[0] else "warning") for v in VARIANTS)
        return (*forged, Part("target_videos", 1000))


class DeeperForensicsSource(DeeperForensics):
    """As `DeeperForensics`, but the source videos are the real class, as in DeepfakeBench. Never chosen by "auto".

    No list gives the source videos a split: an actor's videos follow the forgeries with the actor's face; where those are in
    several splits or in none, they get the split "none".
    """

    name = "deeperforensics-1.0-source"
    title = "DeeperForensics-1.0-source"
    splits = "official for the forged videos; source videos follow their actor's forgeries, or get the split 'none'"
    named_by_stem = False

    def matches(self, root: Path) -> bool:
        """False: the choice must be made by name."""
        return False

    def real(self, root: Path, name: str, split_of: dict[str, str], note: Note) -> list[Video]:
        """The source videos."""
        base = root / "source_videos"
        files = find_videos(base)
        if not files:
            raise PreprocessingError(f"{base} has no videos; unpack the dataset's source videos there")
        splits: dict[str, set[str]] = {}
        for stem, split in split_of.items():
            splits.setdefault(stem.partition("_")[2], set()).add(split)
        found = []
        for path in files:
            place = path.relative_to(base)
            actor = place.parts[0] if len(place.parts) > 1 else path.stem.partition("_")[0]
            known = splits.get(actor, set())
            split = next(iter(known)) if len(known) == 1 else "none"
            found.append(Video(name, "real", 0, split, actor, place.with_suffix("").as_posix(), path, NO_COMPRESSION))
        note(f"the real class of {name} is the actors' source videos; its authors say these are not meant for detection")
        return found

    def parts(self, compression: str = "c23") -> tuple[Part, ...]:
        """See `Layout.parts`."""
        return (*super().parts(compression)[:-1], Part("source_videos", 48475))


def read_splits(root: Path) -> dict[str, str]:
    """The official lists: "000_M101" -> split.

    Raises:
        PreprocessingError: for a list that is missing or empty, or a name in two of them.
    """
    table: dict[str, str] = {}
    for split, place in SPLIT_FILES.items():
        lines = [line for line in read_text(root / place, "no video has a split").splitlines() if line.strip()]
        if not lines:
            raise PreprocessingError(f"{root / place} is empty; get it from the dataset again")
        for line in lines:
            stem = Path(line.strip().replace("\\", "/")).stem
            if stem and table.setdefault(stem, split) != split:
                raise PreprocessingError(
                    f"'{stem}' is in {SPLIT_FILES[table[stem]]} and in {place} of {root}; use the official lists"
                )
    return table
