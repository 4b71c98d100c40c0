"""Archives of results: packed to the same bytes for the same content, unpacked without trusting what is in them.

<grid>/README.md         what it is, protocol, code, fingerprints, how to verify
<grid>/SHA256SUMS        of every other file, as `sha256sum --check` reads it
<grid>/grid.json, <cell>/record.json, <cell>/scores.parquet, ..., tables/...
"""

from __future__ import annotations

import gzip
import io
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path, PurePosixPath

from results.files import RecordError, write_atomically

SUMS = "SHA256SUMS"
SUFFIXES = (".tar.gz", ".tgz", ".zip")
CELL_FILES = ("record.json", "scores.parquet", "diagnostics.parquet")
LARGEST, ALTOGETHER, MOST = 1 << 30, 4 << 30, 100_000
"""Bytes of one file, bytes of all, and number of files, beyond which an archive is refused: nothing that `pack` wrote is near."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold; every file gets it, so that the bytes say nothing of when and where."""


def check_suffix(path: str | Path) -> None:
    """Refuse a file name from whose end the kind of archive cannot be told.

    Raises:
        RecordError: names the endings.
    """
    if not str(path).endswith(SUFFIXES):
        raise RecordError(f"{path} must end in {', '.join(SUFFIXES)}")


def pack(out: str | Path, name: str, files: Mapping[str, bytes]) -> None:
    """Write an archive with a file of checksums; the same content gives the same bytes.

    Args:
        out: file to write; its ending chooses tar or zip.
        name: folder that everything lies in.
        files: path within that folder -> content.

    Raises:
        RecordError: an ending that is not known.
    """
    check_suffix(out)
    sums = "".join(f"{sha256(content).hexdigest()}  {path}\n" for path, content in sorted(files.items()))
    every = sorted({**files, SUMS: sums.encode()}.items())
    buffer = io.BytesIO()
    if str(out).endswith(".zip"):
        with zipfile.ZipFile(buffer, "w") as archive:
            for path, content in every:
                entry = zipfile.ZipInfo(f"{name}/{path}", EPOCH)
                entry.compress_type, entry.create_system, entry.external_attr = (
                    zipfile.ZIP_DEFLATED,
                    3,
                    (stat.S_IFREG | 0o644) << 16,
                )
                archive.writestr(entry, content)
    else:
        # gzip would write the file's name and the time into its header.
        with (
            gzip.GzipFile("", "wb", mtime=0, fileobj=buffer) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for path, content in every:
                member = tarfile.TarInfo(f"{name}/{path}")
                member.size, member.mode = len(content), 0o644
                tar.addfile(member, io.BytesIO(content))
    write_atomically(out, buffer.getvalue())


def unpack(path: str | Path) -> dict[str, bytes]:
    """The files of an archive by their paths in its folder, after all of these checks; nothing is written to disk.

    Raises:
        RecordError: no archive, not one that `dfgrid export` wrote, a path that leads out of it, a link, sizes beyond `LARGEST`,
            `ALTOGETHER` or `MOST`, a missing, unlisted or changed file. The sentence names the first that is wrong.
    """
    path = Path(path)
    check_suffix(path)
    if not path.is_file():
        raise RecordError(f"{path} does not exist")
    found: dict[str, bytes] = {}
    folders: set[str] = set()
    try:
        for name, content in _zipped(path) if path.suffix == ".zip" else _tarred(path):
            folder, inner = _split(path, name)
            if inner in found:
                raise RecordError(f"{path} holds {name} twice; ask for it again")
            folders.add(folder)
            found[inner] = content
    except (
        OSError,
        EOFError,
        tarfile.TarError,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        ValueError,
        zlib.error,
    ) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path} cannot be read as an archive ({error}); ask for it again") from error
    if len(folders) != 1 or SUMS not in found:
        raise RecordError(f"{path} is no archive of `dfgrid export`: it has no {SUMS} in a single folder")
    _check_sums(path, found)
    return found


def _split(archive: Path, name: str) -> tuple[str, str]:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or ":" in name or "\0" in name or ".." in parts or len(parts) < 2:
        raise RecordError(f"{archive} holds the path '{name}', which leads out of its folder; it is not imported")
    return parts[0], "/".join(parts[1:])


class _Budget:
    """Refuses what is too much, by what really comes out: a header may lie."""

    def __init__(self, archive: Path) -> None:
        self.archive, self.bytes, self.files = archive, 0, 0

    def read(self, file: object, name: str) -> bytes:
        self.files += 1
        content: bytes = file.read(LARGEST + 1)  # type: ignore[attr-defined]
        self.bytes += len(content)
        if len(content) > LARGEST or self.bytes > ALTOGETHER or self.files > MOST:
            raise RecordError(f"{self.archive} is larger than an archive of results can be (at {name}); it is not imported")
        return content


def _tarred(path: Path) -> Iterator[tuple[str, bytes]]:
    budget = _Budget(path)
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isreg():
                raise RecordError(f"{path} holds '{member.name}', which is no plain file; it is not imported")
            file = archive.extractfile(member)
            assert file is not None
            yield member.name, budget.read(file, member.name)


def _zipped(path: Path) -> Iterator[tuple[str, bytes]]:
    budget = _Budget(path)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise RecordError(f"{path} holds '{entry.filename}', which is no plain file; it is not imported")
            with archive.open(entry) as file:
                yield entry.filename, budget.read(file, entry.filename)


def _check_sums(path: Path, files: Mapping[str, bytes]) -> None:
    claimed: dict[str, str] = {}
    for line in files[SUMS].decode("utf-8", "replace").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if match is None:
            raise RecordError(f"{path}: {SUMS} has the line '{line[:80]}', which is no checksum; ask for the archive again")
        claimed[match[2]] = match[1]
    for name in sorted({*claimed, *files} - {SUMS}):
        if name not in files:
            raise RecordError(f"{path}: {name} is listed in {SUMS} but not there; ask for the archive again")
        if name not in claimed:
            raise RecordError(f"{path}: {name} is not listed in {SUMS}; ask for the archive again")
        if sha256(files[name]).hexdigest() != claimed[name]:
            raise RecordError(f"{path}: {name} is not what its checksum in {SUMS} says; ask for the archive again")
