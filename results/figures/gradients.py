"""What the optimizer diagnostics and the sharpness probes saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from results.diagnostics import COSINE, FILE, load_diagnostics
from results.figures.source import Source
from results.figures.style import Drawing, legend_below, look, panels, plain
from results.files import RecordError
from results.probed import sharpness_of
from results.sharpness import SharpnessReport


def conflict(source: Source) -> Iterator[Drawing]:
    """A figure a detector: mean cosine between the gradients of two forgeries over training, and the share of pairs in conflict."""
    for detector in source.index.grid.detectors:
        lines = {}
        for optimizer in source.optimizers:
            found = []
            for cell, _ in source.cells(detector, optimizer):
                path = source.folder / cell.id / FILE
                if path.is_file():
                    rows = load_diagnostics(path)
                    rows = rows[(rows["name"] == COSINE) & (rows["domain"] < rows["other"])]
                    found.append(
                        rows.groupby("step")["value"].agg(["mean", lambda v: (v < 0).mean()]).set_axis(["mean", "share"], axis=1)
                    )
            if found and all(len(f) for f in found):
                total = sum(found[1:], found[0]) / len(found)
                lines[optimizer] = total.dropna()
        if not lines:
            continue
        figure, (left, right) = panels(2, height=2.5)
        for at, optimizer in enumerate(source.optimizers):
            if optimizer in lines:
                of = lines[optimizer]
                style = look(at) | {"markevery": max(1, len(of) // 8)}
                left.plot(of.index, of["mean"], **style, label=optimizer)
                right.plot(of.index, 100 * of["share"], **style)
        left.axhline(0, color="#999999", linewidth=0.5)
        left.set(xlabel="step", ylabel="mean cosine of two forgeries", title="agreement of gradients")
        right.set(xlabel="step", ylabel="pairs below 0 in %", title="conflict", ylim=(-3, 103))
        legend_below(figure, left, 5)
        figure.suptitle(f"{detector}; {source.seeds()}", fontsize=7)
        what = f"Conflict between the gradients of the training forgeries, {detector}, along its training"
        yield Drawing(f"conflict-{plain(detector)}", figure, source.caption(what, checkpoint=False))


def sharpness(source: Source) -> Iterator[Drawing]:
    """A figure a detector: how far the loss rises within a radius, on training and on test faces, a line an optimizer.

    Probes of other weights or faces than the record's, or by other settings than most, are left out, and the caption says so.

    Raises:
        RecordError: probes, and none that fits its record.
    """
    for detector in source.index.grid.detectors:
        reports, how, left_out = _probes(source, detector)
        seeds = {r.seed for of in reports.values() for r in of}
        probed = [s for of in reports.values() for r in of for s in r.sets if s.role != "source-val"]
        sets = list(dict.fromkeys((s.name, s.role) for s in probed))
        if not sets:
            if left_out:
                raise RecordError(left_out[0])
            continue
        figure, axes = panels(len(sets), height=2.2, across=4 if len(sets) == 4 else 3, sharey=True)
        for axis, (name, role) in zip(axes, sets, strict=True):
            for at, optimizer in enumerate(source.optimizers):
                rises: dict[float, list[float]] = {}
                for found in (s for r in reports.get(optimizer, []) for s in r.sets if (s.name, s.role) == (name, role)):
                    for rise in found.rises:
                        if rise.worst is not None and rise.worst > 0:
                            rises.setdefault(rise.radius, []).append(rise.worst)
                if rises:
                    x = sorted(rises)
                    axis.plot(x, [np.mean(rises[r]) for r in x], **look(at), label=optimizer)
            axis.set(xscale="log", yscale="log", xlabel="radius (l2, all weights)")
            axis.set_title(f"{name} ({role})" if name == "train" and role != "source-train" else name)
            radii = sorted({rise.radius for of in reports.values() for r in of for s in r.sets for rise in s.rises})
            axis.set_xticks(radii, [f"{r:g}" for r in radii])
            axis.minorticks_off()
            axis.margins(x=0.12)
        axes[0].set_ylabel("largest rise found, nats")
        legend_below(figure, axes[0], 5)
        figure.suptitle(f"{detector}; weights of the last step", fontsize=7)
        what = f"Largest rise of the loss found within a radius of the last step's weights, {detector}, {how}"
        if left_out:
            what += f"; {len(left_out)} cell{'s' * (len(left_out) > 1)} left out: {left_out[0]}"
        yield Drawing(f"sharpness-{plain(detector)}", figure, source.caption(what, checkpoint=False, seeds=sorted(seeds)))


def _probes(source: Source, detector: str) -> tuple[dict[str, list[SharpnessReport]], str, list[str]]:
    """Optimizer -> reports by the settings that most cells were probed with, these in words, and why which cells are left out."""
    found, left_out = [], []
    for cell, _ in source.cells(detector):
        try:
            report = sharpness_of(source.index, cell.id)
        except RecordError as error:
            left_out.append(str(error))
            continue
        if report is not None:
            found.append((cell, report, _how(report)))
    counts = Counter(how for *_, how in found)
    most = max(counts, key=lambda how: counts[how], default="")
    reports: dict[str, list[SharpnessReport]] = {}
    for cell, report, how in found:
        if how == most:
            reports.setdefault(cell.optimizer, []).append(report)
        else:
            left_out.append(f"{cell.id} was probed {how}")
    return reports, most, left_out


def _how(report: SharpnessReport) -> str:
    """The settings that the largest rise depends on."""
    s = report.settings
    radii = ", ".join(f"{r:g}" for r in s.radii)
    return f"in {s.steps} step{'s' * (s.steps > 1)} of ascent on at most {s.faces} faces a set, seed {s.seed}, radii {radii}"
