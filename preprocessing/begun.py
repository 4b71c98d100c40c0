"""Videos of which a store has parts only: they are marked, so that they can be found and dropped, faces and all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import lmdb

BEGUN = b"begun:"
"""Begins the mark of a video, in the database "meta"; its key follows."""
DROPPED = 1000
"""Faces dropped in one transaction."""
KINDS = ("images", "landmarks", "masks")


def mark(key: str) -> bytes:
    """The mark of a video."""
    return BEGUN + key.encode()


def marked(transaction: lmdb.Transaction, databases: dict[str, Any]) -> list[str]:
    """The videos of which parts only are there."""
    found = (bytes(name) for name in transaction.cursor(db=databases["meta"]).iternext(values=False))
    return [name[len(BEGUN) :].decode() for name in found if name.startswith(BEGUN)]


def is_there(transaction: lmdb.Transaction, databases: dict[str, Any], key: str) -> bool:
    """Whether a store has a video or parts of it."""
    return any(transaction.get(name, db=databases[at]) is not None for at, name in (("videos", key.encode()), ("meta", mark(key))))


def drop_some(transaction: lmdb.Transaction, databases: dict[str, Any], key: str) -> bool:
    """One step of dropping a video: its record, and some of its faces; whether there were any.

    The first step marks it and takes the record away, so that no record is ever without its faces; the last takes the mark away.
    """
    transaction.put(mark(key), b"", db=databases["meta"])
    transaction.delete(key.encode(), db=databases["videos"])
    dropped = False
    for kind in KINDS:
        for name in list(islice(face_keys(transaction, databases[kind], key), DROPPED)):
            dropped |= transaction.delete(name, db=databases[kind])
    if not dropped:
        transaction.delete(mark(key), db=databases["meta"])
    return dropped


def face_keys(transaction: lmdb.Transaction, database: Any, key: str) -> Iterator[bytes]:
    """The keys of a video's faces. Another video's key may go on where this one's ends ("monday" and "monday/000")."""
    start = f"{key}/".encode()
    cursor = transaction.cursor(db=database)
    there = cursor.set_range(start)
    while there and bytes(cursor.key()).startswith(start):
        name = bytes(cursor.key())
        folder, below, _ = name[len(start) :].partition(b"/")
        if below:
            there = cursor.set_range(start + folder + b"0")  # behind everything in that folder: 0 follows the slash
        else:
            yield name
            there = cursor.next()
