"""One cell, top to bottom: from its resolved settings to its record. Config stops here."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import cv2
import torch
from filelock import FileLock, Timeout
from pandas import DataFrame
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from benchmark import checkpoint, provenance
from benchmark.anew import keep_record
from benchmark.build import build
from benchmark.circumstances import (
    check_same,
    check_same_plugins,
    circumstances,
    finished_record,
    first_weights,
    plugin_hashes,
    provenance_now,
    settings_used,
    write_cell,
)
from benchmark.config import Cell, ConfigError, load_plugins
from benchmark.evaluate import EvaluationSet, measures, score
from benchmark.heartbeat import Heartbeat
from benchmark.memory import in_memory
from benchmark.mishaps import ROUNDED, check_finite, left, lost_in_rounding, place_to_write, unchanged_stores
from benchmark.progress import Progress
from benchmark.ranks import Ranks
from benchmark.reads import cell_warnings, faces_of, open_stores
from benchmark.seeding import random_state, restore_random_state, seed_rank
from benchmark.testing import Report, Scores, measures_of_tests, open_test_stores, score_tests, test_sets, write_parquet
from benchmark.train import Stopped, train
from preprocessing.store import FaceStore
from results.diagnostics import FILE, Row, table
from results.files import FORMAT
from results.record import Measure, Record
from results.scores import lost_scores

T = TypeVar("T")

SECONDS_BETWEEN_CHECKPOINTS = 60.0
"""So much work is lost at most when a run is killed between two evaluations. It does not change the numbers."""


def as_warning(note: str) -> None:
    """A note to whoever runs a cell from Python."""
    warnings.warn(note, UserWarning, stacklevel=3)


class Busy(ConfigError):
    """Another process runs this cell."""


def run_cell(
    cell: Cell,
    folder: Path,
    data: Path,
    device: str = "cpu",
    threads: int = 1,
    report: Report = lambda stage, done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks | None = None,
    tell: Callable[[str], None] = as_warning,
) -> Record:
    """Train and evaluate one cell in `folder`, from its checkpoint if there is one; return (and write) its record.

    Args:
        cell: what to run.
        folder: the cell's own folder; made if missing.
        data: folder that relative store names belong to.
        device: torch's name of the device.
        threads: of torch on the CPU; another number adds in another order, so a run must keep to its own.
        report: told about progress.
        should_stop: asked after every step; if true, a checkpoint is written and `Stopped` raised. Without `ranks` it is asked
            while faces are decoded or scored, too; if true there, `Stopped` is raised at once, and the last checkpoint counts.
        ranks: processes that share each step's faces; all of them call this, with the same arguments but the device, and see the
            same folders. Rank 0 evaluates and writes. A run keeps to its number of processes.
        tell: told what does not end the run, but bears on its numbers or its time; once each. The record's warnings hold what bears
            on its numbers.

    Raises:
        ConfigError: the cell cannot run as it is written (store, method, weights), or another process runs it.
        Diverged: the loss or a score is not finite any more.
        Stopped: `should_stop` said so.
    """
    load_plugins(cell.plugins)
    place_to_write(folder)
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)  # parallelism is over faces
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
            return _Run(cell, folder, data, device, heart.report, should_stop, ranks, tell).record()
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
        tell: Callable[[str], None],
    ) -> None:
        self.cell, self.folder, self.device = cell, folder, device
        self.ranks, self.writes = ranks, ranks is None or ranks.rank == 0
        self.processes = ranks.size if ranks else 1
        self._onwards, self.should_stop = report, should_stop
        self.tell = cache(tell) if self.writes else lambda sentence: None  # each sentence once
        self.progress = Progress(device)
        self.data, self.kept = data, Scores(folder)
        # The test stores are opened by `_test`, after training.
        self.stores = {cell.train.store: FaceStore(data / cell.train.store)}
        self.fingerprints = {name: store.fingerprint for name, store in self.stores.items()}
        self.tested: dict[str, str] = {}
        self.tests: list[EvaluationSet] = []
        self.saved_at = time.monotonic()

    def report(self, stage: str, done: int, total: int) -> None:
        """Pass progress on. While faces are decoded or scored no step ends, so it is here that a wish to stop is noticed.

        Not where processes share the steps: the others would wait for this one.
        """
        self._onwards(stage, done, total)
        self.progress.meter.keep_up()
        if stage != "train" and done < total and self.ranks is None and self.should_stop():
            raise Stopped(f"stopped at face {done} of {total} of '{stage}'; {left(self.folder)}; run the same command to go on")

    def record(self) -> Record:
        """The finished record: read if it is there with its scores, else made."""
        path = self.folder / "record.json"
        if path.exists():
            stores = open_stores(self.cell, self.data)
            done = finished_record(self.cell, self.folder, {name: store.fingerprint for name, store in stores.items()})
            if not lost_scores(self.folder / "scores.parquet"):
                if self.writes:
                    self.kept.remove()
                return done
        if self.writes:
            (self.folder / "failure.json").unlink(missing_ok=True)
            write_cell(self.cell, self.folder)
        made = build(self.cell, self.stores[self.cell.train.store], self.device, self.report, self.ranks, self.tell)
        self.detector, self.optimizer, self.schedule, self.plan = made.detector, made.optimizer, made.schedule, made.plan
        self.evaluation_steps, self.diary, self.val = made.evaluation_steps, made.diary, made.val
        self.weights = first_weights(self.cell, self.detector)
        start = self._resume()
        if self.ranks is not None:
            self.ranks.same_everywhere(self.detector)
        if self.writes:
            self.writer = SummaryWriter(str(self.folder / "events"), purge_step=start + 1 if start else None)
        try:
            with in_memory(self.cell.protocol, self.detector, self.optimizer, self.plan, made.smaller):
                self._on_first(partial(self._keep_if_lost, start))
                train(self.detector, self.optimizer, self.schedule, self.plan, self._after_step, start, self.diary.before)
            return self._on_first(self._write_record)
        finally:
            if self.writes:
                self.writer.close()

    def _on_first(self, work: Callable[[], T]) -> T:
        """What `work` returns on the process that writes; an error there is raised on all, so that none is left waiting."""
        return work() if self.ranks is None else self.ranks.first(work)

    def _write_record(self) -> Record:
        self._test()
        record = self._finish()
        record.save(self.folder / "record.json")
        self.kept.remove()
        return record

    def _resume(self) -> int:
        """Take back the checkpoint, if there is one; returns the number of steps that are done."""
        kept = checkpoint.latest(self.folder)
        if self.ranks is not None:
            self._all_see(None if kept is None else int(kept.content["step"]))
        if kept is None:
            return self._from_the_start()
        path, state, torn = kept
        whole = self._can_be_tested(int(state["step"]))
        if not whole and (self.folder / "record.json").exists():
            return self._from_the_start()
        check_same(path, state["stores"], self.fingerprints, "content of store")
        self.tested = state["stores"]
        check_same_plugins(path, state["plugins"], self.cell)
        check_same(path, state["weights"], self.weights, "content of the weights file")
        check_same(path, state["circumstances"], circumstances(self.cell, self.device, self.processes), "")
        if not whole:
            self.tell(f"{path.name} lacks the weights of evaluations before it; the cell is trained again")
            return self._from_the_start()
        self.detector.load_state_dict(state["detector"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.random = state["random"]
        restore_random_state(self.random[self.ranks.rank if self.ranks else 0], self.device)
        self.diary.rows = [Row(*row) for row in state["diagnostics"]]
        self.progress.take_back(state)
        if torn is not None:
            self._note(torn)
        elsewhere = provenance.inexact(self.device, self.progress.cpus)
        if self.progress.cpus != state.get("cpus") and not self.device.startswith("cuda") and elsewhere:
            self._note(f"the cell may not repeat to the bit: {elsewhere}")
        self.plan.spent.faces = state.get("spent", 0.0)
        return int(state["step"])

    def _all_see(self, step: int | None) -> None:
        """Refuse to go on where the processes do not see the same checkpoint, as on machines without a disk in common."""
        assert self.ranks is not None
        seen = self.ranks.gather(step)
        if len(set(seen)) > 1:
            words = ", ".join("none" if s is None else f"one of step {s}" for s in seen)
            raise ConfigError(
                f"the processes see different checkpoints in {self.folder} ({words}, in order of rank); put it on a disk that all "
                "of them share, and start again"
            )

    def _from_the_start(self) -> int:
        self.tested = {}
        seed_rank(self.cell.seed, self.ranks.rank if self.ranks else 0)
        if self.writes:
            self.kept.remove()  # of a run that has left no checkpoint; they may be another code's
            checkpoint.remove(self.folder)
        return 0

    def _can_be_tested(self, step: int) -> bool:
        """Whether the weights of every evaluation point until `step` are there, those of `step` itself being the checkpoint's.

        They are not where a record or its scores were deleted: a finished cell keeps its last weights only.
        """

        def there() -> bool:
            return all(point == step or self.kept.has(point) for point in self.evaluation_steps if point <= step)

        return self._on_first(there)

    def _save(self, step: int) -> None:
        state = random_state(self.device)
        self.random = [state] if self.ranks is None else self.ranks.gather(state)
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
                "weights": self.weights,
                "circumstances": circumstances(self.cell, self.device, self.processes),
                "detector": self.detector.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict() if self.schedule else {},
                "random": self.random,
                "diagnostics": [tuple(row) for row in self.diary.rows],
                "spent": self.plan.spent.faces,
                **self.progress.state(),
            },
        )

    def _after_step(self, step: int, loss: Tensor) -> None:
        self.progress.pending.append(loss)
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
        loss = self.progress.close_curve(step)
        self._look_at_precision(step)
        self._on_first(partial(self._score, step, loss))
        self._save(step)

    def _check_finite(self, step: int) -> None:
        """Before anything is kept: the last checkpoint is then one from before the accident."""
        check_finite(self.folder, self.plan, step, self.progress.pending, self.detector, self.writes)

    def _look_at_precision(self, step: int) -> None:
        note = lost_in_rounding(self.cell, self.optimizer.diagnostics, step)
        if note and not any(said.startswith(ROUNDED) for said in self.progress.notes):
            self._note(note)

    def _note(self, note: str) -> None:
        self.progress.notes.append(note)
        self.tell(note)

    def _score(self, step: int, loss: float) -> None:
        """Evaluate on every set, and write scores and curves."""
        self.writer.add_scalar("loss", loss, step)
        scores = self._keep(step)
        self._add(measures(scores, self.val, step / self.plan.batches.steps, step, self.cell.protocol))
        self.writer.flush()

    def _keep_if_lost(self, step: int) -> None:
        """Score a checkpoint that is an evaluation point without scores."""
        if step in self.evaluation_steps and not self.kept.has(step):
            self._keep(step)

    def _keep(self, step: int) -> DataFrame:
        """Keep the weights of an evaluation point with their validation scores, which are returned."""
        scores = score(self.detector, self.val.frames, progress=partial(self.report, "evaluate val"))
        epoch = step / self.plan.batches.steps
        self.kept.keep(step, scores.assign(epoch=epoch, step=step, split="val", test="val", role="source-val"), self.detector)
        return scores

    def _add(self, found: list[Measure]) -> None:
        self.progress.measures += found
        for m in found:
            if m.auc is not None:
                self.writer.add_scalar(f"auc/{m.level}/{m.test}", m.auc, m.step)

    def _test(self) -> None:
        """Score the test sets with the weights of every evaluation point; only here is a test store opened."""
        self.stores = open_test_stores(self.cell, self.data, self.stores)
        self.fingerprints = {name: store.fingerprint for name, store in self.stores.items()}
        check_same(self.folder / "checkpoint.pt", self.tested, self.fingerprints, "content of store")
        self.tests = test_sets(self.cell, self.stores, self.detector.size, self.report, self.tell)
        if self.tested != self.fingerprints:
            self._write_checkpoint(self.plan.steps)  # from here on the run holds scores of these test stores
        points = sorted({(m.step, m.epoch) for m in self.progress.measures})
        score_tests(self.detector, self.tests, points, self.kept, self.report, self.should_stop)

    def _finish(self) -> Record:
        """Join the scores of all evaluation points and say what was done, with what, where."""
        steps = sorted({m.step for m in self.progress.measures})
        assert steps == sorted(self.evaluation_steps), "a run must have every evaluation that its plan asks for"
        seen = self.diary.summary()
        if self.diary.rows:
            write_parquet(table(self.diary.rows), self.folder / FILE)
        scores = self.kept.joined(steps)
        keep_record(self.folder)  # a record whose scores were lost does not speak of these
        write_parquet(scores, self.folder / "scores.parquet")
        validated, self.progress.measures = self.progress.measures, []
        tested = measures_of_tests(scores, self.tests, self.cell)
        for step in steps:
            self.progress.measures += [m for m in validated if m.step == step]
            self._add(tested[step])
        unchanged_stores(self.stores, self.fingerprints)
        cell = self.cell
        seconds = self.progress.seconds()
        return Record(
            format=FORMAT,
            **settings_used(cell),
            data={
                "train": cell.train.model_dump(mode="json"),
                "tests": [t.model_dump(mode="json") for t in cell.tests],
                "missing": {s.name: s.missing.to_numpy().tolist() for s in (self.val, *self.tests)},
            },
            parameters=sum(p.numel() for p in self.detector.parameters() if p.requires_grad),
            steps=self.plan.steps,
            measures=tuple(self.progress.measures),
            losses=tuple(self.progress.curve),
            warnings=(*cell_warnings(cell, self.stores), *self.progress.notes),
            diagnostics=seen,
            provenance=provenance_now(
                cell,
                self.device,
                self.progress.begun,
                self.progress.cpus,
                processes=self.processes,
                weights=self.weights,
                stores=self.fingerprints,
                faces={name: store.info["settings"] for name, store in self.stores.items()},
                seconds=seconds,
                restarts=self.progress.restarts,
                passes=self.plan.spent.faces / cell.protocol.batch_size,
                examples=self.plan.steps * cell.protocol.batch_size,
                energy=self.progress.meter.sample(),
            ),
        )
