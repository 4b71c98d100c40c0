"""The Deepfake Detection Challenge: the whole dataset (DFDC, arXiv 2006.07397) and its preview (DFDCP, arXiv 1910.08854)."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preprocessing.errors import PreprocessingError
from preprocessing.layouts.base import (
    NO_COMPRESSION,
    Doubt,
    Layout,
    Note,
    Part,
    Total,
    Video,
    example,
    find_videos,
    ignore,
    instead,
    need_folder,
    read_text,
)

LABELS = {"real": 0, "fake": 1, "0": 0, "1": 1}


class DFDC(Layout):
    """Training parts with a metadata.json each, and test videos with a labels.csv. Any subset of the parts is accepted.

    The dataset does not say by which method a forgery was made: the method is "fake". A forged training video has the identity of
    the original that it was made from. A video without a label is left out, and a note says so: labels are never guessed.
    """

    name = "dfdc"
    title = "DFDC"
    url = "https://ai.meta.com/datasets/dfdc/"
    terms = "the challenge's licence, accepted with an account at Meta AI or Kaggle (deepfake-detection-challenge)"
    tree = """\
train/dfdc_train_part_<0 ... 49>/{metadata.json, aagfhgtpmv.mp4, ...}     {"x.mp4": {"label": "FAKE", "original": "y.mp4"}}
test/{labels.csv, aalscayrfi.mp4, ...}                                    filename,label  (1 is fake)
A part may also be called dfdc_train_part_<00 ... 49>, and lie beside test/ without train/."""
    counts = "train 119154 in 50 parts (19154 real, 100000 fake); test 5000 (2500 real, 2500 fake)"
    sources = (
        "arXiv 2006.07397 (119154 training clips, 100000 of them fake); the files' own labels, counted: DeepfakeBench's issues 25"
        " (labels.csv has 5000 rows) and 63 (19154 and 100000, 2500 and 2500)"
    )
    uncertain = (
        "the paper's private test set has 10000 clips, the published one 5000 (119154 + 4000 for validation + 5000 are the"
        " 128154 of DeepfakeBench's README); some descriptions count 119197 training videos, 19197 of them real"
    )
    splits = "official: train parts and test folder; there is no validation split here"
    peer = "DeepfakeBench needs all 50 parts even for testing, overwrites 'val' with one video and copies training videos into it"
    totals = (Total(19154, 0, "train", also=(19197,)), Total(100000, 1, "train"), Total(2500, 0, "test"), Total(2500, 1, "test"))

    def matches(self, root: Path) -> bool:
        """True where a training part or the test set's labels exist."""
        return bool(_train_parts(root)) or (root / "test" / "labels.csv").is_file()

    def videos(self, root: Path, *, dataset: str | None = None, compression: str = "c23", note: Note = ignore) -> list[Video]:
        """See `Layout.videos`; `compression` has no meaning here."""
        need_folder(root)
        name = dataset or self.title
        found: list[Video] = []
        for part in _train_parts(root):
            table = _metadata(part / "metadata.json")
            for path in _labelled(part, table, note):
                label, original = table[path.name]
                found.append(_video(name, label, "train", original or path.stem, path.stem, path))
        if (root / "test").is_dir():
            labels = _labels(root / "test" / "labels.csv")
            for path in _labelled(root / "test", labels, note):
                found.append(_video(name, labels[path.name], "test", path.stem, path.stem, path))
        if not found:
            raise PreprocessingError(
                f"{root} has no labelled DFDC videos; they are expected in train/dfdc_train_part_<n> and test{instead(root)}"
            )
        missing = set(range(50)) - set(map(_number, _train_parts(root)))
        if 0 < len(missing) < 50:
            note(f"{len(missing)} of the 50 training parts of {name} are not in {root}, e.g. part {min(missing)}")
        note(f"{name} has no official validation videos here: its splits are train and test")
        return found

    def parts(self, compression: str = "c23") -> tuple[Part, ...]:
        """See `Layout.parts`."""
        return (*(_part(number) for number in range(50)), Part("test", 5000, "warning"))


class DFDCP(Layout):
    """Original videos and two unnamed methods, with one table of labels and splits.

    A video is named by its path below its folder, because nothing promises unique names.
    """

    name = "dfdcp"
    title = "DFDCP"
    url = "https://ai.meta.com/datasets/dfdc/"
    terms = "the challenge's licence, accepted with an account at Meta AI; ask for the preview dataset"
    tree = """\
dataset.json         {"method_A/.../x.mp4": {"label": "fake", "set": "train", "target_id": 1, "swapped_id": 2}}
original_videos/**/<name>.mp4   method_A/**/<name>.mp4   method_B/**/<name>.mp4"""
    counts = "1131 real, 4119 fake; 276 and 501 of them for testing"
    sources = "dataset.json, counted (DeepfakeBench's issue 63: train 855 and 3618, test 276 and 501); DeepfakeBench's README"
    uncertain = (
        "the figure in Celeb-DF's README (Celeb-DF-v2/basic_info.png), and tables after it, say 4113 fake; --check takes either"
    )
    splits = "official: dataset.json says train or test; there is no validation split"
    peer = "DeepfakeBench makes val the same videos as test"
    split_files = ("dataset.json",)
    totals = (Total(1131, 0), Total(4119, 1, also=(4113,)), Total(276, 0, "test"), Total(501, 1, "test"))
    named_by_stem = False
    FOLDERS = ("original_videos", "method_A", "method_B")

    def matches(self, root: Path) -> bool:
        """True where one of the folders lies beside dataset.json, or both methods' folders exist."""
        there = [(root / folder).is_dir() for folder in self.FOLDERS]
        return (any(there) and (root / "dataset.json").is_file()) or all(there[1:])

    def videos(self, root: Path, *, dataset: str | None = None, compression: str = "c23", note: Note = ignore) -> list[Video]:
        """See `Layout.videos`; `compression` has no meaning here."""
        need_folder(root)
        name = dataset or self.title
        file = root / "dataset.json"
        table = {place.replace("\\", "/"): row for place, row in _object(file, "no video has a label or a split").items()}
        found: list[Video] = []
        unlisted: list[str] = []
        for folder in self.FOLDERS:
            for path in find_videos(root / folder):
                place = path.relative_to(root).as_posix()
                if place not in table:
                    unlisted.append(place)
                    continue
                label, split, people = _preview_row(file, place, table.pop(place))
                if label != int(folder != "original_videos"):
                    raise PreprocessingError(f"{file} and the folder disagree whether {place} is real; get the official file")
                method = folder if label else "real"
                video = path.relative_to(root / folder).with_suffix("").as_posix()
                found.append(Video(name, method, label, split, people or path.stem, video, path, NO_COMPRESSION))
        if not found:
            raise PreprocessingError(
                f"{root} has no DFDCP videos that dataset.json lists; they are expected in {', '.join(self.FOLDERS)}"
                f"{f', and it lists {example(table)}' if table else ''}{instead(root)}"
            )
        if table:
            note(Doubt(f"{len(table)} videos in {file} are not in {root}, {example(table)}"))
        if unlisted:
            note(Doubt(f"{len(unlisted)} videos are not in {file} and are left out, {example(unlisted)}"))
        note(f"{name} has no official validation videos: its splits are train and test")
        return found

    def parts(self, compression: str = "c23") -> tuple[Part, ...]:
        """See `Layout.parts`."""
        return tuple(Part(folder) for folder in self.FOLDERS)


def _video(dataset: str, label: int, split: str, identity: str, stem: str, path: Path) -> Video:
    return Video(dataset, "fake" if label else "real", label, split, identity, stem, path, NO_COMPRESSION)


def _part(number: int) -> Part:
    # Kaggle's archives are called dfdc_train_part_00.zip and hold a folder dfdc_train_part_0.
    names = [f"{base}dfdc_train_part_{n}" for base in ("train/", "") for n in dict.fromkeys((f"{number}", f"{number:02d}"))]
    return Part(names[0], None, "warning", tuple(names[1:]))


def _train_parts(root: Path) -> list[Path]:
    """The parts, by number. Where an archive was unpacked into a folder of its own name, the part is the folder inside."""
    found = [p for base in (root / "train", root) if base.is_dir() for p in base.glob("dfdc_train_part_*") if p.is_dir()]
    numbered = [p for p in found if re.fullmatch(r"dfdc_train_part_\d+", p.name)]
    for at, part in enumerate(numbered):
        inner = part / f"dfdc_train_part_{_number(part)}"
        if not (part / "metadata.json").exists() and inner.is_dir():
            numbered[at] = inner
    return sorted(numbered, key=_number)


def _number(part: Path) -> int:
    return int(part.name.rpartition("_")[2])


def _labelled(folder: Path, table: dict[str, Any], note: Note) -> Iterator[Path]:
    files = find_videos(folder)
    unlabelled = [p.name for p in files if p.name not in table]
    missing = set(table) - {p.name for p in files}
    if unlabelled:
        note(Doubt(f"{len(unlabelled)} videos in {folder} have no label and are left out, {example(unlabelled)}"))
    if missing:
        note(Doubt(f"{len(missing)} of the {len(table)} videos that have a label are not in {folder}, {example(missing)}"))
    yield from (p for p in files if p.name in table)


def _object(file: Path, why: str) -> dict[str, Any]:
    try:
        content = json.loads(read_text(file, why))
    except ValueError as error:
        if isinstance(error, PreprocessingError):
            raise
        raise PreprocessingError(f"{file} is no JSON: {error}; get it from the dataset again") from error
    if not isinstance(content, dict) or not all(isinstance(row, dict) for row in content.values()):
        raise PreprocessingError(f"{file} must hold an object per video; get it from the dataset again")
    return content


def _label(file: Path, name: str, word: object) -> int:
    label = LABELS.get(str(word).strip().lower())
    if label is None:
        raise PreprocessingError(f"{file} gives {name} the label '{word}', neither real nor fake; get it from the dataset again")
    return label


def _metadata(file: Path) -> dict[str, tuple[int, str | None]]:
    """File name -> label and the stem of the original, of one training part."""
    table = {}
    for name, row in _object(file, "its videos have no labels").items():
        original = row.get("original")
        table[name] = _label(file, name, row.get("label")), Path(str(original)).stem if original else None
    return table


def _labels(file: Path) -> dict[str, int]:
    rows = csv.DictReader(read_text(file, "the test videos have no labels").splitlines())
    if not {"filename", "label"} <= set(rows.fieldnames or ()):
        raise PreprocessingError(f"{file} must begin with the line 'filename,label'; get it from the dataset again")
    table = {}
    for number, row in enumerate(rows, start=2):
        if row["filename"] is None or row["label"] is None:
            raise PreprocessingError(f"{file}, line {number}: a field is missing; get it from the dataset again")
        table[row["filename"].strip()] = _label(file, row["filename"], row["label"])
    return table


def _preview_row(file: Path, place: str, row: dict[str, Any]) -> tuple[int, str, str]:
    split = row.get("set")
    if split not in ("train", "test"):
        raise PreprocessingError(f"{file} gives {place} the set '{split}', neither train nor test; get it from the dataset again")
    people = [str(row[key]) for key in ("target_id", "swapped_id") if row.get(key) is not None]
    return _label(file, place, row.get("label")), split, "_".join(people)
