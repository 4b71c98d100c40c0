"""The papers' own numbers, digit by digit; `reported/README.md` names the table of each file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from results.files import RecordError

FOLDER = Path(__file__).parent / "reported"


def reported_names() -> list[str]:
    """Names that `reported` takes."""
    return sorted(p.stem for p in FOLDER.glob("*.csv"))


def reported(name: str, numbers: bool = False) -> pd.DataFrame:
    """A published table.

    Args:
        name: such as "roga_table4"; see `reported_names`.
        numbers: turn columns whose cells are all numbers (or empty) into floats. Otherwise every cell is the text as printed,
            with its trailing zeros, and an empty cell is "".

    Raises:
        RecordError: no such table; the sentence names those there are.
    """
    if name not in reported_names():
        raise RecordError(f"no reported table '{name}'; known are {', '.join(reported_names())}")
    table = pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)
    if numbers:
        for column in table.columns:
            cells = table[column].where(table[column] != "")
            converted = pd.to_numeric(cells, errors="coerce")
            if converted.notna().eq(cells.notna()).all() and converted.notna().any():
                table[column] = converted.astype(float)
    return table


@dataclass(frozen=True)
class Beside:
    """A published column that is shown beside the measured ones.

    Attributes:
        table: name of the reported table.
        rows, column: its column of row names, and the column of numbers.
        names: registry name of an optimizer -> the table's row.
        heading: lines above the column, outermost first.
        note: what a reader must know in order not to compare what cannot be compared.
    """

    table: str
    rows: str
    column: str
    names: dict[str, str]
    heading: tuple[str, str, str, str]
    note: str


ROGA_TABLE4 = Beside(
    table="roga_table4",
    rows="optimizer",
    column="DF AUC (train FS,F2F,NT)",
    names={"adam": "Adam", "sgd": "SGD", "sam": "SAM", "sagm": "SAGM", "roga": "Ours(RoGA)"},
    heading=("RoGA paper", "real FF++", "reported", "DF AUC"),
    note=(
        "RoGA paper: as printed in arXiv 2505.20653, table IV, column 'DF AUC (train FS,F2F,NT)', in %. The paper measured it on "
        "the real FaceForensics++. It was not measured here, and numbers on other data, such as drawn mini data, do not compare."
    ),
)
"""The AUC on Deepfakes that the RoGA paper reports for five optimizers trained on the other three forgeries of FaceForensics++."""

NOT_REPORTED = "not reported"


def reported_for(optimizer: str, beside: Beside = ROGA_TABLE4) -> str | None:
    """The number that a paper reports for an optimizer, as printed.

    Args:
        optimizer: registry name, such as "roga".
        beside: which published column.

    Returns:
        The digits, or None where the paper has no such row.
    """
    if optimizer not in beside.names:
        return None
    table = reported(beside.table)
    (digits,) = table.loc[table[beside.rows] == beside.names[optimizer], beside.column]
    return str(digits) or None
