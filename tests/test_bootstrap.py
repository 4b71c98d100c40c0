"""The first file that a newcomer runs, under whatever python3 there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FULL = """
import importlib.util, runpy, shutil, types, venv
importlib.util.find_spec = lambda name: name  # ensurepip, which a bare Debian lacks
shutil.disk_usage = lambda folder: types.SimpleNamespace(free={free})
venv.create = lambda target, **how: print("created", target)
runpy.run_path("bootstrap.py", run_name="__main__")
"""


def bootstrap(target: Path | str, free: float = 1e12) -> subprocess.CompletedProcess[str]:
    """Run it with that much room on the disk, as far as it can see, and no environment made."""
    command = [sys.executable, "-c", FULL.format(free=free), str(target)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_disk_too_small_for_torch_is_told_before_it_is_full(tmp_path: Path) -> None:
    done = bootstrap(tmp_path / ".venv", free=4.3e9)
    assert done.returncode == 0
    assert done.stdout == f"created {tmp_path / '.venv'}\n"  # pip may well be told to take a smaller torch
    assert done.stderr.startswith(f"{tmp_path} has 4.3 GB free and the environment takes about 7.5 GB")
    assert done.stderr.count("\n") == 1
    assert bootstrap(tmp_path / ".venv").stderr == ""


def test_only_an_environment_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    done = bootstrap(tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path} is there and is no virtual environment; remove or rename it\n"
    assert (tmp_path / "mine").read_text() == "kept"

    (tmp_path / "pyvenv.cfg").write_text("half of one")
    assert bootstrap(tmp_path).returncode == 0
    assert not tmp_path.exists()  # the run before did not finish it
