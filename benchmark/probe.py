"""Trained cells looked at afterwards: how flat the loss is around their weights, on source and on target data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError

from benchmark import checkpoint, provenance
from benchmark.circumstances import check_same
from benchmark.config import Cell, ConfigError
from benchmark.data import FaceFrames
from benchmark.decoded import CachedImages
from benchmark.objective import BatchObjective
from benchmark.reads import open_stores, select
from benchmark.restore import restore
from benchmark.seeding import stream
from benchmark.self_blended import Choice, source_frames
from benchmark.sharpness import passes_of, sharpness, top_eigenvalue
from benchmark.testing import Report
from benchmark.untouched import undisturbed
from detectors.base import Batch, Detector
from results.index import GridIndex, grids_in
from results.record import Record, Role
from results.sharpness import ProbedSet, ProbeSettings, Rise, SharpnessReport

NO_WEIGHTS = "its checkpoint.pt is not there (archives carry none); copy it from where the cell was trained"
"""Why a finished cell cannot be probed."""


@dataclass(frozen=True)
class Trained:
    """A checkpoint, and where what is found out about it goes."""

    path: Path

    @property
    def report(self) -> Path:
        """probes/sharpness.json beside it; named after the file where that is not called checkpoint.pt."""
        suffix = "" if self.path.name == "checkpoint.pt" else f"-{self.path.stem}"
        return self.path.parent / "probes" / f"sharpness{suffix}.json"

    def auc(self, test: str, step: int) -> float | None:
        """Frame AUC that the cell's record has for these very weights; None where there is none."""
        path = self.path.parent / "record.json"
        if not path.exists():
            return None
        return next(
            (m.auc for m in Record.load(path).measures if (m.test, m.step, m.level) == (test, step, "frame")),
            None,
        )


def find_trained(paths: Sequence[Path], runs: Path | None = None) -> tuple[list[Trained], dict[str, str]]:
    """The checkpoints that paths stand for, each once, and cells of a grid that are not finished or have none -> why.

    Args:
        paths: folders of grids, folders of cells, checkpoint files; names of grids.
        runs: folder of grids, in which a path that is not there is looked for.

    Raises:
        ConfigError: a path that is none of these, or an unfinished cell.
        RecordError: a grid's index that cannot be read.
    """
    found: dict[Path, Trained] = {}
    missing: dict[str, str] = {}
    for path in (_below(runs, path) for path in paths):
        if (path / "grid.json").is_file():
            index = GridIndex.read(path, averages=False)
            missing |= index.reasons
            files = []
            for cell in index.records:
                file = path / cell / "checkpoint.pt"
                if file.is_file():
                    files.append(file)
                else:
                    missing[cell] = NO_WEIGHTS
        elif path.is_dir():
            if not (path / "checkpoint.pt").is_file():
                raise ConfigError(f"{path} is neither a grid's folder (no grid.json) nor a cell's (no checkpoint.pt)")
            if not (path / "record.json").is_file():
                raise ConfigError(f"{path} is a cell that is not finished (no record.json); run it to the end first")
            files = [path / "checkpoint.pt"]
        else:
            files = [path]
        for file in files:
            if not file.is_file():
                raise ConfigError(_not_there(file, runs))
            found.setdefault(file.resolve(), Trained(file))
    if not found and NO_WEIGHTS in missing.values():
        raise ConfigError(f"no cell of {', '.join(map(str, paths))} has its weights here: {NO_WEIGHTS}")
    if not found:
        raise ConfigError(f"no cell of {', '.join(map(str, paths))} is finished; run the grid first")
    return list(found.values()), missing


def left_out(missing: dict[str, str]) -> list[str]:
    """A sentence about the unfinished cells that `find_trained` gives as missing, and one about those without weights."""
    lost = [cell for cell, why in missing.items() if why == NO_WEIGHTS]
    unfinished = [cell for cell in missing if cell not in lost]
    return [
        f"{len(cells)} cell{'s' * (len(cells) > 1)} {what} and left out, such as {cells[0]}{why}"
        for cells, what, why in ((unfinished, "not finished", ""), (lost, "without weights", f": {NO_WEIGHTS}"))
        if cells
    ]


def _below(runs: Path | None, path: Path) -> Path:
    """A grid's name stands for its folder."""
    return runs / path if runs is not None and not path.exists() and (runs / path).exists() else path


def _not_there(file: Path, runs: Path | None) -> str:
    grids = grids_in(runs) if runs is not None else []
    there = f" (in {runs}: {', '.join(grids)})" if grids else ""
    return f"checkpoint {file} does not exist; give names of grids{there}, folders of grids, folders of cells, or checkpoints"


def probe_sharpness(
    trained: Trained,
    data: Path,
    settings: ProbeSettings,
    device: str = "cpu",
    report: Report = lambda stage, done, total: None,
) -> tuple[SharpnessReport, bool]:
    """Sharpness and largest eigenvalue of one cell on its training, validation and test faces; also written beside it.

    The weights are those of the checkpoint, the faces a fixed choice of each set, unaugmented, the detector in evaluation mode.

    Args:
        trained: the checkpoint.
        data: folder that relative store names belong to.
        settings: of the probe.
        device: torch's name of the device.
        report: told (stage, done, total); total 0 where it is not known.

    Returns:
        The report, and whether it was there already, of the same weights, faces, settings and code.

    Raises:
        ConfigError: no checkpoint of a cell, stores that are not there or have changed, a radius that is not positive.
        RecordError: a report is there that cannot be read.
    """
    if not all(r > 0 and math.isfinite(r) for r in settings.radii):
        raise ConfigError(f"radius {min(settings.radii):g}: a radius of a neighbourhood must be positive and finite")
    state = checkpoint.load(trained.path)
    try:
        cell = Cell.model_validate(state["cell"])
        then = dict(state["stores"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ConfigError(f"{trained.path} is no checkpoint of a dfgrid cell of this version") from error
    stores = open_stores(cell, data)
    now = {name: store.fingerprint for name, store in stores.items()}
    check_same(trained.path, then, now, "content of store")
    identity: dict[str, Any] = {"checkpoint": provenance.file_hash(trained.path), "code": provenance.code_hash(), "stores": now}
    if trained.report.exists():
        before = SharpnessReport.load(trained.report)
        if before.model_dump(include={*identity, "settings"}) == {**identity, "settings": settings.model_dump()}:
            return before, True
    restored = restore(trained.path, device)
    training, evaluated = select(cell, stores)
    # By role: a test set may be called "train".
    wanted: list[tuple[str, Role | Literal["source-train"], str, Choice]] = [
        ("train", "source-train", cell.train.store, training),
        ("val", "source-val", cell.train.store, evaluated["val"]),
        *((test.name, test.role, test.store, evaluated[test.name]) for test in cell.tests),
    ]
    sets = []
    for name, role, store, chosen in wanted:
        images = CachedImages(stores[store], restored.detector.size, partial(report, f"decode {store}")).images
        in_source = role in ("source-train", "source-val")
        frames = source_frames(cell.train, chosen, images, stores[store]) if in_source else FaceFrames(*chosen, images)
        sets.append(_probe_set(name, role, store, restored.detector, frames, settings, report))
    found = SharpnessReport(
        cell=cell.id,
        detector=cell.detector.title,
        optimizer=cell.optimizer.title,
        seed=cell.seed,
        step=restored.step,
        device=provenance.device_name(device),
        threads=torch.get_num_threads(),
        settings=settings,
        sets=tuple(sets),
        **identity,
    )
    trained.report.parent.mkdir(exist_ok=True)
    found.save(trained.report)
    return found, False


def _probe_set(
    name: str,
    role: Role | Literal["source-train"],
    store: str,
    detector: Detector,
    frames: FaceFrames,
    settings: ProbeSettings,
    report: Report,
) -> ProbedSet:
    """Sharpness and eigenvalue on a fixed choice of the faces."""
    positions = fixed_choice(frames, settings.faces, settings.seed)
    chosen = frames.rows.iloc[positions]
    device = next(detector.parameters()).device
    batches = [batch_of(frames, part).to(device) for part in _pieces(positions, settings.batch_size)]
    surface = BatchObjective(detector, batches)
    total, done = passes_of(settings.radii, settings.steps, settings.directions), 0

    def tick() -> None:
        nonlocal done
        done += 1
        if done <= total:
            report(f"{name}: sharpness", done, total)
        else:
            report(f"{name}: eigenvalue", done - total, 0)

    with undisturbed(detector, device):
        loss = float(surface.value())
        rises = sharpness(surface, settings.radii, settings.steps, settings.directions, settings.seed, tick)
        top = top_eigenvalue(surface, settings.tolerance, settings.iterations, settings.seed, tick)
    return ProbedSet(
        name=name,
        role=role,
        store=store,
        n_real=int((chosen["label"] == 0).sum()),
        n_fake=int((chosen["label"] == 1).sum()),
        keys=hashlib.sha256("\n".join(chosen["key"].astype(str)).encode()).hexdigest(),
        loss=_finite(loss),
        rises=tuple(Rise.model_validate({key: _finite(value) for key, value in asdict(rise).items()}) for rise in rises),
        eigenvalue=_finite(top.value),
        residual=_finite(top.residual),
        products=top.products,
    )


def fixed_choice(frames: FaceFrames, count: int, seed: int) -> np.ndarray:
    """Positions of at most `count` faces, rising: half of them real, where there are enough of each class; by the seed alone."""
    generator = stream("probe", seed)
    fake = frames.rows["label"].to_numpy() == 1
    pools = [generator.permutation(np.flatnonzero(~fake)), generator.permutation(np.flatnonzero(fake))]
    reals = min(len(pools[0]), max(count // 2, count - len(pools[1])))
    return np.sort(np.concatenate([pools[0][:reals], pools[1][: count - reals]]))


def batch_of(frames: FaceFrames, positions: np.ndarray) -> Batch:
    """Faces as a detector's loss wants them; a real face stands beside the first domain."""
    rows = frames.rows.iloc[positions]
    videos = frames.rows[["dataset", "method", "video"]].agg("/".join, axis=1).rank(method="dense").astype("int64")
    return Batch(
        images=frames.pixels(positions),
        labels=torch.from_numpy(rows["label"].to_numpy(np.int64).copy()),
        domains=torch.from_numpy(rows["domain"].clip(lower=0).to_numpy(np.int64).copy()),
        videos=torch.from_numpy(videos.to_numpy()[positions].copy()),
    )


def _pieces(positions: np.ndarray, at_most: int) -> list[np.ndarray]:
    return np.array_split(positions, -(-len(positions) // at_most))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
