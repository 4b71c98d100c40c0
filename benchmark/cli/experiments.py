"""`dfgrid demo` and `grid run`: the cells of a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.console import console
from benchmark.cli.options import Address, Data, DataOrMini, Device, Launcher, Only, Runs, Threads, Workers
from benchmark.cli.reference import Plugins
from benchmark.cli.running import finish, run_grid

grid_app = typer.Typer(help="Run a grid of detectors x optimizers x seeds; see how far it is.", no_args_is_help=True)


@grid_app.command("run")
def grid_run(
    grid: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a grid that comes with dfgrid (see: dfgrid list grids).")
    ],
    runs: Runs = Path("runs"),
    data: DataOrMini = Path("data"),
    device: Device = "cpu",
    workers: Workers = 1,
    threads: Threads = 1,
    only: Only = None,
    plugin: Plugins = None,
    launcher: Launcher = "local",
    address: Address = None,
    replace: Annotated[bool, typer.Option("--replace", help="Let this grid take the place of another one of its name.")] = False,
) -> None:
    """Run every cell that is not done yet. Ctrl-C stops after a checkpoint; the same command goes on."""
    from benchmark.cli.mini import run_mini
    from benchmark.mini import WORD
    from benchmark.study import load_grid

    plugins = [str(p) for p in plugin or []]
    if data == Path(WORD):
        finish(run_mini(grid, runs, device, workers, only, threads, plugins, None, launcher, address, replace))
        return
    loaded = load_grid(grid, plugins=plugins)
    outcome = run_grid(loaded, runs, data, device, workers, only, threads, launcher=launcher, address=address, replace=replace)
    if outcome is not None and outcome.stopped:
        finish(outcome)
    console.print(f"Now see: dfgrid table {loaded.name}" + ("" if runs == Path("runs") else f" --runs {runs}"), soft_wrap=True)
    finish(outcome)


def demo(
    data: Data = Path("data"),
    runs: Runs = Path("runs"),
    workers: Workers = 2,
    device: Device = "cpu",
) -> None:
    """The whole road on the mini dataset: draw, preprocess, train and evaluate the demo grid, print its table, write its report."""
    from benchmark.cli.data import run_preprocess, run_synth
    from benchmark.cli.report import report as write_site
    from benchmark.cli.results import show_table
    from benchmark.pool import slots
    from benchmark.study import load_grid
    from preprocessing.pipeline import Settings
    from results.index import GridIndex

    workers = len(slots(device, workers, 1))
    frames = 6
    console.rule("1  Draw the mini dataset")
    run_synth(data / "mini-a", "mini-a", 112, frames, 0, workers)
    run_synth(data / "mini-b", "mini-b", 40, frames, 0, workers)
    console.rule("2  Find, align and store faces")
    for name, layout in (("mini-a", "faceforensics++"), ("mini-b", "celeb-df-v2")):
        run_preprocess(data / name, layout, data / "stores" / name, name, None, Settings(frames=frames), workers)
    console.rule("3  Train and evaluate")
    outcome = run_grid(load_grid("demo"), runs, data, device, workers)
    if outcome is not None and (outcome.stopped or not GridIndex.read(runs / "demo").records):
        finish(outcome)  # there is nothing to show
    console.rule("4  The table")
    show_table(runs / "demo", beside=True)
    console.rule("5  The report")
    write_site(runs / "demo", runs / "demo" / "report", data)
    finish(outcome)
