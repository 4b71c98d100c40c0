"""`dfgrid demo`, `grid`, `train` and `evaluate`: running cells and looking at how they are doing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console, errors, progress, warn
from benchmark.cli.reference import Plugins, load

grid_app = typer.Typer(help="Run a grid of detectors x optimizers x seeds; see how far it is.", no_args_is_help=True)

Data = Annotated[Path, typer.Option("--data", envvar="DFGRID_DATA", help="Folder that the stores of a grid are relative to.")]
DataOrMini = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="DFGRID_DATA",
        help="Folder that the stores of a grid are relative to; or the word mini: scaled down, on drawn stand-ins in data/mini.",
    ),
]
Runs = Annotated[Path, typer.Option("--runs", envvar="DFGRID_RUNS", help="Folder for runs.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        help="Cells that run at the same time, each in a process of its own; 0: one for each GPU, or group of --threads cores.",
    ),
]
Launcher = Annotated[str, typer.Option(help="Where cells run: local, or ray (an existing Ray cluster, which does the scheduling).")]
Address = Annotated[str | None, typer.Option(help="Of the Ray cluster; default: RAY_ADDRESS, or the one on this machine.")]
Threads = Annotated[
    int,
    typer.Option(min=1, help="torch's threads in each process; a cell keeps to its number, on which last digits depend."),
]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="Run only cells whose detector or optimizer is this; may be given often.")
]


def check_device(device: str) -> None:
    """Refuse a device that torch does not have."""
    import torch

    from benchmark.config import ConfigError

    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ConfigError(f"unknown device '{device}': take cpu, cuda or cuda:N")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device '{device}' is not there: torch sees no CUDA GPU; take --device cpu")
    if ":" in device and int(device.split(":")[1]) >= torch.cuda.device_count():
        raise ConfigError(f"device '{device}' is not there: torch sees {torch.cuda.device_count()} GPU(s), counted from 0")


def chosen(cells: list[Any], only: list[str] | None) -> list[Any]:
    """The cells whose detector or optimizer is named in `only`; with names of both kinds, both must fit."""
    from benchmark.config import ConfigError
    from optimizers.registry import did_you_mean

    if not only:
        return cells
    detectors, optimizers = {c.detector.title for c in cells}, {c.optimizer.title for c in cells}
    for name in only:
        if name not in detectors | optimizers:
            raise ConfigError(
                f"--only {name}: this grid has no such detector or optimizer, {did_you_mean(name, detectors | optimizers)}"
            )
    d, o = set(only) & detectors, set(only) & optimizers
    return [c for c in cells if (not d or c.detector.title in d) and (not o or c.optimizer.title in o)]


def look_ahead(cells: list[Any], data: Path) -> tuple[dict[str, int], list[str]]:
    """Optimizer steps of each cell by its id, and every warning about its data; a missing store or split is told here."""
    from benchmark.data import FaceFrames
    from benchmark.run import cell_warnings, open_stores, select
    from benchmark.self_blended import training_batches

    empty: Any = None  # the pixels do not matter for counting steps
    known: dict[str, int] = {}
    steps: dict[str, int] = {}
    warnings: dict[str, None] = {}
    for cell in cells:
        p = cell.protocol
        same = f"{cell.train} {cell.tests} {p.batch_size} {p.class_balance} {p.duplicates}"
        if same not in known:
            stores = open_stores(cell, data)
            (rows, methods), _ = select(cell, stores)
            known[same] = training_batches(cell.train, p, FaceFrames(rows, methods, empty), 0, None).steps
            warnings |= dict.fromkeys(cell_warnings(cell, stores))
        steps[cell.id] = known[same] * p.all_epochs
    return steps, list(warnings)


def run_grid(
    study: Any,
    runs: Path,
    data: Path,
    device: str,
    workers: int,
    only: list[str] | None = None,
    threads: int = 1,
    add: bool = False,
    launcher: str = "local",
    address: str | None = None,
    replace: bool = False,
) -> Any:
    """Check everything that can be checked before the first step, then run with progress bars; returns the outcome."""
    from benchmark.config import ConfigError
    from benchmark.launch import check_launcher, finished, write_index
    from benchmark.mishaps import place_to_write
    from benchmark.same_name import check_same_grid
    from detectors import DETECTORS

    check_launcher(launcher, address)
    if launcher == "local":  # elsewhere, another machine's devices count
        check_device(device)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, one talks and writes
    console.quiet = not first
    cells = chosen(study.cells(), only)
    steps, warnings = look_ahead(cells, data)
    for sentence in warnings if first else []:
        warn(sentence)
    folder = runs / study.name
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose another folder with --runs")
    for spec in {c.detector.title: c.detector for c in cells}.values():
        DETECTORS.build(spec.name, **spec.settings)  # a size or weights file that does not fit is told now, not by every cell
    done = finished(cells, folder, data)
    todo = [c for c in cells if c.id not in done]
    if first:
        place_to_write(folder)
        for sentence in [] if add or replace else check_same_grid(study, folder):
            warn(sentence)
        write_index(study, folder, add)
    if not todo:
        console.print(f"{folder}: nothing to run, all {len(cells)} cells are done")
        return None
    outcome = run_study_cells(study.name, todo, folder, data, device, workers, threads, launcher, address, steps)
    if done:
        console.print(f"{len(done)} cells were done already")
    return outcome


def run_study_cells(
    name: str,
    todo: list[Any],
    folder: Path,
    data: Path,
    device: str,
    workers: int,
    threads: int,
    launcher: str,
    address: str | None,
    steps: dict[str, int] | None = None,
) -> Any:
    """Run cells with progress bars and say what became of them; returns the outcome."""
    from benchmark.launch import Event, run_cells

    steps = steps if steps is not None else look_ahead(todo, data)[0]
    names = {c.id: " / ".join(filter(None, (c.part, c.detector.title, c.optimizer.title, f"seed {c.seed}"))) for c in todo}
    with progress() as bar:
        whole = bar.add_task(f"{name}: {len(todo)} cells", total=sum(steps[c.id] for c in todo), unit="step")
        tasks: dict[str, Any] = {}
        trained: dict[str, int] = {}

        def on_event(event: Event) -> None:
            if event.stage in ("finished", "failed", "stopped", "busy"):
                if event.cell in tasks:
                    bar.remove_task(tasks.pop(event.cell))
                if event.stage == "finished":
                    bar.console.print(f"[green]done[/]    {escape(names[event.cell])}")
                    trained[event.cell] = steps[event.cell]
                elif event.stage == "failed":
                    bar.console.print(f"[red]failed[/]  {escape(names[event.cell])}: {escape(event.reason)}", soft_wrap=True)
                    trained[event.cell] = steps[event.cell]
                else:
                    bar.console.print(f"[yellow]{event.stage:8}[/]{escape(names[event.cell])}")
            else:
                if event.cell not in tasks:
                    tasks[event.cell] = bar.add_task("", total=steps[event.cell], unit="step")
                unit = "step" if event.stage == "train" else "face"
                bar.update(
                    tasks[event.cell],
                    description=f"  {names[event.cell]}: {event.stage}",
                    completed=event.done,
                    total=event.total,
                    unit=unit,
                )
                if event.stage == "train":
                    trained[event.cell] = event.done
            bar.update(whole, completed=sum(trained.values()))

        outcome = run_cells(todo, folder, data, device, workers, threads, on_event, launcher, address)
    if outcome.busy:
        errors.print(f"[yellow]{len(outcome.busy)} cells are being run by another process[/]")
    if outcome.failed:
        errors.print(f"[red]{len(outcome.failed)} of {len(todo)} cells failed[/]; their reasons stand in the table")
    return outcome


def finish(outcome: Any) -> None:
    """Exit code of a command that ran cells: 130 if stopped, 1 if a cell failed."""
    if outcome is not None and outcome.stopped:
        if not console.quiet:
            errors.print("Stopped; checkpoints are written. Run the same command to go on.")
        raise typer.Exit(130)
    if outcome is not None and (outcome.failed or outcome.busy):
        raise typer.Exit(1)


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
        finish(run_mini(grid, runs, device, workers, only, threads, plugins))
        return
    loaded = load_grid(grid, plugins=plugins)
    outcome = run_grid(loaded, runs, data, device, workers, only, threads, launcher=launcher, address=address, replace=replace)
    if outcome is not None and outcome.stopped:
        finish(outcome)
    console.print(f"Now see: dfgrid table {loaded.name}" + ("" if runs == Path("runs") else f" --runs {runs}"), soft_wrap=True)
    finish(outcome)


def parse_setting(text: str) -> tuple[str, Any]:
    """`key=value` with the value as YAML."""
    import yaml

    from benchmark.config import ConfigError

    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {text}: write key=value")
    try:
        number = float(value)
        return key, int(value) if re.fullmatch(r"[-+]?\d+", value) else number
    except ValueError:
        pass
    try:
        return key, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--set {text}: the value is no valid YAML") from error


def train(
    detector: Annotated[str, typer.Option(help="Registry name.")],
    optimizer: Annotated[str, typer.Option(help="Registry name.")],
    store: Annotated[Path, typer.Option(help="Store to train and validate on.")],
    method: Annotated[list[str], typer.Option("--method", help="Forgery method to train on; give it once per method.")],
    test: Annotated[
        list[Path] | None, typer.Option("--test", help="Store to test on (all its methods); may be given often.")
    ] = None,
    held_out: Annotated[
        list[str] | None, typer.Option("--held-out", help="Method of the training store to test on; may be given often.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base optimizer: sgd or adam; default: the rule's own.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the base optimizer.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: detector.size=64, optimizer.rho=0.1 or protocol.augment=flip.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    batch_size: Annotated[int, typer.Option(min=2, help="Faces in a step: a multiple of twice the number of methods.")] = 32,
    train_split: Annotated[
        str, typer.Option(help="Split to train on; 'none' is that of datasets without splits, such as UADFV and DeepFakeDetection.")
    ] = "train",
    val_split: Annotated[
        str, typer.Option(help="Split to validate on; may be 'none' too, and then holds the training faces, as a warning says.")
    ] = "val",
    frames: Annotated[
        int | None, typer.Option(min=1, help="At most so many faces of each video, in training and testing; default: all.")
    ] = None,
    frame_pick: Annotated[
        str | None, typer.Option(help="Which faces --frames takes: uniform (evenly spread), or first, as DeepfakeBench does.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    runs: Runs = Path("runs"),
    device: Device = "cpu",
    plugin: Plugins = None,
) -> None:
    """Train and test one cell without a grid file.

    Tests are on the split 'test', or on 'none' where a store has no other split.
    """
    from benchmark.config import ConfigError, Grid, default_base
    from benchmark.reading import parse
    from benchmark.study import study_of

    plugins = load(plugin)
    groups: dict[str, dict[str, Any]] = {"detector": {}, "optimizer": {}, "protocol": {}, "base": {}}
    for text in setting or []:
        key, value = parse_setting(text)
        group, _, name = key.partition(".")
        if group not in groups or not name:
            raise ConfigError(f"--set {text}: the key must start with detector., optimizer., protocol. or base.")
        if group != "protocol" and name in ("name", "base", "bases", "label"):
            raise ConfigError(f"--set {text}: say this with --detector, --optimizer or --base")
        groups[group][name] = value
    if lr is not None:
        groups["base"]["lr"] = lr
    home = str(store.resolve())
    # What is not said is the protocol's.
    picked = {key: value for key, value in (("frames", frames), ("frame_pick", frame_pick)) if value is not None}
    at_home = {"store": home, "split": tested_split(store), **picked}
    tests: list[dict[str, Any]] = [{"name": "in-domain", "methods": method, "role": "in-domain", **at_home}]
    tests += [{"name": m, "methods": [m], "role": "held-out", **at_home} for m in held_out or []]
    for path in test or []:
        tests.append(
            {"name": path.name, "store": str(path.resolve()), "split": tested_split(path), "role": "cross-dataset", **picked}
        )
    rule: dict[str, Any] = {"name": optimizer, **groups["optimizer"]}
    if base is not None or groups["base"]:
        rule["base"] = {"name": base or default_base(optimizer), **groups["base"]}
    content = {
        "name": "train",
        "title": "Single cells",
        "train": {"store": home, "methods": method, "train_split": train_split, "val_split": val_split, **picked},
        "tests": tests,
        "detectors": [{"name": detector, **groups["detector"]}],
        "optimizers": [rule],
        "seeds": [seed],
        "protocol": {"epochs": epochs, "batch_size": batch_size, **groups["protocol"]},
        "plugins": plugins,
    }
    grid = parse(Grid, content, "dfgrid train")
    outcome = run_grid(study_of(grid), runs, Path(), device, 1, add=True)
    finish(outcome)
    show_measures(runs / "train" / grid.cells()[0].id)


def tested_split(path: Path) -> str:
    """The split that a store is tested on: `test`; `none` where no face is in any other, as its dataset ships no splits."""
    from benchmark.config import NO_SPLIT
    from preprocessing.store import FaceStore

    return NO_SPLIT if set(FaceStore(path).manifest["split"]) == {NO_SPLIT} else "test"


def show_measures(folder: Path) -> None:
    """The last evaluation of a finished cell."""
    from results.record import Record

    record = Record.load(folder / "record.json")
    table = Table(
        "set", "role", "level", "real", "fake", "AUC", "ACC", "AP", "EER", "log loss", title=str(folder), title_justify="left"
    )
    last = max(m.step for m in record.measures)
    for m in record.measures:
        if m.step == last:
            values = ("-" if v is None else f"{v:.4f}" for v in (m.auc, m.acc, m.ap, m.eer, m.log_loss))
            table.add_row(m.test, m.role, m.level, str(m.n_real), str(m.n_fake), *values)
    console.print(table)


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.pt of dfgrid.")],
    stores: Annotated[list[Path], typer.Argument(help="Stores to score.")],
    split: Annotated[str, typer.Option(help="train, val, test, none (datasets without splits), or all.")] = "test",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Parquet file for every face's score.")] = None,
    device: Device = "cpu",
    plugin: Plugins = None,
) -> None:
    """Score stores with a trained checkpoint: metrics per frame and per video, and every face's score."""
    import pandas as pd

    from benchmark.config import ConfigError
    from benchmark.data import CachedImages, FaceFrames, splits_in_words
    from benchmark.evaluate import score
    from benchmark.face_settings import differences
    from benchmark.metrics import METRICS, measure, per_video
    from benchmark.restore import restore
    from preprocessing.store import FaceStore

    load(plugin)
    check_device(device)
    if out is not None and out.is_dir():
        raise ConfigError(f"--out {out}: this is a folder; name a file")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.parent} does not exist")
    restored = restore(checkpoint, device)
    detector = restored.detector
    table = Table(
        "store", "method", "level", "real", "fake", *METRICS, title=f"{checkpoint} at step {restored.step}", title_justify="left"
    )
    for path in stores:
        if restored.faces is not None and (differing := differences(restored.faces, FaceStore(path).info["settings"])):
            then, now = differing
            warn(f"{checkpoint} was trained on other faces than those of store {path}: {then} there, {now} here")
    scored = []
    for path in stores:
        with FaceStore(path) as store, progress() as bar:
            task = bar.add_task(f"decode {path.name}", total=None, unit="face")

            def show(done: int, total: int, bar: Any = bar, task: Any = task) -> None:
                bar.update(task, completed=done, total=total)

            images = CachedImages(store, detector.size, show).images
            rows = store.manifest.reset_index(drop=True).rename_axis("index").reset_index()
            rows = rows if split == "all" else rows[rows["split"] == split]
            if rows.empty:
                there = splits_in_words(store.manifest["split"])
                raise ConfigError(f"store {path} has no faces in split '{split}'; it has them in {there} (or take --split all)")
            frames = FaceFrames(rows.assign(domain=-1).reset_index(drop=True), (), images)
            bar.update(task, description=f"score {path.name}", completed=0)
            scores = score(detector, frames, progress=show)
        methods = [m for m in sorted(set(scores["method"])) if m != "real"]
        for method in ["all", *methods] if len(methods) > 1 else ["all"]:
            part = scores if method == "all" else scores[scores["method"].isin([method, "real"])]
            for level, values in (("frame", part), ("video", per_video(part))):
                labels = values["label"].to_numpy("int64")
                found, undefined = measure(labels, values["score"].to_numpy("float64"))
                cells = (f"{v:.4f}" if v is not None else undefined[m] for m, v in found.items())
                table.add_row(path.name, method, level, str((labels == 0).sum()), str((labels == 1).sum()), *cells)
        scored.append(scores.assign(store=path.name))
    console.print(table)
    if out is not None:
        pd.concat(scored, ignore_index=True).to_parquet(out, index=False)
        console.print(f"wrote {out}", soft_wrap=True)


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

    workers = len(slots(device, workers, 1))
    frames = 6
    console.rule("1  Draw the mini dataset")
    run_synth(data / "mini-a", "mini-a", 112, frames, 0, workers)
    run_synth(data / "mini-b", "mini-b", 40, frames, 0, workers)
    console.rule("2  Find, align and store faces")
    for name, layout in (("mini-a", "faceforensics++"), ("mini-b", "celeb-df-v2")):
        run_preprocess(data / name, layout, data / "stores" / name, name, "c23", Settings(frames=frames), workers)
    console.rule("3  Train and evaluate")
    outcome = run_grid(load_grid("demo"), runs, data, device, workers)
    if outcome is not None and outcome.stopped:
        finish(outcome)
    console.rule("4  The table")
    show_table(runs / "demo", beside=True)
    console.rule("5  The report")
    write_site(runs / "demo", runs / "demo" / "report", data)
    finish(outcome)
