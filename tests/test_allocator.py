"""Memory that a step frees is there for the next one, in cells and in what scores checkpoints."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_cell import cell

from benchmark import allocator, build, restore
from benchmark.launch import STOPPED
from benchmark.pool import run_one
from benchmark.run import run_cell
from benchmark.speed import allocator as speed
from benchmark.train import Stopped

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")

PAGES = """
import ctypes, resource, sys
from benchmark.allocator import give_back, keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
for turn in range(4):
    if turn == 3:
        give_back()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(64 * 2**20)  # 16384 pages, or 32 huge ones
    libc.memset(block, 1, 64 * 2**20)
    libc.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@GLIBC
def test_what_was_freed_is_kept_until_it_is_given_back() -> None:
    faults = {}
    for how in ("keep", "as it comes"):
        said = subprocess.run([sys.executable, "-c", PAGES, how], capture_output=True, text=True, check=True).stdout
        faults[how] = [int(line) for line in said.split()]
    first, again, once_more, after = faults["keep"]
    assert max(again, once_more) + 20 < min(first, after, *faults["as it comes"])


def test_other_libraries_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = allocator.keep_memory.__wrapped__  # which is asked once in a process
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not ask()
    allocator.give_back()
    asked: list[tuple[int, int]] = []

    def refuses(parameter: int, value: int) -> int:
        asked.append((parameter, value))
        return int(parameter != allocator.TOP_PAD)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=refuses))
    assert not ask()
    assert asked == list(allocator.KEEP.items())


def test_a_gpus_memory_is_given_back_between_cells(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once what the cell held is gone, cycles too; and a GPU that answers nothing any more leaves the cell's own reason."""
    held: list[weakref.ref[object]] = []
    left: list[int] = []
    base = torch.optim.Adam.__init__

    def followed(self: torch.optim.Adam, *args: object, **settings: object) -> None:
        base(self, *args, **settings)
        self.cycle = self
        held.append(weakref.ref(self))

    def empty() -> None:
        left.append(sum(ref() is not None for ref in held))
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.optim.Adam, "__init__", followed)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: bool(held))
    monkeypatch.setattr(torch.cuda, "empty_cache", empty)
    short = cell(protocol={"epochs": 1, "batch_size": 8}, optimizers=["adam"])
    with monkeypatch.context() as patch:
        patch.setattr("benchmark.run.train", stop)
        reason = run_one(short, tmp_path / "cell", data, "cpu", 1, lambda stage, done, total: None, lambda: False, print)
    assert reason == STOPPED
    assert held
    assert left == [0]


def stop(*args: object) -> None:
    raise Stopped


def test_cells_and_what_scores_checkpoints_keep_it(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(build, "keep_memory", lambda device: asked.append("cell"))
    monkeypatch.setattr(restore, "keep_memory", lambda device: asked.append("scoring"))
    run_cell(cell(protocol={"epochs": 1, "batch_size": 8}), tmp_path / "cell", data)
    assert asked == ["cell"]
    restore.restore(tmp_path / "cell" / "checkpoint.pt")
    assert asked == ["cell", "scoring"]


@GLIBC
def test_two_processes_take_turns_and_come_to_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["allocator", "--detectors", "meso4", "--batch", "4", "--size", "32", "--rounds", "2", "--steps", "1"]
    )
    speed.main()
    head, _, line = capsys.readouterr().out.splitlines()
    assert head.startswith("adam, 4 faces of 32 px, fp32, 1 threads")
    assert line.startswith("meso4")
    assert line.endswith(" MB; the same")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(["--rounds", "0"], "1 at least"), (["--batch", "6"], "multiple of 4"), (["--detectors", "x"], "invalid choice")],
)
def test_wrong_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: list[str], said: str) -> None:
    monkeypatch.setattr(sys, "argv", ["allocator", *wrong])
    with pytest.raises(SystemExit):
        speed.main()
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_library_without_the_switch_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["allocator"])
    monkeypatch.setattr(speed, "keep_memory", lambda: False)
    with pytest.raises(SystemExit):
        speed.main()
    assert "glibc" in capsys.readouterr().err
