"""Under which circumstances a cell runs: kept beside its weights, compared before it goes on, written into its record."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmark import provenance
from benchmark.config import Cell, ConfigError
from detectors import DETECTORS
from detectors.base import Detector
from optimizers import OPTIMIZERS
from results.files import RecordError, write_atomically
from results.record import DetectorUsed, OptimizerUsed, Provenance, Record


def plugin_hashes(cell: Cell) -> dict[str, str]:
    """File name -> SHA-256 of each plug-in of the cell."""
    return {Path(p).name: provenance.file_hash(p) for p in cell.plugins}


def weights_hash(cell: Cell) -> dict[str, str]:
    """Name -> SHA-256 of the file of first weights that the cell's settings name; empty where they name none, or it is gone."""
    path = cell.detector.weights_file
    return {} if path is None or not path.is_file() else {path.name: provenance.file_hash(path)}


def first_weights(cell: Cell, detector: Detector) -> dict[str, str]:
    """Name -> SHA-256 of the file that a freshly built detector began from, whoever published it; empty if that was at random."""
    loaded = detector.loaded
    return weights_hash(cell) if loaded is None else {loaded.file.name: loaded.sha256}


def circumstances(cell: Cell, device: str, processes: int) -> dict[str, str]:
    """What a run may not change half-way, or it is not one run."""
    versions = {f"version of {name}": version for name, version in provenance.package_versions().items()}
    here = {
        "code": provenance.code_hash(),
        "device": provenance.device_name(device),
        "number of threads": str(torch.get_num_threads()),
        "number of processes": str(processes),
        "diagnostics_every": str(cell.protocol.diagnostics_every),
    }
    return {**here, **versions}


def check_same(path: Path, then: dict[str, str], now: dict[str, str], what: str) -> None:
    """Refuse to build upon a file that was made under other circumstances.

    Raises:
        ConfigError: names the file and the first thing that has changed.
    """
    changed = next((name for name in then if name in now and then[name] != now[name]), None)
    if changed is not None:
        shown = f" ({then[changed]} then, {now[changed]} now)" if max(len(then[changed]), len(now[changed])) < 60 else ""
        raise ConfigError(
            f"{path} was made with another {what} {changed}".replace("  ", " ")
            + f"{shown}; put that back, or move the folder {path.parent} away to start the cell again"
        )


def check_same_plugins(path: Path, then: dict[str, str], cell: Cell) -> None:
    """Refuse to build upon a file that was made with another content of a plug-in, under whatever name it is given now.

    Raises:
        ConfigError: names the file and the plug-in.
    """
    check_same(path, then, plugin_hashes(cell), "plug-in")
    for kind, registry, name in (("detector", DETECTORS, cell.detector.name), ("optimizer", OPTIMIZERS, cell.optimizer.name)):
        file = getattr(sys.modules.get(registry.get(name).__module__), "__file__", None)
        if file in cell.plugins and provenance.file_hash(file) not in then.values():
            raise ConfigError(
                f"{path} was made with another {kind} '{name}' than that of {file}; give the plug-in that it was made with "
                f"({', '.join(then) or 'none'}), or move the folder {path.parent} away to start the cell again"
            )


def finished_record(cell: Cell, folder: Path, fingerprints: dict[str, str]) -> Record:
    """The record of a finished cell, if it speaks of the same data, plug-ins and first weights.

    Raises:
        RecordError: it cannot be read, or is that of another cell.
        ConfigError: it was made from another content of a store, with another plug-in, or from another file of weights.
    """
    path = folder / "record.json"
    done = Record.load(path)
    if done.cell != cell.id:
        raise RecordError(f"{path} belongs to cell {done.cell} of grid {done.grid}; delete it, run again")
    check_same(path, done.provenance.stores, fingerprints, "content of store")
    check_same_plugins(path, done.provenance.plugins, cell)
    check_same(path, done.provenance.weights, weights_hash(cell), "content of the weights file")
    return done


def write_cell(cell: Cell, folder: Path) -> None:
    """Write a cell's resolved settings to cell.yaml, atomically."""
    content = yaml.safe_dump(cell.model_dump(mode="json"), sort_keys=False)
    write_atomically(folder / "cell.yaml", content.encode())


def settings_used(cell: Cell) -> dict[str, Any]:
    """What a record says about a cell's settings but its data, defaults written out: fields of `Record` by name."""
    return {
        "grid": cell.grid,
        "cell": cell.id,
        "detector": DetectorUsed(name=cell.detector.name, label=cell.detector.title, settings=cell.detector.settings),
        "optimizer": OptimizerUsed(
            name=cell.optimizer.name,
            label=cell.optimizer.title,
            settings=cell.optimizer.settings,
            built=_built(cell),
            base=cell.base.name,
            base_settings=cell.base.settings,
        ),
        "seed": cell.seed,
        "protocol": cell.protocol.model_dump(mode="json", exclude={"diagnostics_every"}),
    }


def _built(cell: Cell) -> dict[str, Any]:
    """What the rule chose where the cell's settings leave it the choice. They stay as they are: the cell's id is made of them."""
    rule = OPTIMIZERS.build(cell.optimizer.name, **cell.optimizer.settings)
    chosen = {key: getattr(rule, key, None) for key, value in cell.optimizer.settings.items() if value is None}
    return {key: value for key, value in chosen.items() if isinstance(value, (bool, int, float, str))}


def provenance_now(cell: Cell, device: str, begun: datetime, cpus: Sequence[str], **counted: Any) -> Provenance:
    """What a record says about the code, packages and machine that are at work.

    Args:
        cell: what was run.
        device: torch's name of the device.
        begun: when, in UTC.
        cpus: the processors that it ran on.
        counted: the fields of `Provenance` that the run itself knows: stores, faces, processes, seconds, restarts, ...
    """
    head, dirty = provenance.commit()
    inexact = provenance.inexact(device, cpus)
    return Provenance(
        version=provenance.own_version(),
        code=provenance.code_hash(),
        commit=head,
        dirty=dirty,
        plugins=plugin_hashes(cell),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=provenance.cpu(),
        device=provenance.device_name(device),
        threads=torch.get_num_threads(),
        packages=provenance.package_versions(),
        deterministic=not inexact,
        inexact=inexact,
        arithmetic=provenance.arithmetic(device),
        started=begun,
        finished=datetime.now(timezone.utc),
        **counted,
    )
