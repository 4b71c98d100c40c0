"""What a cell's run is made of, built from its settings: detector, optimizer, schedule, plan. Config stops here and in `run.py`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from benchmark.allocator import keep_memory
from benchmark.config import Cell, ConfigError
from benchmark.data import Annotate, FaceFrames, without_face
from benchmark.decoded import CachedImages
from benchmark.diagnostics import Diary, Probe, schedule
from benchmark.evaluate import EvaluationSet
from benchmark.needs import annotator, check_needs
from benchmark.objective import BatchObjective, LaterPasses
from benchmark.precision import scaler_for
from benchmark.ranks import Ranks
from benchmark.seeding import seed_everything
from benchmark.self_blended import choose_source, source_frames, training_batches
from benchmark.testing import Report
from benchmark.train import Plan
from detectors import DETECTORS
from detectors.base import Detector
from detectors.layout import channels_last
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base
from preprocessing.store import FaceStore


@dataclass
class Built:
    """What `build` made.

    Attributes:
        detector: on its device, channels last.
        optimizer: the rule with its base optimizer.
        schedule: of the learning rate; None keeps it.
        plan: the batches of each step.
        evaluation_steps: after which steps the weights are judged.
        diary: looks at the gradients beside training.
        val: the source's validation faces.
        smaller: the same plan with so many faces in a step.
    """

    detector: Detector
    optimizer: Optimizer
    schedule: LRScheduler | None
    plan: Plan
    evaluation_steps: set[int]
    diary: Diary
    val: EvaluationSet
    smaller: Callable[[int], Plan]


def build(cell: Cell, store: FaceStore, device: str, report: Report, ranks: Ranks | None, tell: Callable[[str], None]) -> Built:
    """Seed everything, and build a cell's run at its first step; no test set is looked at.

    Args:
        cell: what is run.
        store: that it trains on, and validates on.
        device: torch's name of the device.
        report: told about the decoding of faces.
        ranks: processes that share each step's faces; the first of them looks at gradients.
        tell: told where decoded faces cannot be kept.

    Raises:
        ConfigError: settings that do not fit each other or the store.
    """
    keep_memory(device)
    seed_everything(cell.seed)
    p = cell.protocol
    detector: Detector = DETECTORS.build(cell.detector.name, **cell.detector.settings).to(device)
    channels_last(detector)
    scaler = scaler_for(p.precision, device)
    # First of all, so that a rule can refuse a detector before faces are decoded.
    optimizer = _optimizer(cell, detector, scaler)
    (rows, domains), validation = choose_source(cell.train, store.manifest)
    check_needs(cell.detector.name, detector, p, len(domains))
    images = CachedImages(store, detector.size, partial(report, f"decode {cell.train.store}"), tell).images
    faces = FaceFrames(rows, domains, images)
    annotate = annotator(cell.detector.name, detector, store, faces)
    plan = _plan(cell, store, faces, annotate, ranks)
    steps = plan.evaluation_steps()
    length = p.all_epochs if p.schedule_stepping == "epoch" else plan.steps
    # Each process has the step's whole batch; the first looks at it, for all.
    every, told_at = (p.diagnostics_every, steps) if ranks is None or ranks.rank == 0 else (0, set())
    looks = schedule(every, plan.steps, optimizer.rule, len(domains))
    ask = partial(BatchObjective, detector, precision=p.precision, weights_dtype=p.weights_dtype, scaler=scaler)
    probe = Probe(detector, cell.optimizer.name, optimizer.rule, ask, p.micro_batch)
    missing = without_face(store.ledger, validation[1], cell.train.val_split)
    return Built(
        detector,
        optimizer,
        CosineAnnealingLR(optimizer.base, length) if p.schedule == "cosine" else None,
        plan,
        steps,
        Diary(probe, looks, told_at, domains),
        EvaluationSet("val", "val", "source-val", missing, source_frames(cell.train, validation, images, store)),
        lambda size: replace(
            plan,
            batches=training_batches(cell.train, p.model_copy(update={"batch_size": size}), faces, cell.seed, store, annotate),
        ),
    )


def _optimizer(cell: Cell, detector: Detector, scaler: GradScaler | None) -> Optimizer:
    rule = OPTIMIZERS.build(cell.optimizer.name, **cell.optimizer.settings)
    base = build_base(cell.base.name, [q for q in detector.parameters() if q.requires_grad], **cell.base.settings)
    if scaler is not None:  # torch takes a schedule after a skipped first step for a mistake
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
    return Optimizer(rule, base, detector, clip=cell.protocol.clip, scaler=scaler)


def _plan(cell: Cell, store: FaceStore, faces: FaceFrames, annotate: Annotate | None, ranks: Ranks | None) -> Plan:
    p = cell.protocol
    plan = Plan(
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
        ranks,
    )
    if ranks is not None and p.batch_size < 2 * ranks.size:
        raise ConfigError(
            f"protocol.batch_size: {p.batch_size} faces are too few for {ranks.size} processes; each needs two at least"
        )
    if p.evaluations_per_epoch > plan.batches.steps:
        raise ConfigError(
            f"protocol.evaluations_per_epoch is {p.evaluations_per_epoch}, but an epoch has {plan.batches.steps} steps"
        )
    return plan
