"""What settings do: optimizers against backbones, and one optimizer against its own hyper-parameters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from results.compare import ranking, title
from results.figures.source import Source
from results.figures.style import ONE_COLUMN, Drawing, legend_below, look, panels, plain
from results.files import RecordError
from results.record import Level
from results.tables import columns_for
from results.tidy import tidy

LEVEL: Level = "frame"


def _means(source: Source) -> dict[tuple[str, str, str], list[float]]:
    """(detector, test, optimizer) -> frame AUC in % of each seed that has one."""
    rows = tidy(source.index, source.selection.name)
    rows = rows[(rows["level"] == LEVEL) & (rows["metric"] == "auc")].dropna(subset="value")
    groups = rows.groupby(["detector", "test", "optimizer"], sort=False)["value"]
    return {(str(d), str(t), str(o)): (100 * values).tolist() for (d, t, o), values in groups}


def heatmap(source: Source) -> Iterator[Drawing]:
    """Optimizer x backbone: the frame AUC, a panel a test set, numbers in the fields; dark is high."""
    means = _means(source)
    tests = [t for t in source.index.grid.tests if any(key[1] == t.name for key in means)]
    if not tests:
        return
    detectors, optimizers = source.index.grid.detectors, source.optimizers
    height = max(1.4, 0.2 * len(optimizers) + 0.75)
    figure, axes = panels(len(tests), height=height, across=3, sharey=True)
    for axis, test in zip(axes, tests, strict=True):
        values = np.array([[np.mean(means.get((d, test.name, o), [np.nan])) for d in detectors] for o in optimizers])
        low, high = np.nanmin(values), np.nanmax(values)
        shown = axis.imshow(values, cmap="cividis_r", aspect="auto", vmin=low, vmax=max(high, low + 1e-9))
        for (row, column), value in np.ndenumerate(values):
            dark = np.isfinite(value) and value > (low + high) / 2
            text = f"{value:.1f}" if np.isfinite(value) else "–"
            axis.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=7)
        tilted = max(map(len, detectors)) * len(detectors) > 24
        axis.set_xticks(range(len(detectors)), detectors, rotation=35 if tilted else 0, ha="right" if tilted else "center")
        axis.set_yticks(range(len(optimizers)), optimizers)
        axis.set_title(f"{test.name} ({test.role})")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        figure.colorbar(shown, ax=axis, fraction=0.05, pad=0.02).outline.set_visible(False)
    figure.suptitle(f"frame AUC in %; {source.note()}", fontsize=7)
    yield Drawing("heatmap", figure, source.caption("Frame AUC in %, optimizer x backbone, mean over seeds, a panel a test set"))


def varied(source: Source) -> dict[tuple[str, str], dict[float, list[str]]]:
    """Settings in which optimizers of one rule differ: (rule, setting) -> value -> titles.

    A rule's variants belong to one line only where nothing else differs; those that differ in two settings belong to neither, and
    one that has no number for a setting is in none of its lines.
    """
    used = {cell.optimizer: record.optimizer for cell, record in source.cells()}
    found: dict[tuple[str, str], dict[float, list[str]]] = {}
    for rule in dict.fromkeys(o.name for o in used.values()):
        variants = {title: o for title, o in used.items() if o.name == rule}
        keys = dict.fromkeys(k for o in variants.values() for k, v in o.used.items() if isinstance(v, (int, float)))
        for key in keys:
            others: dict[str, dict[float, list[str]]] = {}
            for title_, o in variants.items():
                value = o.used.get(key)
                if isinstance(value, (int, float)):
                    rest = repr(({k: v for k, v in o.used.items() if k != key}, o.base, o.base_settings))
                    others.setdefault(rest, {}).setdefault(float(value), []).append(title_)
            # The longest line with everything else alike.
            line = max(others.values(), key=len)
            if len(line) > 1:
                found[rule, key] = dict(sorted(line.items()))
    return found


def sensitivity(source: Source) -> Iterator[Drawing]:
    """A figure a rule and setting (RoGA's alpha and rho, PIM's r and alpha): frame AUC against it; bars: one SD over seeds."""
    means = _means(source)
    for (rule, key), line in varied(source).items():
        detectors = source.index.grid.detectors
        figure, axes = panels(len(detectors), height=2.3, across=3)
        for axis, detector in zip(axes, detectors, strict=True):
            for at, test in enumerate(source.index.grid.tests):
                points = []
                for value, titles in line.items():
                    seeds = [x for name in titles for x in means.get((detector, test.name, name), [])]
                    if seeds:
                        points.append((value, np.mean(seeds), np.std(seeds, ddof=1) if len(seeds) > 1 else 0.0))
                if points:
                    x, y, spread = np.array(points).T
                    axis.errorbar(x, y, spread, **look(at), capsize=2, elinewidth=0.6, label=test.name)
            values = list(line)
            if min(values) > 0 and max(values) / min(values) > 20:
                axis.set_xscale("log")
            else:
                axis.set_xticks(values, [f"{v:g}" for v in values])
            axis.minorticks_off()
            axis.margins(x=0.08)
            axis.set(xlabel=key, ylabel="frame AUC in %", title=detector)
        legend_below(figure, axes[0], 4)
        fixed = next(r.optimizer.used for c, r in source.cells() if c.optimizer in next(iter(line.values())))
        rest = ", ".join(f"{k} {v:g}" for k, v in fixed.items() if k != key and isinstance(v, (int, float)))
        figure.suptitle(f"{rule}{f' ({rest})' if rest else ''}; {source.note()}", fontsize=7)
        what = f"Frame AUC against {rule}'s {key}, everything else alike; bars: one standard deviation over seeds"
        yield Drawing(f"sensitivity-{plain(rule)}-{plain(key)}", figure, source.caption(what))


def ranks(source: Source) -> Iterator[Drawing]:
    """Critical-difference diagram (Demsar 2006, figure 1): average ranks; bars join optimizers that are not told apart."""
    columns = columns_for(source.index, [f"{LEVEL} auc"])
    try:
        ranked = ranking(source.index, tidy(source.index, source.selection.name), columns)
    except RecordError:
        return  # too few optimizers or test sets for any such diagram
    found = ranked.ranks
    count = len(found.names)
    half = (count + 1) // 2
    cliques = found.cliques()
    lines = 0.16 * len(cliques)
    height = 0.85 + lines + 0.2 * half
    figure, (axis,) = panels(1, width=ONE_COLUMN, height=height + 0.35)
    axis.set(xlim=(0.2 - 0.22 * count, count + 0.8 + 0.22 * count), ylim=(-(lines + 0.25 + 0.2 * half), 0.62))
    axis.axis("off")
    axis.plot([1, count], [0, 0], color="black", linewidth=0.8)
    for tick in range(1, count + 1):
        axis.plot([tick, tick], [0, 0.07], color="black", linewidth=0.8)
        axis.text(tick, 0.1, str(tick), ha="center", va="bottom")
    axis.plot([1, 1 + found.critical], [0.42, 0.42], color="black", linewidth=0.8, marker="|", markersize=5, clip_on=False)
    axis.text(1 + found.critical / 2, 0.47, f"CD {found.critical:.2f}", ha="center", va="bottom")
    for at, (first, last) in enumerate(cliques):
        y = -0.12 - 0.16 * at
        axis.plot([found.mean[first] - 0.04, found.mean[last] + 0.04], [y, y], color="black", linewidth=2.6, solid_capstyle="butt")
    for at, (name, mean) in enumerate(zip(found.names, found.mean, strict=True)):
        left = at < half
        y = -(lines + 0.2 + 0.2 * (at if left else count - 1 - at))
        end = 0.75 if left else count + 0.25
        axis.plot([mean, mean, end], [0, y, y], color="black", linewidth=0.6)
        label = f"{name} ({mean:.2f})" if left else f"({mean:.2f}) {name}"
        axis.text(end + (-0.08 if left else 0.08), y, label, ha="right" if left else "left", va="center")
    sentence = f"average ranks of {title(LEVEL, 'auc')} over {found.datasets} backbones x test sets\n"
    sentence += f"checkpoint: {source.selection.label}\nFriedman p {found.p:.3f}; bars: not told apart (Nemenyi, 0.05)"
    figure.suptitle(sentence, fontsize=6.5)
    what = f"Critical-difference diagram: average ranks of {title(LEVEL, 'auc')} over {found.datasets} backbones x test sets"
    if ranked.fewer:
        what += f", in {len(ranked.fewer)} of them over the seeds that every optimizer has"
    yield Drawing("ranks", figure, source.caption(what))
