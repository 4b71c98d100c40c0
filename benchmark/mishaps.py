"""What ends a cell before its time, found early and said in one sentence: numbers that are not finite, disk, stores."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import sleep

import torch
from torch import Tensor

from benchmark.checkpoint import LAST, Damaged, load
from benchmark.config import Cell, ConfigError
from benchmark.evaluate import Diverged
from benchmark.launch import MISTAKES
from benchmark.precision import FAITHFUL
from benchmark.train import Plan
from detectors.base import Detector
from preprocessing.store import INFO, FaceStore
from results.files import write_atomically

NOT_FINITE = "not_finite.json"
"""In the cell's folder: the step and its faces."""

ROUNDED = "weights_dtype"
"""What a note about shifts that are lost in rounding begins with; there is one at most."""

TRIES, PAUSE = 5, 2.0
"""How often a store's file is read that cannot be read, and the seconds between: a disk in the network may be away for a moment."""

LEAST_SCALE = 2.0**-16
"""No gradient that is worth anything overflows float16 after this; torch's scaler would go on halving, and no step be taken."""


def place_to_write(folder: Path) -> None:
    """Make a folder and see that a file can be written there.

    Raises:
        ConfigError: it cannot; the sentence says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}: {error.strerror or error}; name another folder with --runs") from error


def no_room(error: OSError, folder: Path) -> str | None:
    """A sentence about a disk, or a quota on it, that is full; None for another error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    free = shutil.disk_usage(folder).free / 1e6
    return f"its disk is full ({free:.1f} MB free); what is done is kept: make room and run the same command"


def why_it_failed(error: Exception, folder: Path) -> str:
    """One sentence about the error that ended a cell. One that no user can mend leaves its traceback in traceback.txt.

    Args:
        error: what was raised.
        folder: the cell's; it may be gone, or its disk full.
    """
    if isinstance(error, (*MISTAKES, Diverged)):
        return str(error)
    try:
        if isinstance(error, OSError) and (sentence := no_room(error, folder)):
            return sentence
        (folder / "traceback.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        where = f"see {folder.name}/traceback.txt"
    except OSError as second:
        where = f"its traceback cannot be written down: {second.strerror}"
    return f"{type(error).__name__}: {error} ({where})"


def unchanged_stores(stores: Mapping[str, FaceStore], fingerprints: Mapping[str, str]) -> None:
    """Look at each store's file again; one that cannot be read is given some seconds.

    Raises:
        ConfigError: a store that has another content than when the run began, or is gone.
    """
    for name, store in stores.items():
        now = _fingerprint(name, Path(store.path) / INFO)
        if now != fingerprints[name]:
            raise ConfigError(
                f"store {name} changed since the run began (fingerprint {fingerprints[name][:12]} then, {now[:12]} now): its "
                "faces are no longer those of the earlier steps; put the store back, or delete the cell's folder to start again"
            )


def _fingerprint(name: str, file: Path) -> str:
    """What a store's file says now.

    Raises:
        ConfigError: it cannot be read, `TRIES` times in a row.
    """
    tried = 0
    while True:
        try:
            return str(json.loads(file.read_text(encoding="utf-8"))["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            tried += 1
            if tried == TRIES:
                reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
                raise ConfigError(
                    f"store {name} cannot be read any more ({file}: {reason}); the last checkpoint is kept: put the store back "
                    "and run the same command"
                ) from error
        sleep(PAUSE)


def check_finite(
    folder: Path, plan: Plan, step: int, losses: Sequence[Tensor], detector: Detector | None, writes: bool = True
) -> None:
    """Look at the losses of the last steps, and at the weights.

    Args:
        folder: the cell's; the faces of the step go to `NOT_FINITE` there.
        plan: of the run.
        step: of the last loss.
        losses: one a step, 0-dim.
        detector: whose weights are looked at; None looks at losses alone.
        writes: whether this process writes files.

    Raises:
        Diverged: names the step, its faces, and the checkpoint that is left.
    """
    # A run that goes on has the losses of its earlier part from a file, so not on the device.
    together = [loss.detach().to(losses[-1].device, torch.float64) for loss in losses]
    finite = torch.isfinite(torch.stack(together)).tolist() if together else []
    if not all(finite):
        at = step - len(finite) + 1 + finite.index(False)
        raise Diverged(_sentence(folder, plan, at, "the loss is not finite at", writes))
    if detector is not None and not all(bool(torch.isfinite(p).all()) for p in detector.parameters()):
        raise Diverged(_sentence(folder, plan, step, "the weights are not finite after", writes))


def lost_in_rounding(cell: Cell, diagnostics: Mapping[str, Tensor], step: int) -> str | None:
    """A sentence about what is left of the shifts where weights are rounded; None where enough is left, or nothing is rounded.

    Args:
        cell: what is run.
        diagnostics: the optimizer's; `realised_cosine` and `loss_scale` are looked at.
        step: the last one.

    Raises:
        Diverged: gradients that never fit float16.
    """
    found = {name: float(diagnostics[name]) for name in ("realised_cosine", "loss_scale") if name in diagnostics}
    if found.get("loss_scale", 1.0) < LEAST_SCALE:
        raise Diverged(
            f"gradients overflow float16 at every scale (down to {found['loss_scale']:g} at step {step}); "
            "take precision bf16 or fp32"
        )
    cosine = found.get("realised_cosine", 1.0)
    if cosine >= FAITHFUL:
        return None
    return (
        f"{ROUNDED} {cell.protocol.weights_dtype}: the shift of {cell.optimizer.name} has a cosine of {cosine:.2f} with what is"
        f" left of it after rounding (step {step}); take weights_dtype fp32, or a larger radius"
    )


def faces_of_step(plan: Plan, step: int) -> list[str]:
    """Keys of the faces of a step, which is counted from 1."""
    epoch, within = divmod(step - 1, plan.batches.steps)
    positions = plan.batches.positions(plan.batches.epoch(epoch)[within])
    return [str(key) for key in plan.batches.frames.rows["key"].to_numpy()[positions]]


def _sentence(folder: Path, plan: Plan, step: int, what: str, writes: bool) -> str:
    faces = faces_of_step(plan, step)
    if writes:
        content = {"step": step, "what": f"{what} this step", "faces": faces}
        write_atomically(folder / NOT_FINITE, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    shown = ", ".join(faces[:3]) + (f" and {len(faces) - 3} more, see {folder.name}/{NOT_FINITE}" if len(faces) > 3 else "")
    return f"{what} step {step} of {plan.steps} (faces {shown}); {left(folder)}; take a lower learning rate or clip the gradient"


def left(folder: Path) -> str:
    """What a cell's folder holds to go on from, in words."""
    try:
        return (
            f"the checkpoint of step {int(load(folder / LAST)['step'])} is kept"
            if (folder / LAST).exists()
            else "no checkpoint yet"
        )
    except (Damaged, KeyError):
        return "no whole checkpoint is there"
