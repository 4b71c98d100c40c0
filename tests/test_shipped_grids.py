"""The grids of the papers' tables: every one loads, means what the paper states, and scales down."""

from __future__ import annotations

from pathlib import Path

import pytest

import benchmark
from benchmark.config import Cell
from benchmark.mini import TITLE, mini_study, stand_ins
from benchmark.study import grid_names, load_grid
from detectors import DETECTORS

GRIDS = Path(benchmark.__file__).parent / "grids"
PAPERS = [name for name in grid_names() if "/" in name]


def cells_of(name: str) -> list[Cell]:
    """The cells of every part whose detectors the registry has."""
    known = set(DETECTORS.names())
    found = []
    for part in load_grid(name).parts:
        there = tuple(d for d in part.detectors if d.name in known)
        if there:
            found += part.model_copy(update={"detectors": there}).cells()
    return found


@pytest.mark.parametrize("name", PAPERS)
def test_a_shipped_grid_resolves_and_is_named_after_its_table(name: str) -> None:
    study = load_grid(name)
    assert study.name == name.replace("/", "-")
    assert load_grid(study.name) == study
    cells = cells_of(name)
    assert cells
    assert {c.detector.settings.get("weights", "imagenet") for c in cells if "meso" not in c.detector.name} <= {"imagenet"}
    assert {c.protocol.epochs for c in cells} == {10}
    assert {c.protocol.batch_size for c in cells} == {24 if name.startswith("roga") else 32}
    assert {c.detector.settings["size"] for c in cells} == {256}
    for cell in cells:
        assert all(t.split == "none" for t in cell.tests if t.store.endswith(("UADFV", "DeepFakeDetection")))


@pytest.mark.parametrize("name", PAPERS)
def test_a_shipped_grid_scales_down_to_drawn_data(name: str) -> None:
    study = mini_study(name)
    assert study.name == f"{name.replace('/', '-')}-mini"
    cells = study.cells()
    assert {c.seed for c in cells} == {0}
    assert all(store.startswith("mini/stores/") for c in cells for store in c.stores())
    assert {c.detector.name for c in cells} <= {"meso4", "resnet10"}
    assert {c.detector.settings["size"] for c in cells} == {64}
    assert {c.protocol.epochs for c in cells} == {6}
    assert all(part.title.endswith(f"[{TITLE}]") for part in study.parts)
    full = load_grid(name)
    assert [p.part for p in study.parts] == [p.part for p in full.parts]
    titles = [[(d.title, o.title) for d in p.detectors for o in p.optimizers] for p in study.parts]
    assert titles == [[(d.title, o.title) for d in p.detectors for o in p.optimizers] for p in full.parts]
    wanted = {store for c in cells for store in c.stores()}
    assert {one.store for one in stand_ins(study)} == wanted
    assert len({one.seed for one in stand_ins(study)}) == len(wanted)


def test_what_the_roga_paper_states() -> None:
    (roga,) = {c.optimizer for c in cells_of("roga/table4") if c.optimizer.name == "roga" and c.part == "all-four"}
    assert (roga.settings["rho"], roga.settings["alpha"], roga.settings["variant"]) == (0.1, 2e-4, "d")
    sgd = {tuple(sorted(c.base.settings.items())) for c in cells_of("roga/table4") if c.base.name == "sgd"}
    assert sgd == {(("lr", 0.005), ("momentum", 0.9), ("nesterov", False), ("weight_decay", 5e-4))}
    assert [c.optimizer.settings["variant"] for c in cells_of("roga/table3") if c.seed == 0 and c.optimizer.name == "roga"] == [
        "b",
        "c",
        "d",
    ]
    left_out = {c.part: (set(c.train.methods), c.tests[0].methods) for c in cells_of("roga/table2")}
    assert len(left_out) == 4
    for trained, tested in left_out.values():
        assert tested is not None
        assert not trained & set(tested)
        assert len(trained | set(tested)) == 4


def test_what_the_pim_paper_states() -> None:
    mixes = {c.optimizer.title: c.optimizer.settings for c in cells_of("pim/table8")}
    assert len(mixes) == 14
    for title, settings in mixes.items():
        total, ratio = title.split()
        alpha, beta = (float(total) * float(part) for part in ratio.split("-"))
        assert (settings["alpha"], settings["beta"]) == (pytest.approx(alpha), pytest.approx(beta))
        assert (settings["r"], settings["rho"]) == (0.1, 0.05)
    assert [c.optimizer.settings["r"] for c in cells_of("pim/table6") if c.seed == 0] == [0, 0.05, 0.1, 0.2]
    assert [c.optimizer.settings["alpha"] for c in cells_of("pim/table7") if c.seed == 0] == [1, 0.75, 0.5, 0.25, 0]
    assert {c.part: c.train.methods for c in cells_of("pim/table1")} == {
        "DF": ("Deepfakes",),
        "FS": ("FaceSwap",),
        "F2F": ("Face2Face",),
        "NT": ("NeuralTextures",),
    }


@pytest.mark.parametrize("name", [name for name in PAPERS if not name.startswith("dfb")])
def test_what_is_chosen_is_said(name: str) -> None:
    """Settings that a paper does not state stand in the file's own words, and are the cells'."""
    said = " ".join((GRIDS / f"{name}.yaml").read_text().split("\nname:")[0].replace("\n# ", " ").split())
    chosen = said[said.index("chosen here:") :]
    assert "32 faces of a video (those of a store made with `--frames 32`)" in chosen
    assert "as many real as fake faces of each forgery in a step (class_balance: domains)" in chosen
    assert "the highest video-level AUC on the source's validation data" in chosen
    assert "selection: source_val" in chosen
    for cell in cells_of(name):
        assert (cell.protocol.class_balance, cell.protocol.selection, cell.protocol.frames) == ("domains", "source_val", None)
        assert {t.frames for t in (cell.train, *cell.tests)} == {None}


def test_every_detector_is_known() -> None:
    named = {d.name for name in PAPERS for part in load_grid(name).parts for d in part.detectors}
    assert named <= set(DETECTORS.names())
