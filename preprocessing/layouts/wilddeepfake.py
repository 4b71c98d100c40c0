"""WildDeepfake (Zi et al., ACM MM 2020): sequences of faces that the authors have cut out, in folders or in tar archives."""

from __future__ import annotations

import tarfile
from pathlib import Path

from preprocessing.errors import PreprocessingError
from preprocessing.images import ARCHIVES, find_sequences, has_images, is_archive
from preprocessing.layouts.base import NO_COMPRESSION, Doubt, Layout, Note, Part, Total, Video, ignore, need_folder

CLASSES = ("real", "fake")
SPLITS = ("train", "test")


class WildDeepfake(Layout):
    """Four folders, real and fake by train and test; in each, numbered archives or the folders that come out of them.

    Below a number, every folder that holds images is one sequence of faces, which becomes one video of the kind "crops". People are
    not known: a sequence's identity is its class, split and number. An archive that cannot be read becomes one unreadable video.
    """

    name = "wilddeepfake"
    title = "WildDeepfake"
    url = "https://github.com/deepfakeinthewild/deepfake-in-the-wild"
    terms = "research only; the repository says how to ask its authors for the archives"
    tree = """\
real_train/<n>.tar.gz  real_test/<n>.tar.gz  fake_train/<n>.tar.gz  fake_test/<n>.tar.gz
or, extracted:  real_train/<n>/**/<sequence>/<frame number>.png ...     (faster to read)
Also "real train", as the authors write it, real-train, real/train and train/real; each below deepfake_in_the_wild/ too"""
    counts = "3805 real and 3509 fake face sequences, 1180099 images, from 707 videos"
    sources = (
        "README of github.com/deepfakeinthewild/deepfake-in-the-wild: 7314 sequences from 707 videos;"
        " arXiv 2101.01456: 3805 and 3509; images: counted by others"
    )
    uncertain = (
        "the authors give no counts by split; others have counted 3409 real and 3099 fake sequences in train, 396 and 410 in test"
    )
    splits = "official: the folders' train and test; there is no validation split"
    totals = (Total(3805, 0), Total(3509, 1))
    named_by_stem = False

    def matches(self, root: Path) -> bool:
        """True where at least two of the four folders exist and the first thing in one of them is an archive or holds images."""
        folders = [f for label in CLASSES for split in SPLITS if (f := _part(label, split).place(root)) is not None]
        first = (next(iter(_sources(f).values()), None) for f in folders)
        return len(folders) >= 2 and any(is_archive(p) or has_images(p) for p in first if p is not None)

    def videos(self, root: Path, *, dataset: str | None = None, compression: str = "c23", note: Note = ignore) -> list[Video]:
        """See `Layout.videos`; `compression` has no meaning here. Archives are read through once to list their sequences."""
        need_folder(root)
        name = dataset or self.title
        found: list[Video] = []
        packed = 0
        for label, kind in enumerate(CLASSES):
            for split in SPLITS:
                for number, source in _sources(_part(kind, split).place(root)).items():
                    packed += not source.is_dir()
                    identity = f"{kind}-{split}-{number}"
                    for inside in _sequences(source, note):
                        # Archives repeat their number as the top folder; the name must be the same when they are extracted.
                        below = [x for x in inside.split("/") if x not in ("", ".")]
                        place = "/".join((split, number, *(below[1:] if below[:1] == [number] else below)))
                        path, within = (source / inside, "") if source.is_dir() else (source, inside)
                        found.append(Video(name, kind, label, split, identity, place, path, NO_COMPRESSION, None, "crops", within))
        if not found:
            wanted = ", ".join(f"{label}_{split}" for label in CLASSES for split in SPLITS)
            raise PreprocessingError(f"{root} has no WildDeepfake sequences; they are expected in {wanted}")
        note(f"{name} comes as cut-out faces: they are resized, not aligned, and landmarks are kept where they are found")
        if packed:
            note(f"{packed} archives of {name} are read without extracting; extracting them first is several times faster")
        return found

    def parts(self, compression: str = "c23") -> tuple[Part, ...]:
        """See `Layout.parts`."""
        return tuple(_part(label, split) for label in CLASSES for split in SPLITS)


def _part(label: str, split: str) -> Part:
    names = [f"{label}{between}{split}" for between in ("_", " ", "-", "/")] + [f"{split}/{label}"]
    names += [name.title() for name in names[:4]]
    return Part(names[0], None, "warning", (*names[1:], *(f"deepfake_in_the_wild/{name}" for name in names)))


def _sources(folder: Path | None) -> dict[str, Path]:
    """The numbered archives and folders; where both are there, the folder is the extracted archive."""
    table: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder else []:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            table[path.name] = path
        elif path.name.lower().endswith(ARCHIVES):  # a link to nowhere too, which is then said to be unreadable
            suffix = next(s for s in ARCHIVES if path.name.lower().endswith(s))
            table.setdefault(path.name[: -len(suffix)], path)
    return table


def _sequences(source: Path, note: Note) -> list[str]:
    try:
        found = find_sequences(source)
    except (OSError, EOFError, tarfile.TarError) as error:
        note(Doubt(f"{source} cannot be read ({str(error).splitlines()[0].rstrip(':')}); download it again"))
        return ["."]
    if not found:
        note(Doubt(f"{source} holds no images"))
    return found
