"""Grids with scores for the tests of the room `results`: drawn scores, and records that were measured from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results_grids import grid_file, record, write_grid

from benchmark import metrics
from results.record import Measure
from results.scores import SCORE_COLUMNS

SETS = {"val": ("val", "source-val"), "in-domain": ("test", "in-domain"), "NeuralTextures": ("test", "held-out")}
FRAMES = 4


def draw_scores(apart: float, seed: int, videos: int = 20, steps: tuple[int, ...] = (10, 20)) -> pd.DataFrame:
    """Scores of every set at every step; all optimizers share how hard a video is. Later steps are a little better."""
    found = []
    for number, (name, (split, role)) in enumerate(SETS.items()):
        shared = np.random.default_rng(number)
        label = np.repeat([0, 1], videos)
        hard = np.repeat(shared.normal(size=2 * videos), FRAMES)
        own = np.random.default_rng([seed, number])
        for step in steps:
            logit = apart * step / max(steps) * (2 * np.repeat(label, FRAMES) - 1) / 2 + hard + 0.4 * own.normal(size=len(hard))
            found.append(
                pd.DataFrame(
                    {
                        "epoch": step / 10,
                        "step": step,
                        "split": split,
                        "test": name,
                        "role": role,
                        "dataset": "mini-a",
                        "method": np.repeat(np.where(label == 1, "Deepfakes", "real"), FRAMES),
                        "video": np.repeat([f"{i % videos:03d}" for i in range(2 * videos)], FRAMES),
                        "frame": np.tile(np.arange(FRAMES), 2 * videos),
                        "key": [f"{name}/{i}" for i in range(2 * videos * FRAMES)],
                        "label": np.repeat(label, FRAMES),
                        "score": (1 / (1 + np.exp(-logit))).astype(np.float32),
                    }
                )
            )
    return pd.concat(found, ignore_index=True)[list(SCORE_COLUMNS)]


def measured(scores: pd.DataFrame) -> list[Measure]:
    """What the benchmark measures from them."""
    found = []
    for (step, test), rows in scores.groupby(["step", "test"], sort=False):
        first = rows.iloc[0]
        for level, of in (("frame", rows), ("video", metrics.per_video(rows))):
            labels = of["label"].to_numpy(np.int64)
            values, undefined = metrics.measure(labels, of["score"].to_numpy(np.float64))
            counts: dict[str, Any] = {"n_real": int((labels == 0).sum()), "n_fake": int((labels == 1).sum())}
            where = {"epoch": first["epoch"], "step": step, "split": first["split"], "test": test, "role": first["role"]}
            found.append(Measure(level=level, undefined=undefined, **where, **counts, **values))
    return found


def scored_grid(
    folder: Path,
    apart: Mapping[str, float],
    detectors: tuple[str, ...] = ("meso4",),
    seeds: tuple[int, ...] = (0,),
    videos: int | Mapping[str, int] = 20,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """runs/<grid>/ with records and scores; `apart` says how well each optimizer does.

    Args:
        folder: to write.
        apart: optimizer -> distance between the mean logits of real and fake videos.
        detectors, seeds: of the grid.
        videos: of each class in each set; by optimizer where they differ.
        settings: optimizer -> fields of its `OptimizerUsed`.
    """
    grid = grid_file(tuple(apart), detectors, seeds, name=folder.name)
    records, scores = [], {}
    for cell in grid.cells:
        count = videos if isinstance(videos, int) else videos.get(cell.optimizer, 20)
        drawn = draw_scores(apart[cell.optimizer], 97 * cell.seed + list(apart).index(cell.optimizer), count)
        scores[cell.id] = drawn
        made = record(cell.id, measured(drawn), cell.detector, cell.optimizer, cell.seed, grid=folder.name)
        if settings and cell.optimizer in settings:
            used = made.optimizer.model_copy(update={"label": cell.optimizer, **settings[cell.optimizer]})
            made = made.model_copy(update={"optimizer": used})
        records.append(made)
    write_grid(folder, grid, records)
    for cell_id, drawn in scores.items():
        drawn.to_parquet(folder / cell_id / "scores.parquet", index=False)
    return folder
