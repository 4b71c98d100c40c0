"""Curves over training, with the evaluation that each selection rule picks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from results.figures.source import Source
from results.figures.style import Drawing, legend_below, look, panels, plain
from results.files import RecordError
from results.selection import SELECTIONS, select

PICKED = {"last": "s", "source_val": "o", "best_per_test": "^", "top3_per_test": "v"}


def training(source: Source) -> Iterator[Drawing]:
    """A figure a cell: loss, then the frame AUC of validation and of each test set; marks: what each rule reports."""
    for cell, record in source.cells():
        tests = [t.name for t in source.index.grid.tests]
        curves = {
            name: [(m.epoch, m.auc) for m in record.measures if (m.test, m.level) == (name, "frame") and m.auc is not None]
            for name in ("val", *tests)
        }
        figure, (left, right) = panels(2, height=2.6)
        epochs = {m.step: m.epoch for m in record.measures}
        losses = [(epochs.get(step, np.nan), loss) for step, loss in record.losses if loss is not None]
        left.plot(*np.array(losses or [(np.nan, np.nan)]).T, color="black")
        left.set(xlabel="epoch", ylabel="training loss", title="loss")
        for at, (name, points) in enumerate(curves.items()):
            if points:
                style = look(at) | {"marker": ""}
                right.plot(*np.array([(e, 100 * a) for e, a in points]).T, **style, label="validation" if name == "val" else name)
        for rule, marker in PICKED.items():
            try:
                chosen = [c for c in select(record.measures, SELECTIONS[rule]) if c.level == "frame" and c.test in curves]
            except RecordError:
                continue
            known = {name: dict(points) for name, points in curves.items()}
            picked = [(e, 100 * known[c.test][e]) for c in chosen for e in c.epochs if e in known[c.test]]
            if picked:
                size = {"last": 4.0, "source_val": 6.5, "best_per_test": 5.0, "top3_per_test": 5.0}[rule]
                right.plot(
                    *np.array(picked).T, marker, markersize=size, color="black", fillstyle="none", label=SELECTIONS[rule].label
                )
        right.set(xlabel="epoch", ylabel="frame AUC in %", title="frame AUC, and what each rule picks")
        right.margins(x=0.04, y=0.08)
        legend_below(figure, right, 4)
        figure.suptitle(f"{cell.detector}, {cell.optimizer}, seed {cell.seed}", fontsize=8)
        yield Drawing(f"training-{plain(cell.id)}", figure)
