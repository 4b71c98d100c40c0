"""Comparisons from a grid's scores: what is bold, what the draws are kept for, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from results_grids import grid_file, record
from results_scores import scored_grid
from typer.testing import CliRunner

from benchmark.cli import app
from results import resampled
from results.audit.ours import audit_tables
from results.compare import Comparison, pair_table, ranking
from results.files import RecordError
from results.index import GridIndex
from results.printed import Column
from results.render import markdown, printed_csv
from results.resampled import Resampled
from results.statistics import holm
from results.tables import build_table, columns_for, write_tables
from results.tidy import tidy

OPTIMIZERS = {"sgd": 0.6, "sam": 0.7, "roga": 3.5}
"""How far apart each one's scores of real and fake videos are."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`roga` is much better than two that are alike; tests that write copy it."""
    return scored_grid(tmp_path_factory.mktemp("runs") / "demo", OPTIMIZERS, seeds=(0, 1))


def column(test: str = "NeuralTextures", metric: str = "auc", level: str = "frame") -> Column:
    return Column("meso4", test, "held-out", level, metric)  # type: ignore[arg-type]


def test_only_a_significant_best_is_bold(kept: Path) -> None:
    index = GridIndex.read(kept)
    table = build_table(index)
    assert [[e.best for e in line] for line in table.entries] == [[False] * 3, [False] * 3, [True] * 3]
    assert "significantly better than the runner-up (p < 0.05, paired over videos and seeds" in table.trail[0]
    without = GridIndex(
        index.grid.model_copy(update={"cells": tuple(c for c in index.grid.cells if c.optimizer != "roga")}),
        index.records,
        index.reasons,
        index.folder,
    )
    table = build_table(without)
    assert not any(e.best for line in table.entries for e in line)
    assert "in 3 of 3 columns the best does not differ significantly from the runner-up" in table.trail[0]
    assert "nothing is bold, which would mean" in table.trail[0]
    assert any(e.best for line in build_table(without, bold="best").entries for e in line)


def test_where_there_are_no_scores_nothing_is_bold_and_the_trail_says_why() -> None:
    grid = grid_file(("sgd", "sam"))
    records = {c.id: record(c.id, 0.8 + 0.1 * i, optimizer=c.optimizer) for i, c in enumerate(grid.cells)}
    table = build_table(GridIndex(grid, records, {}))
    assert not any(e.best for line in table.entries for e in line)
    assert "in 3 of 3 columns not tested: no scores at hand" in table.trail[0]


def test_what_lost_its_scores_is_not_passed_over(tmp_path: Path) -> None:
    folder = scored_grid(tmp_path / "demo", {"sgd": 0.6, "sam": 1.0, "roga": 5.0}, seeds=(0, 1))
    (folder / "meso4-roga-s1" / "scores.parquet").unlink()
    table = build_table(GridIndex.read(folder), interval=True)
    assert not any(e.best for line in table.entries for e in line)
    assert "in 3 of 3 columns not tested: meso4-roga-s1/scores.parquet does not exist" in table.trail[0]
    assert ["[" in line[1].text for line in table.entries] == [True, True, False]
    # What was called best before its rival's scores were lost is no longer more than a guess.
    (folder / "tables").mkdir()
    for name, content in {"csv": printed_csv(table), "md": markdown(table).replace("| sam | ", "| sam | **")}.items():
        (folder / "tables" / f"table.{name}").write_text(content)
    best = next(f for f in audit_tables(GridIndex.read(folder)) if f.claim.id == "demo-best")
    assert best.verdict == "undecidable"
    # A cell that has no number yet keeps nothing back: its row has none of it either.
    (folder / "meso4-roga-s1" / "record.json").unlink()
    table = build_table(GridIndex.read(folder), interval=True)
    assert [line[1].best for line in table.entries] == [False, False, True]
    assert "[" in table.entries[2][1].text


def test_lower_is_better_for_errors(kept: Path) -> None:
    index = GridIndex.read(kept)
    comparison = Comparison(Resampled(index))
    for metric in ("eer", "log_loss", "ap", "acc"):
        assert comparison.leading(column(metric=metric)).best == "roga", metric
    assert next(p for p in comparison.pairs(column(metric="eer")) if p.significant).difference.value > 0


def test_pairs_are_corrected_together(kept: Path) -> None:
    pairs = Comparison(Resampled(GridIndex.read(kept))).pairs(column())
    assert [(p.first, p.second) for p in pairs] == [("sgd", "sam"), ("sgd", "roga"), ("sam", "roga")]
    assert [p.significant for p in pairs] == [False, True, True]
    assert [p.corrected for p in pairs] == pytest.approx(holm([p.difference.p for p in pairs]))
    assert all(p.difference.low < p.difference.value < p.difference.high for p in pairs)
    assert all(p.difference.seeds == 2 for p in pairs)


def test_the_value_is_the_records_and_intervals_go_into_table_and_csv(kept: Path, tmp_path: Path) -> None:
    index = GridIndex.read(kept)
    of = Resampled(index)
    rows = tidy(index, "source_val", of)
    auc = rows[rows["metric"] == "auc"]
    assert (auc["ci_low"] <= auc["value"]).all()
    assert (auc["value"] <= auc["ci_high"]).all()
    assert (auc["ci_low"] < auc["ci_high"])[auc["value"] < 0.99].all()
    assert rows[rows["metric"] != "auc"]["ci_low"].isna().all()
    row = auc.iloc[0]
    assert of.of(row["cell"], row["test"], row["level"]).interval == (row["ci_low"], row["ci_high"])
    low, high = Comparison(of).interval("sgd", column())
    text = build_table(index, interval=True).entries[0][1].text
    assert text.endswith(f" [{100 * low:.2f}, {100 * high:.2f}]")
    files = write_tables(index, tmp_path)
    assert pd.read_csv(files[3])["ci_low"].to_numpy() == pytest.approx(rows["ci_low"].to_numpy(), nan_ok=True)


def test_draws_are_kept_and_not_believed_once_scores_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scored_grid(tmp_path / "demo", {"sgd": 1.0, "sam": 2.0})
    first = Resampled(GridIndex.read(folder)).of("meso4-sgd-s0", "NeuralTextures", "frame")
    files = sorted(p.name for p in (folder / resampled.FOLDER).iterdir())
    assert files == ["meso4-sgd-s0-source_val-auc.npz"]

    def never(*_: object) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(resampled, "load_scores", never)
        again = Resampled(GridIndex.read(folder)).of("meso4-sgd-s0", "NeuralTextures", "frame")
    assert (again.value, again.videos) == (first.value, first.videos)
    assert np.array_equal(again.draws, first.draws)
    assert not np.array_equal(
        Resampled(GridIndex.read(folder), seed=1).of("meso4-sgd-s0", "NeuralTextures", "frame").draws, first.draws
    )
    whole = (folder / resampled.FOLDER / files[0]).read_bytes()
    flipped = whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:]
    for damaged in (b"broken", whole[:3000], flipped, b"", whole.replace(b"PK\x01\x02\x14", b"PK\x01\x02\x99")):
        (folder / resampled.FOLDER / files[0]).write_bytes(damaged)
        of = Resampled(GridIndex.read(folder)).of("meso4-sgd-s0", "NeuralTextures", "frame")
        assert np.array_equal(of.draws, first.draws)
        assert (folder / resampled.FOLDER / files[0]).read_bytes() != damaged
    path = folder / "meso4-sgd-s0" / "scores.parquet"
    scores = pd.read_parquet(path)
    scores.assign(score=1 - scores["score"]).to_parquet(path, index=False)
    with pytest.raises(RecordError, match=r"meso4-sgd-s0/scores.parquet does not match the record: auc of NeuralTextures"):
        Resampled(GridIndex.read(folder)).of("meso4-sgd-s0", "NeuralTextures", "frame")
    path.unlink()
    with pytest.raises(RecordError, match=r"meso4-sgd-s0/scores.parquet does not exist"):
        Resampled(GridIndex.read(folder)).of("meso4-sgd-s0", "NeuralTextures", "frame")


def test_too_few_videos_other_videos_and_missing_cells_are_said(tmp_path: Path) -> None:
    few = scored_grid(tmp_path / "few", {"sgd": 1.0, "sam": 2.0}, videos=4)
    with pytest.raises(RecordError, match=r"too few videos to resample \(4 real, 4 fake; 5 of each are the least\)"):
        Resampled(GridIndex.read(few)).of("meso4-sgd-s0", "NeuralTextures", "video")
    other = scored_grid(tmp_path / "other", {"sgd": 1.0, "sam": 2.0, "roga": 3.0}, videos={"sam": 9})
    (other / "meso4-roga-s0" / "record.json").unlink()
    pairs = Comparison(Resampled(GridIndex.read(other))).pairs(column())
    assert [p.reason for p in pairs] == ["they were not scored on the same videos", "not run yet", "not run yet"]
    assert pair_table(Comparison(Resampled(GridIndex.read(other))), [column()])["p_holm"].isna().all()


def test_ranking_over_backbones_and_test_sets(kept: Path) -> None:
    index = GridIndex.read(kept)
    columns = columns_for(index, ["frame auc"])
    found = ranking(index, tidy(index), columns)
    assert found.ranks.names[0] == "roga"
    assert found.ranks.mean[0] == 1
    assert found.ranks.datasets == 2
    assert len(found.pairs) == 3


def test_where_fewer_seeds_are_compared_than_there_are_it_is_said(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(kept, folder)
    (folder / "meso4-roga-s1" / "record.json").unlink()
    index = GridIndex.read(folder)
    table = build_table(index)
    assert [e.best for e in table.entries[2]] == [True] * 3
    assert "paired over videos, which says nothing of other seeds" in table.trail[0]
    assert "in 3 of 3 columns tested on 1 of 2 seeds, which says nothing of others" in table.trail[0]
    rows = pair_table(Comparison(Resampled(index)), [column()])
    assert rows["seeds"].tolist() == [2, 1, 1]
    assert rows["reason"].tolist() == ["", *["over 1 of 2 seeds; seed 1: not run yet"] * 2]
    # Ranks compare means of the same seeds: `sgd` is first here by its second seed alone.
    measured = tidy(index).assign(value=lambda t: t["value"].where((t["optimizer"] != "sgd") | (t["seed"] == 0), 1.0))
    found = ranking(index, measured, columns_for(index, ["frame auc"]))
    assert found.ranks.names[0] == "roga"
    assert len(found.fewer) == found.ranks.datasets == 2
    monkeypatch.setenv("COLUMNS", "120")
    said = CliRunner().invoke(app, ["compare", "demo", "--runs", str(tmp_path)]).output
    assert "sam - roga (1 of 2 seeds)" in said
    assert "over 1 of 2 seeds; seed 1: not run yet" in said
    assert "other videos and other seeds, but of one seed only of other videos." in said
    assert "over the seeds that every optimizer has, where some have more: 2 columns" in said


def test_on_the_command_line(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    done = CliRunner().invoke(app, ["compare", "demo", "--runs", str(kept.parent), "--metric", "frame auc"])
    assert done.exit_code == 0, done.output
    assert "sgd - roga" in done.output
    assert "Average ranks of frame AUC over 2 backbones x test sets: roga 1.00" in done.output
    rows = pd.read_csv(kept / "tables" / "compare.csv")
    assert len(rows) == 2 * 3
    assert (rows[(rows["second"] == "roga")]["p_holm"] < 0.05).all()
    done = CliRunner().invoke(app, ["compare", "demo", "--runs", str(kept.parent), "--optimizer", "nothing"])
    assert isinstance(done.exception, RecordError)
