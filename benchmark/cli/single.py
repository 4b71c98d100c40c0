"""`dfgrid train` and `evaluate`: one cell without a grid file, and a checkpoint on other stores."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmark.cli.console import console, progress, warn
from benchmark.cli.options import Device, Runs, check_device
from benchmark.cli.reference import Plugins, load
from benchmark.cli.running import finish, look_at_fit, run_grid


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
    label: Annotated[
        str | None,
        typer.Option(help="What tables call the row; default: the optimizer and what is set of it: sam rho=0.1."),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Folder in --runs, and what `dfgrid table` calls it: cells on the same data under one protocol.")
    ] = "train",
    runs: Runs = Path("runs"),
    device: Device = "cpu",
    plugin: Plugins = None,
) -> None:
    """Train and test one cell without a grid file. `dfgrid table train` shows all of them.

    A row of that table is one optimizer under one setting, and its cells are seeds; --name keeps other data, another protocol or
    another length of training apart. Tests are on the split 'test', or on 'none' where a store has no other split.
    """
    from benchmark.config import ConfigError, Grid, default_base
    from benchmark.labels import detector_label, optimizer_label
    from benchmark.reading import parse
    from benchmark.study import study_of

    plugins = load(plugin)
    groups: dict[str, dict[str, Any]] = {"detector": {}, "optimizer": {}, "protocol": {}, "base": {}}
    for text in setting or []:
        key, value = parse_setting(text)
        group, _, what = key.partition(".")
        if group not in groups or not what:
            raise ConfigError(f"--set {text}: the key must start with detector., optimizer., protocol. or base.")
        if group != "protocol" and what in ("name", "base", "bases", "label"):
            raise ConfigError(f"--set {text}: say this with --detector, --optimizer, --base or --label")
        groups[group][what] = value
    if lr is not None:
        groups["base"]["lr"] = lr
    column: dict[str, Any] = {"name": detector, **groups["detector"]}
    rule: dict[str, Any] = {"name": optimizer, **groups["optimizer"]}
    if base is not None or groups["base"]:
        rule["base"] = {"name": base or default_base(optimizer), **groups["base"]}
    home = str(store.resolve())
    # What is not said is the protocol's.
    picked = {key: value for key, value in (("frames", frames), ("frame_pick", frame_pick)) if value is not None}
    at_home = {"store": home, **picked}
    tests: list[dict[str, Any]] = [{"name": "in-domain", "methods": method, "role": "in-domain", **at_home}]
    tests += [{"name": m, "methods": [m], "role": "held-out", **at_home} for m in held_out or []]
    tests += [{"name": path.resolve().name, "store": str(path.resolve()), "role": "cross-dataset", **picked} for path in test or []]
    content = {
        "name": name,
        "title": "Single cells",
        "train": {"store": home, "methods": method, "train_split": train_split, "val_split": val_split, **picked},
        "tests": tests,
        "detectors": [column],
        "optimizers": [rule],
        "seeds": [seed],
        "protocol": {"epochs": epochs, "batch_size": batch_size, **groups["protocol"]},
        "plugins": plugins,
    }
    first = parse(Grid, content, "dfgrid train").cells()[0]
    look_at_fit([first])  # before a store is opened, which the tests' splits ask for
    for one in tests:
        one["split"] = tested_split(Path(one["store"]))
    column["label"] = detector_label(first.detector)
    rule["label"] = optimizer_label(first) if label is None else label
    grid = parse(Grid, content, "dfgrid train")
    outcome = run_grid(study_of(grid), runs, Path(), device, 1, add=True, fit=True)
    finish(outcome)
    show_measures(runs / name / grid.cells()[0].id)


def tested_split(path: Path) -> str:
    """The split that a store is tested on: `test`; `none` where no face is in any other, as its dataset ships no splits."""
    from benchmark.specs import NO_SPLIT
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
    from benchmark.data import FaceFrames, splits_in_words
    from benchmark.decoded import CachedImages
    from benchmark.evaluate import score
    from benchmark.face_settings import differences
    from benchmark.frame_pick import check_levels
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
    called = names_apart(stores)
    for path in stores:
        with FaceStore(path) as store, progress() as bar:
            task = bar.add_task(f"decode {called[path]}", total=None, unit="face")

            def show(done: int, total: int, bar: Any = bar, task: Any = task) -> None:
                bar.update(task, completed=done, total=total)

            rows = store.manifest.reset_index(drop=True).rename_axis("index").reset_index()
            rows = rows if split == "all" else rows[rows["split"] == split]
            if rows.empty:
                there = splits_in_words(store.manifest["split"])
                raise ConfigError(f"store {path} has no faces in split '{split}'; it has them in {there} (or take --split all)")
            check_levels(rows, str(path))
            images = CachedImages(store, detector.size, show, partial(warn, bar=bar)).images
            frames = FaceFrames(rows.assign(domain=-1).reset_index(drop=True), (), images)
            bar.update(task, description=f"score {called[path]}", completed=0)
            scores = score(detector, frames, progress=show)
        methods = [m for m in sorted(set(scores["method"])) if m != "real"]
        for method in ["all", *methods] if len(methods) > 1 else ["all"]:
            part = scores if method == "all" else scores[scores["method"].isin([method, "real"])]
            for level, values in (("frame", part), ("video", per_video(part))):
                labels = values["label"].to_numpy("int64")
                found, undefined = measure(labels, values["score"].to_numpy("float64"))
                cells = (f"{v:.4f}" if v is not None else undefined[m] for m, v in found.items())
                table.add_row(called[path], method, level, str((labels == 0).sum()), str((labels == 1).sum()), *cells)
        scored.append(scores.assign(store=called[path]))
    console.print(table)
    if out is not None:
        pd.concat(scored, ignore_index=True).to_parquet(out, index=False)
        console.print(f"wrote {out}", soft_wrap=True)


def names_apart(stores: list[Path]) -> dict[Path, str]:
    """What a table calls each folder: its name, with as many folders above it as tell it from the others."""
    parts = {path: path.resolve().parts for path in stores}
    called = {}
    for path, own in parts.items():
        others = [other for other in parts.values() if other != own]
        length = next((n for n in range(1, len(own) + 1) if all(other[-n:] != own[-n:] for other in others)), len(own))
        called[path] = str(Path(*own[-length:]))
    return called
