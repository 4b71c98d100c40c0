"""`dfgrid probe`: trained cells looked at afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli import probe_statistics
from benchmark.cli.console import console, counted, errors, progress
from benchmark.cli.options import Data, Device, Runs, check_device
from benchmark.cli.reference import Plugins, load

probe_app = typer.Typer(help="Look at trained cells: how flat the loss is, what shallow statistics do.", no_args_is_help=True)
probe_app.command("statistics")(probe_statistics.statistics)

SHOWN_RADIUS = 0.05
"""The table shows the probed radius nearest to it; the files hold all."""


@probe_app.command("sharpness")
def sharpness(
    trained: Annotated[list[Path], typer.Argument(help="Names of grids that were run, folders of grids or cells, or checkpoints.")],
    data: Data = Path("data"),
    runs: Runs = Path("runs"),
    radius: Annotated[
        list[float] | None, typer.Option("--radius", help="l2 radius in the weights; may be given often. Default: 0.01 0.05 0.1.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the projected ascent that looks for the worst case.")] = 5,
    directions: Annotated[int, typer.Option(min=1, help="Random directions of the average case.")] = 5,
    faces: Annotated[int, typer.Option(min=2, help="Faces of each set, half of them real; the same ones for every cell.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the faces and the directions.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Faces that go through the detector together.")] = 64,
    device: Device = "cpu",
    plugin: Plugins = None,
) -> None:
    """Sharpness at several radii and the Hessian's largest eigenvalue, on source and target faces, beside the AUC.

    Results go to probes/sharpness.json beside each checkpoint; what is there already is not computed again.
    """
    from benchmark.probe import find_trained, left_out, probe_sharpness
    from results.sharpness import ProbeSettings

    load(plugin)
    check_device(device)
    asked: dict[str, Any] = {"radii": tuple(sorted(set(radius)))} if radius else {}
    settings = ProbeSettings(steps=steps, directions=directions, faces=faces, seed=seed, batch_size=batch_size, **asked)
    found, missing = find_trained(trained, runs)
    rows, known = [], 0
    with progress() as bar:
        whole = bar.add_task("probe", total=len(found), unit="cell")
        part = bar.add_task("", total=None, unit="pass")
        for one in found:

            def tell(stage: str, done: int, total: int) -> None:
                bar.update(part, description=f"  {stage}", completed=done, total=total or None)

            bar.update(whole, description=f"probe {one.path.parent.name}")
            report, was_there = probe_sharpness(one, data, settings, device, tell)
            known += was_there
            rows.append((one, report))
            bar.advance(whole)
        bar.remove_task(part)
    for table in tables(rows):
        console.print(table)
    console.print(
        "rise: how far the loss (nats) rises at most within the radius, as far as projected ascent finds; λ: largest eigenvalue of "
        "its Hessian; AUC: of frames, in %, with the same weights. BatchNorm in evaluation mode.",
        soft_wrap=True,
    )
    if known:
        console.print(f"{known} of {counted(len(rows), 'cell')} {'was' if known == 1 else 'were'} probed already")
    console.print(f"more radii, the average case and the adaptive one: {found[0].report.name} in probes/ beside each checkpoint")
    for sentence in left_out(missing):
        errors.print(f"[yellow]{escape(sentence)}[/]", soft_wrap=True)


def tables(rows: list[Any]) -> list[Table]:
    """Flatness and AUC side by side, a cell a row; cells with the same sets share a table. Validation is left to the files."""
    groups: dict[tuple[tuple[str, str], ...], list[Any]] = {}
    for one, report in rows:
        groups.setdefault(tuple((s.name, s.role) for s in report.sets if s.role != "source-val"), []).append((one, report))
    found = []
    for sets, members in groups.items():
        radius = members[0][1].sets[0].rise(SHOWN_RADIUS).radius
        table = Table(title=f"Flatness and AUC (radius {radius:g})", title_justify="left")
        table.add_column("cell")
        for name, role in sets:
            source = role == "source-train"
            title = f"{name} ({role})" if name == "train" and not source else name
            table.add_column(f"{escape(title)}\n{'rise':>8}{'λ':>8}" + ("" if source else f"{'AUC':>6}"), no_wrap=True)
        for one, report in members:
            cells = [escape(f"{report.detector} / {report.optimizer} / {report.seed}")]
            for probed in (s for s in report.sets if s.role != "source-val"):
                text = f"{_number(probed.rise(SHOWN_RADIUS).worst):>8}{_number(probed.eigenvalue):>8}"
                auc = one.auc(probed.name, report.step)
                cells.append(text + ("" if probed.role == "source-train" else f"{'-' if auc is None else f'{100 * auc:.1f}':>6}"))
            table.add_row(*cells)
        found.append(table)
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
