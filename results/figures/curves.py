"""ROC and DET curves per test set, and histograms of scores by method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_curve

from results.figures.source import Source
from results.figures.style import COLOURS, DASHES, TWO_COLUMNS, Drawing, legend_below, look, panels, plain

Array = NDArray[np.float64]

RATES = np.linspace(0, 1, 501)
TICKS = (0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
LIMITS = (0.005, 0.97)
KINDS = {"roc": "ROC curves", "det": "DET curves"}


def mean_roc(source: Source, detector: str, optimizer: str, test: str) -> Array | None:
    """True positive rate at each of `RATES`, averaged over seeds and evaluations (vertical averaging, Fawcett 2006, section 9.1).

    None where no cell has scores of both classes.
    """
    curves = []
    for cell, _ in source.cells(detector, optimizer):
        for rows in source.scores(cell.id, test):
            if rows["label"].nunique() == 2:
                fpr, tpr, _ = roc_curve(rows["label"], rows["score"], drop_intermediate=False)
                curves.append(np.interp(RATES, fpr, tpr))
    return np.mean(curves, axis=0) if curves else None


def _per_test(
    source: Source, kind: str, draw: Callable[[Axes, Array, int, str], None], dress: Callable[[Axes], None]
) -> Iterator[Drawing]:
    """A figure a test set, a panel a detector, a line an optimizer."""
    for test in source.index.grid.tests:
        curves = {
            (d, o): curve
            for d in source.index.grid.detectors
            for o in source.optimizers
            if (curve := mean_roc(source, d, o, test.name)) is not None
        }
        detectors = list(dict.fromkeys(d for d, _ in curves))
        if not detectors:
            continue
        figure, axes = panels(len(detectors), width=TWO_COLUMNS if len(detectors) > 2 else 5.2, height=2.7)
        for axis, detector in zip(axes, detectors, strict=True):
            dress(axis)
            axis.set_title(detector)
            for at, optimizer in enumerate(source.optimizers):
                if (detector, optimizer) in curves:
                    draw(axis, curves[detector, optimizer], at, optimizer)
        legend_below(figure, axes[0], 5 if len(detectors) > 1 else 3)
        figure.suptitle(f"{test.name} ({test.role}), frames; {source.note()}", fontsize=7)
        what = f"{KINDS[kind]} of {test.name} ({test.role}), frame level, averaged over seeds at equal false positive rates"
        yield Drawing(f"{kind}-{plain(test.name)}", figure, source.caption(what))


def roc(source: Source) -> Iterator[Drawing]:
    """Receiver operating characteristic, with chance as a thin line."""

    def draw(axis: Axes, curve: Array, at: int, name: str) -> None:
        # Markers stand at different places of neighbouring curves.
        axis.plot(RATES, curve, **look(at), markevery=(20 + 9 * at, 100), label=name)

    def dress(axis: Axes) -> None:
        axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.5)
        axis.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="false positive rate", ylabel="true positive rate", aspect="equal")

    yield from _per_test(source, "roc", draw, dress)


def det(source: Source) -> Iterator[Drawing]:
    """Detection error tradeoff (Martin et al. 1997): both error rates on axes of normal deviates."""

    def draw(axis: Axes, curve: Array, at: int, name: str) -> None:
        inside = (RATES > 0) & (RATES < 1) & (curve > 0) & (curve < 1)
        points = norm.ppf(RATES[inside]), norm.ppf(1 - curve[inside])
        axis.plot(*points, **look(at), markevery=(9 * at, 100), label=name)

    def dress(axis: Axes) -> None:
        ticks = norm.ppf(TICKS).tolist()
        low, high = (float(norm.ppf(end)) for end in LIMITS)
        names = [f"{100 * t:g}" for t in TICKS]
        axis.plot([low, high], [low, high], color="#999999", linewidth=0.5)
        axis.set(xlim=(low, high), ylim=(low, high), xlabel="false positives in %", ylabel="missed fakes in %", aspect="equal")
        axis.set_xticks(ticks, names)
        axis.set_yticks(ticks, names)
        axis.grid(True)

    yield from _per_test(source, "det", draw, dress)


def histograms(source: Source) -> Iterator[Drawing]:
    """Scores by method: a figure a test set and detector, a panel an optimizer, frames of all seeds together."""
    bins = np.linspace(0, 1, 26).tolist()
    for test in source.index.grid.tests:
        for detector in source.index.grid.detectors:
            found = {
                optimizer: rows
                for optimizer in source.optimizers
                if (rows := [r for cell, _ in source.cells(detector, optimizer) for r in source.scores(cell.id, test.name)])
            }
            if not found:
                continue
            figure, axes = panels(len(found), height=1.5, across=3, sharex=True, sharey=True)
            for axis, (optimizer, parts) in zip(axes, found.items(), strict=True):
                methods = sorted({m for rows in parts for m in rows["method"].unique()}, key=lambda m: (m != "real", m))
                for at, method in enumerate(methods):
                    scores = np.concatenate([rows.loc[rows["method"] == method, "score"] for rows in parts])
                    dashes = DASHES[(at - 1) % len(DASHES)]
                    outline: dict[str, Any] = {"histtype": "step", "color": COLOURS[at % len(COLOURS)], "linestyle": dashes}
                    kind = {"histtype": "stepfilled", "color": "#cccccc"} if method == "real" else outline
                    axis.hist(scores, bins, weights=np.full(len(scores), 100 / len(scores)), label=method, **kind)
                axis.set_title(optimizer, fontsize=7)
                axis.set(xlim=(0, 1))
            for axis in axes[-3:]:  # the lowest of each column
                axis.tick_params(labelbottom=True)
                axis.set_xlabel("score, P(fake)")
            figure.supylabel("share of the method's frames in %", fontsize=7)
            legend_below(figure, axes[0], 6)
            seeds = len(source.index.grid.seeds)
            title = f"{detector}, {test.name} ({test.role}); checkpoint: {source.selection.label}"
            figure.suptitle(title + (f"; {seeds} seeds together" if seeds > 1 else "; one seed"), fontsize=7)
            what = f"Scores of {detector} on {test.name} ({test.role}) by method, frames of all seeds together"
            yield Drawing(f"histogram-{plain(detector)}-{plain(test.name)}", figure, source.caption(what))
