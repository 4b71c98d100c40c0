"""FaceForensics++ (Rössler et al., ICCV 2019): official pair lists, five forgeries, masks for four of them.

The lists {train,val,test}.json hold pairs of identities; a real video belongs to the split of its identity, a forged one
("target_source") to the split of its pair, in either order.
"""

from __future__ import annotations

import json
from pathlib import Path

from preprocessing.errors import PreprocessingError
from preprocessing.layouts.base import (
    Doubt,
    Layout,
    Note,
    Part,
    Total,
    Video,
    by_stem,
    find_videos,
    ignore,
    instead,
    need_folder,
    read_text,
)

METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
COMPRESSIONS = ("raw", "c23", "c40")
REAL = Path("original_sequences", "youtube")
OF_DFD = (Path("original_sequences", "actors"), Path("manipulated_sequences", "DeepFakeDetection"))
FORGED = Path("manipulated_sequences")


class FaceForensics(Layout):
    """The tree that the dataset's own download script makes. Any subset of the methods is accepted; the split lists are needed.

    Real videos and the forgeries are read at one compression level. A file whose name is in no split list gets the split "none".
    Videos may lie in subfolders of the level ("videos/" usually), but no name may occur twice in one.
    """

    name = "faceforensics++"
    title = "FaceForensics++"
    url = "https://github.com/ondyari/FaceForensics"
    terms = "FaceForensics terms of use: non-commercial research and education; the form linked there brings the download script"
    tree = """\
train.json val.json test.json                      [["071", "054"], ...], from the repository's dataset/splits
original_sequences/youtube/<c23|c40|raw>/videos/000.mp4
manipulated_sequences/<method>/<c23|c40|raw>/videos/000_003.mp4
manipulated_sequences/<method>/masks/videos/000_003.mp4       (optional)
<method>: Deepfakes Face2Face FaceSwap NeuralTextures FaceShifter"""

    counts = "1000 real (splits 720, 140, 140), 1000 for each of the five forgeries, at each of raw, c23 and c40; masks for four"
    sources = (
        "README of github.com/ondyari/FaceForensics (1000 originals, forged by each of four methods and by FaceShifter);"
        " its dataset/splits, counted (360, 70 and 70 pairs)"
    )
    splits = "official: train.json, val.json, test.json by identity; a forged video belongs to the split of its pair"
    peer = (
        "DeepfakeBench's rearrange puts forged videos of unknown names into all three splits, and stops with a KeyError where"
        " DeepFakeDetection or FaceShifter is not in this folder too"
    )
    split_files = ("train.json", "val.json", "test.json")
    totals = (Total(720, 0, "train"), Total(140, 0, "val"), Total(140, 0, "test"))

    def matches(self, root: Path) -> bool:
        """True where one of the dataset's two folders of sequences exists."""
        return (root / REAL).is_dir() or any((root / FORGED / m).is_dir() for m in METHODS)

    def videos(self, root: Path, *, dataset: str | None = None, compression: str = "c23", note: Note = ignore) -> list[Video]:
        """See `Layout.videos`."""
        need_folder(root)
        split_of = read_splits(root)
        name = dataset or self.title
        found: list[Video] = []
        for method, folder in [("real", root / REAL), *((m, root / FORGED / m) for m in METHODS)]:
            masks = by_stem(folder / "masks") if method != "real" else {}
            for stem, path in by_stem(folder / compression).items():
                label, split = int(method != "real"), split_of.get(stem, "none")
                found.append(Video(name, method, label, split, stem, stem, path, compression, masks.get(stem)))
        if not found:
            raise PreprocessingError(_nothing(root, compression))
        strays = [v for v in found if v.split == "none"]
        if strays:
            note(Doubt(f"{len(strays)} videos of {name} are in no split list and get the split 'none', e.g. {strays[0].path.name}"))
        known = {*METHODS, *(folder.name for folder in OF_DFD)}
        others = (
            sorted(p.name for p in (root / FORGED).iterdir() if p.is_dir() and p.name not in known)
            if (root / FORGED).is_dir()
            else []
        )
        if others:
            note(Doubt(f"{root / FORGED} has folders of no known method, which are left out: {', '.join(others)}"))
        if any(find_videos(root / folder / compression) for folder in OF_DFD):
            note(f"{root} holds DeepFakeDetection too, which is not read now: preprocess it with --layout deepfakedetection")
        missing = set(split_of) - {v.video for v in found}
        real = {i for i in missing if "_" not in i}
        if real:
            note(Doubt(f"{len(real)} of the real videos that the split lists name are not in {root / REAL / compression}"))
        return found

    def parts(self, compression: str = "c23") -> tuple[Part, ...]:
        """See `Layout.parts`."""
        made = [Part(f"{REAL.as_posix()}/{compression}", 1000)]
        for method in METHODS:
            extra = method == "FaceShifter"
            made.append(Part(f"{FORGED.as_posix()}/{method}/{compression}", 1000, "note" if extra else "warning"))
            if not extra:
                made.append(Part(f"{FORGED.as_posix()}/{method}/masks", 1000, "note"))
        return tuple(made)


def read_splits(root: Path) -> dict[str, str]:
    """The official lists as a table: "000" -> split, and "000_003" and "003_000" -> split.

    Raises:
        PreprocessingError: for a list that is missing, is no list of pairs, or shares an identity with another list.
    """
    table: dict[str, str] = {}
    for split in ("train", "val", "test"):
        file = root / f"{split}.json"
        if not file.is_file():
            raise PreprocessingError(f"split list {file} is missing; copy the three lists of the dataset's repository there")
        try:
            pairs = json.loads(read_text(file, "no video has a split"))
        except json.JSONDecodeError as error:
            raise PreprocessingError(f"split list {file} is no JSON: {error}") from error
        if not isinstance(pairs, list) or not pairs:
            held = "an empty list" if pairs == [] else f"one {type(pairs).__name__}"
            raise PreprocessingError(f'split list {file} must be a list of pairs such as [["071", "054"]], and holds {held}')
        for pair in pairs:
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(i, str) for i in pair)):
                raise PreprocessingError(f'split list {file} must be a list of pairs such as [["071", "054"]], not {pair!r}')
            a, b = pair
            for word in (a, b, f"{a}_{b}", f"{b}_{a}"):
                if table.setdefault(word, split) != split:
                    raise PreprocessingError(
                        f"'{word}' is in {table[word]}.json and in {split}.json of {root}; use the official lists"
                    )
    return table


def _nothing(root: Path, compression: str) -> str:
    levels = {c for c in COMPRESSIONS if find_videos(root / REAL / c) or any(find_videos(root / FORGED / m / c) for m in METHODS)}
    if levels:
        return f"{root} has no videos of compression '{compression}'; it has {', '.join(sorted(levels))}"
    known = "original_sequences/youtube/<level>/videos and manipulated_sequences/<method>/<level>/videos"
    return f"{root} has no FaceForensics++ videos; they are expected in {known}{instead(root)}"
