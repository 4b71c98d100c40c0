"""Inline SVG of a cell's training curves and ROC curves. Colours and line styles are the style sheet's, so both themes fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from results.record import Record, Role

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 12, 34
STYLES = 6
"""Line styles of the style sheet, each with a colour and a dash pattern of its own."""
VIDEO = ["dataset", "method", "video"]
"""What names a video: FaceForensics++ gives four forgeries one folder name."""


@dataclass(frozen=True)
class Line:
    """A line of a chart: x and y in data units, its name in the legend, its style's number."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int


@dataclass(frozen=True)
class Chart:
    """A drawn chart: the SVG and, for the legend beneath it, (name, style) of each line."""

    svg: Markup
    legend: tuple[tuple[str, int], ...]


def training_charts(record: Record, marks: Sequence[tuple[str, float]]) -> list[tuple[str, Chart]]:
    """Training loss and the AUC of every evaluated set over epochs.

    Args:
        record: of the cell.
        marks: (name of a selection rule, epoch that it reports), drawn as a dotted vertical line.

    Returns:
        (title, chart); a chart without a finite point is left out.
    """
    epoch_of = {m.step: m.epoch for m in record.measures}
    losses = [(epoch_of[step], loss) for step, loss in record.losses if loss is not None and step in epoch_of]
    charts = []
    if losses:
        x, y = zip(*losses, strict=True)
        top = max(y) * 1.08 or 1.0
        charts.append(
            ("Training loss", chart("Training loss over epochs", [Line("training loss", x, y, 0)], (0.0, top), marks, "epoch"))
        )
    chosen_by = [m.test for m in record.measures if m.role == "source-val"]
    for role in get_args(Role)[1:]:
        names = list(dict.fromkeys(m.test for m in record.measures if m.role == role))
        # A chart of more lines than this cannot be read; the validation set is in each, for comparison.
        for start in range(0, len(names), STYLES - 1):
            lines = _auc_lines(record, [*dict.fromkeys(chosen_by), *names[start : start + STYLES - 1]])
            if lines:
                low = 10 * (min(min(line.y) for line in lines) // 10)
                charts.append((f"Video AUC, %: {role}", chart(f"Video-level AUC, {role}", lines, (low, 100.0), marks, "epoch")))
    return charts


def _auc_lines(record: Record, names: Sequence[str]) -> list[Line]:
    lines = []
    for number, name in enumerate(names):
        points = sorted((m.epoch, m.auc) for m in record.measures if m.test == name and m.level == "video" and m.auc is not None)
        if points:
            x, y = zip(*points, strict=True)
            lines.append(Line(name, x, [100 * v for v in y], number % STYLES))
    return lines


def roc_points(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """False and true positive rates of the ROC curve of the fake class, and the area under it (trapezoids).

    Args:
        labels: (N,) 0 real, 1 fake; both must occur.
        scores: (N,) P(fake).
    """
    fpr, tpr, _ = roc_curve(labels, scores)
    return fpr, tpr, float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))


def per_video(frames: pd.DataFrame) -> pd.DataFrame:
    """Mean score of each video, which is (dataset, method, video): columns dataset, method, video, label, score."""
    groups = frames.groupby(VIDEO, sort=True, observed=True)
    return groups.agg(label=("label", "first"), score=("score", "mean")).reset_index()


def roc_chart(name: str, curves: Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64]]]) -> Chart:
    """ROC curves of one test set: (legend, false positive rates, true positive rates) of each level."""
    lines = [Line(legend, *_thin(fpr, tpr), style) for style, (legend, fpr, tpr) in enumerate(curves)]
    diagonal = Line("", (0.0, 1.0), (0.0, 1.0), -1)
    return chart(f"ROC curve of {name}", [diagonal, *lines], (0.0, 1.0), (), "false positive rate", xlim=(0.0, 1.0), side=240)


def _thin(x: NDArray[np.float64], y: NDArray[np.float64], most: int = 250) -> tuple[list[float], list[float]]:
    """At most so many points of a rising curve, its ends among them: more than a pixel can show."""
    at = np.unique(np.linspace(0, len(x) - 1, min(len(x), most)).round().astype(int))
    return x[at].tolist(), y[at].tolist()


def chart(
    title: str,
    lines: Sequence[Line],
    ylim: tuple[float, float],
    marks: Sequence[tuple[str, float]],
    xlabel: str,
    xlim: tuple[float, float] | None = None,
    side: int | None = None,
) -> Chart:
    """A line chart with ticks and grid lines.

    Args:
        title: read out where the picture cannot be seen.
        lines: style -1 is a reference line without a legend.
        ylim: lower and upper end of the y axis.
        marks: (name, x) of dotted vertical lines.
        xlabel: beneath the x axis.
        xlim: ends of the x axis; None: of the data.
        side: width and height of a square chart.
    """
    width, height = (side, side) if side else (WIDTH, HEIGHT)
    every = [v for line in lines for v in line.x]
    x0, x1 = xlim or (min(0.0, *every), max(every))
    x1, y0, y1 = (x1 if x1 > x0 else x0 + 1), ylim[0], ylim[1] if ylim[1] > ylim[0] else ylim[0] + 1

    def px(x: float) -> float:
        return LEFT + (x - x0) / (x1 - x0) * (width - LEFT - RIGHT)

    def py(y: float) -> float:
        return height - BOTTOM - (y - y0) / (y1 - y0) * (height - TOP - BOTTOM)

    parts = []
    for y in _ticks(y0, y1):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{py(y) + 3.5:.1f}" text-anchor="end">{y:g}</text>')
    for x in _ticks(x0, x1):
        parts.append(f'<text class="tick" x="{px(x):.1f}" y="{height - BOTTOM + 15}" text-anchor="middle">{x:g}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{width - RIGHT}" y1="{py(y0):.1f}" y2="{py(y0):.1f}"/>')
    middle = (LEFT + width - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle:.1f}" y="{height - 4}" text-anchor="middle">{escape(xlabel)}</text>')
    for name, x in marks:
        ends = f'x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{TOP}" y2="{py(y0):.1f}"'
        parts.append(f'<line class="mark" {ends}><title>{escape(name)}</title></line>')
    for line in lines:
        points = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        kind = "reference" if line.style < 0 else f"line s{line.style}"
        parts.append(f'<polyline class="{kind}" points="{points}"/>')
        if len(line.x) == 1:
            parts.append(f'<circle class="dot s{line.style}" cx="{px(line.x[0]):.1f}" cy="{py(line.y[0]):.1f}" r="3"/>')
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg class="chart" {size} role="img" aria-label="{escape(title)}">'
    return Chart(Markup(head + "".join(parts) + "</svg>"), tuple((line.name, line.style) for line in lines if line.style >= 0))


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers from `low` to `high`."""
    rough = (high - low) / 4
    scale = 10.0 ** np.floor(np.log10(rough))
    step = float(min((m * scale for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - rough)))
    first = np.ceil(low / step - 1e-9) * step
    return [float(round(v, 10)) + 0.0 for v in np.arange(first, high + step * 1e-6, step)]
