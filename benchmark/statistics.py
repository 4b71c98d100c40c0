"""Shallow statistics changed from outside: what accuracy hangs on (PIM, Guan et al. 2024, tables II and III)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from benchmark import metrics, provenance
from benchmark.config import ConfigError
from benchmark.evaluate import SCORE_COLUMNS, EvaluationSet, score, video_level
from benchmark.opened import open_trained, read_cell
from benchmark.probe import Trained
from benchmark.protocol import Protocol
from benchmark.testing import Report, write_parquet
from detectors.base import Detector
from results.record import Level
from results.shallow import Effect, StatisticsReport, StatisticsSettings


def change(features: Tensor, mean: float, variance: float) -> Tensor:
    """Features whose mean over positions is `mean` times what it was, and whose variance is `variance` times, channel by channel.

    f' = (f - mu) sqrt(variance) + mean mu, with mu and the variance of each sample and channel over its positions.

    Args:
        features: (N, C, H, W).
        mean: factor of the mean.
        variance: factor of the variance, not negative.
    """
    mu = features.mean(dim=(2, 3), keepdim=True)
    return (features - mu) * variance**0.5 + mean * mu


@contextmanager
def changed(detector: nn.Module, names: Sequence[str], mean: float, variance: float) -> Iterator[None]:
    """Passes in here see the output of the named submodules with other statistics.

    Raises:
        ConfigError: no names, a name that is no submodule, or one whose output is not (N, C, H, W).
    """
    if not names:
        raise ConfigError(f"the detector {type(detector).__name__} names no shallow modules (`shallow`) whose features to change")

    def hook(_module: nn.Module, _inputs: Any, output: Any, name: str) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise ConfigError(f"'{name}' of {type(detector).__name__} gives no (N, C, H, W) features to change")
        return change(output, mean, variance)

    with ExitStack() as stack:
        for name in names:
            try:
                module = detector.get_submodule(name)
            except AttributeError as error:
                raise ConfigError(f"{type(detector).__name__} has no submodule '{name}'") from error
            stack.callback(module.register_forward_hook(partial(hook, name=name)).remove)
        yield


def statistics_file(trained: Trained) -> Path:
    """probes/statistics.json beside the checkpoint."""
    return trained.report.with_name(trained.report.name.replace("sharpness", "statistics", 1))


def probe_statistics(
    trained: Trained,
    data: Path,
    settings: StatisticsSettings,
    device: str = "cpu",
    report: Report = lambda stage, done, total: None,
) -> tuple[StatisticsReport, bool]:
    """Accuracy and log loss of one cell's last weights on its test faces, before and after; written beside the checkpoint.

    Every module in the detector's `shallow` is changed. The paper names the features "shallow" and no layer.

    Args:
        trained: the checkpoint.
        data: folder that relative store names belong to.
        settings: the two factors.
        device: torch's name of the device.
        report: told (stage, done, total).

    Returns:
        The report, and whether it was there already, of the same weights, faces, settings and code.

    Raises:
        ConfigError: no checkpoint of a cell, stores that are not there or have changed, a detector without shallow modules.
        RecordError: a report is there that cannot be read.
    """
    path = statistics_file(trained)
    kept = path.with_suffix(".parquet")
    _, stores = read_cell(trained.path, data)
    identity: dict[str, Any] = {"checkpoint": provenance.file_hash(trained.path), "code": provenance.code_hash(), "stores": stores}
    if path.exists():
        before = StatisticsReport.load(path)
        same = before.model_dump(include={*identity, "settings"}) == {**identity, "settings": settings.model_dump()}
        if same and kept.is_file() and provenance.file_hash(kept) == before.scores:
            return before, True
    opened = open_trained(trained.path, data, device, report=report)
    detector = opened.restored.detector
    names = tuple(getattr(detector, "shallow", ()))
    tests = list(opened.tests.values())
    scored = [_scores(detector, names, test, settings, report) for test in tests]
    effects = [e for test, pair in zip(tests, scored, strict=True) for e in _effects(test, pair, opened.cell.protocol)]
    path.parent.mkdir(exist_ok=True)
    write_parquet(_together(tests, scored), kept)
    found = StatisticsReport(
        cell=opened.cell.id,
        detector=opened.cell.detector.title,
        optimizer=opened.cell.optimizer.title,
        seed=opened.cell.seed,
        step=opened.restored.step,
        device=provenance.device_name(device),
        modules=names,
        settings=settings,
        effects=tuple(effects),
        scores=provenance.file_hash(kept),
        **identity,
    )
    found.save(path)
    return found, False


def _scores(
    detector: Detector, names: Sequence[str], test: EvaluationSet, settings: StatisticsSettings, report: Report
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of every face, before and after."""
    if not len(test.frames):
        raise ConfigError(f"test set '{test.name}' has no faces to score")
    before = score(detector, test.frames, settings.batch_size, partial(report, f"{test.name}: before"))
    with changed(detector, names, settings.mean, settings.variance):
        after = score(detector, test.frames, settings.batch_size, partial(report, f"{test.name}: after"))
    return before, after


def _together(tests: Sequence[EvaluationSet], scored: Sequence[tuple[pd.DataFrame, pd.DataFrame]]) -> pd.DataFrame:
    """Every score, with its test set and whether the statistics were changed."""
    rows = [
        scores.assign(test=test.name, changed=when)
        for test, pair in zip(tests, scored, strict=True)
        for when, scores in zip(("before", "after"), pair, strict=True)
    ]
    return pd.concat(rows, ignore_index=True)[["test", "changed", *SCORE_COLUMNS]]


def _effects(test: EvaluationSet, scored: tuple[pd.DataFrame, pd.DataFrame], protocol: Protocol) -> list[Effect]:
    """Of the whole set, and of each forgery with the set's real faces; by face and by video."""
    before, after = scored
    fakes = sorted(before.loc[before["label"] == 1, "method"].astype(str).unique())
    found = []
    for method in fakes if len(fakes) == 1 else ["", *fakes]:

        def of(rows: pd.DataFrame, method: str = method) -> pd.DataFrame:
            return rows[(rows["label"] == 0) | (rows["method"] == method)] if method and len(fakes) > 1 else rows

        missing = of(test.missing)
        videos = [video_level(of(rows), missing, protocol) for rows in scored]
        levels: tuple[tuple[Level, list[pd.DataFrame]], ...] = (("frame", [of(before), of(after)]), ("video", videos))
        for level, (one, other) in levels:
            (acc_before, loss_before), (acc_after, loss_after) = _measured(one), _measured(other)
            found.append(
                Effect(
                    test=test.name,
                    role=test.role,
                    method=method,
                    level=level,
                    n_real=int((one["label"] == 0).sum()),
                    n_fake=int((one["label"] == 1).sum()),
                    acc_before=acc_before,
                    acc_after=acc_after,
                    log_loss_before=loss_before,
                    log_loss_after=loss_after,
                )
            )
    return found


def _measured(scores: pd.DataFrame) -> tuple[float, float]:
    labels, values = scores["label"].to_numpy(np.int64), scores["score"].to_numpy(np.float64)
    return metrics.accuracy(labels, values), metrics.log_loss(labels, values)
