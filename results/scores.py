"""scores.parquet: the score of every face at every evaluation point, from which every measure can be computed again.

| column  | type    | meaning                                                                  |
|---------|---------|--------------------------------------------------------------------------|
| epoch   | float   | epochs finished when the weights were evaluated                          |
| step    | integer | optimizer steps taken by then                                            |
| split   | text    | "val" or "test"                                                          |
| test    | text    | name of the set, as in `Measure.test`                                    |
| role    | text    | as in `Measure.role`                                                     |
| dataset | text    | of the face; a video is (dataset, method, video), never the video alone  |
| method  | text    | "real", or the forgery                                                   |
| video   | text    | name of the video                                                        |
| frame   | integer | index in the video                                                       |
| key     | text    | of the face in its store                                                 |
| label   | integer | 0 real, 1 fake                                                           |
| score   | float   | P(fake), in [0, 1]                                                       |

Columns of text may be categorical. A row is one face of one set at one evaluation point.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd
from pandas.api import types
from pyarrow.parquet import read_schema

from results.files import RecordError

SCORE_COLUMNS: dict[str, Literal["float", "integer", "text"]] = {
    "epoch": "float",
    "step": "integer",
    "split": "text",
    "test": "text",
    "role": "text",
    "dataset": "text",
    "method": "text",
    "video": "text",
    "frame": "integer",
    "key": "text",
    "label": "integer",
    "score": "float",
}


def check_scores(scores: pd.DataFrame, source: str) -> None:
    """Refuse a frame that is not as the table in this module's docstring says.

    Raises:
        RecordError: names `source`, the column and what is wrong with it.
    """
    missing = [c for c in SCORE_COLUMNS if c not in scores.columns]
    extra = [str(c) for c in scores.columns if c not in SCORE_COLUMNS]
    if missing or extra:
        raise RecordError(
            f"{source} has not the columns of a score file (missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(extra) or 'none'}); run the cell again"
        )
    for column, kind in SCORE_COLUMNS.items():
        values = scores[column]
        if not _is(kind, values):
            raise RecordError(f"{source}: column '{column}' must be {kind}, not {values.dtype}; run the cell again")
        if values.isna().any():
            raise RecordError(f"{source}: column '{column}' has {int(values.isna().sum())} missing values; run the cell again")
    for column, lowest, highest in (("label", 0, 1), ("score", 0.0, 1.0)):
        if not scores[column].between(lowest, highest).all():
            raise RecordError(f"{source}: column '{column}' has values outside [{lowest:g}, {highest:g}]; run the cell again")
    keys = ["step", "split", "test", "key"]
    if scores.duplicated(keys).any():
        row = scores.loc[scores.duplicated(keys), keys].iloc[0]
        raise RecordError(f"{source}: face {row['key']} is scored twice on {row['test']} at step {row['step']}; run the cell again")


def load_scores(path: str | Path) -> pd.DataFrame:
    """Read a score file.

    Raises:
        RecordError: missing, no parquet, or not as the schema says.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path} does not exist; run the cell to the end")
    try:
        scores = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is no parquet file ({str(error).splitlines()[0]}); delete it and run the cell again") from error
    check_scores(scores, str(path))
    return scores[list(SCORE_COLUMNS)]


def lost_scores(path: str | Path) -> str:
    """Why a score file cannot be what its cell wrote, as "is missing"; "" where its footer, which alone is read, is in order."""
    path = Path(path)
    if not path.is_file():
        return "is missing"
    try:
        names = read_schema(path).names
    except (OSError, ValueError):
        return "is no parquet file"
    return "" if set(SCORE_COLUMNS) <= set(names) else "has not the columns of a score file"


def _is(kind: str, values: pd.Series) -> bool:
    if kind == "float":
        return types.is_float_dtype(values.dtype)
    if kind == "integer":
        return types.is_integer_dtype(values.dtype)
    if isinstance(values.dtype, pd.CategoricalDtype):
        return types.is_string_dtype(values.dtype.categories.dtype)
    return types.is_string_dtype(values)
