"""diagnostics.parquet: what gradients and the loss around the weights looked like on the way.

| column | type    | meaning                                                                                      |
|--------|---------|----------------------------------------------------------------------------------------------|
| step   | integer | of the optimizer; it is the step's batch, at the weights that the step begins with           |
| name   | text    | what was measured, see below; what a rule says of itself begins with the rule's name and "/" |
| domain | text    | forgery method that it is about; empty: the whole batch                                      |
| other  | text    | the second domain of a cosine; else empty                                                    |
| value  | float   | may be NaN or infinite, where training was                                                   |

Measured for every optimizer, all on the same function: the mean over domains of each domain's mean loss, each domain forwarded by
itself in training mode (g_i is the gradient of domain i, g their mean, norms are l2 over all weights together):

- `loss`: L_i, and their mean.
- `gradient_norm`: ||g_i||, and ||g||.
- `gradient_cosine`: <g_i, g_j> / (||g_i|| ||g_j||), the whole symmetric matrix; below 0 two domains are in conflict.
- `sharpness_gap@RHO`: L(theta + RHO g / ||g||) - L(theta), of each domain under the common shift, and their mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from results.files import RecordError
from results.record import DiagnosticRange

FILE = "diagnostics.parquet"
COSINE = "gradient_cosine"


class Row(NamedTuple):
    """A line of the table above."""

    step: int
    name: str
    domain: str
    other: str
    value: float


def table(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as the table above."""
    frame = pd.DataFrame(list(rows), columns=list(Row._fields))
    return frame.astype({"step": "int64", "name": "str", "domain": "str", "other": "str", "value": "float64"})


def load_diagnostics(path: str | Path) -> pd.DataFrame:
    """Read a diagnostics file.

    Raises:
        RecordError: missing, no parquet, or with other columns.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(
            f"{path} does not exist; run the cell with protocol.diagnostics_every a number of steps (auto leaves short runs out)"
        )
    try:
        found = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is no parquet file ({str(error).splitlines()[0]}); delete it and run the cell again") from error
    if list(found.columns) != list(Row._fields):
        raise RecordError(f"{path} has not the columns {', '.join(Row._fields)}; run the cell again")
    return found


def cosines(diagnostics: pd.DataFrame, step: int) -> pd.DataFrame:
    """The matrix of cosines between the domains' gradients at one step, domains as rows and columns."""
    rows = diagnostics[(diagnostics["name"] == COSINE) & (diagnostics["step"] == step)]
    order = list(dict.fromkeys(rows["domain"]))
    return rows.pivot_table(index="domain", columns="other", values="value", sort=False).loc[order, order]


def ranges(diagnostics: pd.DataFrame) -> tuple[DiagnosticRange, ...]:
    """First, last, mean and extremes of every quantity over the run, of its finite values; a pair of domains is named once."""
    found, seen = [], set()
    for key, rows in diagnostics.groupby(["name", "domain", "other"], sort=False):
        name, domain, other = (str(part) for part in key)
        if other and (other == domain or (name, other, domain) in seen):
            continue
        seen.add((name, domain, other))
        ordered = rows.sort_values("step")["value"].to_numpy(np.float64)
        finite = ordered[np.isfinite(ordered)]
        numbers = {}
        if len(finite):
            first, last = float(finite[0]), float(finite[-1])
            numbers = {"first": first, "last": last, "mean": float(finite.mean())}
            numbers |= {"lowest": float(finite.min()), "highest": float(finite.max())}
        found.append(DiagnosticRange(name=name, domain=domain, other=other, count=len(ordered), finite=len(finite), **numbers))
    return tuple(found)
