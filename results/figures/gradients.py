"""What the optimizer diagnostics and the sharpness probes saw."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from results.diagnostics import COSINE, FILE, load_diagnostics
from results.figures.source import Source
from results.figures.style import Drawing, legend_below, look, panels, plain
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
    """A figure a detector: how far the loss rises within a radius, on training and on test faces, a line an optimizer."""
    for detector in source.index.grid.detectors:
        reports: dict[str, list[SharpnessReport]] = {}
        seeds: set[int] = set()
        for cell, _ in source.cells(detector):
            path = source.folder / cell.id / "probes" / "sharpness.json"
            if path.is_file():
                reports.setdefault(cell.optimizer, []).append(SharpnessReport.load(path))
                seeds.add(cell.seed)
        names = list(dict.fromkeys(s.name for of in reports.values() for r in of for s in r.sets if s.role != "source-val"))
        if not names:
            continue
        figure, axes = panels(len(names), height=2.2, across=4 if len(names) == 4 else 3, sharey=True)
        for axis, name in zip(axes, names, strict=True):
            for at, optimizer in enumerate(source.optimizers):
                rises: dict[float, list[float]] = {}
                for probed in (s for r in reports.get(optimizer, []) for s in r.sets if s.name == name):
                    for rise in probed.rises:
                        if rise.worst is not None and rise.worst > 0:
                            rises.setdefault(rise.radius, []).append(rise.worst)
                if rises:
                    x = sorted(rises)
                    axis.plot(x, [np.mean(rises[r]) for r in x], **look(at), label=optimizer)
            axis.set(xscale="log", yscale="log", xlabel="radius (l2, all weights)", title=name)
            radii = sorted({rise.radius for of in reports.values() for r in of for s in r.sets for rise in s.rises})
            axis.set_xticks(radii, [f"{r:g}" for r in radii])
            axis.minorticks_off()
            axis.margins(x=0.12)
        axes[0].set_ylabel("largest rise found, nats")
        legend_below(figure, axes[0], 5)
        figure.suptitle(f"{detector}; weights of the last step", fontsize=7)
        what = f"Largest rise of the loss found within a radius of the last step's weights, {detector}"
        yield Drawing(f"sharpness-{plain(detector)}", figure, source.caption(what, checkpoint=False, seeds=sorted(seeds)))
