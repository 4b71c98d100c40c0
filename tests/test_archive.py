"""Archives that nobody should trust: paths that lead out, links, damage, sizes and checksums."""

from __future__ import annotations

import io
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from results.archive import SUMS, pack, unpack
from results.files import RecordError


def raw_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "small/../../evil", "small\\..\\evil", "C:/evil", "evil"])
@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_a_path_out_of_the_folder_is_refused(tmp_path, name, ending):
    path = tmp_path / f"evil.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr(name, b"x")
    else:
        raw_tar(path, (tarfile.TarInfo(name), b"x"))
    with pytest.raises(RecordError, match="leads out of its folder"):
        unpack(path)


def test_links_damage_and_size_are_refused(tmp_path, monkeypatch):
    archive = tmp_path / "small.tar.gz"
    pack(archive, "small", {"grid.json": b"{}" * 500, "README.md": b"# Results"})
    link = tarfile.TarInfo("small/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(RecordError, match="no plain file"):
        unpack(raw_tar(tmp_path / "link.tar.gz", (link, b"")))
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as packed:
        entry = zipfile.ZipInfo("small/link")
        entry.create_system, entry.external_attr = 3, 0o120777 << 16
        packed.writestr(entry, "/etc/passwd")
    with pytest.raises(RecordError, match="no plain file"):
        unpack(tmp_path / "link.zip")
    whole = archive.read_bytes()
    for number, content in enumerate((whole[: len(whole) // 2], b"", b"hello", whole[:200] + b"\0\0\0\0" + whole[204:])):
        broken = tmp_path / f"broken{number}.tar.gz"
        broken.write_bytes(content)
        with pytest.raises(RecordError, match=r"cannot be read as an archive|no archive of|checksum"):
            unpack(broken)
    with pytest.raises(RecordError, match="must end in"):
        unpack(tmp_path / "x.rar")
    with pytest.raises(RecordError, match="does not exist"):
        unpack(tmp_path / "x.zip")
    with pytest.raises(RecordError, match="no archive of `dfgrid export`"):
        unpack(raw_tar(tmp_path / "other.tar.gz", (tarfile.TarInfo("small/a"), b"x")))
    twice = raw_tar(tmp_path / "twice.tar.gz", (tarfile.TarInfo("small/a"), b"x"), (tarfile.TarInfo("small/a"), b"y"))
    with pytest.raises(RecordError, match="twice"):
        unpack(twice)
    monkeypatch.setattr("results.archive.LARGEST", 100)
    with pytest.raises(RecordError, match="larger than an archive of results can be"):
        unpack(archive)


@pytest.mark.parametrize(
    ("kind", "message"), [("changed", "not what its checksum"), ("listed", "not there"), ("more", "is not listed")]
)
def test_checksums_are_checked(tmp_path, kind, message):
    sums = f"{sha256(b'x').hexdigest()}  a\n" + (f"{'0' * 64}  b\n" if kind == "listed" else "")
    members = [("small/a", b"y" if kind == "changed" else b"x"), (f"small/{SUMS}", sums.encode())]
    members += [("small/c", b"z")] * (kind == "more")
    path = raw_tar(tmp_path / "a.tar.gz", *((tarfile.TarInfo(name), content) for name, content in members))
    with pytest.raises(RecordError, match=message):
        unpack(path)
