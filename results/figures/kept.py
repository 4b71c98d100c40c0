"""Which figures lie in a folder and what they were drawn from: what has not changed is not drawn again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import Field

from results.files import FORMAT, RecordError, dump, file_sum, read_model, write_atomically
from results.index import GridIndex
from results.record import Strict

FILE = "figures.json"
ENDINGS = ("png", "pdf")
READ = ("scores.parquet", "diagnostics.parquet", "probes/*")
"""What figures and audits read of a cell beside its record."""


class Entry(Strict):
    """A figure: NAME.png and NAME.pdf.

    Attributes:
        name: of both files, without an ending.
        family: key of `FIGURES`, or what else drew it, such as "gradcam".
        part: of the grid; empty where it has one.
        caption: what is drawn, under which protocol, from which checkpoints and seeds.
        words: the figure for those who cannot see it.
        sums: ending -> SHA-256 of the file.
    """

    name: str = Field(pattern=r"^[^/\\]+$")
    family: str
    part: str = ""
    caption: str
    words: str = ""
    sums: dict[str, str]

    def intact(self, folder: Path) -> bool:
        """Whether both files are there as they were written."""
        files = {ending: folder / f"{self.name}.{ending}" for ending in ENDINGS}
        return all(f.is_file() and file_sum(f) == self.sums.get(ending) for ending, f in files.items())


class Family(Strict):
    """What was drawn at once: `drawn_from` is a hash over everything that the figures follow from."""

    drawn_from: str
    figures: tuple[Entry, ...] = ()


class Kept(Strict):
    """Content of figures.json: "PART/FAMILY" -> what was drawn, also where that was nothing."""

    format: Literal[1] = FORMAT
    families: dict[str, Family] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Kept:
        """What the folder says; nothing where it cannot be read, and then everything is drawn again."""
        try:
            kept: Kept = read_model(cls, folder / FILE, "list of figures", "draw them again")
        except RecordError:
            return cls()
        return kept

    def unchanged(self, key: str, drawn_from: str, folder: Path) -> Family | None:
        """The family, if it was drawn from the same and all of its files are as they were written."""
        found = self.families.get(key)
        return found if found and found.drawn_from == drawn_from and all(f.intact(folder) for f in found.figures) else None

    def names(self, but: Iterable[str]) -> set[str]:
        """Names of all figures but those of some families: taken, for these."""
        others = self.families.keys() - set(but)
        return {f.name for key in others for f in self.families[key].figures}

    def replaced(self, folder: Path, families: Mapping[str, Family]) -> Kept:
        """With new families written over old ones of the same keys; files that no family holds any more are deleted."""
        now = self.model_copy(update={"families": {**self.families, **families}})
        names = {f.name for family in now.families.values() for f in family.figures}
        gone = {f.name for family in self.families.values() for f in family.figures} - names
        for file in (f"{name}.{ending}" for name in gone for ending in ENDINGS):
            (folder / file).unlink(missing_ok=True)
        write_atomically(folder / FILE, dump(now))
        return now


def digest(part: GridIndex, *more: object) -> str:
    """SHA-256 over what figures (or an audit) of a grid's part follow from: records, files of cells, our code, and `more`.

    Args:
        part: read from a folder.
        more: such as the selection rule and the seed.
    """
    assert part.folder is not None
    found: list[object] = [code(), *more, part.grid.model_dump(mode="json")]
    for id_, record in part.records.items():
        files = [f for pattern in READ for f in sorted((part.folder / id_).glob(pattern)) if f.is_file()]
        found += [id_, sha256(dump(record)).hexdigest(), *((f.name, file_sum(f)) for f in files)]
    return sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()


def picture_digest(part: GridIndex) -> str:
    """SHA-256 over a part's records: pictures of weights and faces that were drawn beside others are not shown beside these."""
    found = {id_: sha256(dump(record)).hexdigest() for id_, record in part.records.items()}
    return sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


@cache
def code() -> str:
    """Of the sources and reported numbers of `results` but its pages, and of the libraries that decide how a figure looks."""
    room = Path(__file__).parents[1]
    sources = [f for f in sorted(room.rglob("*.*")) if f.suffix in (".py", ".csv") and room / "report" not in f.parents]
    libraries = [f"{name} {version(name)}" for name in ("matplotlib", "numpy", "pandas", "scikit-learn", "scipy")]
    return sha256(b"".join([*(f.read_bytes() for f in sources), *map(str.encode, libraries)])).hexdigest()
