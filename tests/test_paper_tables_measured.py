"""Measured papers' tables from scores: what is bold, what a probe fills, and what is said where something does not fit."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from results_papers import scored_study
from rich.console import Console
from typer.testing import CliRunner

from benchmark.cli import app
from results.compare import leading
from results.files import RecordError
from results.index import GridIndex
from results.papers import PAPER_TABLES
from results.papers.build import build_paper_table
from results.papers.evidence import Evidence
from results.papers.printed import PaperEntry, PrintedPaper
from results.papers.render import PaperTerminal, paper_latex, paper_markdown
from results.papers.significance import drawn
from results.printed import DASH
from results.reported import reported

BACKBONES = {"ResNet-50": 2.5, "XceptionNet": 0.0, "EfficientNet-b4": 0.0, "ConvNeXt-base": 0.0}
"""How much further apart PIM's scores are than Adam's."""


@pytest.fixture(scope="module")
def pim4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PIM's table 4 with two seeds, where PIM helps ResNet-50 alone."""
    return scored_study(
        tmp_path_factory.mktemp("runs"),
        "pim/table4",
        lambda cell, test: 0.6 + (BACKBONES[cell.detector.title] if cell.optimizer.name == "pim" else 0.0),
        seeds=(0, 1),
    )


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PIM's tables 2 and 3: the change hurts Adam and, on DF, spares PIM."""

    def after(cell, test):
        return 4.5 if cell.optimizer.name == "pim" and test == "DF" else 0.5

    return scored_study(tmp_path_factory.mktemp("runs"), "pim/table2", lambda cell, test: 4.0, seeds=(0, 1), changed=after)


def bold(table: PrintedPaper) -> list[tuple[tuple[str, ...], str]]:
    return [
        (stubs, column.csv)
        for stubs, line in zip(table.stubs, table.entries, strict=True)
        for column, entry in zip(table.layout.columns, line, strict=True)
        if entry.bold
    ]


def test_only_a_significant_best_is_bold_in_a_papers_table(pim4: Path) -> None:
    layout, index = PAPER_TABLES["pim/4"], GridIndex.read(pim4)
    table = build_paper_table(layout, "measured", index)
    columns = ("CDF", "DFDCP", "DFDC", "WDF", "Average")
    assert bold(table) == [((a, "ResNet-50", "yes"), c) for a in ("without", "with") for c in columns]
    (sentence,) = [s for s in table.trail if s.startswith("Bold:")]
    assert "significantly better than the runner-up (p < 0.05, paired over videos and seeds; Holm's correction" in sentence
    assert "in 30 of 40 groups the best does not differ significantly from the runner-up" in sentence
    beside = build_paper_table(layout, "beside", index)
    assert bold(beside) == bold(table)
    entry = next(e for line in beside.entries for e in line if e.bold)
    assert f"**{entry.text}**" in paper_markdown(beside)
    assert paper_latex(beside).count(r"\textbf{") == len(bold(table))
    highest = build_paper_table(layout, "measured", index, bold="best")
    assert len(bold(highest)) >= 40
    assert any("It may be chance." in s for s in highest.trail)
    # What the paper prints keeps the paper's marks; two equal numbers are both best.
    assert len(bold(build_paper_table(layout))) == 40 + 1


def test_one_seed_is_said_and_nothing_bold_is_explained(tmp_path: Path) -> None:
    folder = scored_study(tmp_path, "pim/table7", lambda cell, test: 1.0)
    table = build_paper_table(PAPER_TABLES["pim/7"], "measured", GridIndex.read(folder))
    assert bold(table) == []
    (sentence,) = [s for s in table.trail if s.startswith("Nothing is bold")]
    assert "which would mean: the best of its column" in sentence
    assert "paired over videos, which says nothing of other seeds, since there is one" in sentence
    assert "in 5 of 5 columns the best does not differ significantly from the runner-up" in sentence


def test_the_second_is_underlined_where_it_beats_the_third(tmp_path: Path) -> None:
    far = {"sam": 2.5, "roga": 6.0}
    folder = scored_study(tmp_path, "roga/table4", lambda cell, test: far.get(cell.optimizer.name, 0.3))
    table = build_paper_table(PAPER_TABLES["roga/4"], "measured", GridIndex.read(folder))
    assert {stubs for stubs, _ in bold(table)} == {("Ours(RoGA)",)}
    under = {s for s, line in zip(table.stubs, table.entries, strict=True) for e in line if e.underlined}
    assert under == {("SAM",)}
    assert any("underlined: the second best of those" in s for s in table.trail)
    far["sam"] = 0.3
    other = scored_study(tmp_path / "other", "roga/table4", lambda cell, test: far.get(cell.optimizer.name, 0.3))
    table = build_paper_table(PAPER_TABLES["roga/4"], "measured", GridIndex.read(other))
    assert {stubs for stubs, _ in bold(table)} == {("Ours(RoGA)",)}
    assert not any(e.underlined for line in table.entries for e in line)


def test_without_scores_nothing_is_bold_and_the_trail_says_why(pim4: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pim4, tmp_path / "runs"))
    for path in folder.glob("*resnet-50-pim*s0*/scores.parquet"):
        path.unlink()
    table = build_paper_table(PAPER_TABLES["pim/4"], "measured", GridIndex.read(folder))
    assert bold(table) == []
    assert all(e.number is not None for line in table.entries for e in line)
    (sentence,) = [s for s in table.trail if s.startswith("Nothing is bold")]
    assert "in 5 of 40 groups not tested: " in sentence
    assert "scores.parquet does not exist" in sentence


def test_a_test_on_fewer_seeds_than_there_are_is_said(pim4: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pim4, tmp_path / "runs"))
    for path in folder.glob("*pim*s1*/record.json"):
        path.unlink()
    table = build_paper_table(PAPER_TABLES["pim/4"], "measured", GridIndex.read(folder))
    assert bold(table)
    (sentence,) = [s for s in table.trail if s.startswith("Bold:")]
    assert "paired over videos, which says nothing of other seeds;" in sentence
    assert "in 40 of 40 groups tested on 1 of 2 seeds, which says nothing of others" in sentence


def test_scores_that_do_not_match_their_record_are_said(pim4: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pim4, tmp_path / "runs"))
    path = next(p for p in sorted(folder.glob("*/scores.parquet")) if p.parent.name.startswith("resnet-50-pim-s0"))
    scores = pd.read_parquet(path)
    scores.assign(score=1 - scores["score"]).to_parquet(path, index=False)
    table = build_paper_table(PAPER_TABLES["pim/4"], "measured", GridIndex.read(folder))
    said = " ".join(table.trail)
    assert f"not tested: {path.parent.name}/scores.parquet does not match the record: auc of CDF (video level)" in said


def test_an_average_is_tested_over_test_sets_drawn_by_themselves(pim4: Path) -> None:
    layout, index = PAPER_TABLES["pim/4"], GridIndex.read(pim4)
    evidence = Evidence(layout, index, "source_val")
    average = drawn(evidence, layout.rows[0], layout.columns[4])
    parts = [drawn(evidence, layout.rows[0], column) for column in layout.columns[:4]]
    for seed, found in average.items():
        each = [part[seed] for part in parts]
        assert found.value == pytest.approx(np.mean([d.value for d in each]))
        assert len({d.reals for d in each}) == 4
        apart = np.sqrt(sum(d.draws.var() for d in each)) / 4
        assert found.draws.std() == pytest.approx(apart, rel=0.1)
    # Forgeries of one test split share their real videos, and are drawn with them.
    assert float(found.draws[0]) == pytest.approx(np.mean([d.draws[-at] for at, d in enumerate(each)]))


def test_sets_with_the_same_real_videos_are_drawn_together(tmp_path: Path) -> None:
    folder = scored_study(tmp_path, "dfb/table1", lambda cell, test: 1.0, only=lambda cell: cell.detector.title == "Meso4")
    layout = PAPER_TABLES["dfb/1"]
    evidence = Evidence(layout, GridIndex.read(folder), "source_val")
    columns = {c.csv: c for c in layout.columns}
    row = layout.rows[0]
    of = {name: drawn(evidence, row, columns[name])[0] for name in columns["within Avg"].mean_of}
    assert of["FF-DF"].reals == of["FF-NT"].reals != of["FF++_c40"].reals
    mean = drawn(evidence, row, columns["within Avg"])[0]
    places = list(dict.fromkeys(d.reals for d in of.values()))
    assert mean.draws[5] == pytest.approx(np.mean([d.draws[5 - places.index(d.reals)] for d in of.values()]))


def test_what_the_paper_prints_are_shares_of_280_videos() -> None:
    """What the layout's remark says: 140 real and 140 fake test videos of a forgery."""
    for name in ("pim_table2", "pim_table3"):
        for text in reported(name)["Acc"]:
            assert f"{round(float(text) * 280) / 280:.4f}" == text


def test_a_probe_fills_tables_2_and_3(probed: Path) -> None:
    index = GridIndex.read(probed)
    table = build_paper_table(PAPER_TABLES["pim/2"], "measured", index)
    assert table.stubs == [("DF", "before"), ("DF", "after"), ("F2F", "before"), ("F2F", "after")]
    for row, (part, when) in enumerate(table.stubs):
        cells = [c.id for c in index.grid.cells if (c.part, c.optimizer) == (part, "adam")]
        for column, (metric, level) in enumerate((("acc", "video"), ("log_loss", "video"))):
            values = []
            for cell in cells:
                report = json.loads((probed / cell / "probes/statistics.json").read_text())
                (effect,) = [e for e in report["effects"] if e["level"] == level]
                values.append(effect[f"{metric}_{when}"])
                scores = pd.read_parquet(probed / cell / "probes/statistics.parquet")
                videos = scores[scores["changed"] == when].groupby(["method", "video"])[["label", "score"]].mean()
                if metric == "acc":
                    assert values[-1] == pytest.approx(((videos["score"] > 0.5) == (videos["label"] == 1)).mean())
            sd = np.std(values, ddof=1)
            assert table.entries[row][column].text == f"{np.mean(values):.4f}±{sd:.4f}"
    notes = " ".join(table.entries[0][0].notes)
    for said in (
        "checkpoint last",
        "seeds 0, 1",
        "mini-a f00dfacecafe",
        "commit 0123456789",
        "mean x 1.2, variance x 0.65",
    ):
        assert said in notes
    assert bold(table) == []
    without = build_paper_table(PAPER_TABLES["pim/3"], "measured", index)
    assert [line[0].text for line in without.entries][::2] == [line[0].text for line in table.entries][1::2]
    assert bold(without) == [(("DF", "w"), "Acc"), (("DF", "w"), "Logloss")]
    beside = build_paper_table(PAPER_TABLES["pim/3"], "beside", index)
    number = float(without.entries[0][0].text.split("±")[0])
    assert beside.entries[0][0].text == f"{without.entries[0][0].text} ({number - 0.8107:+.4f})"
    assert any("k / 280" in s for s in beside.trail)


def test_no_probe_or_one_that_does_not_fit_is_a_dash_with_the_reason(probed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(probed, tmp_path / "pim-table2-mini"))
    layout = PAPER_TABLES["pim/2"]
    cells = [c for c in GridIndex.read(folder).grid.cells if (c.part, c.optimizer) == ("DF", "adam")]
    report = folder / cells[0].id / "probes/statistics.json"

    def change(**fields: object) -> PaperEntry:
        content = json.loads(report.read_text())
        report.write_text(json.dumps(content | fields))
        entry = build_paper_table(layout, "measured", GridIndex.read(folder)).entries[0][0]
        report.write_text(json.dumps(content))
        return entry

    assert f"seed 0: {cells[0].id}/probes/statistics.json is of the step 7, the record of 20" in change(step=7).notes[-1]
    assert "is of the face stores" in change(stores={"mini-a": "other"}).notes[-1]
    assert "holds a statistics report of format 9, but this version reads format 1" in change(format=9).notes[-1]
    off = [e | {"acc_before": 0.1} for e in json.loads(report.read_text())["effects"]]
    assert "does not match the record: acc of DF" in change(effects=off).notes[-1]
    other = change(settings={"mean": 1.5, "variance": 0.65, "batch_size": 64})
    assert any(note.startswith("CHANGED OTHERWISE than in the paper: mean x 1.5") for note in other.notes)
    for path in folder.glob("*/probes"):
        shutil.rmtree(path)
    table = build_paper_table(layout, "measured", GridIndex.read(folder))
    assert {e.text for line in table.entries for e in line} == {DASH}
    assert table.notes == ["not probed yet; run `dfgrid probe statistics pim-table2-mini`"]


def test_changed_scores_of_a_probe_are_not_tested(probed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(probed, tmp_path / "pim-table2-mini"))
    for path in folder.glob("*/probes/statistics.parquet"):
        pd.read_parquet(path).assign(score=0.5).to_parquet(path, index=False)
    table = build_paper_table(PAPER_TABLES["pim/3"], "measured", GridIndex.read(folder))
    assert bold(table) == []
    assert "is not the file that the report was made from" in " ".join(table.trail)


def test_a_probed_table_has_one_checkpoint(probed: Path) -> None:
    with pytest.raises(RecordError, match="pim/2 shows the weights of the last step"):
        build_paper_table(PAPER_TABLES["pim/2"], "measured", GridIndex.read(probed), "source_val")


def test_leading_is_symmetric_in_what_is_better() -> None:
    assert leading({}).reason == "nothing to compare with"
    assert leading({"a": {0: "no scores"}, "b": {0: "no scores"}}).reason == "not tested: no scores"


def test_every_layout_of_a_probe_prints_on_a_narrow_terminal(probed: Path) -> None:
    table = build_paper_table(PAPER_TABLES["pim/3"], "beside", GridIndex.read(probed))
    out = io.StringIO()
    Console(file=out, width=80, highlight=False).print(PaperTerminal(table))
    assert "…" not in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("roga/44", "no paper table 'roga/44'; the nearest are roga/4"),
        ("roga4", "papers' tables are named as roga/4"),
        ("pim-table", "run `dfgrid grid run pim-table`, or take pim-table4-mini, which is there"),
        ("pim/4 --mode measured", "pim/4 has no records in .* yet; run `dfgrid grid run pim/table4`, or add --mini"),
        ("pim/2 --mode measured", "run `dfgrid grid run pim/table2 && dfgrid probe statistics pim-table2`$"),
        ("pim/4 --mode measured --mini --selection all", "unknown selection 'all'; known are last"),
        ("pim/4 --mini", "--mini is for measured numbers; say --mode measured or --mode beside"),
        ("pim/4 --selection last", "--selection is for measured numbers"),
        ("pim/4 --digits 1", "--digits is for a grid's own table"),
        ("pim/4 --interval --mode measured", "--interval is for a grid's own table"),
        ("pim-table4-mini --mode beside", "--mode beside is for a paper's table, such as roga/4"),
        ("pim-table4-mini --mini", "--mini is for a paper's table"),
    ],
)
def test_wrong_words_end_in_one_sentence(pim4: Path, arguments: str, sentence: str) -> None:
    done = CliRunner().invoke(app, ["table", *arguments.split(), "--runs", str(pim4.parent)])
    assert isinstance(done.exception, RecordError)
    assert re.search(sentence, str(done.exception))
    assert "\n" not in str(done.exception)


def test_one_class_and_another_format_are_dashes_with_the_reason(pim4: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pim4, tmp_path / "runs"))
    cells = [c.id for c in GridIndex.read(folder).grid.cells if (c.part, c.detector) == ("without", "ResNet-50")]
    for cell in cells[:2]:  # both seeds of adam
        path = folder / cell / "record.json"
        content = json.loads(path.read_text())
        for m in content["measures"]:
            if m["test"] == "CDF":
                m |= {"auc": None, "ap": None, "eer": None, "n_fake": 0}
                m["undefined"] = dict.fromkeys(("auc", "ap", "eer"), "only real faces")
        path.write_text(json.dumps(content))
    path = folder / cells[2] / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    lines = build_paper_table(PAPER_TABLES["pim/4"], "measured", GridIndex.read(folder)).entries
    assert (lines[0][0].text, lines[0][0].notes) == (DASH, ("AUC not defined: only real faces",))
    assert (lines[0][4].text, lines[0][4].notes) == (DASH, ("a column of this average has no number",))
    assert "over 1 of 2 seeds; seed 0: " in lines[1][0].notes[1]
    assert "holds a record of format 2, but this version reads format 1" in lines[1][0].notes[1]


def test_another_folder_for_either_kind_of_table(pim4: Path, tmp_path: Path) -> None:
    for arguments in (["pim/4", "--mode", "measured", "--mini"], [pim4.name]):
        target = tmp_path / str(len(arguments))
        done = CliRunner().invoke(app, ["table", *arguments, "--runs", str(pim4.parent), "--out", str(target)])
        assert done.exit_code == 0, done.output
        assert {p.suffix for p in target.iterdir()} == {".csv", ".md", ".tex"}
    assert not (pim4 / "tables").exists()
