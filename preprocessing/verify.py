"""Whether a store still holds what was put into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pandas as pd

from preprocessing import codec
from preprocessing.errors import PreprocessingError
from preprocessing.store import FaceStore, Record, face_key, fingerprint, video_key
from preprocessing.writer import count, ledger_table, manifest_table


def problems(store: FaceStore, on_progress: Callable[[int, int], None] | None = None) -> Iterator[str]:
    """One sentence per problem of a store: a face that does not decode or has changed, tables or fingerprint that do not fit."""
    records = list(store.records())
    total, done = count(records)["faces"], 0
    for record in records:
        for frame, status, _, digest in record["frames"]:
            if status == "face":
                done += 1
                yield from _face(store, face_key(video_key(record), frame), digest)
        if on_progress is not None:
            on_progress(done, total)
    if fingerprint(store.info["settings"], records) != store.fingerprint:
        yield f"the fingerprint of the content is not the one in store.json ({store.fingerprint[:12]})"
    if count(records) != store.info["counts"]:
        yield "the counts in store.json are not those of the content"
    yield from _tables(store, records)


def _face(store: FaceStore, key: str, digest: str) -> Iterator[str]:
    try:
        content = codec.digest(store.image(key), store.landmarks(key), store.mask(key))
    except (PreprocessingError, ValueError, EOFError) as error:
        yield f"{key}: {error}"
        return
    if content != digest:
        yield f"{key}: image, landmarks or mask have changed since they were written"


def _tables(store: FaceStore, records: list[Record]) -> Iterator[str]:
    for name, table, expected in (("manifest", "manifest", manifest_table(records)), ("ledger", "ledger", ledger_table(records))):
        try:
            found: pd.DataFrame = getattr(store, table)
        except PreprocessingError as error:
            yield str(error)
            continue
        columns = list(expected.columns)
        rows = Counter(map(tuple, expected.astype(str).to_numpy().tolist()))
        if list(found.columns) != columns or Counter(map(tuple, found.astype(str).to_numpy().tolist())) != rows:
            yield f"{name}.parquet does not list what the store holds"
