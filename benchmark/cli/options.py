"""Options that several commands share, and what is checked of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

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


def started(runs: Path, grid: str) -> Path:
    """The folder of a grid that was started, by the name that started it: that of roga/table4 is roga-table4."""
    folder = runs / grid
    return folder if folder.is_dir() else runs / grid.replace("/", "-")


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
