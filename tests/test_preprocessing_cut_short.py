"""A video of which the download broke off: it is named, looked for, and read again once it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from preprocessing_material import SMALL, Squares, clip, encode, frame
from test_cli import Dfgrid, dfgrid
from test_preprocessing_datasets import wild
from test_preprocessing_doctor import said

from preprocessing.doctor import check
from preprocessing.layouts import read_layout
from preprocessing.pipeline import Settings, preprocess
from preprocessing.probe import probe
from preprocessing.store import FaceStore

__all__ = ["dfgrid"]

MODES = [SMALL, Settings(frames=4, size=64, switches={"frame_count": "header", "after_damage": "stop"})]


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """`set/real/cut.mp4`, of which the second half is missing, beside two whole ones; the bytes of the whole file."""
    path = encode(tmp_path / "set/real/cut.mp4", [frame(n) for n in range(24)], header_first=True, g="1", preset="ultrafast")
    clip(tmp_path / "set/real/good.mp4", 24, tint=9)
    clip(tmp_path / "set/fake/swap/good.mp4", 24, tint=20)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return data


@pytest.mark.parametrize("settings", MODES, ids=["strict", "as OpenCV"])
def test_it_is_named_and_read_again(settings: Settings, whole: bytes, tmp_path: Path) -> None:
    found = read_layout(tmp_path / "set", "folder", name="toy")
    cut = preprocess(found, tmp_path / "store", settings, detector=Squares())
    lost = cut.counts["frames"]["unreadable"]
    assert 0 < lost < 4
    ((key, words),) = cut.warnings
    with FaceStore(tmp_path / "store") as store:
        first = store.ledger.loc[store.ledger["status"] == "unreadable", "frame"].min()
    assert (key, words) == ("toy/none/real/cut", f"{lost} of 4 frames are unreadable, the first is frame {first}")

    (tmp_path / "set/real/cut.mp4").write_bytes(whole)
    assert preprocess(found, tmp_path / "store", settings, detector=Squares()).finished_before
    repaired = preprocess(found, tmp_path / "store", settings, detector=Squares(), retry=True)
    assert (repaired.processed, repaired.skipped, repaired.warnings) == (1, 2, [])
    assert repaired.fingerprint == preprocess(found, tmp_path / "fresh", settings, detector=Squares()).fingerprint
    assert preprocess(found, tmp_path / "store", settings, detector=Squares(), retry=True).finished_before


def test_a_frame_without_a_face_is_not_read_again(tmp_path: Path) -> None:
    clip(tmp_path / "real/a.mp4", face=lambda n: n > 5)
    clip(tmp_path / "fake/x/b.mp4")
    found = read_layout(tmp_path, "folder", name="toy")
    assert preprocess(found, tmp_path / "store", SMALL, detector=Squares()).warnings == []
    assert preprocess(found, tmp_path / "store", SMALL, detector=Squares(), retry=True).finished_before


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    root = wild(tmp_path / "wild")
    (root / "real_train/5/real/0/3.png").write_bytes(b"x")
    summary = preprocess(read_layout(root, "wilddeepfake"), tmp_path / "store", SMALL, detector=Squares())
    assert [words for _, words in summary.warnings if "unreadable" in words] == [
        "1 of 4 frames are unreadable, the first is frame 3"
    ]


def test_the_doctor_finds_it(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "set/real/cut.mp4"
    found = said(check(tmp_path / "set", "folder"), "error", "1 of 3 files are cut short: the frames beyond their end are missing")
    assert found.examples[0].startswith(f"real/cut.mp4: ends after {len(whole) // 2} of ")
    promised = int(found.examples[0].split(" of ")[1].split()[0])
    assert len(whole) - 8 <= promised <= len(whole), "the last frame is the file's last part"
    assert probe(path).frames == 24, "the estimate counts what the sampling counts"
    path.write_bytes(whole)
    assert {f.severity for f in check(tmp_path / "set", "folder")} == {"note"}


def test_the_command_line_names_it(whole: bytes, dfgrid: Dfgrid, tmp_path: Path) -> None:
    code, out, err = dfgrid("preprocess", "set", "--layout", "folder", "--check")
    assert code == 1, err
    assert "real/cut.mp4: ends after" in out
    code, _, err = dfgrid("preprocess", "set", "--layout", "folder", "--frames", 2, "--out", "s")
    assert code == 0, err
    assert "warning set/none/real/cut: 1 of 2 frames are unreadable, the first is frame 23" in err
