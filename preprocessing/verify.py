"""Whether a store still holds what was put into it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import zip_longest

import pandas as pd

from preprocessing import codec
from preprocessing.errors import PreprocessingError
from preprocessing.store import FACES, MANIFEST, TABLES, FaceStore, face_key, fingerprint, table_rows, video_key
from preprocessing.writer import count


def problems(store: FaceStore, on_progress: Callable[[int, int], None] | None = None) -> Iterator[str]:
    """One sentence per problem of a store: a face that does not decode or has changed, tables or fingerprint that do not fit."""
    unsound = _unsound(store)
    if unsound:
        yield unsound
        return
    try:
        counts, done = count(store.records()), 0
    except (ValueError, KeyError) as error:
        yield f"the list of videos cannot be read: {error}"
        return
    for record in store.records():
        for frame, status, _, digest in record["frames"]:
            if status == "face":
                done += 1
                yield from _face(store, face_key(video_key(record), frame), digest)
        if on_progress is not None:
            on_progress(done, counts["faces"])
    if fingerprint(store.info["settings"], store.records()) != store.fingerprint:
        yield f"the fingerprint of the content is not the one in store.json ({store.fingerprint[:12]})"
    if counts != store.info["counts"]:
        yield "the counts in store.json are not those of the content"
    yield from _tables(store)


def _unsound(store: FaceStore) -> str | None:
    """Why LMDB cannot read the file, tried in a process of its own: of a page that was lost LMDB makes the end of the process."""
    file = os.path.realpath(store.path / FACES)
    code = "import sys; from preprocessing.pages import walk; walk(sys.argv[1])"
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    done = subprocess.run([sys.executable, "-c", code, file], env=found, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"{store.path / FACES} is damaged: pages that lead to its faces are lost"
    said = (done.stderr.strip().splitlines() or ["it cannot be read"])[-1].split(": ", 1)[-1]
    return said if file in said else f"{store.path / FACES} is damaged: {said}"


def _face(store: FaceStore, key: str, digest: str) -> Iterator[str]:
    try:
        content = codec.digest(store.image(key), store.landmarks(key), store.mask(key))
    except (PreprocessingError, ValueError, EOFError) as error:
        yield f"{key}: image, landmarks or mask cannot be read: {str(error).split('; ')[0]}"
        return
    if content != digest:
        yield f"{key}: image, landmarks or mask have changed since they were written"


def _tables(store: FaceStore) -> Iterator[str]:
    for file, columns in TABLES.items():
        try:
            table: pd.DataFrame = store.manifest if file == MANIFEST else store.ledger
        except PreprocessingError as error:
            yield str(error)
            continue
        expected = (row for record in store.records() for row in table_rows(record, columns))
        found = table.itertuples(index=False, name=None)
        if list(table.columns) != columns or any(a != b for a, b in zip_longest(found, expected)):
            yield f"{file} does not list what the store holds"
