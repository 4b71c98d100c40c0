"""t-SNE and UMAP of a detector's features of test faces, without and with a method."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmark.config import ConfigError
from benchmark.data import FaceFrames
from benchmark.opened import Opened
from benchmark.probe import fixed_choice
from detectors.base import Detector
from results.figures.style import COLOURS, MARKERS, Drawing, legend_below, panels, plain

Array = NDArray[np.float64]
Kind = Literal["tsne", "umap"]

FACES = 5000
TITLES = {"tsne": "t-SNE", "umap": "UMAP"}


@torch.no_grad()
def features(detector: Detector, frames: FaceFrames, positions: NDArray[np.int64], batch_size: int = 64) -> Array:
    """The vectors in front of the detector's last layer, (N, D), in the order of `positions`."""
    device = next(detector.parameters()).device
    parts = [
        detector(frames.pixels(positions[at : at + batch_size]).to(device)).features.float().cpu().numpy()
        for at in range(0, len(positions), batch_size)
    ]
    return np.concatenate(parts).astype(np.float64)


def embed(vectors: Array, kind: Kind, seed: int) -> Array:
    """Two dimensions, (N, 2), by scikit-learn's t-SNE or umap-learn, both with their usual settings and a seed.

    Vectors are standardised first, channel by channel: channels that hardly move would else be drowned.

    Raises:
        ConfigError: too few faces; umap-learn is not installed.
    """
    if len(vectors) < 10:
        raise ConfigError(f"{TITLES[kind]} needs ten faces or more; there are {len(vectors)}")
    scaled = (vectors - vectors.mean(axis=0)) / np.maximum(vectors.std(axis=0), 1e-12)
    if kind == "tsne":
        from sklearn.manifold import TSNE

        return np.asarray(TSNE(perplexity=min(30.0, (len(scaled) - 1) / 3), init="pca", random_state=seed).fit_transform(scaled))
    try:
        from umap import UMAP
    except ImportError as error:
        raise ConfigError("UMAP needs the package umap-learn; install it with pip install 'deepfake-grid[figures]'") from error
    return np.asarray(UMAP(n_neighbors=min(15, len(scaled) - 1), random_state=seed, n_jobs=1).fit_transform(scaled))


def embedding(cells: dict[str, Opened], test: str, kind: Kind, seed: int = 0, count: int = FACES) -> Drawing:
    """A panel an optimizer: the same faces of one test set, at most `count`, half of them real; marks tell the methods apart.

    Args:
        cells: optimizer -> its cell; all of one detector.
        test: name of the set, which all cells have opened.
        kind: "tsne" or "umap".
        seed: chooses the faces and starts the embedding.
        count: faces at most.
    """
    first = next(iter(cells.values()))
    frames = first.tests[test].frames
    positions = fixed_choice(frames, count, seed)
    rows: pd.DataFrame = frames.rows.iloc[positions]
    methods = rows["method"].astype(str).where(rows["label"] == 1, "real").to_numpy()
    order = sorted(set(methods), key=lambda m: (m != "real", m))
    figure, axes = panels(len(cells), width=2.5 * len(cells) + 0.2, height=2.8, across=3)
    for axis, (name, opened) in zip(axes, cells.items(), strict=True):
        points = embed(features(opened.restored.detector, frames, positions), kind, seed)
        for at, method in enumerate(order):
            x, y = points[methods == method].T
            size = 14 if len(points) < 1000 else 4
            look: dict[str, Any] = {"facecolors": "none", "edgecolors": COLOURS[at % len(COLOURS)]} if at else {"color": "#999999"}
            axis.scatter(x, y, s=size, marker=MARKERS[at % len(MARKERS)], linewidths=0.6, label=method, **look)
        axis.set(xticks=[], yticks=[], title=name)
        axis.spines[:].set_visible(True)
    legend_below(figure, axes[0], 5)
    title = f"{TITLES[kind]} of the features of {len(positions)} faces;\n{first.cell.detector.title}, {test}, last step"
    figure.suptitle(f"{title}, seed {first.cell.seed}", fontsize=6.5)
    what = f"{TITLES[kind]} of {first.cell.detector.title}'s features of {len(positions)} faces of {test}, a panel an optimizer"
    return Drawing(f"{kind}-{plain(first.cell.detector.title)}-{plain(test)}", figure, f"{what}; weights of the last step")
