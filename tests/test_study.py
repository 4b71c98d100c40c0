"""Grids in parts, and their mini block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from results_grids import record

from benchmark.launch import write_index
from benchmark.reading import ConfigError
from benchmark.study import load_grid, merge
from results.files import RecordError
from results.index import GridIndex
from results.tables import build_table, write_tables
from results.tidy import tidy

CONTENT: dict[str, Any] = {
    "name": "gid",
    "title": "Leave one out",
    "tests": [{"name": "left-out", "store": "ff", "methods": ["Deepfakes"], "role": "held-out"}],
    "train": {"store": "ff", "methods": ["Face2Face", "FaceSwap"]},
    "detectors": [{"name": "meso4", "size": 64}],
    "optimizers": ["sgd", "sam"],
    "seeds": [0],
    "protocol": {"epochs": 10, "batch_size": 32, "augment": "none"},
    "parts": [
        {"part": "without-DF"},
        {
            "part": "without-F2F",
            "train": {"methods": ["Deepfakes", "FaceSwap"]},
            "tests": [
                {"name": "left-out", "store": "ff", "methods": ["Face2Face"], "role": "held-out"},
                {"name": "Celeb", "store": "celeb", "role": "cross-dataset"},
            ],
        },
        {"part": "again", "optimizers": ["sam"]},
    ],
    "mini": {"protocol": {"epochs": 1}, "detectors": [{"name": "meso4", "size": 32}]},
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "gid.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **changes}), encoding="utf-8")
    return path


def test_parts_are_the_common_content_with_their_own_keys(tmp_path: Path) -> None:
    study = load_grid(write(tmp_path))
    assert [p.part for p in study.parts] == ["without-DF", "without-F2F", "again"]
    assert [p.train.methods for p in study.parts] == [
        ("Face2Face", "FaceSwap"),
        ("Deepfakes", "FaceSwap"),
        ("Face2Face", "FaceSwap"),
    ]
    assert [p.train.store for p in study.parts] == ["ff"] * 3
    assert (study.name, study.title, study.mini) == ("gid", "Leave one out", False)


def test_a_cell_that_two_parts_want_is_run_once(tmp_path: Path) -> None:
    study = load_grid(write(tmp_path))
    wanted = study.wanted()
    assert [(c.part, c.optimizer.name) for c in wanted] == [
        ("without-DF", "sgd"),
        ("without-DF", "sam"),
        ("without-F2F", "sgd"),
        ("without-F2F", "sam"),
        ("again", "sam"),
    ]
    assert wanted[1].id == wanted[4].id
    assert [c.id for c in study.cells()] == [c.id for c in wanted[:4]]


def test_the_mini_block_scales_every_part_down(tmp_path: Path) -> None:
    study = load_grid(write(tmp_path), mini=True)
    assert (study.name, study.mini) == ("gid-mini", True)
    assert {p.protocol.epochs for p in study.parts} == {1}
    assert {p.protocol.batch_size for p in study.parts} == {32}
    assert {c.detector.settings["size"] for c in study.cells()} == {32}
    assert load_grid(write(tmp_path)).parts[0].protocol.epochs == 10


def test_merging_goes_through_mappings_and_replaces_lists() -> None:
    assert merge({"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"c": [3]}, "e": 2}) == {"a": {"b": 1, "c": [3]}, "d": 1, "e": 2}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parts": []}, "parts must be a list of mappings, each with the key `part`"),
        ({"parts": [{"train": {}}]}, "parts must be a list of mappings, each with the key `part`"),
        ({"parts": [{"part": "a"}, {"part": "a"}]}, "the part 'a' stands there twice"),
        ({"parts": [{"part": "a/b"}]}, "gid.yaml, part a/b: part:"),
        ({"parts": [{"part": "a", "seed": 1}]}, "part a: unknown key 'seed', did you mean 'seeds'"),
    ],
)
def test_wrong_parts(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_grid(write(tmp_path, **changes))


def test_a_grid_without_a_mini_block(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in CONTENT.items() if k != "mini"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="has no block `mini:`"):
        load_grid(path, mini=True)


def test_each_part_has_a_table_of_its_own(tmp_path: Path) -> None:
    study = load_grid(write(tmp_path))
    write_index(study, tmp_path / "runs")
    index = GridIndex.read(tmp_path / "runs")
    assert index.grid.parts == ["without-DF", "without-F2F", "again"]
    second = index.part("without-F2F")
    assert [t.name for t in second.grid.tests] == ["left-out", "Celeb"]
    assert build_table(second).title == "Leave one out: without-F2F"
    rows = tidy(index)
    assert set(rows.loc[rows["test"] == "Celeb", "part"]) == {"without-F2F"}
    files = {f.name for f in write_tables(index, tmp_path / "tables")}
    assert files == {"tidy.csv", *(f"table-{p}.{kind}" for p in index.grid.parts for kind in ("csv", "tex", "md"))}
    with pytest.raises(RecordError, match="has no part 'x'; it has without-DF, without-F2F, again"):
        index.part("x")


def test_a_record_serves_every_part_that_wants_it(tmp_path: Path) -> None:
    study = load_grid(write(tmp_path))
    write_index(study, tmp_path / "runs")
    sam = study.wanted()[4]
    grid = GridIndex.read(tmp_path / "runs").grid
    index = GridIndex(grid, {sam.id: record(sam.id, 0.9)}, {})
    assert sam.id in index.part("without-DF").records
    assert sam.id in index.part("again").records
    assert sam.id not in index.part("without-F2F").records
