"""The papers' numbers: every digit as printed, and beside the measured ones only where the paper has them."""

from __future__ import annotations

import pandas as pd
import pytest
from results_grids import grid_file, record

from results.files import RecordError
from results.index import GridIndex
from results.reported import FOLDER, reported, reported_for, reported_names
from results.tables import build_table


def test_all_tables_are_there_and_named_in_the_readme() -> None:
    names = reported_names()
    assert len(names) == 16
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}.csv`" not in readme] == []


@pytest.mark.parametrize("name", reported_names())
def test_digits_survive(name: str) -> None:
    original = (FOLDER / f"{name}.csv").read_text(encoding="utf-8")
    assert reported(name).to_csv(index=False) == original


def test_numbers_are_numbers_and_gaps_are_gaps() -> None:
    table = reported("roga_table1", numbers=True)
    assert table["CDF-v1"].dtype == float
    assert table["category"].tolist()[-1] == "Ours(RoGA)"
    assert table["UADFV"].isna().sum() == 4
    assert table["DFDC"].tolist()[-1] == 0.751
    assert reported("roga_table5")["DF"].tolist()[-1] == "99.20"
    # "alpha:beta" looks like numbers and is none
    assert not pd.api.types.is_numeric_dtype(reported("pim_table8", numbers=True)["alpha:beta"])


def test_an_unknown_table() -> None:
    with pytest.raises(RecordError, match="no reported table 'roga_table9'; known are deepfakebench_table"):
        reported("roga_table9")


@pytest.mark.parametrize(
    ("optimizer", "digits"),
    [("adam", "92.96"), ("sgd", "92.27"), ("sam", "93.18"), ("sagm", "93.05"), ("roga", "93.63"), ("pim", None), ("gnp", None)],
)
def test_the_rows_of_the_roga_paper(optimizer: str, digits: str | None) -> None:
    assert reported_for(optimizer) == digits


def test_beside_goes_by_the_optimizer_and_not_by_its_label() -> None:
    grid = grid_file(("SAM (ours)", "SAGM*", "gnp"))
    cells = (grid.cells[0], grid.cells[1].model_copy(update={"optimizer_name": "sagm"}), grid.cells[2])
    grid = grid.model_copy(update={"cells": cells})
    measured = record(cells[0].id, 0.9, optimizer="sam")
    measured = measured.model_copy(update={"optimizer": measured.optimizer.model_copy(update={"label": "SAM (ours)"})})
    index = GridIndex(grid, {cells[0].id: measured}, {c.id: "not run yet" for c in cells[1:]})
    table = build_table(index, beside=True)
    assert [line[-1].text for line in table.entries] == ["93.18", "93.05", "–"]
    assert table.entries[2][-1].reason == "not reported"
    assert not any(line[-1].best for line in table.entries)
    assert table.headings[-1] == ("RoGA paper", "real FF++", "reported", "DF AUC")
    assert "not measured here" in table.trail[-1]
    assert len(build_table(index).headings) == len(table.headings) - 1
