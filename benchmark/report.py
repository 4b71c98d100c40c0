"""What a report needs of the stores: pictures of faces, counts, and what the data doctor finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path

import PIL.Image

from preprocessing.doctor import check
from preprocessing.errors import PreprocessingError
from preprocessing.overview import overview
from preprocessing.store import FaceStore
from results.record import Record
from results.report import DatasetCheck, ReadGrid, StoreShown, Video
from results.settings import settings_in_words

SIDE = 96
"""Pixels of a face in the report."""


class Faces:
    """Faces of the stores in a folder, as small WebP pictures; a `results.report.FaceSource`.

    Args:
        data: folder that the stores' names are relative to.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self._stores: dict[str, FaceStore | str] = {}
        self._made: dict[tuple[str, str], bytes] = {}

    def __call__(self, record: Record, video: Video) -> Mapping[str, bytes] | str:
        """The faces of a video by their keys, or why there are none."""
        names = [t["store"] for t in record.data.get("tests", []) if t.get("name") == video.test and "store" in t]
        if not names:
            return "the record does not say which store this test set is of"
        name = str(names[0])
        store = self.store(name)
        if isinstance(store, str):
            return store
        if store.fingerprint != record.provenance.stores.get(name):
            return f"store {name} has another content now ({store.fingerprint[:12]}) than when the cell was run"
        try:
            return {key: self._picture(name, store, key) for key in video.keys}
        except PreprocessingError as error:
            return str(error)

    def store(self, name: str) -> FaceStore | str:
        """The store, or why it cannot be opened; without the path, which says nothing on another machine."""
        if name not in self._stores:
            try:
                self._stores[name] = FaceStore(self.data / name)
            except PreprocessingError as error:
                self._stores[name] = str(error).replace(str(self.data / name), name)
        return self._stores[name]

    def _picture(self, name: str, store: FaceStore, key: str) -> bytes:
        if (name, key) not in self._made:
            face = PIL.Image.fromarray(store.image(key)).resize((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
            buffer = BytesIO()
            face.save(buffer, "WEBP", quality=82)
            self._made[name, key] = buffer.getvalue()
        return self._made[name, key]


def stores_shown(grids: Iterable[ReadGrid], faces: Faces | None) -> list[StoreShown]:
    """Every store that a record names, looked into where it can be opened."""
    claimed: dict[str, Counter[str]] = {}
    for read in grids:
        for record in read.index.records.values():
            for name, fingerprint in record.provenance.stores.items():
                claimed.setdefault(name, Counter())[fingerprint] += 1
    return [_shown(name, dict(counts), faces) for name, counts in sorted(claimed.items())]


def _shown(name: str, fingerprints: dict[str, int], faces: Faces | None) -> StoreShown:
    store = "the report was made without a data folder" if faces is None else faces.store(name)
    if isinstance(store, str):
        return StoreShown(name, fingerprints, reason=store)
    try:
        found = overview(store)
    except PreprocessingError as error:
        return StoreShown(name, fingerprints, reason=str(error))
    groups, failures = (
        tuple({str(k): v for k, v in r.items()} for r in t.to_dict("records")) for t in (found.groups, found.failures)
    )
    return StoreShown(name, fingerprints, "", store.fingerprint, groups, failures, settings_in_words(found.settings))


def dataset_checks(folders: Iterable[Path], layout: str, compression: str) -> list[DatasetCheck]:
    """What the data doctor finds in each folder.

    Raises:
        PreprocessingError: a folder that is not there, or whose layout is unknown.
    """
    found = []
    for folder in folders:
        findings = check(folder, layout, compression)
        name = folder.resolve().name
        # A site is published: it says nothing of where this machine keeps its data.
        local = [str(folder.resolve()), str(folder)]
        said = [
            (f.severity, _without(f.sentence, local, name), tuple(_without(e, local, name) for e in f.examples)) for f in findings
        ]
        found.append(DatasetCheck(name, tuple(said)))
    return found


def _without(text: str, paths: Iterable[str], name: str) -> str:
    for path in paths:
        text = text.replace(path, name) if path not in (".", name) else text
    return text
