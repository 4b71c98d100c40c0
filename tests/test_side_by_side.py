"""Every selection rule in one table: the numbers of the single tables, oracles called so, and the protocol's own as the default."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from results_grids import grid_file, record, write_grid
from results_scores import scored_grid
from test_cli import Dfgrid, dfgrid  # noqa: F401  (the fixture)

from results.files import RecordError
from results.index import GridIndex
from results.selection import SELECTIONS, protocol_selection, source_val_step
from results.side_by_side import build_side_by_side
from results.tables import build_table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cells = [record("meso4-sgd-s0", 0.8), record("meso4-sam-s0", 0.9, optimizer="sam")]
    return write_grid(tmp_path / "runs" / "demo", grid_file(), cells)


def test_the_columns_are_those_of_the_single_tables(folder: Path) -> None:
    index = GridIndex.read(folder)
    table = build_side_by_side(index)
    singles = [build_table(index, name) for name in SELECTIONS]
    assert len(table.headings) == len(SELECTIONS) * len(singles[0].headings)
    for at, heading in enumerate(table.headings):
        single, column = singles[at % len(SELECTIONS)], at // len(SELECTIONS)
        rule = list(SELECTIONS.values())[at % len(SELECTIONS)]
        assert heading[3] == rule.label
        assert rule.oracle == ("oracle" in heading[3])
        assert heading[:2] == single.headings[column][:2]
        assert [line[at] for line in table.entries] == [line[column] for line in single.entries]
    rules = [at for at, sentence in enumerate(table.trail) if sentence.startswith("Checkpoint: ")]
    assert rules == list(range(rules[0], rules[0] + len(SELECTIONS))), "one beside the other"
    for rule in SELECTIONS.values():
        assert any(rule.sentence in sentence for sentence in table.trail)


def test_bold_and_intervals_go_with_every_rule(dfgrid: Dfgrid, tmp_path: Path) -> None:  # noqa: F811
    folder = scored_grid(tmp_path / "runs" / "demo", {"sgd": 0.6, "sam": 0.7}, videos=8)
    code, _, _ = dfgrid("table", "demo", "--runs", folder.parent, "--selection", "all", "--interval", "--bold", "best")
    assert code == 0
    rows = [line for line in (folder / "tables" / "selections.md").read_text().splitlines() if line.startswith("| s")]
    single = build_table(GridIndex.read(folder), "last", bold="best", interval=True)
    assert all(any(single_entry.text in line for line in rows) for entries in single.entries for single_entry in entries)
    assert all(cell.rstrip("*").endswith("]") for line in rows for cell in line.strip("| ").split(" | ")[1:])
    assert any("**" in line for line in rows)


def test_all_on_the_command_line(dfgrid: Dfgrid, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    code, out, _ = dfgrid("table", "demo", "--runs", folder.parent, "--selection", "all")
    assert code == 0
    assert "top3_per_test (oracle)" in out
    rows = pd.read_csv(folder / "tables" / "selections-tidy.csv")
    assert set(rows["selection"]) == {rule.label for rule in SELECTIONS.values()}
    for suffix in ("csv", "tex", "md"):
        assert "oracle" in (folder / "tables" / f"selections.{suffix}").read_text()
    code, _, err = dfgrid("table", "demo", "--runs", folder.parent, "--selection", "all", "--beside")
    assert (code, "--beside goes with one selection" in err) == (2, True)


def test_a_table_reports_what_the_protocol_says(dfgrid: Dfgrid, tmp_path: Path) -> None:  # noqa: F811
    asked = {"name": "dfb-compat", "epochs": 2, "batch_size": 24, "selection": "top3_per_test"}
    cells = [record("meso4-sgd-s0", 0.8, protocol=asked), record("meso4-sam-s0", 0.9, optimizer="sam", protocol=asked)]
    folder = write_grid(tmp_path / "runs" / "demo", grid_file(), cells)
    code, out, _ = dfgrid("table", "demo", "--runs", folder.parent)
    assert (code, "top3_per_test (oracle)" in out) == (0, True)
    assert protocol_selection([record("c", 0.8)]) == protocol_selection([]) == "source_val"
    with pytest.raises(RecordError, match="ask for different selections"):
        protocol_selection([record("c", 0.8), cells[0]])


def test_source_validation_selects_without_any_test_measure() -> None:
    r = record("c", 0.8)
    validation = [m for m in r.measures if m.role == "source-val"]
    assert source_val_step(validation) == source_val_step(r.measures) == 20
    with pytest.raises(RecordError, match="no source-validation measures"):
        source_val_step([m for m in r.measures if m.role != "source-val"])
