"""`dfgrid probe statistics`: accuracy under changed shallow statistics, as in the PIM paper's tables II and III."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console, counted, errors, progress
from benchmark.cli.options import Data, Device, Runs, check_device
from benchmark.cli.reference import Plugins, load


def statistics(
    trained: Annotated[list[Path], typer.Argument(help="Names of grids that were run, folders of grids or cells, or checkpoints.")],
    data: Data = Path("data"),
    runs: Runs = Path("runs"),
    mean: Annotated[float, typer.Option(help="Factor of every channel's mean.")] = 1.2,
    variance: Annotated[float, typer.Option(min=0.0, help="Factor of every channel's variance.")] = 0.65,
    batch_size: Annotated[int, typer.Option(min=1, help="Faces that go through the detector together.")] = 64,
    device: Device = "cpu",
    plugin: Plugins = None,
) -> None:
    """Accuracy and log loss, by frame and by video, before and after the channel statistics of shallow features are changed.

    Results go to probes/statistics.json beside each checkpoint, scores to statistics.parquet; what is there already is not computed
    again. `dfgrid table pim/2` and `pim/3` show what was found in the grid pim/table2.
    """
    from benchmark.probe import find_trained, left_out
    from benchmark.statistics import probe_statistics
    from results.shallow import StatisticsSettings

    load(plugin)
    check_device(device)
    settings = StatisticsSettings(mean=mean, variance=variance, batch_size=batch_size)
    found, missing = find_trained(trained, runs)
    reports, known = [], 0
    with progress() as bar:
        whole = bar.add_task("probe", total=len(found), unit="cell")
        part = bar.add_task("", total=None, unit="face")
        for one in found:

            def tell(stage: str, done: int, total: int) -> None:
                bar.update(part, description=f"  {stage}", completed=done, total=total or None)

            bar.update(whole, description=f"probe {one.path.parent.name}")
            report, was_there = probe_statistics(one, data, settings, device, tell)
            known += was_there
            reports.append(report)
            bar.advance(whole)
        bar.remove_task(part)
    console.print(table(reports))
    console.print(
        f"Every channel's mean x {mean:g} and variance x {variance:g} over positions, in the modules that each detector names in "
        "`shallow`. ACC: in %, at 0.5; log loss in nats; weights of the last step.",
        soft_wrap=True,
    )
    if known:
        console.print(f"{known} of {counted(len(reports), 'cell')} {'was' if known == 1 else 'were'} probed already")
    for sentence in left_out(missing):
        errors.print(f"[yellow]{escape(sentence)}[/]", soft_wrap=True)


def table(reports: list[Any]) -> Table:
    """A row a cell, forgery and level."""
    found = Table(title="Accuracy under changed shallow statistics", title_justify="left")
    for name in ("cell", "test set", "forgery", "of"):
        found.add_column(name)
    for name in ("ACC\nbefore", "\nafter", "log loss\nbefore", "\nafter"):
        found.add_column(name, justify="right", no_wrap=True)
    for r in reports:
        cell = f"{r.detector} / {r.optimizer} / {r.seed}"
        for e in r.effects:
            numbers = (
                f"{100 * e.acc_before:.2f}",
                f"{100 * e.acc_after:.2f}",
                f"{e.log_loss_before:.4f}",
                f"{e.log_loss_after:.4f}",
            )
            found.add_row(escape(cell), escape(e.test), escape(e.method) or "all", f"{e.level}s", *numbers)
            cell = ""
    return found
