"""Whether an LMDB file has all its pages, and LMDB finds its way through them."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb

from preprocessing.errors import PreprocessingError


def check_length(file: str | Path, env: lmdb.Environment) -> None:
    """Refuse a file that was cut short, as by a copy that broke off: reading its missing part would end the process.

    Raises:
        PreprocessingError: naming the lengths.
    """
    there, wanted = os.path.getsize(file), _bytes_used(env)
    if there < wanted:
        raise PreprocessingError(f"{file} is cut short: {there} of {wanted} bytes; copy it again, or preprocess anew")


def fill_up(file: str | Path, env: lmdb.Environment) -> None:
    """Bring the file of an unfinished store to its full length: LMDB may leave free pages at its end unwritten."""
    if os.path.getsize(file) < _bytes_used(env):
        os.truncate(file, _bytes_used(env))


def _bytes_used(env: lmdb.Environment) -> int:
    return (int(env.info()["last_pgno"]) + 1) * int(env.stat()["psize"])


def walk(file: str) -> None:
    """Visit every page of an LMDB file that leads to a value; best in a process of its own, since it may be ended.

    Raises:
        PreprocessingError: if the file is cut short.
        lmdb.Error: if LMDB notices damage. Of some damage it makes the end of the process.
    """
    with lmdb.open(file, subdir=False, readonly=True, lock=False, readahead=False, max_dbs=16) as env:
        check_length(file, env)
        with env.begin() as transaction:
            names = [bytes(name) for name, _ in transaction.cursor()]
        for name in names:
            with env.begin(db=env.open_db(name, create=False), buffers=True) as transaction:
                for _, value in transaction.cursor():
                    bytes(value[:1])
