"""Celeb-DF, versions 1 and 2 (Li et al., CVPR 2020): two real folders, a forged one, a list of test videos."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from preprocessing.errors import PreprocessingError
from preprocessing.layouts.base import (
    NO_COMPRESSION,
    Doubt,
    Layout,
    Note,
    Part,
    Total,
    Video,
    find_videos,
    ignore,
    instead,
    need_folder,
    read_text,
)

TEST_LIST = "List_of_testing_videos.txt"
FOLDERS = {"Celeb-real": 0, "YouTube-real": 0, "Celeb-synthesis": 1}


class CelebDF(Layout):
    """The tree of the dataset's own archive.

    Videos on the official list are "test", all others "train"; the dataset has no official validation videos. Both real folders
    become the method "real", Celeb-synthesis keeps its name as the method. The digit before a name on the list (1 real, 0 fake)
    must agree with the folder.
    """

    name = "celeb-df-v2"
    title = "Celeb-DF-v2"
    url = "https://github.com/yuezunli/celeb-deepfakeforensics"
    terms = "Celeb-DF terms to use: non-commercial research; fill in the form linked there to get the archive"
    tree = """\
List_of_testing_videos.txt                         "1 YouTube-real/00170.mp4" (1 real, 0 fake)
Celeb-real/id0_0000.mp4  YouTube-real/00170.mp4  Celeb-synthesis/id0_id1_0000.mp4     (a level videos/ in between is accepted)"""

    counts = "890 real (Celeb-real 590, YouTube-real 300), 5639 fake; 518 of them for testing (178 real, 340 fake)"
    sources = (
        "README of github.com/yuezunli/celeb-deepfakeforensics, 'Dataset Structure': 590, 300, 5639, 518;"
        " the list, counted: 178 and 340"
    )
    uncertain = (
        "the README's overview, the paper and DeepfakeBench's README say 590 real, which leaves out YouTube-real's 300;"
        " the README's figure says 5369 fake, its text and the paper 5639"
    )
    splits = "official test list; all other videos are training, there is no validation split"
    peer = (
        "DeepfakeBench's rearrange keeps only one of the two real folders for training, trains on the test videos too (val = test)"
        " and lists test videos without frames"
    )
    split_files = (TEST_LIST,)
    totals = (Total(178, 0, "test"), Total(340, 1, "test"))
    people_shared = True
    sizes: ClassVar[tuple[int, int, int]] = (590, 300, 5639)

    def matches(self, root: Path) -> bool:
        """True where one of the dataset's three folders exists."""
        return any((root / folder).is_dir() for folder in FOLDERS)

    def videos(self, root: Path, *, dataset: str | None = None, compression: str = "c23", note: Note = ignore) -> list[Video]:
        """See `Layout.videos`; `compression` has no meaning here."""
        need_folder(root)
        tested = read_test_list(root)
        name = dataset or self.title
        found: list[Video] = []
        unseen = set(tested)
        for folder, label in FOLDERS.items():
            for path in find_videos(root / folder):
                place = f"{folder}/{path.name}"
                split = "test" if place in tested else "train"
                unseen.discard(place)
                method = "real" if label == 0 else folder
                found.append(Video(name, method, label, split, _identity(folder, path.stem), path.stem, path, NO_COMPRESSION))
        if not found:
            raise PreprocessingError(f"{root} has no {self.title} videos; they are expected in {', '.join(FOLDERS)}{instead(root)}")
        if unseen:
            note(Doubt(f"{len(unseen)} of the {len(tested)} videos in {TEST_LIST} are not in {root}, e.g. {min(unseen)}"))
        note(f"{name} has no official validation videos: its splits are train and test")
        return found

    def parts(self, compression: str = "c23") -> tuple[Part, ...]:
        """See `Layout.parts`."""
        return tuple(Part(folder, count) for folder, count in zip(FOLDERS, self.sizes, strict=True))


class CelebDFv1(CelebDF):
    """Version 1: the same folders, fewer videos. "auto" knows it by its list of 38 real and 62 fake test videos."""

    name = "celeb-df-v1"
    title = "Celeb-DF-v1"
    counts = "408 real (Celeb-real 158, YouTube-real 250), 795 fake; 100 of them for testing (38 real, 62 fake)"
    sources = (
        "Celeb-DF-v1/README.md of the same repository: 408 real, 795 fake; its first versions: 158 and 250 real;"
        " the list, counted: 38 and 62"
    )
    uncertain = "early versions of the README say 158 real, which leaves out YouTube-real's 250"
    totals = (Total(38, 0, "test"), Total(62, 1, "test"))
    sizes = (158, 250, 795)

    def matches(self, root: Path) -> bool:
        """True where the official list of version 1 lies beside one of the folders."""
        if not super().matches(root):
            return False
        try:
            labels = list(read_test_list(root).values())
        except PreprocessingError:
            return False
        return (labels.count(0), labels.count(1)) == (38, 62)


def read_test_list(root: Path) -> dict[str, int]:
    """The official list: "YouTube-real/00170.mp4" -> label (0 real, 1 fake; the list's own digit says the opposite).

    Raises:
        PreprocessingError: if the list is missing or empty, or a line is malformed or contradicts its folder.
    """
    file = root / TEST_LIST
    text = read_text(file, "test videos would be trained on")
    table: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        digit, _, place = line.strip().partition(" ")
        place = place.strip().replace("\\", "/")
        folder = place.partition("/")[0]
        if digit not in ("0", "1") or folder not in FOLDERS:
            raise PreprocessingError(f"line {number} of {file} must read like '1 YouTube-real/00170.mp4', not '{line.strip()}'")
        if FOLDERS[folder] != 1 - int(digit):
            claim = "real" if digit == "1" else "fake"
            raise PreprocessingError(f"line {number} of {file} calls {place} {claim}, its folder does not; get the official list")
        table[place] = FOLDERS[folder]
    if not table:
        raise PreprocessingError(f"{file} is empty, so test videos would be trained on; get it from the dataset again")
    return table


def _identity(folder: str, stem: str) -> str:
    # "id0_0003" -> id0, "id0_id1_0003" -> id0_id1 (target_source); a YouTube video is its own person.
    return stem if folder == "YouTube-real" or "_" not in stem else stem.rpartition("_")[0]
