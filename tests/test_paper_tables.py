"""The papers' tables in their own layout: every printed digit, measured numbers with their trail, dashes with reasons."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_grids import measure, provenance
from results_papers import as_record
from rich.console import Console

from benchmark.launch import write_index
from benchmark.study import grid_names, load_grid
from results.files import RecordError
from results.index import GridIndex
from results.papers import PAPER_TABLES, looks_like_a_paper_table, paper_table_named
from results.papers.build import NOT_PRINTED, build_paper_table
from results.papers.layout import NOT_IN_ZOO
from results.papers.printed import PrintedPaper
from results.papers.render import (
    PaperTerminal,
    paper_latex,
    paper_markdown,
    paper_printed_csv,
    paper_tidy_csv,
    write_paper_table,
)
from results.printed import DASH
from results.reported import reported

NUMBER = re.compile(r"-?\d+\.\d+")


def digits(name: str) -> list[list[str]]:
    """Rows of the numbers that a reported table prints, read past the code under test."""
    layout = PAPER_TABLES[name]
    table = pd.read_csv(Path("results/reported") / f"{layout.csv}.csv", dtype=str, keep_default_na=False)
    return table.drop(columns=[*layout.stubs, *([layout.note] if layout.note else [])]).to_numpy().tolist()


def terminal(table: PrintedPaper, width: int = 200) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(PaperTerminal(table))
    return out.getvalue()


@pytest.mark.parametrize("name", PAPER_TABLES)
def test_a_reported_table_gives_back_every_printed_digit(name: str) -> None:
    table = build_paper_table(PAPER_TABLES[name])
    wanted = digits(name)
    assert [[e.text if e.text != DASH else "" for e in line] for line in table.entries] == wanted
    assert all(e.notes == (NOT_PRINTED,) for line in table.entries for e in line if e.text == DASH)
    source = reported(PAPER_TABLES[name].csv)
    printed = pd.read_csv(io.StringIO(paper_printed_csv(table)), dtype=str)
    assert list(printed.columns) == [c for c in source.columns if c != PAPER_TABLES[name].note]
    for column in printed.columns:
        assert [v.removesuffix(f"{DASH} ({NOT_PRINTED})") for v in printed[column]] == list(source[column])
    flat = [cell for line in wanted for cell in line if cell]
    stubs = len(PAPER_TABLES[name].stubs)
    rows = [line for line in paper_markdown(table).splitlines() if line.startswith("| ")][2:]
    assert [n for r in rows for n in NUMBER.findall(re.sub(r"\\\|", "", r).split("|", stubs + 1)[-1])] == flat
    body = paper_latex(table).split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
    rows = [line.split(" & ", stubs)[-1] for line in body.splitlines() if " & " in line]
    assert [n for r in rows for n in NUMBER.findall(r)] == flat
    tidy = pd.read_csv(io.StringIO(paper_tidy_csv(table)), dtype=str, keep_default_na=False)
    assert [v for v in tidy["reported"] if v] == flat


@pytest.mark.parametrize("width", [60, 200])
def test_a_narrow_terminal_cuts_columns_and_no_digit(width: int) -> None:
    text = terminal(build_paper_table(PAPER_TABLES["dfb/1"]), width)
    assert sorted(NUMBER.findall(text.split("As printed")[0].replace("DF-1.0", ""))) == sorted(
        n for line in digits("dfb/1") for n in line
    )
    assert "…" not in text


def test_the_best_is_bold_and_the_second_underlined() -> None:
    table = build_paper_table(PAPER_TABLES["roga/1"])
    dfdc = [line[3] for line in table.entries]
    assert [(e.text, e.bold, e.underlined) for e in dfdc if e.bold or e.underlined] == [
        ("0.803", True, False),
        ("0.751", False, True),
    ]
    eer = [line[3] for line in build_paper_table(PAPER_TABLES["roga/3"]).entries]
    assert [e.text for e in eer if e.bold] == ["4.13"]
    pairs = [line[4] for line in build_paper_table(PAPER_TABLES["roga/5"]).entries]
    assert [e.text for e in pairs if e.bold] == ["71.78", "91.55", "87.87", "95.95"]
    assert not any(e.bold for line in build_paper_table(PAPER_TABLES["pim/1"]).entries for e in line)


def records_of(name: str, auc: float | dict[str, float] = 0.9, **more: Any) -> GridIndex:
    """The index of a shipped grid, scaled down, with a record for every cell; `auc` is that of each test set."""
    study = load_grid(name, mini=True)
    records = {}
    for cell in study.cells():
        found = [
            measure(auc if isinstance(auc, float) else auc[test.name], test.name, test.role, level, 10)
            for test in cell.tests
            for level in ("frame", "video")
        ]
        found += [measure(0.9, "val", "source-val", level, 10) for level in ("frame", "video")]
        records[cell.id] = as_record(cell, found, **more)
    with tempfile.TemporaryDirectory() as folder:
        write_index(study, Path(folder))
        return GridIndex(GridIndex.read(folder).grid, records, {})


@pytest.mark.parametrize("name", [n for n, t in PAPER_TABLES.items() if not t.probed])
def test_every_cell_that_is_no_other_papers_comes_from_the_grid(name: str) -> None:
    layout = PAPER_TABLES[name]
    table = build_paper_table(layout, "measured", records_of(layout.grid))
    lacking = {
        (row.key, column.csv): entry.notes[0]
        for row, line in zip(layout.rows, table.entries, strict=True)
        for column, entry in zip(layout.columns, line, strict=True)
        if entry.number is None and entry.notes[0] != NOT_IN_ZOO
    }
    if name == "dfb/1":  # FaceShifter is not drawn
        assert {column for _, column in lacking} == {"Fsh", "cross Avg"}
    else:
        assert lacking == {}


def test_a_measured_cell_has_its_trail_and_beside_the_difference() -> None:
    layout, index = PAPER_TABLES["roga/4"], records_of("roga/table4", 0.9)
    entry = build_paper_table(layout, "measured", index).entries[0][0]
    assert entry.text == "90.00"
    (note,) = entry.notes
    for said in ("protocol strict-", "checkpoint source_val", "seed 0", "mini-a f00dfacecafe", "commit 0123456789"):
        assert said in note
    beside = build_paper_table(layout, "beside", index)
    assert [line[0].text for line in beside.entries] == [
        "90.00 (-2.96)",
        "90.00 (-2.27)",
        "90.00 (-3.18)",
        "90.00 (-3.05)",
        "90.00 (-3.63)",
    ]
    assert "measured minus reported" in " ".join(beside.trail)
    tidy = pd.read_csv(io.StringIO(paper_tidy_csv(beside)), dtype={"reported": str})
    assert (tidy["measured"][0], tidy["reported"][0], tidy["seeds"][0]) == (90.0, "92.96", 1)


def test_an_average_is_that_of_the_unrounded_columns() -> None:
    index = records_of("pim/table6", {"CDF": 0.80004, "DFDCP": 0.80004, "DFDC": 0.80004, "WDF": 0.80009})
    line = build_paper_table(PAPER_TABLES["pim/6"], "measured", index).entries[0]
    assert [e.text for e in line] == ["80.00", "80.00", "80.00", "80.01", "80.01"]  # 80.00525; of the rounded ones 80.0025
    assert line[4].notes == line[3].notes


def test_cells_that_were_not_run_are_dashes_with_the_reason(tmp_path: Path) -> None:
    write_index(load_grid("pim/table6", mini=True), tmp_path)
    table = build_paper_table(PAPER_TABLES["pim/6"], "measured", GridIndex.read(tmp_path))
    assert {e.text for line in table.entries for e in line} == {DASH}
    assert {n for line in table.entries for e in line for n in e.notes} == {
        "not run yet",
        "a column of this average has no number",
    }
    assert "No cell has a record yet; run `dfgrid grid run pim/table6 --data mini`." in table.trail


def test_cells_under_another_protocol_are_marked() -> None:
    index = records_of("roga/table4")
    odd = next(iter(index.records))
    protocol = {**index.records[odd].protocol, "epochs": 99}
    index.records[odd] = index.records[odd].model_copy(update={"protocol": protocol})
    table = build_paper_table(PAPER_TABLES["roga/4"], "measured", index)
    marked = [(r, c) for r, line in enumerate(table.entries) for c, e in enumerate(line) if any("DIFFERENT" in n for n in e.notes)]
    assert marked == [(0, 0), (0, 1)]
    assert table.entries[0][0].notes[1] == "DIFFERENT PROTOCOL than most of this table: epochs 99 instead of 6"


def test_some_seeds_are_said_and_their_spread_printed() -> None:
    index = records_of("roga/table6")
    cells, records = list(index.grid.cells), dict(index.records)
    for cell in list(cells):
        for seed in (1, 2):
            cells.append(cell.model_copy(update={"id": f"{cell.id}-{seed}", "seed": seed}))
        one = records[cell.id]
        better = tuple(m.model_copy(update={"auc": (m.auc or 0) + 0.02}) for m in one.measures)
        records[f"{cell.id}-1"] = one.model_copy(update={"measures": better, "provenance": provenance(dirty=True)})
    grid = index.grid.model_copy(update={"cells": tuple(cells)})
    reasons = {c.id: "failed: out of memory" for c in cells if c.id not in records}
    entry = build_paper_table(PAPER_TABLES["roga/6"], "measured", GridIndex(grid, records, reasons)).entries[0][0]
    assert entry.text == "91.00±1.41"
    assert entry.notes[1] == "over 2 of 3 seeds; seed 2: failed: out of memory"
    assert "seeds 0, 1;" in entry.notes[0]
    assert "with uncommitted changes" in entry.notes[0]


@pytest.mark.parametrize("name", PAPER_TABLES)
def test_latex_is_whole(name: str) -> None:
    """What a compiler would stop at, for machines without one: braces, environments, columns of every row, bare characters."""
    tables = [build_paper_table(PAPER_TABLES[name])]
    if not PAPER_TABLES[name].probed:
        tables.append(build_paper_table(PAPER_TABLES[name], "beside", records_of(PAPER_TABLES[name].grid)))
    for table in tables:
        text = re.sub(r"^%.*$", "", paper_latex(table), flags=re.MULTILINE)
        depth = 0
        for brace in re.findall(r"(?<!\\)[{}]", text):
            depth += 1 if brace == "{" else -1
            assert depth >= 0
        assert depth == 0
        opened: list[str] = []
        for word, environment in re.findall(r"\\(begin|end)\{(\w+)\}", text):
            if word == "begin":
                opened.append(environment)
            else:
                assert opened.pop() == environment
        assert not opened
        rules = re.findall(r"\\(toprule|midrule|bottomrule)", text)
        assert (rules[0], rules[-1], rules.count("toprule"), rules.count("bottomrule")) == ("toprule", "bottomrule", 1, 1)
        (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
        body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) >= len(table.entries) + 1
        for row in rows:
            merged = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row)]
            assert len(re.findall(r"(?<!\\)&", row)) + 1 + sum(merged) == len(columns)
        spans = [tuple(map(int, span)) for span in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", text)]
        assert all(len(table.layout.stubs) < a <= b <= len(columns) for a, b in spans)
        assert not re.search(r"(?<!\\)(%(?!\n)|[#_$^~])", text.replace("}~", "}"))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_every_table_compiles(tmp_path: Path) -> None:
    tables = [build_paper_table(layout) for layout in PAPER_TABLES.values()]
    tables.append(build_paper_table(PAPER_TABLES["roga/4"], "beside", records_of("roga/table4")))
    tables.append(build_paper_table(PAPER_TABLES["pim/8"], "measured", records_of("pim/table8")))
    parts = ["\\documentclass{article}\n\\usepackage{booktabs}\n\\usepackage{graphicx}\n\\begin{document}\n"]
    parts += [paper_latex(table) + "\\clearpage\n" for table in tables]
    (tmp_path / "main.tex").write_text("".join(parts) + "\\end{document}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    log = (tmp_path / "main.log").read_text(errors="replace")
    assert done.returncode == 0, log[-3000:]
    assert "Missing character" not in log
    assert "Overfull \\hbox" not in log


def test_files(tmp_path: Path) -> None:
    files = write_paper_table(build_paper_table(PAPER_TABLES["roga/2"]), tmp_path / "new")
    assert [f.name for f in files] == [f"roga-2-reported{end}" for end in (".csv", "-tidy.csv", ".md", ".tex")]
    assert all(f.stat().st_size for f in files)


def test_wrong_names() -> None:
    with pytest.raises(RecordError, match="no paper table 'roga/44'; the nearest are roga/4"):
        paper_table_named("roga/44")
    assert looks_like_a_paper_table("roag/4")
    assert not looks_like_a_paper_table("runs/demo")
    assert not looks_like_a_paper_table("demo")
    with pytest.raises(RecordError, match=r"roga/4 has no records yet; run `dfgrid grid run roga/table4`"):
        build_paper_table(PAPER_TABLES["roga/4"], "measured")
    with pytest.raises(RecordError, match="unknown mode 'measurd'; say reported, measured, beside"):
        build_paper_table(PAPER_TABLES["roga/4"], "measurd")  # type: ignore[arg-type]


def test_every_table_has_its_grid() -> None:
    wanted = {table.grid for table in PAPER_TABLES.values()}
    assert wanted - {load_grid(name).name for name in grid_names()} == set()
