"""Checkpoints: written atomically, loaded as plain tensors, enough to go on to the bit.

Two are kept, the last (checkpoint.pt) and the one before it (checkpoint.previous.pt), so a cell takes twice the disk space of one:
what a power cut or a bad disk does to the last costs the work between the two.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmark.config import ConfigError

FORMAT = 1
LAST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


class Damaged(ConfigError):
    """A file that is no whole checkpoint."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` so that a kill at any moment leaves the old file or the new one, whole; the old one stays as `PREVIOUS`."""
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)  # what is of no use must not fill the disk
        if isinstance(error.__context__, OSError):  # torch has an error of its own for a write that failed
            raise error.__context__ from error
        raise
    _keep(path)
    part.replace(path)
    _flush_names(path.parent)


def _keep(path: Path) -> None:
    """Give the file of `path` its second name; `path` itself stays there where the file system knows hard links."""
    if not path.exists():
        return
    previous, scratch = path.with_name(PREVIOUS), path.with_name(f".{PREVIOUS}.tmp")
    scratch.unlink(missing_ok=True)
    try:
        os.link(path, scratch)
    except OSError:
        path.replace(previous)
    else:
        scratch.replace(previous)


def _flush_names(folder: Path) -> None:
    """A new name is safe only once the folder itself is on disk."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


class Kept(NamedTuple):
    """A checkpoint that is whole; `torn` is a sentence where the one after it is not."""

    path: Path
    content: dict[str, Any]
    torn: str | None


def latest(folder: Path) -> Kept | None:
    """The last checkpoint of a cell's folder that is whole; None where there is none at all.

    Raises:
        Damaged: there are files, but none is whole.
        ConfigError: the whole one is of another format version.
    """
    there = [path for path in (folder / LAST, folder / PREVIOUS) if path.exists()]
    for path in there:
        try:
            content = load(path)
        except Damaged:
            continue
        if path == there[0]:
            return Kept(path, content, None)
        return Kept(path, content, f"{LAST} is damaged; going on from step {content.get('step')} in {PREVIOUS}, the one before it")
    if there:
        names = " and ".join(path.name for path in there)
        raise Damaged(
            f"{names} in {folder} cannot be read, so there is nothing to go on from; delete {folder}: the cell begins anew"
        )
    return None


def remove(folder: Path) -> None:
    """Forget a cell's checkpoints, of which nothing can be made any more."""
    for name in (LAST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Code in the file is never run (`weights_only`).

    Raises:
        ConfigError: missing, or of another format version.
        Damaged: not a whole checkpoint of ours; every part's checksum is looked at.
    """
    if not path.is_file():
        raise ConfigError(f"checkpoint {path} " + ("is a folder" if path.is_dir() else "does not exist"))
    try:
        # torch itself passes over a part whose checksum is wrong.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as parts:
                torn = parts.testzip()
            if torn is not None:
                raise zipfile.BadZipFile(torn)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are then refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler ends in a KeyError, an IndexError, ... according to the first bytes that it meets
        # torch's own words advise to load it unsafely.
        raise Damaged(f"{path} is no checkpoint: it is damaged, of another kind, or holds code, which is never run") from error
    if not isinstance(content, dict) or "format" not in content:
        raise Damaged(f"{path} is no checkpoint of dfgrid (it lacks the key 'format')")
    if content["format"] != FORMAT:
        raise ConfigError(f"{path} has checkpoint format {content['format']}, this dfgrid reads {FORMAT}; train the cell again")
    return content
