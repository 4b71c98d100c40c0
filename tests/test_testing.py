"""The test pass: no test store is opened before training is over, and what happens to it then costs no training."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_run import assert_same, cell

from benchmark import checkpoint
from benchmark.config import ConfigError
from benchmark.run import run_cell
from benchmark.train import Stopped
from preprocessing.store import FACES, INFO, LEDGER, FaceStore
from results.record import Measure, Record
from results.scores import load_scores
from results.selection import source_val_step

SHORT = {"protocol": {"epochs": 2, "batch_size": 16}}


@pytest.fixture(scope="module")
def own(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose test store mini-b may be broken; mini-a is the shared one."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "stores").mkdir()
    os.symlink(data / "stores" / "mini-a", folder / "stores" / "mini-a")
    shutil.copytree(data / "stores" / "mini-b", folder / "stores" / "mini-b")
    return folder


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "cell"
    run_cell(cell(**SHORT), folder, data)
    return folder


def no_store(store: Path) -> None:
    (store / INFO).rename(store / "hidden")


def no_faces(store: Path) -> None:
    shutil.rmtree(store / "cache", ignore_errors=True)
    (store / FACES).rename(store / "hidden")
    (store / FACES).write_bytes(b"garbage")


@pytest.mark.parametrize(("damage", "hidden"), [(no_store, INFO), (no_faces, FACES)])
def test_training_and_selection_end_without_the_test_stores(
    own: Path, finished: Path, tmp_path: Path, damage: Callable[[Path], None], hidden: str
) -> None:
    """Unreadable test stores: training ends, validation selects; the same command goes on once they are back, to the same bits."""
    store, folder = own / "stores" / "mini-b", tmp_path / "cell"
    damage(store)
    try:
        with pytest.raises(ConfigError, match=r"test store stores/mini-b cannot be read, .* the training is done and kept;"):
            run_cell(cell(**SHORT), folder, own)
    finally:
        (store / "hidden").replace(store / hidden)
    assert not (folder / "record.json").exists()
    whole = Record.load(finished / "record.json")
    state = checkpoint.load(folder / "checkpoint.pt")
    assert state["step"] == whole.steps
    measures = [Measure.model_validate(m) for m in state["measures"]]
    assert {m.role for m in measures} == {"source-val"}
    assert source_val_step(measures) == source_val_step(whole.measures)
    stages: list[str] = []
    run_cell(cell(**SHORT), folder, own, report=lambda stage, done, total: stages.append(stage))
    assert "train" not in stages
    assert_same(finished, folder)


def test_test_stores_are_opened_after_the_last_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    first = FaceStore.__init__

    def opened(self: FaceStore, path: Any) -> None:
        order.append(Path(path).name)
        first(self, path)

    monkeypatch.setattr(FaceStore, "__init__", opened)
    run_cell(cell(**SHORT), tmp_path / "c", data, report=lambda stage, done, total: order.append(stage))
    last = max(i for i, what in enumerate(order) if what == "train")
    assert order.index("mini-b") > last
    assert order[:last].count("mini-a") == 1
    assert {"evaluate mini-b", "evaluate NeuralTextures"}.isdisjoint(order[:last])


def test_stopped_while_testing_it_goes_on_where_it_was(data: Path, finished: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    stop = lambda: bool(stages) and stages[-1] == "evaluate mini-b"  # noqa: E731
    report = lambda stage, done, total: stages.append(stage)  # noqa: E731
    steps = sorted({m.step for m in Record.load(finished / "record.json").measures})
    for step in steps:
        with pytest.raises(Stopped, match=f"stopped after testing the weights of step {step};"):
            run_cell(cell(**SHORT), tmp_path / "c", data, report=report, should_stop=stop)
    assert stages.count("evaluate mini-b") == len(steps)
    run_cell(cell(**SHORT), tmp_path / "c", data)
    assert_same(finished, tmp_path / "c")
    assert not (tmp_path / "c" / "weights").exists()


def test_a_test_store_that_changed_while_testing_is_refused(own: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    stop = lambda: bool(stages) and stages[-1].startswith("evaluate mini-b")  # noqa: E731
    with pytest.raises(Stopped):
        run_cell(cell(**SHORT), tmp_path / "c", own, report=lambda s, done, total: stages.append(s), should_stop=stop)
    info = own / "stores" / "mini-b" / INFO
    before = info.read_text()
    info.write_text(before.replace(FaceStore(info.parent).fingerprint, "0" * 64))
    try:
        with pytest.raises(ConfigError, match="another content of store stores/mini-b"):
            run_cell(cell(**SHORT), tmp_path / "c", own)
    finally:
        info.write_text(before)


def test_parts_of_a_run_without_a_checkpoint_are_not_believed(data: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    (folder / "scores").mkdir(parents=True)
    for step in range(1, 50):
        (folder / "scores" / f"{step:08d}.parquet").write_bytes(b"of another code")
    run_cell(cell(**SHORT), folder, data)
    assert_same(finished, folder)


def test_a_whole_cell_as_the_peer_runs_it(own: Path, tmp_path: Path) -> None:
    """All switches at once; a test video without any face is in the record by its name."""
    ledger = own / "stores" / "mini-b" / LEDGER
    rows = pd.read_parquet(ledger)
    faceless = rows.iloc[[0]].assign(split="test", method="real", label=0, video="nobody", frame=-1, status="unreadable")
    pd.concat([rows, faceless], ignore_index=True).to_parquet(ledger, index=False)
    peer = {"name": "dfb-compat", "epochs": 2, "batch_size": 16, "frames": 1, "schedule": "cosine", "augment": "dfb"}
    made = cell(protocol=peer, optimizers=[{"name": "sam", "base": "adam"}])
    try:
        record = run_cell(made, tmp_path / "c", own)
    finally:
        rows.to_parquet(ledger, index=False)
    assert record.protocol == made.protocol.model_dump(mode="json", exclude={"diagnostics_every"})
    name = faceless.iloc[0]["dataset"]
    assert record.data["missing"] == {"val": [], "NeuralTextures": [], "mini-b": [[name, "real", "nobody", 0]]}
    per = record.steps // 3
    assert record.steps == 3 * per
    points = {s for s in range(1, record.steps + 1) if s % (per if s <= per else per // 2) == 0}
    assert {m.step for m in record.measures} == points
    scores = load_scores(tmp_path / "c" / "scores.parquet")
    video = ["method", "video"]
    assert (scores.groupby(["step", "test", *video])["key"].size() == 1).all()
    there = FaceStore(own / "stores" / "mini-b").manifest.groupby(video)["frame"].min()
    taken = scores[scores["test"] == "mini-b"].groupby(video)["frame"].max()
    assert (taken == there[taken.index]).all()
    assert Record.load(tmp_path / "c" / "record.json") == record
    final = checkpoint.load(tmp_path / "c" / "checkpoint.pt")
    assert final["step"] == record.steps
