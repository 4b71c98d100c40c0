"""What every optimizer costs: `python -m benchmark.speed.optimizers`.

Beside each step its ideal is timed, in the same run and in turn: as many bare forward and backward passes over the same faces, by
torch's ordinary `backward` and `zero_grad`, and one step of the same base optimizer. Ratios are taken within a round, and their
median over the rounds is printed. The learning rate is zero: all steps do the same.

By default 16 faces in 4 domains, of 256 px for Meso4 and of 128 px for the others; on a GPU, which is asked for by `--device cuda`
and timed by its own events, 32 of 256 px. `--detectors` takes a part of it. `--peer` names files with other implementations of SAM,
to be measured beside.

A round is off by some hundredths on most machines, so no few can show one hundredth of a long step. What a step does beyond its
passes is work on the weights, though, whatever the faces. So it is measured as a difference, on two faces a domain of 64 px, and
divided by the passes over 32 faces of 256 px, as four times those over 8. Beside each ratio that has a target stands an interval
for its median, and while the target lies inside, those methods are timed on: the rounds are doubled, up to 72 or until `--minutes`
are over. What is then still open is called undecided. Where the batch itself is of 32 faces of 256 px, nothing is divided: the
target is for the ratio to the ideal as it was measured. Ctrl-C (or SIGTERM) ends the measurement, and the table says what is known
by then.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmark.allocator import keep_memory
from benchmark.cli.console import console, progress
from benchmark.cli.options import check_device
from benchmark.config import ConfigError
from benchmark.provenance import cpu, device_name
from benchmark.seeding import seed_everything
from benchmark.speed.ideals import BATCH, SIZE, Measurement, Row
from benchmark.speed.targets import CONFIDENCE, LIMITS, LOOKS, REAL, looked_at, verdict
from detectors import DETECTORS
from optimizers import OPTIMIZERS

SIZES = {"meso4": 256, "resnet34": 128, "xception": 128, "efficientnet_b4": 128}
"""Detectors that are measured by default, and the side of their faces, px."""

COPIES = "copies of the weights"

COLUMNS = ("optimizer", "passes", "ms", "x plain step", "x ideal", REAL, "launches", "waits", COPIES)

DIGITS = {"x plain step": 2, "x ideal": 3, REAL: 4}
"""Behind the point, of each ratio."""

MICRO = 4
"""Micro-batches of 8 faces in a batch of 32."""


@dataclass(frozen=True)
class Measured:
    """What was measured of one detector: every method's steps, and what those with a target take beyond their ideals."""

    whole: Measurement
    small: Measurement | None


def cells(done: Measured, row: Row) -> list[str]:
    """What the table says of a method, column by column."""
    small = next((other for other in done.small.rows if other.name == row.name), None) if done.small else None
    ratios = row.ratios() | ({} if small is None else small.ratios())
    told = {column: _median(row.name, column, ratios, digits) for column, digits in DIGITS.items()}
    told = {column: text + (verdict(column, row.name, 0.0, ratios[column]) if text else "") for column, text in told.items()}
    if row.rounds:
        ms = statistics.median(step for step, _, _ in row.rounds) * 1000
        told["ms"] = f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"
    if len(row.counts) == 3:
        launches, waits, copies = beyond(done.whole, row)
        counted = {"launches": (str(launches), launches), "waits": (str(waits), waits), COPIES: (f"{copies:.2f}", copies)}
        told |= {column: text + verdict(column, row.name, value) for column, (text, value) in counted.items()}
    return [row.name, str(row.passes), *(told.get(column, "") for column in COLUMNS[2:])]


def beyond(measured: Measurement, row: Row) -> tuple[int, int, float]:
    """Launches beyond the bare passes; waits, and peak memory in copies of the weights, beyond the ideal."""
    step, ideal, bare = row.counts
    launches = (step.launches - bare.launches).total()  # by name: what later passes save is no credit
    return launches, step.waits - ideal.waits, round((step.peak - ideal.peak) / measured.bytes, 2)


def _median(name: str, column: str, found: Mapping[str, list[float]], digits: int) -> str:
    ratios = found.get(column)
    if not ratios:
        return ""
    text = f"{statistics.median(ratios):.{digits}f}"
    if name in LIMITS.get(column, {}):
        seen = looked_at(ratios)
        return f"{text} [{seen.low:.{digits}f}, {seen.high:.{digits}f}]"
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return f"{text} ± {(high - low) / 2:.{digits}f}"


def title(done: Measured) -> str:
    """Detector, batch and size of its weights."""
    measured = done.whole
    count = sum(p.numel() for p in measured.weights)
    return f"{measured.name}: {len(measured.batch)} faces of {measured.size} px, {count:,} weights ({measured.bytes / 1e6:.1f} MB)"


def markdown(done: list[Measured], domains: int, device: torch.device) -> str:
    """The tables with how they were made."""
    lines = [
        "# What the optimizers cost",
        "",
        f"Made by `python -m benchmark.speed.optimizers` on {date.today().isoformat()}: {device_name(str(device))}, CPU {cpu()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}; float32"
        + (" (convolutions in TF32, torch's default)" if device.type == "cuda" and torch.backends.cudnn.allow_tf32 else "")
        + f", channels last, {domains} domains in a batch, deterministic kernels as in cells. Ratios are medians of paired rounds, "
        "± half the distance of the quartiles; "
        "where there is a target, with an interval for the median that follows from the order of the ratios, "
        f"{CONFIDENCE:.2%} at each of at most {len(LOOKS)} looks, 95% together. A target that lies inside is undecided.",
        "",
        "- x plain step: the step's time over that of a forward and backward pass of the whole batch and one step of Adam.",
        "- x ideal: over that of as many bare passes of the same faces and one step of the same base optimizer, in the same round.",
        f"- {REAL}: the same for a batch as grids train on. What a step takes beyond its ideal is work on the weights, the "
        "same for any faces; it is measured as the difference to the ideal on two faces a domain of 64 px, and divided by the "
        f"passes over 32 faces of 256 px, which count as {MICRO} times those over 8. Of a batch of that size it is x ideal.",
        "- launches: beyond those of the bare passes, the base optimizer's included; "
        + ("kernels." if device.type == "cuda" else "operators that Python or autograd calls (a foreach function is one)."),
        "- waits: how often the host waits for a number, beyond the ideal (on a CPU torch's fused Adam looks up its step count).",
        "- copies of the weights: peak memory beyond that of the ideal; up to a tenth above its target counts as met, room for "
        "losses and norms beside weights as few as Meso4's. PIM's and DualFlat's features count there, too.",
    ]
    for one in done:
        lines += ["", f"## {title(one)}", "", "| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
        lines += ["| " + " | ".join(cells(one, row)) + " |" for row in one.whole.rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=list(SIZES), choices=DETECTORS.names(), metavar="NAME")
    parser.add_argument("--optimizers", nargs="+", default=OPTIMIZERS.names(), choices=OPTIMIZERS.names(), metavar="NAME")
    parser.add_argument(
        "--repeats", type=int, help=f"rounds; default: {LOOKS[0]}, and up to {LOOKS[-1]} where a target is undecided"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="no rounds are added after so many for a detector; default 10")
    parser.add_argument("--batch", type=int, help="faces in a step; default 16, on a GPU 32")
    parser.add_argument("--size", type=int, help="side of the faces, px; default: 256 for meso4 and on a GPU, 128 for the others")
    parser.add_argument("--domains", type=int, default=4, help="domains in a batch; default 4")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of torch; default: as many as it takes")
    parser.add_argument("--peer", nargs="+", type=Path, default=[], metavar="FILE", help="Python files, each with a class SAM")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there as well")
    given = parser.parse_args()
    try:
        check_device(given.device)
    except ConfigError as error:
        parser.error(str(error))
    device = torch.device(given.device)
    on_gpu = device.type == "cuda"
    given.batch = given.batch or (BATCH if on_gpu else 16)
    if (given.repeats or 1) < 1 or given.domains < 1 or given.batch < 2 * given.domains or given.batch % given.domains:
        parser.error("--repeats and --domains must be at least 1, and --batch a multiple of --domains of at least twice as many")
    if given.threads:
        torch.set_num_threads(given.threads)
    keep_memory()
    seed_everything(0)
    peers = {f"sam of {path.stem}": _sam_of(path) for path in given.peer}
    looks = (given.repeats,) if given.repeats else LOOKS
    done = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in given.detectors:
        size = given.size or (SIZE if on_gpu else SIZES.get(name, 128))
        whole = small = None
        stopped = False
        try:
            whole = Measurement(name, given.optimizers, given.batch, size, given.domains, device, peers)
            if not whole.whole:
                with_target = [method for method in given.optimizers if method in LIMITS[REAL]]
                small = Measurement(name, with_target, 2 * given.domains, 64, given.domains, device)
                micro = Measurement(name, [], BATCH // MICRO, SIZE, 1, device)
                measure_beyond(small, micro, looks, given.minutes)
            measure(whole, looks, given.minutes)
        except KeyboardInterrupt:
            stopped = True
        if whole is None:
            sys.exit(f"Stopped before {name} was measured.")
        done.append(Measured(whole, small))
        table = Table(*COLUMNS, title=title(done[-1]))
        for row in whole.rows:
            table.add_row(*cells(done[-1], row))
        console.print(table)
        if given.markdown:  # after each detector, so that nothing measured is lost
            given.markdown.write_text(markdown(done, given.domains, device), encoding="utf-8")
        if stopped:
            sys.exit(f"Stopped while {name} was measured; the table holds what is known of it.")


def _sam_of(path: Path) -> Any:
    """The class SAM of a Python file."""
    found = importlib.util.spec_from_file_location(f"peer_{path.stem}", path) if path.is_file() else None
    if found is None or found.loader is None:
        sys.exit(f"Error: --peer {path} is no Python file")
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as error:  # whatever somebody's file does
        sys.exit(f"Error: --peer {path} cannot be imported: {type(error).__name__}: {error}")
    if not hasattr(module, "SAM"):
        sys.exit(f"Error: --peer {path} defines no class SAM")
    return module.SAM


def measure(measured: Measurement, looks: Sequence[int], minutes: float) -> None:
    """Count, and time as many rounds as the looks and the minutes allow; after the first look only what is undecided."""
    ends = time.monotonic() + 60 * minutes
    with progress() as bar:
        task = bar.add_task(measured.name, total=3 * len(measured.rows), unit="run")
        for _ in measured.count_all():  # which warms up as well
            bar.advance(task)
        rows, before = measured.rows, 0
        for look in looks:
            bar.update(task, total=(look - before) * (1 + len(rows)), completed=0)
            for _ in range(look - before):
                for _ in measured.time_round(rows):
                    bar.advance(task)
                if before and time.monotonic() > ends:
                    return
            rows, before = measured.undecided(), look
            if not rows or time.monotonic() > ends:
                return


def measure_beyond(small: Measurement, micro: Measurement, looks: Sequence[int], minutes: float) -> None:
    """Time what steps of small faces take beyond their ideals, and a micro-batch of large ones, of which four are a batch.

    What a step does beyond its passes is work on the weights, which does not depend on the faces. Beside large ones it is lost in
    the noise of their passes; beside small ones it can be measured.
    """
    passes = [micro.seconds_of_a_pass() for _ in range(1 + -(-looks[0] // 2))][1:]  # the first warms up
    for row in small.rows:
        row.real = row.batches * MICRO * statistics.median(passes)
    measure(small, looks, minutes)


if __name__ == "__main__":
    main()
