"""Two processes compute what one does, for every optimizer; they stop, go on and fail together."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import ranks_worker
import torch
from filelock import FileLock
from optimizer_reference import Tiny, faces
from ranks_worker import CASES, DOMAINS, TOGETHER, Case, run_case
from test_run import CONTENT, assert_same, cell
from torch import Tensor

from benchmark.config import ConfigError
from benchmark.launch import Job
from benchmark.objective import BatchObjective
from benchmark.run import run_cell
from benchmark.together import asked_to_stop, own_device, run_together
from benchmark.train import micro_batches, share
from results.record import Record
from results.scores import load_scores

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank computed."""
    folder = tmp_path_factory.mktemp("ranks")
    codes = ranks_worker.launch(ranks_worker.objectives, str(folder))
    told = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(ranks_worker.SIZE)]
    told[0] |= {"codes": codes, "noticed": float((folder / "noticed").read_text())}
    return told


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in other)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(v) for v in vars(case).values()))
def test_two_ranks_are_one_process(found: list[dict[str, Any]], case: Case) -> None:
    """With the same micro-batches, BatchNorm and its running statistics included; without it the batch may also be undivided."""
    ours, theirs = found[0][case.key], found[1][case.key]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    by_batch_statistics = case.norm and not case.evaluation
    alone = run_case(case, TOGETHER if by_batch_statistics else [range(len(DOMAINS))])
    assert difference(ours, alone) < 1e-12
    start = Tiny(norm=case.norm).double().state_dict()
    assert difference(ours, {name: t for name, t in start.items() if "running" not in name and "tracked" not in name}) > 1e-3


def test_buffers_are_those_of_all_faces(found: list[dict[str, Any]]) -> None:
    """BatchNorm's by its own statistics, any other layer's by the mean over examples."""
    together, same, alone = found[0]["statistics"], found[1]["statistics"], ranks_worker.statistics(None, range(9))
    assert together.keys() == alone.keys() > {"seen", "first.1.running_var"}
    for name, value in together.items():
        assert torch.equal(value, same[name])
        assert torch.allclose(value, alone[name], atol=1e-6)
    assert int(together["first.1.num_batches_tracked"]) == 1
    assert not torch.allclose(together["first.1.running_var"], ranks_worker.statistics(None, range(6))["first.1.running_var"])


@pytest.mark.parametrize("way", ["layers", "layers of two threads"])
@pytest.mark.parametrize("name", ranks_worker.LAYERS)
def test_every_kind_of_batchnorm(found: list[dict[str, Any]], name: str, way: str) -> None:
    """As torch's own over all rows, of which each rank has every other one."""
    alone = ranks_worker.layers(slice(None))[name]
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-4 if name == "large mean" else 1e-5, torch.bfloat16: 2e-2}
    for rank in range(ranks_worker.SIZE):
        ours = found[rank][way][name]
        assert ours.keys() == alone.keys()
        for key, expected in alone.items():
            expected = expected[rank :: ranks_worker.SIZE] if key in ("out", "slope") else expected
            assert ours[key].dtype == expected.dtype
            assert torch.allclose(ours[key], expected, rtol=tolerance[alone["out"].dtype], atol=tolerance[alone["out"].dtype])


def test_an_overflow_on_one_rank_undoes_the_step_on_all(found: list[dict[str, Any]]) -> None:
    one, other = found[0]["overflow"], found[1]["overflow"]
    assert float(one["scale"]) == float(other["scale"]) == 512
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_rank_may_have_nothing(found: list[dict[str, Any]]) -> None:
    alone = BatchObjective(Tiny(norm=False).double(), [faces([0, 1, 1])])
    norm, loss = float(alone.gradient().norm()), float(alone.loss)
    for rank in found:
        assert rank["empty"][:2] == pytest.approx((norm, loss), rel=1e-12)
        assert rank["empty"][2:] == (3, [1, 2])
        assert "a step of 3 faces leaves one of 2 processes without any" in rank["refused"]


def test_one_value_per_channel_is_refused_as_by_one_process(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert "BatchNorm cannot normalise a micro-batch of 1 example of domain 0" in rank["alone"]


def test_a_checkpoint_computes_again_what_it_did(found: list[dict[str, Any]]) -> None:
    alone = ranks_worker.checkpointed(range(9))
    for rank in found:
        assert difference(rank["checkpointed"], alone) < 1e-12


@pytest.mark.parametrize(("faces_", "limit", "size"), [(32, 2, 4), (32, 3, 4), (30, 5, 4), (12, 3, 2), (7, None, 3), (8, 8, 2)])
def test_faces_are_dealt_evenly(faces_: int, limit: int | None, size: int) -> None:
    step = faces([0, 1] * faces_)
    step = step.only(torch.arange(faces_))
    for pairs in (False, True):
        groups = micro_batches(step, limit, pairs)
        parts = [share(groups, Mock(rank=rank, size=size), pairs) for rank in range(size)]
        assert {len(part) for part in parts} == {len(groups)}
        counts = [sum(map(len, part)) for part in parts]
        assert sum(counts) == faces_
        assert pairs or max(counts) - min(counts) <= 1
        for number, group in enumerate(groups):
            assert sorted(int(v) for part in parts for v in part[number].videos) == sorted(group.videos.tolist())


def test_a_rank_that_fails_does_not_leave_the_other_waiting(found: list[dict[str, Any]]) -> None:
    """Rank 0 waits for the gradient of a rank that has ended by an exception, with a minute's patience."""
    assert found[0]["codes"] == [1, 1]
    assert found[0]["noticed"] < 30


def test_a_cell_in_two_processes(data: Path, tmp_path: Path) -> None:
    """It learns what one process does, and resumes to the bit when any rank is asked to stop."""
    protocol = {**CONTENT["protocol"], "epochs": 1, "batch_size": 8}
    two = cell(protocol=protocol)
    assert ranks_worker.launch(ranks_worker.cells, str(tmp_path), two.model_dump(mode="json"), str(data)) == [0, 0]
    assert all("stopped after step 2 of" in (tmp_path / f"stopped{rank}").read_text() for rank in range(2))
    assert_same(tmp_path / "whole", tmp_path / "parts")
    record = Record.load(tmp_path / "whole" / "record.json")
    assert record.provenance.processes == 2
    alone = run_cell(two, tmp_path / "alone", data)
    assert record.cell == alone.cell
    assert [loss for _, loss in record.losses] == pytest.approx([loss for _, loss in alone.losses], rel=1e-4)
    scores = [load_scores(tmp_path / name / "scores.parquet") for name in ("whole", "alone")]
    assert len(scores[0]) == len(scores[1]) > 0
    assert float((scores[0]["score"] - scores[1]["score"]).abs().max()) < 1e-3


def test_a_grid_goes_on_after_cells_that_end_on_all_ranks_alike(data: Path, tmp_path: Path) -> None:
    """A loss and a score that are not finite, and a cell of another process; the one that failed before is tried last."""
    wild = cell(optimizers=[{"name": "sgd", "base": {"name": "sgd", "lr": 1e30}}])
    busy, blind, tame = (cell(seeds=[seed]) for seed in (1, 2, 3))
    for one in (wild, busy):
        (tmp_path / one.id).mkdir()
    (tmp_path / wild.id / "failure.json").write_text('{"reason": "as before"}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = [one.model_dump(mode="json") for one in (wild, busy, blind, tame)]
    with FileLock(tmp_path / busy.id / ".lock"):
        assert ranks_worker.launch(ranks_worker.grid, str(tmp_path), asked, str(data), port) == [0, 0]
    one, other = (json.loads((tmp_path / f"told{rank}").read_text()) for rank in range(2))
    assert one == other
    endings = [[busy.id, "busy"], [blind.id, "failed"], [tame.id, "finished"], [wild.id, "failed"]]
    assert one["endings"] == endings
    assert one["outcome"]["failed"].keys() == {blind.id, wild.id}
    for id_, reason in one["outcome"]["failed"].items():
        assert json.loads((tmp_path / id_ / "failure.json").read_text())["reason"] == reason
    assert not (tmp_path / busy.id / "failure.json").exists()
    assert Record.load(tmp_path / tame.id / "record.json").provenance.processes == 2


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A group of one process that is not joined; what is asked of it."""
    asked: list[str] = []
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *args, **settings: asked.append("join"))
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: asked.append("leave"))
    group = SimpleNamespace(rank=0, size=1, first=lambda work: work(), gather=lambda value: [value])
    monkeypatch.setattr("benchmark.together.Ranks", lambda patience: group)
    return asked


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigError("no such store"), "no such store"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "its disk is full ("),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero (see {}/traceback.txt)"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("full", [False, True])
def test_another_error_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: list[str], error: Exception, reason: str, full: bool
) -> None:
    """In the words of other launchers. It does not leave the group, where NCCL would wait for the ranks that still compute."""

    def fail(cell: Any, folder: Path, *args: Any) -> None:
        folder.mkdir()
        raise error

    def nothing(path: Any, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("benchmark.together.run_cell", fail)
    if full:
        monkeypatch.setattr("results.index.write_atomically", nothing)
    with pytest.raises(ConfigError) as told:
        run_together(Job([cell()], tmp_path, tmp_path, "cpu", 1, 1, lambda event: None))
    assert str(told.value).startswith(f"rank 0: cell {cell().id} failed: {reason.format(cell().id)}")
    assert str(told.value).endswith("(and this cannot be written down: No space left on device)") == full
    written = tmp_path / cell().id / "failure.json"
    assert written.exists() != full
    assert full or json.loads(written.read_text())["reason"] in str(told.value)
    assert alone == ["join"]


def test_a_process_leaves_the_group_at_the_end(tmp_path: Path, alone: list[str]) -> None:
    run_together(Job([], tmp_path, tmp_path, "cpu", 1, 1, lambda event: None))
    assert alone == ["join", "leave"]


def test_torchrun(data: Path, tmp_path: Path) -> None:
    """`dfgrid train` as a user starts it: one record, one table."""
    script = tmp_path / "dfgrid.py"
    script.write_text("import sys; from benchmark.cli import main; sys.argv[0] = 'dfgrid'; main()\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(script), "train"]
    command += ["--detector", "resnet10", "--optimizer", "sam", "--store", str(data / "stores" / "mini-a")]
    command += ["--method", "Deepfakes", "--set", "detector.size=32", "--set", "detector.width=4", "--epochs", "1"]
    command += ["--batch-size", "8", "--runs", str(tmp_path / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("log loss") == 1
    (path,) = (tmp_path / "runs" / "train").glob("*/record.json")
    assert Record.load(path).provenance.processes == 2


class Nine:
    """Nine processes, as far as is needed to be told that they are too many."""

    rank, size = 0, 9

    def first(self, work: Callable[[], Any]) -> Any:
        return work()


def test_more_processes_than_pairs_of_faces(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="8 faces are too few for 9 processes"):
        run_cell(cell(), tmp_path / "c", data, ranks=Nine())  # type: ignore[arg-type]


def test_processes_that_see_other_checkpoints(data: Path, tmp_path: Path) -> None:
    """Told on all of them, before one trains what another has done."""
    ranks: Any = SimpleNamespace(rank=0, size=2, first=lambda work: work(), gather=lambda value: [value, 7])
    with pytest.raises(ConfigError, match=r"see different checkpoints in .* \(none, one of step 7, in order of rank\); put it on"):
        run_cell(cell(), tmp_path / "run", data, ranks=ranks)


def test_ctrl_c_asks_first_and_then_ends() -> None:
    before = signal.getsignal(signal.SIGINT)
    with asked_to_stop() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_every_process_has_a_gpu_of_its_own() -> None:
    assert own_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="take --device cuda"):
        own_device("cuda:1")
