"""Cells on a Ray cluster of two nodes, one of which is killed on the way."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from small_cell import assert_same, grid

from benchmark import checkpoint, ray_cluster
from benchmark.config import ConfigError
from benchmark.launch import Event, Job, run_cells, write_index
from benchmark.run import run_cell
from benchmark.study import study_of
from benchmark.train import Stopped
from results.index import GridIndex

WITHOUT = "ray is not installed (pip install 'deepfake-grid[ray]')"


def test_without_ray_one_sentence(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"the launcher 'ray' needs Ray: pip install 'deepfake-grid\[ray\]'"):
        run_cells(grid().cells(), tmp_path, data, launcher="ray")


def test_without_a_cluster_one_sentence(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without a node that is large enough."""
    import sys
    from types import SimpleNamespace

    def nobody(**settings: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=nobody))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at local; start one with `ray start --head`"):
        run_cells(grid().cells(), tmp_path, data, launcher="ray", address="local")
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True, nodes=lambda: nodes))
    with pytest.raises(ConfigError, match="no node of the Ray cluster has 8 cores for a cell"):
        run_cells(grid().cells(), tmp_path, data, launcher="ray", threads=8)
    with pytest.raises(ConfigError, match="no node of the Ray cluster has 1 cores and a GPU for a cell"):
        run_cells(grid().cells(), tmp_path, data, launcher="ray", device="cuda")


def test_where_nothing_listens_ray_is_not_asked(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for ten minutes, and not be interrupted."""
    import socket
    import sys
    from types import SimpleNamespace

    asked: list[str] = []

    def init(address: str, **settings: object) -> None:
        asked.append(address)
        raise ConnectionError("that will do")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def told(address: str | None) -> str:
        with pytest.raises(ConfigError) as error:
            run_cells(grid().cells(), tmp_path, data, launcher="ray", address=address)
        return str(error.value)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        silent = f"127.0.0.1:{taken.getsockname()[1]}"  # bound, and not listening
        assert told(silent) == (
            f"no Ray cluster answers at {silent}, which --address names (Connection refused); start one with "
            "`ray start --head`, or leave out --address to take the one on this machine"
        )
        assert f"ray://{silent}, which --address names" in told(f"ray://{silent}")
        assert "127.0.0.1:99999, which --address names" in told("127.0.0.1:99999")
        monkeypatch.setenv("RAY_ADDRESS", silent)
        for address in (None, "auto"):
            assert f"{silent}, which RAY_ADDRESS names" in told(address)
        assert asked == []
        taken.listen()
        there = (silent, f"ray://{silent}", "auto", "local", "ray://there", None)
        for address in there:
            assert "that will do" in told(address)
        assert asked == [address or "auto" for address in there]


def test_what_a_task_notes_reaches_the_terminal(data: Path, tmp_path: Path) -> None:
    """A torn checkpoint: the task hands its note back, and it is told before the cell is booked."""
    from types import SimpleNamespace

    one = grid().cells()[0]
    with pytest.raises(Stopped):
        run_cell(one, tmp_path / one.id, data, should_stop=lambda: True)
    last = tmp_path / one.id / checkpoint.LAST
    shutil.copyfile(last, last.with_name(checkpoint.PREVIOUS))
    last.write_bytes(b"torn")
    token = tmp_path / "token"
    token.touch()
    ended = ray_cluster._task(
        one.model_dump(mode="json"), str(tmp_path), str(data), "cpu", 1, str(token), ray_cluster.provenance.code_hash()
    )
    told: list[Event] = []
    ray = SimpleNamespace(get=lambda reference: ended)
    ray_cluster._book(Job([one], tmp_path, data, "cpu", 1, 1, told.append), one, *ray_cluster._result(ray, None))
    assert [event.stage for event in told] == ["warning", "finished"]
    assert told[0].reason == "checkpoint.pt is damaged; going on from step 1 in checkpoint.previous.pt, the one before it"


def test_what_ends_while_others_stop_is_booked_as_it_ended(tmp_path: Path) -> None:
    """Also a cell whose last beat is gone when its task has not handed over its result yet; one that never began is taken back."""
    from types import SimpleNamespace

    failed, never = grid(seeds=[0, 1]).cells()
    waited: list[float] = []
    cancelled: list[str] = []

    def wait(references: list[str], timeout: float, num_returns: int = 1) -> tuple[list[str], list[str]]:
        waited.append(timeout)
        return ["a"] if "a" in references else [], []

    ray = SimpleNamespace(
        wait=wait,
        get=lambda reference: ("the loss is not finite", ["a note"]),
        cancel=lambda reference, force: cancelled.append(reference),
    )
    told: list[Event] = []
    job = Job([failed, never], tmp_path, tmp_path, "cpu", 1, 1, told.append)
    ray_cluster._stop(ray, job, {"a": failed, "b": never})
    assert waited == [ray_cluster.POLL]
    assert job.outcome.failed == {failed.id: "the loss is not finite"}
    assert job.outcome.stopped == [never.id]
    assert cancelled == ["b"]
    assert (told[0].stage, told[0].reason) == ("warning", "a note")


def test_only_what_was_lost_is_called_lost() -> None:
    ray = pytest.importorskip("ray", reason=WITHOUT)
    from types import SimpleNamespace

    def result(error: Exception) -> str:
        def get(reference: None) -> None:
            raise error

        return ray_cluster._result(SimpleNamespace(get=get, exceptions=ray.exceptions), None)[0]

    lost = "its worker or node was lost 4 times ({}; out of memory?)"
    for name in (*ray_cluster.LOST, "ObjectReconstructionFailedError"):
        error = getattr(ray.exceptions, name)
        assert result(error.__new__(error)) == lost.format(name)
    nodes_own = "[Node 1] Traceback (most recent call last):\n  File ...\nValueError: no such folder\n"
    assert result(ray.exceptions.RuntimeEnvSetupError(nodes_own)) == (
        "Ray has no result of its task (RuntimeEnvSetupError: Failed to set up runtime environment. ValueError: no such folder)"
    )
    assert result(ray.exceptions.RaySystemError("")).startswith("Ray has no result of its task (RaySystemError: ")
    assert result(ray.exceptions.TaskCancelledError()).startswith("its task was cancelled on the cluster, and not by this command")


def test_a_node_that_is_killed_costs_no_cell(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason=WITHOUT)
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    second = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    protocol = {"epochs": 24, "batch_size": 8, "augment": "light", "evaluations_per_epoch": 1}
    three = grid(seeds=[0, 1, 2], protocol=protocol)
    folder = tmp_path / three.name
    write_index(study_of(three), folder)
    seen: set[str] = set()
    killed: list[str] = []

    def kill_the_second_node(event: Event) -> None:
        if (folder / event.cell / "checkpoint.pt").exists():
            seen.add(event.cell)
        if len(seen) == 2 and not killed:  # each node runs one
            cluster.remove_node(second, allow_graceful=False)
            killed.extend(seen)

    try:
        outcome = run_cells(three.cells(), folder, data, on_event=kill_the_second_node, launcher="ray", address=cluster.address)
    finally:
        cluster.shutdown()
    assert len(killed) == 2
    assert outcome.failed == {}
    assert Counter(outcome.finished) == dict.fromkeys((c.id for c in three.cells()), 1)
    index = GridIndex.read(folder)
    assert list(index.records) == [c.id for c in three.cells()]
    lost = [id_ for id_ in killed if index.records[id_].provenance.restarts]
    assert len(lost) == 1  # it went on from its checkpoint on the other node; the other cell did not notice
    assert not list(folder.glob(".wanted-*"))
    assert not list(folder.glob("*/progress.json"))

    (same,) = (c for c in three.cells() if c.id == lost[0])
    run_cell(same, tmp_path / "here", data)
    assert_same(folder / same.id, tmp_path / "here")
    shutil.rmtree(tmp_path / "here")
