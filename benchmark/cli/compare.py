"""`dfgrid compare`: which differences between optimizers are more than chance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console
from benchmark.cli.options import Runs


def compare(
    grid: Annotated[str, typer.Argument(help="Name of a grid that was started.")],
    runs: Runs = Path("runs"),
    selection: Annotated[
        str | None,
        typer.Option(
            help="Which checkpoint is compared: last, source_val, best_per_test or top3_per_test (oracles). Default: by protocol."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="'frame auc', 'video acc', ...; may be given often. Default: both AUCs.")
    ] = None,
    test: Annotated[list[str] | None, typer.Option("--test", help="Only this test set; may be given often.")] = None,
    optimizer: Annotated[
        list[str] | None, typer.Option("--optimizer", help="Show only pairs with this one; may be given often.")
    ] = None,
) -> None:
    """Pairs of optimizers on the same videos and seeds: differences, 95% intervals, corrected p values; and average ranks.

    All pairs are also written to tables/compare.csv in the grid's folder.
    """
    import pandas as pd

    from results.compare import Comparison, pair_table
    from results.files import RecordError, write_atomically
    from results.index import GridIndex
    from results.resampled import Resampled
    from results.selection import protocol_selection
    from results.tables import columns_for

    if Path(grid).name != grid:
        raise RecordError(f"'{grid}' is no name of a grid; give the folder that holds it with --runs")
    index = GridIndex.read(runs / grid)
    selection = selection or protocol_selection(index.records.values())
    for name in optimizer or []:
        if name not in index.grid.optimizers:
            raise RecordError(f"grid '{grid}' has no optimizer '{name}'; it has {', '.join(index.grid.optimizers)}")
    found = []
    for name in index.grid.parts:
        part = index.part(name)
        columns = columns_for(part, metric or ["auc"], test)
        comparison = Comparison(Resampled(part, selection))
        console.print(f"[bold]{escape(part.grid.title or part.grid.name)}[/]  (checkpoint: {comparison.resampled.selection.label})")
        for column in columns:
            console.print(_pairs(comparison, column, optimizer))
        _print_ranks(part, columns, selection)
        found.append(pair_table(comparison, columns).assign(part=name, selection=comparison.resampled.selection.label))
    pairs = pd.concat(found)
    compared = set(pairs["seeds"]) - {0} or {len(index.grid.seeds)}
    one = ": one seed says nothing of others." if compared == {1} else " and other seeds, but of one seed only of other videos."
    console.print(
        "Differences are paired on the same videos and seeds; intervals (95%) and p count the chance of other videos"
        + (one if 1 in compared else " and other seeds.")
        + " p (Holm) is corrected for all pairs of its table, not across tables.",
        soft_wrap=True,
    )
    path = runs / grid / "tables" / "compare.csv"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, pairs.to_csv(index=False, lineterminator="\n").encode())
    console.print(f"wrote {escape(str(path))}", soft_wrap=True)


def _pairs(comparison: Any, column: Any, only: list[str] | None) -> Table:
    """One column's pairs, the surest first."""
    from results.compare import title

    scale, digits = (1, 3) if column.metric == "log_loss" else (100, 2)
    table = Table(title=escape(f"{column.detector}, {column.test} ({column.role}), {title(column.level, column.metric)}"))
    for name in ("pair", "difference", "95% interval", "p", "p (Holm)"):
        table.add_column(name, justify="left" if name == "pair" else "right", no_wrap=name != "pair")
    shown = [p for p in comparison.pairs(column) if not only or {p.first, p.second} & set(only)]
    for p in sorted(shown, key=lambda p: 2.0 if p.difference is None else p.difference.p):
        d, name = p.difference, escape(f"{p.first} - {p.second}")
        if d is None:
            table.add_row(name, "–", escape(p.reason), "", "")
            continue
        ends = f"[{scale * d.low:+.{digits}f}, {scale * d.high:+.{digits}f}]"
        if d.seeds < p.seeds:
            name += f" ({d.seeds} of {p.seeds} seeds)"
        cells = (name, f"{scale * d.value:+.{digits}f}", escape(ends), _p(d.p), _p(p.corrected))
        table.add_row(*cells, style="bold" if p.significant else None)
    fewer = dict.fromkeys(p.reason for p in shown if p.difference and p.reason)
    table.caption = escape("\n".join(fewer)) or None
    return table


def _print_ranks(part: Any, columns: list[Any], selection: str) -> None:
    """Average ranks for each metric and level, with the cliques that are not told apart."""
    from results.compare import ranking, title
    from results.files import RecordError
    from results.tidy import tidy

    measured = tidy(part, selection)
    for level, metric in dict.fromkeys((c.level, c.metric) for c in columns):
        try:
            found = ranking(part, measured, [c for c in columns if (c.level, c.metric) == (level, metric)])
        except RecordError as error:
            console.print(f"No average ranks of {title(level, metric)}: {escape(str(error))}.", soft_wrap=True)
            continue
        ranks = found.ranks
        console.print(
            f"[bold]Average ranks[/] of {title(level, metric)} over {ranks.datasets} backbones x test sets: "
            + escape(", ".join(f"{name} {mean:.2f}" for name, mean in zip(ranks.names, ranks.mean, strict=True))),
            soft_wrap=True,
        )
        together = [f"{ranks.names[a]} to {ranks.names[b]}" for a, b in ranks.cliques()]
        sure = [f"{a} / {b} {_p(both)}" for a, b, _, both in found.pairs if both < 0.05]
        console.print(
            f"  Friedman chi2 {ranks.statistic:.2f}, p {_p(ranks.p)}; Iman-Davenport F {ranks.f:.2f}, p {_p(ranks.f_p)}; Nemenyi "
            f"critical difference {ranks.critical:.2f} (not told apart: {escape('; '.join(together) or 'none')}); Wilcoxon, Holm: "
            f"{escape(', '.join(sure) or 'no pair differs')}",
            soft_wrap=True,
        )
        if found.left_out:
            console.print(f"  left out, as no seed has a number of every optimizer there: {len(found.left_out)} columns")
        if found.fewer:
            console.print(f"  over the seeds that every optimizer has, where some have more: {len(found.fewer)} columns")


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
