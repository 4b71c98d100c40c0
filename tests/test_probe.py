"""`dfgrid probe sharpness`: which checkpoints, which faces, what is written, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_run import CONTENT
from typer.testing import CliRunner

from benchmark.cli import app
from benchmark.cli.probe import tables
from benchmark.config import ConfigError, Grid
from benchmark.data import FaceFrames
from benchmark.launch import run_cells, write_index
from benchmark.probe import Trained, find_trained, fixed_choice, probe_sharpness
from benchmark.study import study_of
from results.files import RecordError
from results.index import GridIndex
from results.probed import sharpness_of
from results.record import Record
from results.scores import load_scores
from results.sharpness import ProbeSettings, SharpnessReport

QUICK = ProbeSettings(radii=(0.05, 0.5), steps=2, directions=2, faces=8, tolerance=0.1)
GRID = Grid.model_validate(
    {**CONTENT, "optimizers": ["sgd"], "bases": {}, "protocol": {"epochs": 1, "batch_size": 8}, "seeds": [0, 1]}
)


@pytest.fixture(scope="module")
def grid(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid of two cells of which one is finished; tests copy it."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    write_index(study_of(GRID), folder)
    run_cells(GRID.cells()[:1], folder, data)
    return folder


@pytest.fixture
def cell(grid: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grid / GRID.cells()[0].id, tmp_path / GRID.cells()[0].id))


def frames(reals: int, fakes: int) -> FaceFrames:
    rows = pd.DataFrame({"label": [0] * reals + [1] * fakes})
    return FaceFrames(rows, ("a",), np.empty((0, 1, 1, 3), np.uint8))


@pytest.mark.parametrize(
    ("reals", "fakes", "count", "expected"),
    [(50, 80, 20, (10, 10)), (3, 80, 20, (3, 17)), (80, 3, 20, (17, 3)), (4, 5, 20, (4, 5)), (50, 80, 21, (10, 11))],
)
def test_faces_are_fixed_by_the_seed_and_half_of_them_real(reals: int, fakes: int, count: int, expected: tuple[int, int]) -> None:
    chosen = fixed_choice(frames(reals, fakes), count, 0)
    assert ((chosen < reals).sum(), (chosen >= reals).sum()) == expected
    assert len(set(chosen)) == len(chosen)
    assert np.array_equal(chosen, fixed_choice(frames(reals, fakes), count, 0))
    if len(chosen) < reals + fakes:
        assert not np.array_equal(chosen, fixed_choice(frames(reals, fakes), count, 1))


def test_a_report_says_what_was_probed_and_is_not_made_twice(cell: Path, data: Path) -> None:
    (trained,), missing = find_trained([cell])
    assert missing == {}
    report, was_there = probe_sharpness(trained, data, QUICK)
    assert not was_there
    assert report == SharpnessReport.load(cell / "probes" / "sharpness.json")
    assert [s.name for s in report.sets] == ["train", "val", "NeuralTextures", "mini-b"]
    assert [s.role for s in report.sets] == ["source-train", "source-val", "held-out", "cross-dataset"]
    for probed in report.sets:
        assert (probed.n_real, probed.n_fake) == (4, 4)
        assert [r.radius for r in probed.rises] == [0.05, 0.5]
        for rise in probed.rises:
            assert rise.worst is not None
            assert rise.one_step is not None
            assert rise.worst >= rise.one_step
        assert probed.eigenvalue is not None
        assert probed.products > 0
    before = (cell / "probes" / "sharpness.json").read_bytes()
    assert probe_sharpness(trained, data, QUICK) == (report, True)
    assert (cell / "probes" / "sharpness.json").read_bytes() == before
    other, was_there = probe_sharpness(trained, data, QUICK.model_copy(update={"seed": 1}))
    assert not was_there
    assert other.sets[0].keys != report.sets[0].keys
    torch.manual_seed(3)
    assert probe_sharpness(trained, data, QUICK)[0] == report  # by its own seed alone


def test_a_test_set_called_train_does_not_take_the_place_of_the_training_faces(cell: Path, data: Path) -> None:
    (trained,), _ = find_trained([cell])
    right, _ = probe_sharpness(trained, data, QUICK)
    state = torch.load(cell / "checkpoint.pt", weights_only=True)
    next(t for t in state["cell"]["tests"] if t["name"] == "mini-b")["name"] = "train"
    torch.save(state, cell / "checkpoint.pt")
    report, _ = probe_sharpness(trained, data, QUICK)
    assert [(s.name, s.role) for s in report.sets][::3] == [("train", "source-train"), ("train", "cross-dataset")]
    assert [s.model_copy(update={"name": "mini-b"}) if s.role == "cross-dataset" else s for s in report.sets] == list(right.sets)
    (shown,) = tables([(trained, report)])
    assert ["AUC" in str(c.header) for c in shown.columns] == [False, False, True, True]
    assert str(shown.columns[3].header).startswith("train (cross-dataset)")


def test_loss_is_that_of_the_scores(cell: Path, data: Path) -> None:
    """In evaluation mode, over all faces of a set: the record's own scores say what the loss is."""
    (trained,), _ = find_trained([cell])
    report, _ = probe_sharpness(trained, data, QUICK.model_copy(update={"faces": 10_000, "batch_size": 50, "tolerance": 0.2}))
    scores = load_scores(cell / "scores.parquet")
    record = Record.load(cell / "record.json")
    for probed in report.sets[1:]:
        rows = scores[(scores["test"] == probed.name) & (scores["step"] == record.steps)]
        p = np.where(rows["label"] == 1, rows["score"], 1 - rows["score"])
        assert probed.loss == pytest.approx(float(-np.log(p).mean()), rel=1e-4)
        auc = next(m.auc for m in record.measures if (m.test, m.level) == (probed.name, "frame"))
        assert trained.auc(probed.name, report.step) == auc
    assert trained.auc("mini-b", report.step + 1) is None


def test_a_checkpoint_by_another_name_has_a_report_of_its_own(tmp_path: Path) -> None:
    assert Trained(tmp_path / "checkpoint.pt").report == tmp_path / "probes" / "sharpness.json"
    assert Trained(tmp_path / "best.pt").report == tmp_path / "probes" / "sharpness-best.json"


def test_what_is_no_checkpoint_is_refused(cell: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="neither a grid's folder"):
        find_trained([tmp_path / "empty"])
    with pytest.raises(ConfigError, match="does not exist; give names of grids"):
        find_trained([tmp_path / "nothing.pt"])
    (cell / "record.json").unlink()
    with pytest.raises(ConfigError, match="is a cell that is not finished"):
        find_trained([cell])
    torch.save({"format": 1, "step": 3}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="is no checkpoint of a dfgrid cell"):
        probe_sharpness(Trained(tmp_path / "other.pt"), data, QUICK)
    for radius in (0.0, -1.0, float("inf")):
        with pytest.raises(ConfigError, match="must be positive and finite"):
            probe_sharpness(Trained(cell / "checkpoint.pt"), data, QUICK.model_copy(update={"radii": (radius,)}))


def test_changed_faces_and_damaged_reports_are_refused(cell: Path, data: Path) -> None:
    state = torch.load(cell / "checkpoint.pt", weights_only=True)
    torch.save({**state, "stores": {**state["stores"], "stores/mini-a": "0" * 64}}, cell / "checkpoint.pt")
    with pytest.raises(ConfigError, match="another content of store stores/mini-a"):
        probe_sharpness(Trained(cell / "checkpoint.pt"), data, QUICK)
    torch.save(state, cell / "checkpoint.pt")
    (cell / "probes").mkdir()
    (cell / "probes" / "sharpness.json").write_text("{}")
    with pytest.raises(RecordError, match=r"sharpness\.json is no sharpness report"):
        probe_sharpness(Trained(cell / "checkpoint.pt"), data, QUICK)


def run(*args: Any) -> Any:
    return CliRunner().invoke(app, ["probe", "sharpness", *map(str, args)])


def test_the_command_shows_flatness_beside_auc(grid: Path, data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(grid, tmp_path / "small")
    quick = ["--data", data, "--faces", 6, "--steps", 1, "--directions", 1, "--radius", 0.05]
    result = run(folder, *quick)
    assert result.exit_code == 0, result.output
    record = Record.load(next(folder.glob("*/record.json")))
    auc = next(m.auc for m in record.measures if (m.test, m.level) == ("mini-b", "frame"))
    assert auc is not None
    assert "resnet10 / sgd / 0" in result.output
    assert f"{100 * auc:.1f}" in result.output
    assert "1 cell not finished and left out" in result.output
    report = json.loads(next(folder.glob("*/probes/sharpness.json")).read_text())
    assert f"{report['sets'][0]['rises'][0]['worst']:.3g}" in result.output
    assert "1 of 1 cell was probed already" in run(folder, *quick).output
    assert sharpness_of(GridIndex.read(folder), record.cell) == SharpnessReport.model_validate(report)


def test_cells_whose_weights_are_elsewhere_are_left_out_and_named(grid: Path, data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(grid, tmp_path / "small"))
    there, elsewhere = (cell.id for cell in GRID.cells())
    record = Record.load(folder / there / "record.json").model_copy(update={"cell": elsewhere, "seed": 1})
    (folder / elsewhere).mkdir(exist_ok=True)
    record.save(folder / elsewhere / "record.json")
    found, missing = find_trained([folder])
    assert [one.path for one in found] == [folder / there / "checkpoint.pt"]
    assert list(missing) == [elsewhere]
    result = run(folder, "--data", data, "--faces", 6, "--steps", 1, "--directions", 1, "--radius", 0.05)
    assert result.exit_code == 0, result.output
    assert f"1 cell without weights and left out, such as {elsewhere}: its checkpoint.pt is not there" in result.output
    (folder / there / "checkpoint.pt").unlink()
    with pytest.raises(ConfigError, match=r"no cell of .*small has its weights here: its checkpoint\.pt is not there"):
        find_trained([folder])


def test_cells_of_other_data_do_not_share_a_table() -> None:
    """The one place where two reports meet: their columns must be the same sets."""
    content = {"cell": "c", "detector": "d", "optimizer": "o", "seed": 0, "step": 1, "checkpoint": "", "code": "", "stores": {}}
    rise = {"radius": 0.05, **dict.fromkeys(("one_step", "worst", "average", "deviation", "adaptive"), None)}
    probed = {"store": "s", "n_real": 1, "n_fake": 1, "keys": "", "loss": 1.0, "rises": [rise], "products": 0}
    probed |= {"eigenvalue": None, "residual": None}

    def report(*names: str) -> SharpnessReport:
        sets = [{**probed, "name": n, "role": "source-train" if n == "train" else "cross-dataset"} for n in names]
        made = {**content, "device": "cpu", "threads": 1, "settings": {}, "sets": sets}
        return SharpnessReport.model_validate(made)

    nowhere = Trained(Path("nowhere") / "checkpoint.pt")
    found = tables([(nowhere, report("train", "x")), (nowhere, report("train", "y")), (nowhere, report("train", "x"))])
    assert [len(t.rows) for t in found] == [2, 1]
