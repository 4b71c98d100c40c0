"""Curves over training, with the evaluation that each selection rule picks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from results.figures.source import Source
from results.figures.style import Drawing, legend_below, look, panels, plain
from results.files import RecordError
from results.record import Record
from results.selection import SELECTIONS, select

PICKED = {"last": ("s", 4.0), "source_val": ("o", 6.5), "best_per_test": ("^", 5.0), "top3_per_test": ("v", 5.0)}
"""Marker and its size in points: those of two rules that pick one evaluation can both be seen."""


def training(source: Source) -> Iterator[Drawing]:
    """A figure a backbone and seed, a panel an optimizer: frame AUC of every set, and what each rule picks; and the losses."""
    for detector in source.index.grid.detectors:
        yield from _losses(source, detector)
        for seed in source.index.grid.seeds:
            cells = [(c.optimizer, r) for c, r in source.cells(detector) if c.seed == seed]
            if not cells:
                continue
            figure, axes = panels(len(cells), height=1.75, across=3, sharex=True, sharey=True)
            tests = {"val": "validation", **{t.name: t.name for t in source.index.grid.tests}}
            for axis, (optimizer, record) in zip(axes, cells, strict=True):
                _aucs(axis, record, tests)
                axis.set_title(optimizer, fontsize=7)
                axis.margins(x=0.06, y=0.08)
            for axis in axes[-3:]:  # the lowest of each column
                axis.tick_params(labelbottom=True)
                axis.set_xlabel("epoch")
                axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            figure.supylabel("frame AUC in %", fontsize=7)
            legend_below(figure, axes[0], 4)
            figure.suptitle(f"{detector}, seed {seed}; marks: what each rule picks", fontsize=7)
            what = f"Frame AUC of {detector} over training, and the evaluation that each selection rule picks"
            caption = source.caption(what, checkpoint=False, seeds=[seed])
            yield Drawing(f"training-{plain(detector)}-s{seed}", figure, caption)


def _aucs(axis: Axes, record: Record, tests: dict[str, str]) -> None:
    known = {
        name: {m.epoch: 100 * m.auc for m in record.measures if (m.test, m.level) == (name, "frame") and m.auc is not None}
        for name in tests
    }
    for at, (name, points) in enumerate(known.items()):
        if points:
            axis.plot(list(points), list(points.values()), **look(at) | {"marker": ""}, label=tests[name])
    for rule, (marker, size) in PICKED.items():
        try:
            chosen = [c for c in select(record.measures, SELECTIONS[rule]) if c.level == "frame" and c.test in known]
        except RecordError:
            continue
        picked = [(e, known[c.test][e]) for c in chosen for e in c.epochs if e in known[c.test]]
        if picked:
            axis.plot(*np.array(picked).T, marker, markersize=size, color="black", fillstyle="none", label=SELECTIONS[rule].label)


def _losses(source: Source, detector: str) -> Iterator[Drawing]:
    """Training loss, a line an optimizer: mean over its seeds where all were looked at after the same epochs."""
    figure, (axis,) = panels(1, height=2.6)
    for at, optimizer in enumerate(source.optimizers):
        found: dict[float, list[float]] = {}
        for _, record in source.cells(detector, optimizer):
            epochs = {m.step: m.epoch for m in record.measures}
            for step, loss in record.losses:
                if loss is not None and step in epochs:
                    found.setdefault(epochs[step], []).append(loss)
        most = max(map(len, found.values()), default=0)
        x = sorted(e for e, losses in found.items() if len(losses) == most)
        if x:
            axis.plot(x, [np.mean(found[e]) for e in x], **look(at), label=optimizer)
    if not axis.lines:
        return
    axis.set(xlabel="epoch", ylabel="training loss in nats")
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend_below(figure, axis, 3)
    figure.suptitle(f"{detector}; {source.seeds()}", fontsize=7)
    what = f"Training loss of {detector}, mean over seeds"
    yield Drawing(f"training-loss-{plain(detector)}", figure, source.caption(what, checkpoint=False))
