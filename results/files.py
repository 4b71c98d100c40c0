"""JSON files of results: written whole or not at all, read with one sentence about what is wrong."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

FORMAT: Literal[1] = 1
"""Version of the layout of record.json and grid.json. A reader refuses any other."""


class RecordError(ValueError):
    """A user's mistake about results: one sentence that names the file or the value and says what to do."""


def file_sum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def dump(model: BaseModel) -> bytes:
    """A model as JSON that a person can read."""
    return (json.dumps(model.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that it holds all of `content` or does not exist (or is still the old one), whatever happens in between."""
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as error:
        if error.errno is not None:  # one with words of its own would lose them
            error.filename = error.filename or str(path)  # a full disk does not say whose
        raise
    finally:
        scratch.unlink(missing_ok=True)
    if os.name == "posix":
        # The new name is safe only once the folder itself is on disk.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_model(model: type[Any], path: str | Path, what: str, remedy: str) -> Any:
    """A JSON file of `FORMAT` as a pydantic model.

    Args:
        model: what to read.
        path: the file.
        what: how messages call its content, such as "record".
        remedy: what a user does about a broken file, such as "run the cell again".

    Raises:
        RecordError: missing, unreadable, no JSON, another format version, or wrong fields; one sentence.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"{path} does not exist; {remedy}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read ({error}); {remedy}") from error
    except json.JSONDecodeError as error:
        raise RecordError(f"{path} is no valid JSON (line {error.lineno}: {error.msg}); delete it and {remedy}") from error
    if not isinstance(content, dict) or "format" not in content:
        raise RecordError(f"{path} is no {what}: it has no key 'format'; delete it and {remedy}")
    if content["format"] != FORMAT:
        raise RecordError(
            f"{path} holds a {what} of format {content['format']!r}, but this version reads format {FORMAT}; "
            f"use the version that wrote it, or delete it and {remedy}"
        )
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        complaint = first["msg"].removeprefix("Value error, ")
        raise RecordError(f"{path} is no {what} of format {FORMAT} ({where}: {complaint}); delete it and {remedy}") from error
