"""Hand-made grids for the tests of the room `results`: no training, every number chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from results.index import GridFile, WantedCell, WantedTest
from results.record import DetectorUsed, Measure, OptimizerUsed, Provenance, Record

TESTS = (WantedTest(name="in-domain", role="in-domain"), WantedTest(name="NeuralTextures", role="held-out"))
NINE = ("sgd", "adam", "sam", "asam", "gnp", "sagm", "roga", "pim", "dualflat")


def measure(
    auc: float | None, test: str = "NeuralTextures", role: str = "held-out", level: str = "frame", step: int = 10, **more: Any
) -> Measure:
    """A measure whose other metrics follow from the AUC: acc = auc - 0.1, ap = auc, eer = 1 - auc, log loss = 1 - auc."""
    fields: dict[str, Any] = {"n_real": 8, "n_fake": 8, "epoch": step / 10, "split": "val" if role == "source-val" else "test"}
    if auc is None:
        fields |= {"undefined": dict.fromkeys(("auc", "ap", "eer"), "only fake faces"), "acc": 1.0, "log_loss": 0.25, "n_real": 0}
    else:
        fields |= {"auc": auc, "acc": max(auc - 0.1, 0), "ap": auc, "eer": 1 - auc, "log_loss": 1 - auc}
    return Measure(step=step, test=test, role=role, level=level, **(fields | more))


def provenance(**more: Any) -> Provenance:
    fields: dict[str, Any] = {
        "version": "0.1.0",
        "code": "c0dec0dec0de0000" * 4,
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "python": "3.11.7",
        "platform": "Linux-x86_64",
        "cpu": "Example CPU",
        "device": "cpu",
        "threads": 1,
        "packages": {"torch": "2.5.1", "numpy": "2.1.0"},
        "stores": {"mini-a": "f00dfacecafe0001aaaa", "mini-b": "beefbeefbeef0002bbbb"},
        "deterministic": True,
        "started": "2025-11-20T12:00:00Z",
        "finished": "2025-11-20T12:01:00Z",
        "seconds": 60.0,
    }
    return Provenance.model_validate(fields | more)


def measures(auc: float, steps: tuple[int, ...] = (10, 20)) -> list[Measure]:
    """Rising source validation; held-out at `auc`, video a point above, in-domain two points above."""
    found = []
    for step in steps:
        early = 0.01 * (max(steps) - step) / 10
        for level, up in (("frame", 0.0), ("video", 0.01)):
            found.append(measure(auc + up - early, "val", "source-val", level, step))
            found.append(measure(auc + up - early, "NeuralTextures", "held-out", level, step))
            found.append(measure(auc + up - early + 0.02, "in-domain", "in-domain", level, step))
    return found


def record(
    cell: str, auc: float | list[Measure], detector: str = "meso4", optimizer: str = "sgd", seed: int = 0, **more: Any
) -> Record:
    fields: dict[str, Any] = {
        "grid": "demo",
        "cell": cell,
        "detector": DetectorUsed(name=detector, settings={"size": 64}),
        "optimizer": OptimizerUsed(name=optimizer, settings={}, base="sgd", base_settings={"lr": 0.005}),
        "seed": seed,
        "protocol": {"name": "strict", "epochs": 2, "batch_size": 24},
        "data": {
            "train": {"store": "mini-a", "methods": ["Deepfakes", "Face2Face", "FaceSwap"], "train_split": "train"},
            "tests": [{"name": "NeuralTextures", "store": "mini-a", "split": "test", "frames": None}],
        },
        "parameters": 28000,
        "steps": 20,
        "measures": tuple(measures(auc) if isinstance(auc, float) else auc),
        "losses": ((10, 0.7), (20, 0.6)),
        "provenance": provenance(),
    }
    return Record(**(fields | more))


def grid_file(
    optimizers: tuple[str, ...] = ("sgd", "sam"),
    detectors: tuple[str, ...] = ("meso4",),
    seeds: tuple[int, ...] = (0,),
    **more: Any,
) -> GridFile:
    cells = tuple(
        WantedCell(id=f"{d}-{o}-s{s}", detector=d, optimizer=o, seed=s) for d in detectors for o in optimizers for s in seeds
    )
    return GridFile(**({"name": "demo", "title": "Demo grid", "tests": TESTS, "cells": cells} | more))


def write_grid(folder: Path, grid: GridFile, records: list[Record]) -> Path:
    """runs/<grid>/ on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    grid.save(folder / "grid.json")
    for r in records:
        (folder / r.cell).mkdir(exist_ok=True)
        r.save(folder / r.cell / "record.json")
    return folder
