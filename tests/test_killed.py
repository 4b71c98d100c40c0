"""kill -9 at ten random moments: what is on disk then is always enough to end in the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from small_cell import CONTENT, assert_same, cell

from benchmark.run import run_cell
from results.record import Record

KILLS, SEED = 10, 6

# One process imports everything and then only forks, so ten lives cost no ten imports. A life ends a drawn number of checkpoints
# after its start and a drawn time after the last of them: in building, in a step, in an evaluation, or while a file is written. A
# clock alone would kill all lives before their first step on a busy machine, or none on a fast one.
SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
import torch
import benchmark.run as run
from benchmark.config import Cell

run.SECONDS_BETWEEN_CHECKPOINTS = 0.0
torch.set_num_threads(1)
cell, folder, data = Cell.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
kills, draw = int(sys.argv[4]), random.Random(int(sys.argv[5]))

def life():
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run.run_cell(cell, folder, data)
            code = 0
        finally:
            os._exit(code)
    return child

def written():
    path = folder / "checkpoint.pt"
    return path.stat().st_mtime_ns if path.exists() else 0

for number in range(kills):
    last, checkpoints, pause = written(), draw.randrange(3), draw.uniform(0.0, 0.03)
    child = life()
    deadline = time.monotonic() + 60
    while checkpoints and time.monotonic() < deadline:
        now = written()
        last, checkpoints = now, checkpoints - (now != last)
        time.sleep(0.0005)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)  # one that has ended is still there until it is waited for
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"life {number} ended by itself, with status {status}"
_, status = os.waitpid(life(), 0)
assert os.waitstatus_to_exitcode(status) == 0
"""


def test_killed_at_ten_random_moments(data: Path, tmp_path: Path) -> None:
    long = cell(protocol={**CONTENT["protocol"], "epochs": 6, "evaluations_per_epoch": 2})
    run_cell(long, tmp_path / "whole", data)
    command = [sys.executable, "-c", SCRIPT, long.model_dump_json(), str(tmp_path / "killed"), str(data), str(KILLS), str(SEED)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "whole", tmp_path / "killed")
    assert Record.load(tmp_path / "killed" / "record.json").provenance.restarts >= 3
