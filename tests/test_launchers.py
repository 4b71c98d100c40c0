"""Where cells run, and how a run is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_cell import CONTENT, assert_same, cell, grid

from benchmark.checkpoint import load
from benchmark.cli.console import progress
from benchmark.cli.running import run_study_cells
from benchmark.config import ConfigError
from benchmark.costs import longest_first, recorded_seconds
from benchmark.heartbeat import FILE
from benchmark.launch import LAUNCHERS, Event, Job, Outcome, check_launcher, run_cells, write_index
from benchmark.pool import slots
from benchmark.run import run_cell


def test_launchers_are_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    for place in LAUNCHERS.values():
        module, _, function = place.partition(":")
        assert callable(getattr(import_module(module), function))
    with pytest.raises(ConfigError, match="unknown launcher 'slurm', Known: local, ray"):
        check_launcher("slurm")
    with pytest.raises(ConfigError, match="runs on this machine alone; take --launcher ray"):
        check_launcher("local", "ray://there:10001")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun has started the processes already"):
        check_launcher("ray")


def test_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slots("cpu", 3, 1) == ["cpu"] * 3
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert slots("cpu", 0, 3) == ["cpu"] * 2
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert slots("cuda", 0, 3) == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert slots("cuda", 6, 1)[4:] == ["cuda:0", "cuda:1"]
    assert slots("cuda:2", 2, 1) == ["cuda:2"] * 2


def test_the_longest_is_begun_first(data: Path, tmp_path: Path) -> None:
    """A recorded seed tells of the others; of another rule by its passes; of another detector nothing, so it goes first."""
    of = {"optimizers": ["sgd", "sam"], "detectors": [*CONTENT["detectors"], "meso4"], "seeds": [0, 1]}
    cells = grid(**of).cells()
    first = cells[0]
    run_cell(first, tmp_path / first.id, data)
    path = tmp_path / first.id / "record.json"
    content = json.loads(path.read_text())
    content["provenance"]["seconds"] = 10.0
    path.write_text(json.dumps(content))
    other = tmp_path / cells[6].id  # SAM with the other detector: it takes two passes a step
    other.mkdir()
    content = {**content, "cell": cells[6].id, "detector": {"name": "meso4"}, "optimizer": {"name": "sam", "base": "sgd"}}
    content["provenance"] = {**content["provenance"], "passes": 2.0 * content["steps"]}
    (other / "record.json").write_text(json.dumps(content))
    seconds = recorded_seconds(cells, tmp_path)
    assert seconds == {cells[0].id: 10.0, cells[1].id: 10.0, cells[2].id: 20.0, cells[3].id: 20.0}
    assert longest_first(cells, seconds) == [*cells[4:], cells[2], cells[3], cells[0], cells[1]]
    assert longest_first(cells, {**seconds, cells[1].id: 99.0})[4] == cells[1]


def test_the_bar_of_a_failed_cell_does_not_end_full(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(cells: list[Any], folder: Path, *args: Any) -> Outcome:
        (one,) = cells
        args[4](Event(one.id, "train", 7, 400))
        args[4](Event(one.id, "failed", reason="two\nlines"))
        return Outcome(failed={one.id: "two\nlines"})

    bars: list[Any] = []
    monkeypatch.setattr("benchmark.launch.run_cells", fail)
    monkeypatch.setattr("benchmark.cli.running.progress", lambda: bars.append(progress()) or bars[0])
    run_study_cells("small", [cell()], tmp_path, tmp_path, "cpu", 1, 1, "local", None, {cell().id: 400})
    assert [(task.completed, task.total) for task in bars[0].tasks] == [(7, 400)]
    told = capsys.readouterr()
    assert "seed 0: two lines\n" in told.out
    assert f"1 of 1 cell failed; failure.json in a cell's folder in {tmp_path} says why" in told.err


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        (0, "Stopped before a checkpoint was written. Run the same command to go on."),
        (1, "Stopped; of 3 cells that are left, 1 has a checkpoint. Run the same command to go on."),
        (3, "Stopped; checkpoints are kept. Run the same command to go on."),
    ],
)
def test_a_stop_says_what_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: int, sentence: str
) -> None:
    cells = grid(seeds=[0, 1, 2]).cells()
    for one in cells[:kept]:
        (tmp_path / one.id).mkdir()
        (tmp_path / one.id / "checkpoint.pt").touch()
    monkeypatch.setattr("benchmark.launch.run_cells", lambda *args: Outcome(stopped=[one.id for one in cells]))
    run_study_cells("small", cells, tmp_path, tmp_path, "cpu", 1, 1, "local", None, {one.id: 400 for one in cells})
    assert capsys.readouterr().err.strip() == sentence


def test_a_demo_of_which_every_cell_failed_ends_after_training(
    dfgrid: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(study: Any, runs: Path, *args: Any, **more: Any) -> Outcome:
        write_index(study, runs / study.name)
        return Outcome(failed={c.id: "no luck" for c in study.cells()})

    monkeypatch.setattr("benchmark.cli.data.run_synth", lambda *args: None)
    monkeypatch.setattr("benchmark.cli.data.run_preprocess", lambda *args: None)
    monkeypatch.setattr("benchmark.cli.experiments.run_grid", fail)
    code, told = dfgrid("demo", "--runs", tmp_path / "runs")
    assert code == 1
    assert "Train and evaluate" in told
    assert "The table" not in told
    assert "Error" not in told


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM)], ids=["ctrl-c", "sigterm"])
def test_ctrl_c_of_a_command_is_clean_and_status_says_so(
    dfgrid: Any, data: Path, tmp_path: Path, signals: tuple[signal.Signals, ...]
) -> None:
    """The command as a process of its own: the cell is seen running with its step, then interrupted; exit code 130.

    A batch system's SIGTERM, which may reach the workers too, and more than once, is a first Ctrl-C.
    """
    path = tmp_path / "g.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, "protocol": {**CONTENT["protocol"], "epochs": 5000}}))
    code = (
        "import signal, sys; from benchmark.cli import main\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "    sys.argv[0] = 'dfgrid'; main()\n"
    )
    (tmp_path / "dfgrid.py").write_text(code)
    command = [sys.executable, str(tmp_path / "dfgrid.py"), "grid", "run", str(path), "--data", str(data)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    child = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    told = ""
    while "train" not in told and time.monotonic() < deadline:
        time.sleep(0.2)
        if (tmp_path / "runs" / "small" / "grid.json").exists():
            told = dfgrid("grid", "status", "small")[1]
    assert "running" in told
    assert "0 of 1 cell done, 1 running" in told
    for number in signals:
        os.killpg(child.pid, number)
        time.sleep(0.1)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Stopped; its checkpoint is kept. Run the same command to go on." in errors
    assert "Traceback" not in errors
    assert load(tmp_path / "runs" / "small" / cell(protocol={**CONTENT["protocol"], "epochs": 5000}).id / "checkpoint.pt")["step"]
    assert "0 of 1 cell done, 1 interrupted" in dfgrid("grid", "status", "small")[1]
    assert not (tmp_path / "runs" / "small" / cell().id / FILE).exists()


def test_ctrl_c_does_not_wait_for_what_nobody_reads(data: Path, tmp_path: Path) -> None:
    """A worker that has told more than the pipe to the parent holds, when the parent stops reading, still ends."""
    (tmp_path / "talkative.py").write_text(
        "import benchmark.pool as pool\n"
        "from benchmark.launch import Event\n"
        "for number in range(4000 if pool._events is not None else 0):\n"
        "    pool._events.put(Event('any', 'talk', number))\n"
    )
    script = (
        "import sys, time; from pathlib import Path\n"
        "from benchmark.config import Cell; from benchmark.launch import run_cells\n"
        "told = []\n"
        "def interrupted(event):\n"
        "    told.append(event)\n"
        "    if len(told) == 1:\n"
        "        time.sleep(1)  # the pipe is full by then\n"
        "        raise KeyboardInterrupt\n"
        "if __name__ == '__main__':\n"
        "    cell = Cell.model_validate_json(sys.argv[3])\n"
        "    print(len(run_cells([cell], Path(sys.argv[1]), Path(sys.argv[2]), on_event=interrupted).stopped))\n"
    )
    (tmp_path / "run.py").write_text(script)
    loud = cell(plugins=[str(tmp_path / "talkative.py")], protocol={**CONTENT["protocol"], "epochs": 5000})
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "runs"), str(data), loud.model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout == "1\n", done.stderr


def test_a_worker_that_is_killed_costs_no_other_cell(data: Path, tmp_path: Path) -> None:
    """As the system kills what takes too much memory: a cell that always is, one that is once, and one beside them that is not."""
    kill = "import os, signal, multiprocessing\nworker = multiprocessing.parent_process() is not None\n"
    (tmp_path / "always.py").write_text(kill + "if worker:\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    once = kill + (
        "if worker:\n"
        f"    flag = {str(tmp_path / 'killed')!r}\n"
        "    if not os.path.exists(flag):\n"
        "        open(flag, 'w').close()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "once.py").write_text(once)
    lost, again, calm = (
        cell(seeds=[seed], plugins=[str(tmp_path / name)] if name else []) for seed, name in enumerate(["always.py", "once.py", ""])
    )
    told: list[tuple[str, str]] = []
    outcome = run_cells([lost, again, calm], tmp_path / "runs", data, workers=2, on_event=lambda e: told.append((e.cell, e.stage)))
    assert outcome.failed == {lost.id: "its worker process was killed (out of memory?)"}
    assert sorted(outcome.finished) == sorted([again.id, calm.id])
    assert [stage for id_, stage in told if id_ == lost.id] == ["failed"]
    assert json.loads((tmp_path / "runs" / lost.id / "failure.json").read_text())["reason"] == outcome.failed[lost.id]
    run_cell(cell(seeds=[2]), tmp_path / "alone", data)
    assert_same(tmp_path / "alone", tmp_path / "runs" / calm.id)


def test_what_is_measured_on_the_way_orders_what_is_left(data: Path, tmp_path: Path) -> None:
    """The launcher asks again after every cell: what has a cost by now goes behind what has none, the longest before the others."""
    cells = grid(optimizers=["sgd", "roga"], detectors=[*CONTENT["detectors"], "meso4"], seeds=[0, 1]).cells()
    job = Job(cells, tmp_path, data, "cpu", 1, 1, lambda event: None)
    assert job.order(cells) == cells
    run_cell(cells[0], tmp_path / cells[0].id, data)
    assert job.order(cells[1:]) == [*cells[4:], cells[2], cells[3], cells[1]]
    job.seconds = {cells[7].id: 1e6}
    assert job.order(cells[1:])[0] == cells[4]
    assert job.order([*cells[1:4], cells[7]])[0] == cells[7]
