"""The README of an archive of results."""

from __future__ import annotations

from typing import get_args

from results.index import GridIndex
from results.record import Level
from results.selection import selection_named
from results.trail import trail


def readme(index: GridIndex, selection: str) -> str:
    """Markdown: what is in the archive, how to verify it, protocol, data and code; `selection` is the rule of its tables."""
    rule = selection_named(selection)
    levels: tuple[Level, ...] = get_args(Level)
    tests = {(t.name, level) for t in index.grid.tests for level in levels}
    wanted = len({c.id for c in index.grid.cells})
    lines = [
        f"# Results of the grid {index.grid.name}",
        "",
        f"{index.grid.title or index.grid.name}: records, scores and tables of {len(index.records)} of {wanted} cells,",
        "made by `dfgrid` (deepfake-grid). No faces, weights or host names are in it, and no paths but those that the grid's own",
        "settings name: a store or a file of first weights that lies outside the data folder.",
        "",
        "- `grid.json`: what the grid wanted. `CELL/record.json`: settings, measures and provenance of a cell.",
        "- `CELL/scores.parquet`: the score of every face at every evaluation, from which every measure can be computed again.",
        "- `CELL/diagnostics.parquet`: gradients and sharpness on the way, where the run looked.",
        f"- `tables/`: the tables under the rule {rule.label}, as printed and tidy.",
        "- `SHA256SUMS`: of every file.",
        "",
        "## Verify",
        "",
        "```",
        "sha256sum --check SHA256SUMS           # the files are those that were packed",
        "dfgrid import-results ARCHIVE          # recomputes every measure from the scores and every cell's id from its settings",
        "```",
        "",
        "## Protocol, data, code",
        "",
        *(f"- {sentence}" for sentence in trail(index, rule, tests, {"auc"})[1:]),
    ]
    stores = {n: f for r in index.records.values() for n, f in r.provenance.stores.items()}
    codes = sorted({r.provenance.code for r in index.records.values()})
    lines += [
        "",
        "Whole fingerprints:",
        "",
        *(f"- store `{n}`: `{f}`" for n, f in sorted(stores.items())),
        *(f"- code: `{c}`" for c in codes),
    ]
    return "\n".join(lines) + "\n"
