"""Checkpoints: written atomically, loaded as plain tensors, enough to go on to the bit."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmark.config import ConfigError

FORMAT = 1


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` so that a kill at any moment leaves the old file or the new one, whole."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save({"format": FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Code in the file is never run (`weights_only`).

    Raises:
        ConfigError: missing, not a checkpoint of ours, or of another format version.
    """
    if not path.is_file():
        raise ConfigError(f"checkpoint {path} " + ("is a folder" if path.is_dir() else "does not exist"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are then refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler ends in a KeyError, an IndexError, ... according to the first bytes that it meets
        # torch's own words advise to load it unsafely.
        raise ConfigError(f"{path} is no checkpoint: it is damaged, of another kind, or holds code, which is never run") from error
    if not isinstance(content, dict) or "format" not in content:
        raise ConfigError(f"{path} is no checkpoint of dfgrid (it lacks the key 'format')")
    if content["format"] != FORMAT:
        raise ConfigError(f"{path} has checkpoint format {content['format']}, this dfgrid reads {FORMAT}; train the cell again")
    return content
