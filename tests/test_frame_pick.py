"""Which faces of a video a cell takes: evenly spread ones, or the first ones as DeepfakeBench's loader does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from test_config import GRID
from test_data import manifest

from benchmark.config import Cell, ConfigError, Grid
from benchmark.data import choose
from benchmark.frame_pick import FRAME_PICKS, pick_frames
from benchmark.protocol import Protocol
from benchmark.reading import parse
from benchmark.reads import select


def videos(*lengths: int) -> pd.DataFrame:
    """Videos of so many faces; their frame numbers have gaps, as where no face was found."""
    tables = [manifest({"real": 1}, frames=n).assign(video=f"{v:03d}") for v, n in enumerate(lengths)]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(frame=5 * table["frame"] + 3)


def picked(table: pd.DataFrame, frames: int, pick: str) -> list[list[int]]:
    rows = pick_frames(table, frames, pick)
    return [rows.loc[rows["video"] == video, "frame"].tolist() for video in table["video"].unique()]


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 32])
def test_picks_of_videos_of_all_lengths(frames: int) -> None:
    lengths = (1, 2, 5, 8, 31, 32, 33, 270)
    uniform, first = (picked(videos(*lengths), frames, pick) for pick in ("uniform", "first"))
    for n, even, head in zip(lengths, uniform, first, strict=True):
        m = min(n, frames)
        assert even == [5 * -(-k * n // m) + 3 for k in range(m)], "the places where floor(i m / n) changes are ceil(k n / m)"
        assert head == [5 * k + 3 for k in range(m)]


def test_default_and_unknown_picks() -> None:
    table = manifest({"real": 2, "A": 2}, frames=9)
    default, _ = choose(table, "s", ["A"], "train", 4)
    pd.testing.assert_frame_equal(default, choose(table, "s", ["A"], "train", 4, "uniform")[0])
    assert not default.equals(choose(table, "s", ["A"], "train", 4, "first")[0])
    with pytest.raises(ConfigError, match="unknown frame_pick 'frist', did you mean 'first'"):
        choose(table, "s", ["A"], "train", 4, "frist")


def cell(train: dict[str, Any], test: dict[str, Any]) -> Cell:
    content = {**GRID, "train": {**GRID["train"], **train}, "tests": [{**GRID["tests"][0], **test}]}
    made: Grid = parse(Grid, content, "g.yaml")
    return made.cells()[0]


def test_a_cell_picks_as_it_is_told() -> None:
    faces = pd.concat([manifest({"real": 1, "Deepfakes": 1, "FaceSwap": 1}, 9, split) for split in ("train", "val", "test")])
    stores: Any = {"s": SimpleNamespace(manifest=faces)}
    (rows, _), evaluated = select(cell({"frames": 3, "frame_pick": "first"}, {"frames": 3}), stores)
    for table, frames in ((rows, [0, 1, 2]), (evaluated["val"][0], [0, 1, 2]), (evaluated["t"][0], [0, 3, 6])):
        assert {method: part["frame"].tolist() for method, part in table.groupby("method")} == dict.fromkeys(
            table["method"].unique(), frames
        )
    _, evaluated = select(cell({"frames": 3}, {"frames": 3, "frame_pick": "first"}), stores)
    assert evaluated["val"][0]["frame"].tolist() == [0, 3, 6] * 3
    assert evaluated["t"][0]["frame"].tolist() == [0, 1, 2] * 2


def test_the_pick_is_part_of_a_cell_and_the_default_keeps_the_ids_of_before() -> None:
    plain = cell({"frames": 3}, {"frames": 3})
    assert plain.id == cell({"frames": 3, "frame_pick": "uniform"}, {"frames": 3, "frame_pick": "uniform"}).id
    before = json.loads(plain.model_dump_json(exclude={"plugins", "grid", "part"}))
    for part in (before["train"], *before["tests"]):
        assert part.pop("frame_pick") == "uniform"
    assert before["train"].pop("source") == "forgeries"
    before["protocol"] = {name: before["protocol"][name] for name in Protocol.FIRST}
    assert plain.id.endswith(hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()[:8])
    first = {"frames": 3, "frame_pick": "first"}
    assert len({plain.id, cell(first, {"frames": 3}).id, cell({"frames": 3}, first).id, cell(first, first).id}) == 4


def test_config_knows_every_pick() -> None:
    for pick in FRAME_PICKS:
        assert cell({"frames": 3, "frame_pick": pick}, {}).train.frame_pick == pick
    with pytest.raises(ConfigError, match=r"g.yaml: train.frame_pick: .*'uniform' or 'first', not \"last\""):
        cell({"frames": 3, "frame_pick": "last"}, {})
    with pytest.raises(ConfigError, match="train: frame_pick 'first' needs frames, such as 32"):
        cell({"frame_pick": "first"}, {})
    with pytest.raises(ConfigError, match="tests: 't': frame_pick 'first' needs frames"):
        cell({}, {"frame_pick": "first"})


def test_grids_read_it_from_yaml(tmp_path: Path) -> None:
    from test_config import write

    from benchmark.study import load_grid

    path = write(tmp_path, train={**GRID["train"], "frames": 8, "frame_pick": "first"})
    assert {c.train.frame_pick for c in load_grid(path).cells()} == {"first"}
