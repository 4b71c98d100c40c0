"""What several test files share: a small drawn dataset that went the real road into stores, made once per test run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

# The width of what commands print is settled when their console is first imported; no test may be the one to settle it.
os.environ["COLUMNS"] = "200"
from in_process import command

from detectors import DETECTORS
from optimizers import OPTIMIZERS

torch.set_num_threads(1)

IDENTITIES, FRAMES = 12, 2
"""Drawn people of the small dataset, and frames in each of their videos."""


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep what the tests wrote only where one failed.

    At the end, and not test by test: LMDB takes a new file for one that is open, where it has the number of an open one's lock file
    that was deleted.
    """
    made: Any = session.config._tmp_path_factory  # type: ignore[attr-defined]
    ours = made._given_basetemp is None and made._basetemp is not None  # xdist's workers are given theirs
    if exitstatus == 0 and ours:
        shutil.rmtree(made._basetemp, ignore_errors=True)


@pytest.fixture(autouse=True)
def registries_as_found() -> Iterator[None]:
    """Forget what a test registers and the plug-ins that it loads: other tests try every name, and may load the same file again.

    What a test file loads where it is imported stays, as its parameters are made of it.
    """
    for table in (DETECTORS, OPTIMIZERS):
        table.names()  # adds those of installed packages, which it does once
    specs = {table: dict(table._specs) for table in (DETECTORS, OPTIMIZERS)}
    loaded = _plugins()
    yield
    for table, found in specs.items():
        table._specs = found
    for name in _plugins() - loaded:
        del sys.modules[name]


def _plugins() -> set[str]:
    return {name for name in sys.modules if name.startswith("dfgrid_plugin_")}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with `mini-a` (videos) and `stores/mini-a`, `stores/mini-b`; test processes share it: do not write to it.

    Faces of 32 px are decoded: a test that counts how often a cell asks whether to stop finds the same in any order of the tests.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "data"
    with FileLock(shared / "data.lock"):
        if not (folder / "ready").exists():
            _make(folder)
            (folder / "ready").touch()
    return folder


def _make(folder: Path) -> None:
    from benchmark.decoded import CachedImages
    from preprocessing.layouts import read_layout
    from preprocessing.pipeline import Settings, preprocess
    from preprocessing.store import FaceStore
    from preprocessing.synthetic import draw_dataset

    for style, identities, layout in (("mini-a", IDENTITIES, "faceforensics++"), ("mini-b", 6, "celeb-df-v2")):
        draw_dataset(folder / style, style=style, identities=identities, frames=FRAMES, seed=3)
        preprocess(read_layout(folder / style, layout=layout, name=style), folder / "stores" / style, Settings(frames=FRAMES))
        CachedImages(FaceStore(folder / "stores" / style), 32)


@pytest.fixture
def dfgrid(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a command in this process, in a folder of the test's own, and gives its exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: object) -> tuple[int, str]:
        code, out, err = command(capsys, monkeypatch, *args)
        return code, out + err

    return run
