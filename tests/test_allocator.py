"""Memory that a step frees is there for the next one, in cells and in what scores checkpoints."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from small_cell import cell

from benchmark import allocator, build, restore
from benchmark.run import run_cell
from benchmark.speed import allocator as speed

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")

PAGES = """
import resource, sys, torch
from benchmark.allocator import keep_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_memory()
faults = []
for _ in range(12):  # it takes some until a gap is large enough for alignment, too
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numbers = torch.ones(16 * 2**20)  # 64 MiB: 16384 pages
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    del numbers
print(faults[-1])
"""


@GLIBC
def test_what_was_freed_is_kept() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", PAGES, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "as it comes")
    }
    assert faults["keep"] < 100
    assert faults["as it comes"] > 10 * faults["keep"] + 20  # huge pages would make few of them, too


def test_other_libraries_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_memory.__wrapped__()


def test_cells_and_what_scores_checkpoints_keep_it(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(build, "keep_memory", lambda: asked.append("cell"))
    monkeypatch.setattr(restore, "keep_memory", lambda: asked.append("scoring"))
    run_cell(cell(protocol={"epochs": 1, "batch_size": 8}), tmp_path / "cell", data)
    assert asked == ["cell"]
    restore.restore(tmp_path / "cell" / "checkpoint.pt")
    assert asked == ["cell", "scoring"]


@GLIBC
def test_two_processes_take_turns_and_come_to_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["allocator", "meso4", "--batch", "4", "--size", "32", "--rounds", "2", "--steps", "1"])
    speed.main()
    head, _, line = capsys.readouterr().out.splitlines()
    assert head.startswith("adam, 4 faces of 32 px, fp32, 1 threads")
    assert line.startswith("meso4")
    assert line.endswith(", the same")
