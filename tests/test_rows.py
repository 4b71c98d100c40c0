"""A row of a table is one optimizer under one setting: what would be averaged with it is kept apart, or refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from report_material import grid, record_of, scores_of, write_grid
from results_grids import grid_file, provenance, record
from results_grids import write_grid as write_records

from benchmark.circumstances import write_cell as save_cell
from benchmark.config import ConfigError
from benchmark.heartbeat import Heartbeat, read_beat
from benchmark.launch import write_index
from benchmark.share import export_grid, import_archives
from benchmark.standing import standing
from benchmark.study import study_of
from results.files import RecordError
from results.index import GridIndex, WantedCell
from results.record import OptimizerUsed
from results.report.board import ReadGrid, island
from results.report.site import read_grids
from results.rows import MixedRow, settings_of, what_differs
from results.tables import build_table

SAM = {"name": "sam", "base": "sgd", "base_settings": {"lr": 0.005}}


def sam(cell: str, seed: int, **settings: object) -> Any:
    return record(cell, 0.8, optimizer="sam", seed=seed).model_copy(update={"optimizer": OptimizerUsed(**SAM, settings=settings)})


# --- reading ---


def test_a_row_has_one_cell_a_seed(tmp_path: Path) -> None:
    two = (
        WantedCell(id="a", detector="meso4", optimizer="sam", seed=0),
        WantedCell(id="b", detector="meso4", optimizer="sam", seed=0),
    )
    write_records(tmp_path, grid_file(cells=two), [sam("a", 0, rho=0.05), sam("b", 0, rho=0.5)])
    with pytest.raises(RecordError, match=r"grid.json: a and b are both sam on meso4 with seed 0, .*; take one of them out"):
        GridIndex.read(tmp_path)


def test_the_seeds_of_a_row_have_one_setting(tmp_path: Path) -> None:
    seeds = grid_file(optimizers=("sam",), seeds=(0, 1))
    write_records(tmp_path, seeds, [sam("meso4-sam-s0", 0, rho=0.05), sam("meso4-sam-s1", 1, rho=0.5)])
    with pytest.raises(
        RecordError, match=r"s0 and .*s1 would be seeds of one row, sam on meso4, .*: optimizer.rho is 0.05 there and 0.5"
    ):
        GridIndex.read(tmp_path)
    # A setting of a later version, a number written otherwise, and another protocol, which the table itself counts.
    later = sam("meso4-sam-s1", 1, rho=5e-2, adaptive=False).model_copy(update={"protocol": {"name": "strict", "epochs": 3}})
    write_records(tmp_path, seeds, [later])
    assert "Protocol DIFFERS" in " ".join(build_table(GridIndex.read(tmp_path)).trail)


def test_what_averages_nothing_reads_such_a_grid_and_a_report_leaves_it_out(tmp_path: Path) -> None:
    """Single cells of two settings in one row, as `dfgrid train` once wrote them."""
    seeds = grid_file(optimizers=("sam",), seeds=(0, 1), name="train")
    write_records(tmp_path / "train", seeds, [sam("meso4-sam-s0", 0, rho=0.05), sam("meso4-sam-s1", 1, rho=0.5)])
    assert len(GridIndex.read(tmp_path / "train", averages=False).records) == 2
    assert len(standing(tmp_path / "train").cells) == 2
    with pytest.raises(MixedRow):
        read_grids(tmp_path)
    write_records(tmp_path / "demo", grid_file(optimizers=("sgd",)), [record("meso4-sgd-s0", 0.7)])
    told: list[str] = []
    assert [g.index.grid.name for g in read_grids(tmp_path, told.append)] == ["demo"]
    assert len(told) == 1
    assert "a grid is left out: " in told[0]
    assert "would be seeds of one row" in told[0]


def test_first_weights_are_one_setting_where_no_hash_tells_them_apart(tmp_path: Path) -> None:
    """The same file elsewhere, and a record of before its hash was taken."""

    def read_from(place: str, **hashes: str) -> dict[str, str]:
        one = record("meso4-sgd-s0", 0.7)
        used = one.detector.model_copy(update={"settings": {"size": 64, "weights": place}})
        return settings_of(one.model_copy(update={"detector": used, "provenance": provenance(weights=hashes)}))

    assert what_differs(read_from("/x/w.pth"), read_from("/y/w.pth", w="a" * 64)) == ""
    assert what_differs(read_from("/x/w.pth", w="a" * 64), read_from("/y/w.pth", w="a" * 64)) == ""
    assert "detector.weights is aaaaaaaaaaaa there" in what_differs(read_from("x", w="a" * 64), read_from("x", w="b" * 64))
    assert "detector.weights is none there and imagenet here" in what_differs(read_from("none"), read_from("imagenet"))


def test_a_table_says_how_its_rows_and_columns_are_set(tmp_path: Path) -> None:
    write_records(tmp_path, grid_file(), [record("meso4-sgd-s0", 0.7), sam("meso4-sam-s0", 0, rho=0.05)])
    trail = build_table(GridIndex.read(tmp_path)).trail
    assert "Detectors: meso4: size 64." in trail
    assert "Optimizers: sgd: lr 0.005; sam: rho 0.05, base sgd lr 0.005." in trail


def test_a_table_names_no_folder_of_weights(tmp_path: Path) -> None:
    used = record("meso4-sgd-s0", 0.7)
    own = used.model_copy(update={"detector": used.detector.model_copy(update={"settings": {"weights": "/home/me/x.pth"}})})
    write_records(tmp_path, grid_file(optimizers=("sgd",)), [own])
    assert "Detectors: meso4: weights x.pth." in build_table(GridIndex.read(tmp_path)).trail


# --- importing ---


def test_archives_whose_rows_are_of_two_settings_are_not_merged(tmp_path: Path) -> None:
    for name, rho, seed in (("one", 0.05, 0), ("same", 0.5, 0), ("other", 0.5, 1), ("more", 0.05, 1)):
        wanted = grid(optimizers=[{"name": "sam", "rho": rho}], seeds=[seed])
        export_grid(write_grid(tmp_path / name, wanted), tmp_path / f"{name}.zip")
    for name in ("same", "other"):
        with pytest.raises(
            RecordError, match=r"one.zip\) and .* would be seeds of one row, sam on .*: optimizer.rho is 0.05 there"
        ) as told:
            import_archives([tmp_path / "one.zip", tmp_path / f"{name}.zip"], tmp_path / "runs")
        assert f"{name}.zip" in str(told.value)
        assert not (tmp_path / "runs").exists()
    import_archives([tmp_path / "one.zip", tmp_path / "more.zip"], tmp_path / "runs")
    with pytest.raises(RecordError, match=r"optimizer\.rho"):
        import_archives([tmp_path / "other.zip"], tmp_path / "runs")


def test_one_store_may_lie_elsewhere_on_another_machine(tmp_path: Path) -> None:
    one = record("meso4-sgd-s0", 0.7)
    data = {"train": {**one.data["train"], "store": "/mnt/b"}, "tests": [{**one.data["tests"][0], "store": "/mnt/b"}]}
    stores = provenance(stores={"/mnt/b": one.provenance.stores["mini-a"]})
    other = one.model_copy(update={"seed": 1, "data": data, "provenance": stores})
    assert what_differs(settings_of(one), settings_of(other)) == ""
    elsewhere = other.model_copy(update={"provenance": provenance(stores={"/mnt/b": "0" * 64})})
    assert "train.store is f00dfacecafe there and 000000000000 here" in what_differs(settings_of(one), settings_of(elsewhere))


# --- single cells ---


def test_single_cells_of_other_settings_are_rows_of_their_own(dfgrid: Any, data: Path) -> None:
    a = data / "stores" / "mini-a"
    one = (
        "--detector",
        "meso4",
        "--set",
        "detector.size=32",
        "--store",
        a,
        "--method",
        "Deepfakes",
        "--batch-size",
        8,
        "--epochs",
        1,
    )
    for more in ((), ("--set", "optimizer.rho=0.5"), ("--lr", 0.02), ("--seed", 1), ("--set", "optimizer.rho=0.05")):
        code, said = dfgrid("train", "--optimizer", "sam", *one, *more)
        assert code == 0, said
    assert "nothing to run" in said  # 0.05 is the default
    cells = GridIndex.read("runs/train").grid.cells
    rows = [(c.detector, c.optimizer, c.seed) for c in cells]
    assert rows == [
        ("meso4 size=32", name, seed) for name, seed in (("sam", 0), ("sam rho=0.5", 0), ("sam lr=0.02", 0), ("sam", 1))
    ]

    longer = ("train", "--optimizer", "sam", *one[:-1], 2)
    code, said = dfgrid(*longer)
    assert code == 2
    assert (
        "runs/train has sam on meso4 size=32 already, and a row of its table is of one setting: protocol.epochs is 1 there and 2"
        in said
    )
    assert "--label" in said
    assert len(GridIndex.read("runs/train").grid.cells) == 4
    assert dfgrid(*longer, "--label", "sam, twice as long")[0] == 0
    assert dfgrid(*longer, "--name", "long")[0] == 0
    assert "sam, twice as long" in dfgrid("table", "train")[1]
    assert [c.optimizer for c in GridIndex.read("runs/long").grid.cells] == ["sam"]

    code, said = dfgrid("train", "--optimizer", "sgd", *one, "--frames", 1)
    assert code == 2
    assert (
        "a test set of that name already, and a column of its table is of one: tests.in-domain.frames is none there and 1" in said
    )


def test_a_cell_without_a_record_gives_its_place_unless_it_is_at_work(tmp_path: Path) -> None:
    """It ran out of memory, say, and is started again with the micro-batches that were advised."""
    wanted = grid(optimizers=["sam"], seeds=[0])
    smaller = wanted.model_copy(update={"protocol": wanted.protocol.model_copy(update={"micro_batch": 4})})
    (first,), (second,) = wanted.cells(), smaller.cells()
    for folder in (tmp_path / "never", tmp_path / "stopped", tmp_path / "running", tmp_path / "done"):
        write_index(study_of(wanted), folder, add=True)
        (folder / first.id).mkdir()
        save_cell(first, folder / first.id)
    (tmp_path / "stopped" / first.id / "checkpoint.pt").write_bytes(b"half")
    for name in ("never", "stopped"):
        write_index(study_of(smaller), tmp_path / name, add=True)
        assert [c.id for c in GridIndex.read(tmp_path / name).grid.cells] == [second.id]

    said = r"a row of its table is of one setting: protocol\.micro_batch is none there and 4 here.* --label"
    with Heartbeat(running := tmp_path / "running" / first.id, lambda *_: None):
        deadline = time.monotonic() + 20
        while read_beat(running) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(ConfigError, match=said):
            write_index(study_of(smaller), running.parent, add=True)
    record_of(first, scores_of(first)).save(tmp_path / "done" / first.id / "record.json")
    with pytest.raises(ConfigError, match=said):
        write_index(study_of(smaller), tmp_path / "done", add=True)
    (tmp_path / "done" / first.id / "cell.yaml").unlink()  # as an imported cell
    with pytest.raises(ConfigError, match=said):
        write_index(study_of(smaller), tmp_path / "done", add=True)


# --- the leaderboard ---


def test_the_leaderboard_has_a_column_for_each_set_of_faces() -> None:
    def read(name: str, **changed: object) -> ReadGrid:
        cell = grid(name=name, optimizers=["sgd"], seeds=[0]).cells()[0]
        tests = tuple(t.model_copy(update=changed) if t.name == "NeuralTextures" else t for t in cell.tests)
        cell = cell.model_copy(update={"tests": tests})
        wanted = WantedCell(id=cell.id, detector="meso4", optimizer="sgd", seed=0)
        index = GridIndex(grid_file(cells=(wanted,), name=name), {cell.id: record_of(cell, scores_of(cell))}, {})
        return ReadGrid(Path(name), index)

    def titles(*grids: ReadGrid) -> list[str]:
        return [column["title"] for column in island(grids, {})["tests"]]

    assert titles(read("one"), read("two")) == ["NeuralTextures", "CDFv2"]
    assert titles(read("one"), read("two", frames=2)) == ["NeuralTextures, frames none", "CDFv2", "NeuralTextures, frames 2"]
    both = titles(read("one"), read("two", methods=("FaceSwap",), split="val"))
    assert both == ["NeuralTextures, methods NeuralTextures, split test", "CDFv2", "NeuralTextures, methods FaceSwap, split val"]
