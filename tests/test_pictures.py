"""What needs the trained detector: changed shallow statistics, Grad-CAM, t-SNE and UMAP, on a small trained grid."""

from __future__ import annotations

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_run import CONTENT
from typer.testing import CliRunner

from benchmark.cli import app
from benchmark.config import ConfigError, Grid
from benchmark.embedding import embed, embedding
from benchmark.gradcam import activation, chosen_faces, gradcam, last_map
from benchmark.launch import run_cells, write_index
from benchmark.opened import open_trained
from benchmark.pictures import write_pictures
from benchmark.probe import find_trained
from benchmark.statistics import change, changed, probe_statistics
from benchmark.study import study_of
from detectors import DETECTORS
from results.figures.style import save
from results.index import GridIndex
from results.record import Record
from results.shallow import StatisticsReport, StatisticsSettings

GRID = Grid.model_validate({**CONTENT, "optimizers": ["sgd", "sam"], "bases": {}, "protocol": {"epochs": 1, "batch_size": 8}})


needs_grad_cam = pytest.mark.skipif(
    find_spec("pytorch_grad_cam") is None, reason="grad-cam is not installed: pip install 'deepfake-grid[figures]'"
)


@pytest.fixture(scope="module")
def grid(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    write_index(study_of(GRID), folder)
    run_cells(GRID.cells(), folder, data)
    return folder


def test_change_scales_mean_and_variance() -> None:
    features = torch.randn(2, 3, 5, 4, dtype=torch.float64) * 3 + 1
    found = change(features, 1.2, 0.65)
    assert torch.allclose(found.mean((2, 3)), 1.2 * features.mean((2, 3)))
    assert torch.allclose(found.var((2, 3), correction=0), 0.65 * features.var((2, 3), correction=0))
    assert torch.allclose(change(features, 1.0, 1.0), features)


def test_statistics_are_changed_inside_alone() -> None:
    detector = DETECTORS.build("resnet10", size=32, width=4).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = detector(images).logits
        with changed(detector, detector.shallow, 1.2, 0.65):
            assert not torch.equal(detector(images).logits, before)
        with changed(detector, detector.shallow, 1.0, 1.0):
            assert torch.allclose(detector(images).logits, before, atol=1e-5)
        assert torch.equal(detector(images).logits, before)
    with pytest.raises(ConfigError, match="names no shallow modules"), changed(detector, (), 1.2, 0.65):
        pass
    with pytest.raises(ConfigError, match="has no submodule 'nowhere'"), changed(detector, ("nowhere",), 1.2, 0.65):
        pass


def test_the_report_begins_with_the_records_numbers(grid: Path, data: Path) -> None:
    trained, _ = find_trained([grid])
    report, was_there = probe_statistics(trained[0], data, StatisticsSettings())
    assert not was_there
    path = trained[0].path.parent / "probes" / "statistics.json"
    assert StatisticsReport.load(path) == report
    sets = [("NeuralTextures", "NeuralTextures"), ("mini-b", "Celeb-synthesis")]
    assert [(e.test, e.method, e.level) for e in report.effects] == [(*s, level) for s in sets for level in ("frame", "video")]
    record = Record.load(trained[0].path.parent / "record.json")
    for effect in report.effects:
        (kept,) = [m for m in record.measures if (m.test, m.level, m.step) == (effect.test, effect.level, record.steps)]
        assert (effect.acc_before, effect.n_real, effect.n_fake) == (kept.acc, kept.n_real, kept.n_fake)
        assert effect.log_loss_before == pytest.approx(kept.log_loss, abs=1e-6)
        assert effect.log_loss_after != effect.log_loss_before
    assert probe_statistics(trained[0], data, StatisticsSettings()) == (report, True)
    scores = path.with_suffix(".parquet")
    assert sha256(scores.read_bytes()).hexdigest() == report.scores
    assert len(pd.read_parquet(scores)) == 2 * sum(e.n_real + e.n_fake for e in report.effects if e.level == "frame")
    scores.unlink()
    assert probe_statistics(trained[0], data, StatisticsSettings()) == (report, False)
    same, was_there = probe_statistics(trained[0], data, StatisticsSettings(mean=1.0, variance=1.0))
    assert not was_there
    assert [e.log_loss_after for e in same.effects] == pytest.approx([e.log_loss_before for e in same.effects], abs=1e-5)


def test_statistics_on_the_command_line(grid: Path, data: Path) -> None:
    done = CliRunner().invoke(app, ["probe", "statistics", grid.name, "--runs", str(grid.parent), "--data", str(data)])
    assert done.exit_code == 0, done.output
    assert "Accuracy under changed shallow statistics" in done.output
    assert "resnet10 / sam / 0" in done.output


@needs_grad_cam
def test_grad_cam_is_the_papers_formula() -> None:
    """Selvaraju et al. 2017, eq. 1 and 2: ReLU of the maps, weighted by the mean gradient of the class's logit."""
    torch.manual_seed(0)
    detector = DETECTORS.build("resnet10", size=64, width=4).eval()
    name, module = last_map(detector)
    images = torch.rand(3, 3, 64, 64)
    found = activation(detector, images)
    kept: list[torch.Tensor] = []
    hook = module.register_forward_hook(lambda _m, _i, output: kept.append(output))
    logits = detector(images).logits
    hook.remove()
    (slope,) = torch.autograd.grad(logits[:, 1].sum(), kept[0])
    maps = torch.relu((slope.mean((2, 3), keepdim=True) * kept[0]).sum(1)).detach().numpy()
    assert name == "layer4"
    assert found.shape == (3, 64, 64)
    for ours, paper in zip(found, maps, strict=True):
        assert 0 <= ours.min() <= ours.max() <= 1
        corners = ours[[0, 0, -1, -1], [0, -1, 0, -1]]  # the library enlarges the map: its corners stay
        expected = (paper[[0, 0, -1, -1], [0, -1, 0, -1]] - paper.min()) / (paper.max() - paper.min() + 1e-7)
        assert corners == pytest.approx(expected, abs=0.02)
    assert all(p.grad is None for p in detector.parameters())


@needs_grad_cam
def test_pictures_are_the_same_each_time(grid: Path, data: Path, tmp_path: Path) -> None:
    cells = {
        o: open_trained(grid / c.id / "checkpoint.pt", data, names=["mini-b"]) for o, c in zip("ab", GRID.cells(), strict=True)
    }
    faces = chosen_faces(cells["a"].tests["mini-b"].frames, 0)
    assert list(faces) == ["real", "Celeb-synthesis"]
    rows = cells["a"].tests["mini-b"].frames.rows
    assert rows.iloc[faces["real"]]["label"] == 0
    assert rows.iloc[faces["Celeb-synthesis"]]["label"] == 1
    for draw in (gradcam, lambda c, t: embedding(c, t, "tsne")):
        assert save(draw(cells, "mini-b"), tmp_path) == save(draw(cells, "mini-b"), tmp_path)  # sums of both files


def test_embeddings_keep_groups_apart() -> None:
    generator = np.random.default_rng(0)
    vectors = np.concatenate([generator.normal(0, 1, (30, 8)), generator.normal(6, 1, (30, 8))])
    found = embed(vectors, "tsne", 0)
    assert np.array_equal(found, embed(vectors, "tsne", 0))
    one, other = found[:30], found[30:]
    assert np.linalg.norm(one.mean(0) - other.mean(0)) > 2 * max(one.std(), other.std()) / 2
    nearest = np.linalg.norm(found[:, None] - found[None], axis=2) + 1e9 * np.eye(60)
    assert ((nearest.argmin(axis=1) < 30) == (np.arange(60) < 30)).all()
    with pytest.raises(ConfigError, match="t-SNE needs ten faces or more; there are 4"):
        embed(vectors[:4], "tsne", 0)


@needs_grad_cam
def test_on_the_command_line(grid: Path, data: Path, tmp_path: Path) -> None:
    asked = ["figures", "small", "--runs", str(grid.parent), "--data", str(data), "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*asked, "--only", "gradcam"])
    assert done.exit_code == 0, done.output
    assert "wrote 2 figures as PNG and PDF" in done.output
    assert {p.name for p in tmp_path.glob("*.png")} == {"gradcam-resnet10-NeuralTextures.png", "gradcam-resnet10-mini-b.png"}


def test_what_cannot_be_drawn_is_said(grid: Path, data: Path, tmp_path: Path) -> None:
    index = GridIndex.read(grid)
    with pytest.raises(ConfigError, match="has no optimizer 'roga'; it has sgd, sam"):
        write_pictures(index, data, tmp_path, ["gradcam"], ["roga"])
    with pytest.raises(ConfigError, match="has no test set 'nothing'; it has NeuralTextures, mini-b"):
        open_trained(grid / GRID.cells()[0].id / "checkpoint.pt", data, names=["nothing"])
    missing = GridIndex(index.grid, {}, dict.fromkeys([c.id for c in index.grid.cells], "not run yet"), index.folder)
    with pytest.raises(ConfigError, match="resnet10 with sgd, seed 0, has no record to draw: not run yet"):
        write_pictures(missing, data, tmp_path, ["gradcam"])
