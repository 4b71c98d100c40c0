"""Figures from records, scores, diagnostics and probes: the same files each time, nothing cut off, the right numbers in them."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from results_grids import provenance
from results_scores import scored_grid
from sklearn.metrics import auc as area
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from benchmark.cli import app
from results import diagnostics
from results.diagnostics import Row
from results.figures import FIGURES, write_figures
from results.figures.curves import RATES, mean_roc
from results.figures.settings import varied
from results.figures.source import Source
from results.figures.style import COLOURS, ONE_COLUMN, TWO_COLUMNS, legend_below, look, panels, styled
from results.files import RecordError
from results.index import GridIndex
from results.sharpness import ProbedSet, ProbeSettings, Rise, SharpnessReport


def probed(name: str, role: str) -> ProbedSet:
    rises = tuple(Rise(radius=r, one_step=r, worst=2 * r, average=r, deviation=0.0, adaptive=r) for r in (0.01, 0.05, 0.1))
    counts = {"n_real": 4, "n_fake": 4, "keys": "k", "loss": 0.5, "eigenvalue": 1.0, "residual": 0.0, "products": 3}
    return ProbedSet(name=name, role=role, store="mini-a", rises=rises, **counts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two backbones, and PIM with three radii; diagnostics and a sharpness probe in each cell."""
    settings = {
        "sgd": {"name": "sgd"},
        **{f"pim r={r}": {"name": "pim", "settings": {"r": r, "alpha": 1.0}} for r in (0.05, 0.1, 0.2)},
    }
    folder = scored_grid(
        tmp_path_factory.mktemp("runs") / "demo",
        {"sgd": 0.5, "pim r=0.05": 1.0, "pim r=0.1": 2.0, "pim r=0.2": 1.5},
        ("meso4", "xception"),
        videos=10,
        settings=settings,
    )
    for cell in GridIndex.read(folder).grid.cells:
        pairs = [(a, b) for a in ("Deepfakes", "FaceSwap") for b in ("Deepfakes", "FaceSwap")]
        rows = [Row(step, diagnostics.COSINE, a, b, 1.0 if a == b else -0.1 * step) for step in (1, 2, 3) for a, b in pairs]
        diagnostics.table(rows).to_parquet(folder / cell.id / diagnostics.FILE, index=False)
        (folder / cell.id / "probes").mkdir()
        SharpnessReport(
            cell=cell.id,
            detector=cell.detector,
            optimizer=cell.optimizer,
            seed=0,
            step=20,
            checkpoint="c",
            code="c",
            stores=provenance().stores,
            device="cpu",
            threads=1,
            settings=ProbeSettings(),
            sets=(probed("train", "source-train"), probed("NeuralTextures", "held-out")),
        ).save(folder / cell.id / "probes" / "sharpness.json")
    return folder


def test_every_figure_is_drawn_and_comes_out_the_same(kept: Path, tmp_path: Path) -> None:
    only = ["heatmap", "ranks", "sensitivity", "conflict"]
    drawn = write_figures(GridIndex.read(kept), tmp_path / "one", only)
    assert drawn.missing == {}
    names = {f.stem for f in drawn.files}
    assert names == {"heatmap", "ranks", "sensitivity-pim-r", "conflict-meso4", "conflict-xception"}
    again = write_figures(GridIndex.read(kept), tmp_path / "two", ["heatmap", "ranks"]).files
    assert len(again) == 4
    for file in again:
        assert file.read_bytes() == (tmp_path / "one" / file.name).read_bytes(), file.name
        assert b"CreationDate" not in file.read_bytes()


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_no_letter_is_cut_off_and_panels_do_not_overlap(kept: Path, name: str) -> None:
    with styled():
        drawing = next(iter(FIGURES[name](Source(GridIndex.read(kept)))))
        figure = drawing.figure
        figure.canvas.draw()
        whole = figure.bbox.padded(1)
        boxes = [axis.get_tightbbox() for axis in figure.axes if axis.get_visible()]
        boxes += [legend.get_window_extent() for legend in figure.legends]
        boxes += [text.get_window_extent() for text in figure.texts if text.get_text()]
        assert all(whole.containsx(x) and whole.containsy(y) for b in boxes for x, y in (b.min, b.max))
        for at, one in enumerate(boxes):
            for other in boxes[at + 1 :]:
                width = min(one.x1, other.x1) - max(one.x0, other.x0)
                height = min(one.y1, other.y1) - max(one.y0, other.y0)
                assert width <= 1 or height <= 1, (one, other)


def test_names_that_differ_in_punctuation_alone_have_files_of_their_own(tmp_path: Path) -> None:
    folder = scored_grid(tmp_path / "runs" / "demo", {"sgd": 0.5, "sam": 2.0}, ("meso4", "meso4+", "Meso4"), videos=6)
    drawn = write_figures(GridIndex.read(folder), tmp_path / "out", ["training", "histogram"])
    files = {f for f in drawn.files if f.exists()}
    assert len({str(f).lower() for f in files}) == len(drawn.files) == 2 * len(drawn.entries)
    first, second, third = (e for e in drawn.entries if e.family == "histogram" and "NeuralTextures" in e.name)
    assert [e.name for e in (first, second)] == ["histogram-meso4-NeuralTextures", "histogram-meso4-NeuralTextures-2"]
    assert "meso4+" in second.caption
    assert all(e.intact(tmp_path / "out") for e in (first, second, third))
    again = write_figures(GridIndex.read(folder), tmp_path / "out", ["training", "histogram"])
    assert again.unchanged == len(again.entries) == len(drawn.entries)


@pytest.mark.parametrize("width", [ONE_COLUMN, 5.2, TWO_COLUMNS])
def test_a_legend_of_long_names_stays_in_its_figure(width: float) -> None:
    with styled():
        figure, (axis,) = panels(1, width=width)
        for number in range(9):
            axis.plot([0, 1], [0, number], label=f"roga rho=0.0{number} alpha=1e-{number}")
        legend_below(figure, axis)
        figure.canvas.draw()
        (legend,) = figure.legends
        assert figure.bbox.containsx(legend.get_window_extent().x0)
        assert figure.bbox.containsx(legend.get_window_extent().x1)


def test_the_roc_is_that_of_the_scores(kept: Path) -> None:
    source = Source(GridIndex.read(kept))
    curve = mean_roc(source, "meso4", "pim r=0.1", "NeuralTextures")
    (rows,) = source.scores("meso4-pim r=0.1-s0", "NeuralTextures")
    assert area(RATES, curve) == pytest.approx(roc_auc_score(rows["label"], rows["score"]), abs=0.01)
    assert mean_roc(source, "meso4", "nobody", "NeuralTextures") is None


def test_series_are_told_apart_in_grey() -> None:
    looks = [look(at) for at in range(35)]
    assert len({(str(x["color"]), str(x["linestyle"])) for x in looks}) == 35
    # Without colour, neighbours still differ in dashes and in markers.
    assert all(str(a["linestyle"]) != str(b["linestyle"]) for a, b in pairwise(looks))
    assert len({x["marker"] for x in looks[:10]}) == 10
    assert len(set(COLOURS)) == 7


def test_a_line_of_settings_differs_in_nothing_else(kept: Path) -> None:
    source = Source(GridIndex.read(kept))
    assert varied(source) == {("pim", "r"): {0.05: ["pim r=0.05"], 0.1: ["pim r=0.1"], 0.2: ["pim r=0.2"]}}
    index = GridIndex.read(kept)
    for cell, record in list(index.records.items()):
        if record.optimizer.title == "pim r=0.2":
            used = record.optimizer.model_copy(update={"settings": {"r": 0.2, "alpha": 0.5}})
            index.records[cell] = record.model_copy(update={"optimizer": used})
    assert varied(Source(index)) == {("pim", "r"): {0.05: ["pim r=0.05"], 0.1: ["pim r=0.1"]}}


def test_a_variant_without_a_number_is_in_no_line_of_it(kept: Path) -> None:
    index = GridIndex.read(kept)
    used = {"pim r=0.05": ({"r": None, "kind": "a"}, {}), "pim r=0.1": ({"r": None}, {"r": 0.1}), "pim r=0.2": ({"r": 0.2}, {})}
    for cell, record in list(index.records.items()):
        if record.optimizer.title in used:
            settings, built = used[record.optimizer.title]
            rule = record.optimizer.model_copy(update={"settings": settings, "built": built})
            index.records[cell] = record.model_copy(update={"optimizer": rule})
    assert varied(Source(index)) == {("pim", "r"): {0.1: ["pim r=0.1"], 0.2: ["pim r=0.2"]}}
    with styled():
        (drawing,) = FIGURES["sensitivity"](Source(index))
    assert drawing.name == "sensitivity-pim-r"


def test_sharpness_is_drawn_of_like_probes_of_the_recorded_weights(kept: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(kept, tmp_path / "demo"))
    of = [folder / f"meso4-{o}-s0" for o in ("sgd", "pim r=0.05", "pim r=0.1", "pim r=0.2")]

    def change(cell: Path, **fields: object) -> None:
        path = cell / "probes" / "sharpness.json"
        SharpnessReport.load(path).model_copy(update=fields).save(path)

    def caption_and_lines() -> tuple[str, int]:
        with styled():
            drawing = next(iter(FIGURES["sharpness"](Source(GridIndex.read(folder)))))
        return drawing.caption, len(drawing.figure.axes[0].lines)

    caption, lines = caption_and_lines()
    assert "in 5 steps of ascent on at most 256 faces a set, seed 0, radii 0.01, 0.05, 0.1. Protocol" in caption
    assert lines == 4
    change(of[0], settings=ProbeSettings(faces=4))
    caption, lines = caption_and_lines()
    assert "1 cell left out: meso4-sgd-s0 was probed in 5 steps of ascent on at most 4 faces a set" in caption
    assert lines == 3
    change(of[1], step=1)
    caption, lines = caption_and_lines()
    assert "2 cells left out: meso4-pim r=0.05-s0/probes/sharpness.json is of the step 1, the record of 20; run" in caption
    assert lines == 2
    (of[2] / "checkpoint.pt").write_bytes(b"trained again")
    change(of[3], stores={})
    change(of[0], step=2)
    with pytest.raises(RecordError, match=r"is of the step 2, the record of 20; run `dfgrid probe sharpness demo` again"):
        caption_and_lines()
    change(of[0], step=20)
    change(of[1], step=20, settings=ProbeSettings(faces=4))
    assert "is of other weights than meso4-pim r=0.1-s0/checkpoint.pt" in caption_and_lines()[0]


def test_on_the_command_line(kept: Path, tmp_path: Path) -> None:
    asked = ["figures", "demo", "--runs", str(kept.parent), "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*asked, "--only", "heatmap", "--selection", "top3_per_test"])
    assert done.exit_code == 0, done.output
    assert "wrote 1 figures as PNG and PDF" in done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figures.json", "heatmap.pdf", "heatmap.png"]
    done = CliRunner().invoke(app, [*asked, "--only", "pie"])
    assert isinstance(done.exception, RecordError)
    assert "there is no figure 'pie'; there are heatmap" in str(done.exception)


def test_no_records_yet(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "grid.json").write_text(json.dumps(json.loads((kept / "grid.json").read_text())))
    with pytest.raises(RecordError, match="no cell of grid 'demo' has a record yet; run `dfgrid grid run demo`"):
        write_figures(GridIndex.read(tmp_path / "demo"), tmp_path / "out")
