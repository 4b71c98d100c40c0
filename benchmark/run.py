"""One cell, top to bottom: from its resolved settings to its record. Config stops here."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from filelock import FileLock, Timeout
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.utils.tensorboard import SummaryWriter

from benchmark import checkpoint, provenance
from benchmark.config import Cell, ConfigError, load_plugins
from benchmark.data import CachedImages, FaceFrames, choose, split_warnings, without_face
from benchmark.diagnostics import Diary, Probe, schedule
from benchmark.energy import Meter
from benchmark.evaluate import Diverged, EvaluationSet, measures, score
from benchmark.face_settings import face_warnings
from benchmark.heartbeat import Heartbeat
from benchmark.memory import in_memory
from benchmark.mini import drawn_warnings
from benchmark.mishaps import check_finite, place_to_write, unchanged_stores
from benchmark.needs import annotator, check_needs
from benchmark.objective import BatchObjective, LaterPasses
from benchmark.precision import FAITHFUL
from benchmark.ranks import Ranks
from benchmark.seeding import random_state, restore_random_state, seed_everything, seed_rank
from benchmark.self_blended import choose_source, source_frames, training_batches
from benchmark.testing import Report, Scores, measures_of_tests, open_test_stores, score_tests, test_sets, write_parquet
from benchmark.train import Plan, Stopped, train
from detectors import DETECTORS
from detectors.base import Detector
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base
from preprocessing.store import FaceStore
from results.diagnostics import FILE, Row, table
from results.record import FORMAT, DetectorUsed, Energy, Measure, OptimizerUsed, Provenance, Record

SECONDS_BETWEEN_CHECKPOINTS = 60.0
"""So much work is lost at most when a run is killed between two evaluations. It does not change the numbers."""

LEAST_SCALE = 2.0**-16
"""No gradient that is worth anything overflows float16 after this; torch's scaler would go on halving, and no step be taken."""


class Busy(ConfigError):
    """Another process runs this cell."""


def open_stores(cell: Cell, data: Path) -> dict[str, FaceStore]:
    """Every store that the cell reads, by the name that the grid gives it."""
    return {name: FaceStore(data / name) for name in cell.stores()}


def select(
    cell: Cell, stores: dict[str, FaceStore]
) -> tuple[tuple[pd.DataFrame, tuple[str, ...]], dict[str, tuple[pd.DataFrame, tuple[str, ...]]]]:
    """The rows that the cell trains on, and those of each evaluation set (`val` and the tests), with their methods.

    Raises:
        ConfigError: a store lacks a method or split that the cell asks for.
    """
    training, val = choose_source(cell.train, stores[cell.train.store].manifest)
    evaluated = {"val": val}
    for test in cell.tests:
        manifest = stores[test.store].manifest
        evaluated[test.name] = choose(manifest, test.store, test.methods, test.split, test.frames, test.frame_pick)
    return training, evaluated


def cell_warnings(cell: Cell, stores: dict[str, FaceStore]) -> list[str]:
    """Sentences about what makes the cell's numbers say less than they seem to: its splits, and faces made in different ways."""
    made = {name: store.info["settings"] for name, store in stores.items()}
    return [
        *drawn_warnings(cell, stores),
        *split_warnings(cell.train, cell.tests),
        *face_warnings(cell.train, cell.tests, made),
    ]


def faces_of(store: FaceStore) -> dict[str, Any]:
    """What a checkpoint keeps of its training faces: the settings that they were made with, and what the store notes of them."""
    return {"settings": store.info["settings"], "notes": store.info.get("notes", [])}


def energy_of(state: dict[str, Any]) -> Energy:
    """What a checkpoint's run had used; unknown in one of a version that did not ask."""
    return Energy.model_validate(state.get("energy") or {"joules": None, "source": "an older version did not ask"})


def plugin_hashes(cell: Cell) -> dict[str, str]:
    """File name -> SHA-256 of each plug-in of the cell."""
    return {Path(p).name: provenance.file_hash(p) for p in cell.plugins}


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


def finished_record(cell: Cell, folder: Path, fingerprints: dict[str, str]) -> Record:
    """The record of a finished cell, if it speaks of the same data and plug-ins.

    Raises:
        RecordError: it cannot be read.
        ConfigError: it was made from another content of a store, or with another plug-in.
    """
    path = folder / "record.json"
    done = Record.load(path)
    check_same(path, done.provenance.stores, fingerprints, "content of store")
    check_same(path, done.provenance.plugins, plugin_hashes(cell), "plug-in")
    return done


def run_cell(
    cell: Cell,
    folder: Path,
    data: Path,
    device: str = "cpu",
    threads: int = 1,
    report: Report = lambda stage, done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks | None = None,
) -> Record:
    """Train and evaluate one cell in `folder`, from its checkpoint if there is one; return (and write) its record.

    Args:
        cell: what to run.
        folder: the cell's own folder; made if missing.
        data: folder that relative store names belong to.
        device: torch's name of the device.
        threads: of torch on the CPU; another number adds in another order, so a run must keep to its own.
        report: told about progress.
        should_stop: asked after every step; if true, a checkpoint is written and `Stopped` raised.
        ranks: processes that share each step's faces; all of them call this, with the same arguments but the device, and see the
            same folders. Rank 0 evaluates and writes. A run keeps to its number of processes.

    Raises:
        ConfigError: the cell cannot run as it is written (store, method, weights), or another process runs it.
        Diverged: the loss or a score is not finite any more.
        Stopped: `should_stop` said so.
    """
    load_plugins(cell.plugins)
    place_to_write(folder)
    torch.set_num_threads(threads)
    lock = FileLock(folder / ".lock", timeout=0)

    def take() -> None:
        try:
            lock.acquire()
        except Timeout as error:
            raise Busy(f"cell {cell.id} is being run by another process") from error

    try:
        if ranks is None:
            take()
        else:
            ranks.first(take)
        with Heartbeat(folder, report, ranks is None or ranks.rank == 0) as heart:
            return _Run(cell, folder, data, device, heart.report, should_stop, ranks).record()
    finally:
        lock.release()


class _Run:
    """The state of one cell's run, so that each stage below is a short method."""

    def __init__(
        self,
        cell: Cell,
        folder: Path,
        data: Path,
        device: str,
        report: Report,
        should_stop: Callable[[], bool],
        ranks: Ranks | None,
    ) -> None:
        self.cell, self.folder, self.device = cell, folder, device
        self.ranks, self.writes = ranks, ranks is None or ranks.rank == 0
        self.notes: list[str] = []
        self.report, self.should_stop = report, should_stop
        self.begun = datetime.now(timezone.utc)
        self.started, self.seconds_before = time.monotonic(), 0.0
        self.data, self.kept = data, Scores(folder)
        # The test stores are opened by `_test`, after training.
        self.stores = {cell.train.store: FaceStore(data / cell.train.store)}
        self.fingerprints = {name: store.fingerprint for name, store in self.stores.items()}
        self.tested: dict[str, str] = {}
        self.tests: list[EvaluationSet] = []
        self.measures: list[Measure] = []
        self.curve: list[tuple[int, float]] = []
        self.pending: list[Tensor] = []
        self.saved_at = time.monotonic()
        self.restarts, self.meter = 0, Meter(device)

    def record(self) -> Record:
        """The finished record: read if it is there, else made."""
        path = self.folder / "record.json"
        if path.exists():
            stores = open_stores(self.cell, self.data)
            done = finished_record(self.cell, self.folder, {name: store.fingerprint for name, store in stores.items()})
            if self.writes:
                self.kept.remove()
            return done
        if self.writes:
            (self.folder / "failure.json").unlink(missing_ok=True)
            (self.folder / "cell.yaml").write_text(
                yaml.safe_dump(self.cell.model_dump(mode="json"), sort_keys=False), encoding="utf-8"
            )
        self._build()
        start = self._resume()
        if self.ranks is not None:
            self.ranks.same_everywhere(self.detector)
        if self.writes:
            self.writer = SummaryWriter(str(self.folder / "events"), purge_step=start + 1 if start else None)
        try:
            with in_memory(self.cell.protocol, self.detector, self.optimizer, self.plan):
                train(self.detector, self.optimizer, self.schedule, self.plan, self._after_step, start, self.diary.before)
            return self._write_record() if self.ranks is None else self.ranks.first(self._write_record)
        finally:
            if self.writes:
                self.writer.close()

    def _write_record(self) -> Record:
        self._test()
        record = self._finish()
        record.save(self.folder / "record.json")
        self.kept.remove()
        return record

    def _build(self) -> None:
        cell = self.cell
        seed_everything(cell.seed)
        self.detector: Detector = DETECTORS.build(cell.detector.name, **cell.detector.settings).to(self.device)
        self.detector.to(memory_format=torch.channels_last)
        # First of all, so that a rule can refuse a detector before faces are decoded.
        p = cell.protocol
        rule = OPTIMIZERS.build(cell.optimizer.name, **cell.optimizer.settings)
        base = build_base(cell.base.name, [q for q in self.detector.parameters() if q.requires_grad], **cell.base.settings)
        scaler = GradScaler(torch.device(self.device).type) if p.precision == "fp16" else None
        self.optimizer = Optimizer(rule, base, self.detector, clip=p.clip, scaler=scaler)
        if scaler is not None:  # torch takes a schedule after a skipped first step for a mistake
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        store = self.stores[cell.train.store]
        (rows, domains), validation = choose_source(cell.train, store.manifest)
        check_needs(cell.detector.name, self.detector, p, len(domains))
        images = CachedImages(store, self.detector.size, partial(self.report, f"decode {cell.train.store}")).images
        faces = FaceFrames(rows, domains, images)
        annotate = annotator(cell.detector.name, self.detector, store, faces)
        self.plan = Plan(
            p.all_epochs,
            training_batches(cell.train, p, faces, cell.seed, store, annotate),
            p.evaluations_per_epoch,
            cell.seed,
            p.augment,
            p.precision,
            p.micro_batch,
            LaterPasses(p.bn_second_pass, p.masks, p.weights_home),
            p.evaluation_points,
            p.schedule_stepping,
            p.weights_dtype,
            self.ranks,
        )
        if self.ranks is not None and p.batch_size < 2 * self.ranks.size:
            raise ConfigError(
                f"protocol.batch_size: {p.batch_size} faces are too few for {self.ranks.size} processes; each needs two at least"
            )
        self.evaluation_steps = self.plan.evaluation_steps()
        if p.evaluations_per_epoch > self.plan.batches.steps:
            raise ConfigError(
                f"protocol.evaluations_per_epoch is {p.evaluations_per_epoch}, but an epoch has {self.plan.batches.steps} steps"
            )
        length = p.all_epochs if p.schedule_stepping == "epoch" else self.plan.steps
        self.schedule: LRScheduler | None = CosineAnnealingLR(base, length) if p.schedule == "cosine" else None
        # Each process has the step's whole batch; the first looks at it, for all.
        every, told_at = (p.diagnostics_every, self.evaluation_steps) if self.writes else (0, set())
        looks = schedule(every, self.plan.steps, rule, len(domains))
        ask = partial(BatchObjective, self.detector, precision=p.precision, weights_dtype=p.weights_dtype, scaler=scaler)
        probe = Probe(self.detector, cell.optimizer.name, rule, ask, p.micro_batch)
        self.diary = Diary(probe, looks, told_at, domains)
        missing = without_face(store.ledger, validation[1], cell.train.val_split)
        val = source_frames(cell.train, validation, images, store)
        self.val = EvaluationSet("val", "val", "source-val", missing, val)

    def _resume(self) -> int:
        """Take back the checkpoint, if there is one; returns the number of steps that are done."""
        kept = checkpoint.latest(self.folder)
        if kept is None:
            seed_rank(self.cell.seed, self.ranks.rank if self.ranks else 0)
            if self.writes:
                self.kept.remove()  # of a run that has left no checkpoint; they may be another code's
            return 0
        path, state = kept
        check_same(path, state["stores"], self.fingerprints, "content of store")
        self.tested = state["stores"]
        check_same(path, state["plugins"], plugin_hashes(self.cell), "plug-in")
        check_same(path, state["circumstances"], self._circumstances(), "")
        self.detector.load_state_dict(state["detector"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.random = state["random"]
        restore_random_state(self.random[self.ranks.rank if self.ranks else 0])
        self.notes = state["notes"]
        self.measures = [Measure.model_validate(m) for m in state["measures"]]
        self.curve = [(int(step), float(loss)) for step, loss in state["curve"]]
        self.pending = [torch.tensor(loss, dtype=torch.float64) for loss in state["pending"]]
        self.diary.rows = [Row(*row) for row in state["diagnostics"]]
        self.begun, self.seconds_before = datetime.fromisoformat(state["begun"]), state["seconds"]
        self.restarts = state.get("restarts", 0) + 1
        self.plan.spent.faces = state.get("spent", 0.0)
        self.meter = Meter(self.device, energy_of(state))
        return int(state["step"])

    def _circumstances(self) -> dict[str, str]:
        """What a run may not change half-way, or it is not one run."""
        versions = {f"version of {name}": version for name, version in provenance.package_versions().items()}
        here = {"code": provenance.code_hash(), "device": provenance.device_name(self.device)}
        processes, every = str(self.ranks.size if self.ranks else 1), str(self.cell.protocol.diagnostics_every)
        here |= {"number of threads": str(torch.get_num_threads()), "number of processes": processes, "diagnostics_every": every}
        return {**here, **versions}

    def _save(self, step: int) -> None:
        self.random = [random_state()] if self.ranks is None else self.ranks.gather(random_state())
        self.saved_at = time.monotonic()
        self._check_finite(step)
        if self.writes:
            unchanged_stores(self.stores, self.fingerprints)
            self._write_checkpoint(step)

    def _write_checkpoint(self, step: int) -> None:
        checkpoint.save(
            self.folder / "checkpoint.pt",
            {
                "step": step,
                "cell": self.cell.model_dump(mode="json"),
                "stores": self.fingerprints,
                "faces": faces_of(self.stores[self.cell.train.store]),
                "plugins": plugin_hashes(self.cell),
                "circumstances": self._circumstances(),
                "detector": self.detector.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict() if self.schedule else {},
                "random": self.random,
                "notes": self.notes,
                "measures": [m.model_dump(mode="json") for m in self.measures],
                "curve": self.curve,
                "diagnostics": [tuple(row) for row in self.diary.rows],
                "pending": [float(loss) for loss in self.pending],
                "begun": self.begun.isoformat(),
                "seconds": self._seconds(),
                "restarts": self.restarts,
                "spent": self.plan.spent.faces,
                "energy": self.meter.sample().model_dump(),
            },
        )

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def _after_step(self, step: int, loss: Tensor) -> None:
        self.pending.append(loss)
        if self.writes:
            self.diary.after(step, self.writer, self.optimizer.diagnostics)
        self.report("train", step, self.plan.steps)
        if not self.device.startswith("cuda"):  # where nothing has to wait for the answer
            check_finite(self.folder, self.plan, step, [loss], None, self.writes)
        if step == 1 and self.cell.protocol.weights_dtype != "fp32":
            self._look_at_precision(step)  # at once, not after an epoch
        stop, due = self.should_stop(), time.monotonic() - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS
        if self.ranks is not None:
            stop, due = self.ranks.any(stop, due)
        # An evaluation saves too, and only when it is whole: no checkpoint says that a step is done whose evaluation is not.
        if step in self.evaluation_steps:
            self._evaluate(step)
        elif stop or due or step == self.plan.steps:
            self._save(step)
        if stop:
            raise Stopped(f"stopped after step {step} of {self.plan.steps}; run the same command to go on")

    def _evaluate(self, step: int) -> None:
        self._check_finite(step)
        loss = float(torch.stack([p.double().cpu() for p in self.pending]).mean())
        self.pending = []
        self.curve.append((step, loss))
        self._look_at_precision(step)
        if self.writes:
            self._score(step, loss)
        self._save(step)

    def _check_finite(self, step: int) -> None:
        """Before anything is kept: the last checkpoint is then one from before the accident."""
        check_finite(self.folder, self.plan, step, self.pending, self.detector, self.writes)

    def _look_at_precision(self, step: int) -> None:
        """Say once what is left of the shifts where weights are rounded, and end a run whose gradients never fit float16."""
        found = {
            name: float(value) for name, value in self.optimizer.diagnostics.items() if name in ("realised_cosine", "loss_scale")
        }
        cosine = found.get("realised_cosine", 1.0)
        if cosine < FAITHFUL and not self.notes:
            self.notes.append(
                f"weights_dtype {self.cell.protocol.weights_dtype}: the shift of {self.cell.optimizer.name} has a cosine of "
                f"{cosine:.2f} with what is left of it after rounding (step {step}); take weights_dtype fp32, or a larger radius"
            )
            if self.writes:
                warnings.warn(self.notes[0], UserWarning, stacklevel=2)
        if found.get("loss_scale", 1.0) < LEAST_SCALE:
            raise Diverged(
                f"gradients overflow float16 at every scale (down to {found['loss_scale']:g} at step {step}); "
                "take precision bf16 or fp32"
            )

    def _score(self, step: int, loss: float) -> None:
        """Evaluate on every set, and write scores and curves."""
        self.writer.add_scalar("loss", loss, step)
        scores = score(self.detector, self.val.frames, progress=partial(self.report, "evaluate val"))
        epoch = step / self.plan.batches.steps
        self._add(measures(scores, self.val, epoch, step, self.cell.protocol))
        self.kept.keep(step, scores.assign(epoch=epoch, step=step, split="val", test="val", role="source-val"), self.detector)
        self.writer.flush()

    def _add(self, found: list[Measure]) -> None:
        self.measures += found
        for m in found:
            if m.auc is not None:
                self.writer.add_scalar(f"auc/{m.level}/{m.test}", m.auc, m.step)

    def _test(self) -> None:
        """Score the test sets with the weights of every evaluation point; only here is a test store opened."""
        self.stores = open_test_stores(self.cell, self.data, self.stores)
        self.fingerprints = {name: store.fingerprint for name, store in self.stores.items()}
        check_same(self.folder / "checkpoint.pt", self.tested, self.fingerprints, "content of store")
        self.tests = test_sets(self.cell, self.stores, self.detector.size, self.report)
        if self.tested != self.fingerprints:
            self._write_checkpoint(self.plan.steps)  # from here on the run holds scores of these test stores
        points = sorted({(m.step, m.epoch) for m in self.measures})
        score_tests(self.detector, self.tests, points, self.kept, self.report, self.should_stop)

    def _finish(self) -> Record:
        """Join the scores of all evaluation points and say what was done, with what, where."""
        steps = sorted({m.step for m in self.measures})
        assert steps == sorted(self.evaluation_steps), "a run must have every evaluation that its plan asks for"
        seen = self.diary.summary()
        if seen is not None:
            write_parquet(table(self.diary.rows), self.folder / FILE)
        scores = self.kept.joined(steps)
        write_parquet(scores, self.folder / "scores.parquet")
        validated, self.measures = self.measures, []
        tested = measures_of_tests(scores, self.tests, self.cell)
        for step in steps:
            self.measures += [m for m in validated if m.step == step]
            self._add(tested[step])
        unchanged_stores(self.stores, self.fingerprints)
        cell = self.cell
        head, dirty = provenance.commit()
        seconds = self._seconds()
        return Record(
            format=FORMAT,
            grid=cell.grid,
            cell=cell.id,
            detector=DetectorUsed(name=cell.detector.name, label=cell.detector.title, settings=cell.detector.settings),
            optimizer=OptimizerUsed(
                name=cell.optimizer.name,
                label=cell.optimizer.title,
                settings=cell.optimizer.settings,
                base=cell.base.name,
                base_settings=cell.base.settings,
            ),
            seed=cell.seed,
            protocol=cell.protocol.model_dump(mode="json", exclude={"diagnostics_every"}),
            data={
                "train": cell.train.model_dump(mode="json"),
                "tests": [t.model_dump(mode="json") for t in cell.tests],
                "missing": {s.name: s.missing.to_numpy().tolist() for s in (self.val, *self.tests)},
            },
            parameters=sum(p.numel() for p in self.detector.parameters() if p.requires_grad),
            steps=self.plan.steps,
            measures=tuple(self.measures),
            losses=tuple(self.curve),
            warnings=(*cell_warnings(cell, self.stores), *self.notes),
            diagnostics=seen,
            provenance=Provenance(
                version=provenance.own_version(),
                code=provenance.code_hash(),
                commit=head,
                dirty=dirty,
                plugins=plugin_hashes(cell),
                python=platform.python_version(),
                platform=platform.platform(),
                cpu=provenance.cpu(),
                device=provenance.device_name(self.device),
                threads=torch.get_num_threads(),
                processes=self.ranks.size if self.ranks else 1,
                packages=provenance.package_versions(),
                stores=self.fingerprints,
                faces={name: store.info["settings"] for name, store in self.stores.items()},
                deterministic=not self.device.startswith("cuda"),
                inexact=provenance.inexact(self.device),
                started=self.begun,
                finished=datetime.now(timezone.utc),
                seconds=seconds,
                restarts=self.restarts,
                passes=self.plan.spent.faces / cell.protocol.batch_size,
                examples=self.plan.steps * cell.protocol.batch_size,
                energy=self.meter.sample(),
            ),
        )
