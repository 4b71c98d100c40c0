"""Tables: means and spread, bold and ties, reasons, footnotes; and each renderer read back or compiled."""

from __future__ import annotations

import io
import math
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from results_grids import NINE, grid_file, measure, measures, provenance, record
from rich.console import Console

from results.files import RecordError
from results.index import GridFile, GridIndex, WantedTest
from results.latex import escape, latex
from results.printed import Table, marker
from results.record import Record
from results.render import TerminalTable, markdown, printed_csv
from results.tables import build_table, write_tables
from results.tidy import TIDY_COLUMNS, tidy


def index_of(grid: GridFile, records: list[Record], reasons: dict[str, str] | None = None) -> GridIndex:
    found = {r.cell: r for r in records}
    why = {c.id: (reasons or {}).get(c.id, "not run yet") for c in grid.cells if c.id not in found}
    return GridIndex(grid, found, why)


def full(**more: object) -> GridIndex:
    """Nine optimizers x two backbones x three seeds; every AUC is its own."""
    grid = grid_file(NINE, ("resnet34", "xception"), (0, 1, 2))
    records = [record(c.id, 0.60 + 0.002 * i, c.detector, c.optimizer, c.seed, **more) for i, c in enumerate(grid.cells)]
    return index_of(grid, records)


def terminal(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(TerminalTable(table))
    return console.export_text()


def test_mean_and_sample_deviation_over_seeds() -> None:
    grid = grid_file(("sgd",), seeds=(0, 1, 2))
    index = index_of(grid, [record(c.id, auc, seed=c.seed) for c, auc in zip(grid.cells, (0.80, 0.85, 0.93), strict=True)])
    table = build_table(index)
    assert table.headings == [
        ("meso4", "in-domain", "in-domain", "frame AUC"),
        ("meso4", "NeuralTextures", "held-out", "frame AUC"),
        ("meso4", "NeuralTextures", "held-out", "video AUC"),
    ]
    spread = math.sqrt(sum((x - 86) ** 2 for x in (80, 85, 93)) / 2)
    assert [e.text for e in table.entries[0]] == [f"88.00±{spread:.2f}", f"86.00±{spread:.2f}", f"87.00±{spread:.2f}"]
    assert "mean ± sample standard deviation over the 3 seeds 0, 1, 2" in table.trail[0]
    assert not any(e.best for e in table.entries[0])  # nothing to be better than


def test_one_seed_has_no_spread_and_log_loss_stays_in_nats() -> None:
    grid = grid_file(("sgd", "sam"))
    index = index_of(grid, [record("meso4-sgd-s0", 0.8), record("meso4-sam-s0", 0.9, optimizer="sam")])
    table = build_table(index, metrics=["frame eer", "frame log_loss", "acc"], tests=["NeuralTextures"], digits=1, bold="best")
    assert [h[3] for h in table.headings] == ["frame EER", "frame log loss", "frame ACC", "video ACC"]
    assert [[e.text for e in line] for line in table.entries] == [
        ["20.0", "0.20", "70.0", "71.0"],
        ["10.0", "0.10", "80.0", "81.0"],
    ]
    # Lower is better for the first two.
    assert [[e.best for e in line] for line in table.entries] == [[False] * 4, [True] * 4]
    assert "one seed (0)" in table.trail[0]
    assert "lowest for EER, log loss" in table.trail[0]


def test_ties_as_printed_are_all_bold() -> None:
    grid = grid_file(("sgd", "sam", "roga"))
    values = {"sgd": 0.90001, "sam": 0.90004, "roga": 0.89}
    index = index_of(grid, [record(c.id, values[c.optimizer], optimizer=c.optimizer) for c in grid.cells])
    assert [line[1].best for line in build_table(index, bold="best").entries] == [True, True, False]
    assert [line[1].best for line in build_table(index, digits=3, bold="best").entries] == [False, True, False]
    text = markdown(build_table(index, bold="best"))
    assert text.count("**90.00**") == 2
    assert latex(build_table(index, bold="best")).count(r"\textbf{\boldmath 90.00}") == 2
    lines = _lines(build_table(index, bold="best"))
    bold = [span for line in lines for span in line.spans if span.style == "bold" and "90.00" in line.plain]
    assert len(bold) == 2 * 3


def _lines(table: Table):
    view = TerminalTable(table)
    return [line for panel in view.panels(200) for line in view._panel(panel)]


def test_missing_cells_have_a_dash_a_marker_and_their_reason() -> None:
    grid = grid_file(("sgd", "sam", "pim"), seeds=(0, 1))
    reasons = {"meso4-sam-s1": "failed: CUDA out of memory", "meso4-pim-s0": "interrupted after epoch 3 (or still running)"}
    index = index_of(
        grid,
        [record("meso4-sgd-s0", 0.8), record("meso4-sgd-s1", 0.9, seed=1), record("meso4-sam-s0", 0.7, optimizer="sam")],
        reasons,
    )
    table = build_table(index)
    assert table.entries[1][1].text == "70.00"
    assert table.notes == [
        "over 1 of 2 seeds; seed 1: failed: CUDA out of memory",
        "seed 0: interrupted after epoch 3 (or still running); seed 1: not run yet",
    ]
    shown = terminal(table, 100)
    assert "70.00[a]" in shown
    assert "–[b]" in shown
    assert "[a] over 1 of 2 seeds; seed 1: failed: CUDA out of memory" in shown
    assert "Records: 3 of 6 cells." in shown
    assert "–<sup>b</sup>" in markdown(table)
    assert r"\textendash{}\textsuperscript{b}" in latex(table)
    rows = tidy(index)
    missing = rows[(rows["cell"] == "meso4-pim-s0") & (rows["metric"] == "auc")]
    assert missing["value"].isna().all()
    assert set(missing["reason"]) == {"interrupted after epoch 3 (or still running)"}
    assert (rows["value"].isna() == (rows["reason"] != "")).all()


def test_one_class_shows_its_reason_and_never_nan() -> None:
    grid = grid_file(("sgd",), tests=(WantedTest(name="NeuralTextures", role="held-out"),))
    one_class = [measure(None, step=10), measure(None, level="video", step=10)]
    table = build_table(index_of(grid, [record("meso4-sgd-s0", one_class)]), "last", metrics=["auc", "frame acc"])
    assert [e.text for e in table.entries[0]] == ["–", "–", "100.00"]
    assert table.notes == ["AUC not defined: only fake faces"]
    for text in (terminal(table, 100), markdown(table), latex(table), printed_csv(table)):
        assert "only fake faces" in text
        assert "nan" not in text.lower()


def test_a_test_set_that_a_record_lacks_and_a_rule_that_cannot_choose() -> None:
    grid = grid_file(
        ("sgd",), tests=(WantedTest(name="NeuralTextures", role="held-out"), WantedTest(name="mini-b", role="cross-dataset"))
    )
    index = index_of(grid, [record("meso4-sgd-s0", [m for m in measures(0.9) if m.role != "source-val"])])
    assert build_table(index, "last").notes == ["not evaluated on this test set"]
    assert build_table(index, "source_val").notes == ["no source-validation measures at video level to select by"]


def test_a_grid_without_records_says_what_to_run() -> None:
    table = build_table(index_of(grid_file(NINE), []), beside=True)
    assert {e.text for line in table.entries for e in line[:-1]} == {"–"}
    for text in (terminal(table, 100), markdown(table), latex(table)):
        flat = " ".join(text.split())
        assert "not run yet" in flat
        assert "No cell of grid 'demo' has a record yet; run" in flat
        assert "dfgrid grid run demo" in flat


def test_a_combination_that_the_grid_does_not_want() -> None:
    grid = grid_file(("sgd", "sam"), ("meso4", "xception"))
    grid = grid.model_copy(update={"cells": tuple(c for c in grid.cells if c.id != "xception-sam-s0")})
    table = build_table(index_of(grid, []))
    assert table.entries[1][3].reason == "not in the grid"


def test_the_trail_names_what_differs() -> None:
    grid = grid_file(("sgd", "sam"))
    same = build_table(index_of(grid, [record("meso4-sgd-s0", 0.8), record("meso4-sam-s0", 0.9, optimizer="sam")]))
    assert "DIFFERS" not in " ".join(same.trail)
    assert "Protocol: name strict, epochs 2, batch_size 24." in same.trail
    other = record(
        "meso4-sam-s0",
        [m.model_copy(update={"n_fake": 4}) for m in measures(0.9)],
        optimizer="sam",
        protocol={"name": "strict", "epochs": 9, "batch_size": 24},
        data={"train": record("x", 0.5).data["train"], "tests": [{"name": "NeuralTextures", "split": "val"}]},
        provenance=provenance(
            commit="fedcba9876543210", dirty=True, stores={"mini-a": "0123456789abcdef"}, plugins={"my.py": "ab" * 32}
        ),
    )
    trail = build_table(index_of(grid, [record("meso4-sgd-s0", 0.8), other])).trail
    text = "\n".join(trail)
    assert "Protocol DIFFERS between the cells of this table in epochs: 2 (1 cell), 9 (1 cell). Alike in all: name strict, " in text
    assert "0.1.0 at commit 0123456789 (1 cell), 0.1.0 at commit fedcba9876 + uncommitted changes (1 cell)" in text
    assert "mini-a DIFFERS: f00dfacecafe (1 cell), 0123456789ab (1 cell), mini-b beefbeefbeef" in text
    assert "NeuralTextures DIFFERS: 8 real + 8 fake frames (1 cell), 8 real + 4 fake frames (1 cell)" in text
    assert "Test data DIFFERS" in text
    assert "plug-in my.py: not set (1 cell), abababababab (1 cell)" in text


def test_an_oracle_is_called_one_everywhere() -> None:
    index = full()
    for name, oracle in (("source_val", False), ("top3_per_test", True)):
        table = build_table(index, name)
        outputs = [terminal(table, 100), markdown(table), latex(table), printed_csv(table), tidy(index, name).to_csv()]
        assert all(("oracle" in text.lower()) == oracle for text in outputs)
    assert "Some cells have only 2 evaluations" in " ".join(build_table(index, "top3_per_test").trail)


@pytest.mark.parametrize("width", [60, 100, 120])
def test_the_terminal_table_fits(width: int) -> None:
    table = build_table(full(), beside=True)
    lines = terminal(table, width).splitlines()
    assert max(map(len, lines)) <= width
    for line in table.entries:
        for entry in line:
            assert any(entry.text in shown for shown in lines)
    panels = TerminalTable(table).panels(width)
    assert [at for panel in panels for at in panel] == list(range(7))
    assert len(panels) == (2 if width == 60 else 1)


def test_panels_are_cut_between_tests_where_a_backbone_is_too_wide() -> None:
    table = build_table(full(), metrics=["auc", "acc", "eer"])
    panels = TerminalTable(table).panels(70)
    for panel in panels:
        assert TerminalTable(table)._width(panel) <= 70
    assert [at for panel in panels for at in panel] == list(range(24))


def test_csv_comes_back(tmp_path: Path) -> None:
    index = full()
    files = write_tables(index, tmp_path / "tables", beside=True)
    assert [f.name for f in files] == ["table.csv", "table.tex", "table.md", "tidy.csv"]
    table = build_table(index, beside=True)
    printed = pd.read_csv(files[0], header=[0, 1, 2, 3], index_col=0, dtype=str)
    assert printed.columns.to_list() == table.headings
    assert printed.index.to_list() == list(NINE)
    assert printed.index.name == "optimizer (checkpoint: source_val)"
    assert printed["resnet34", "NeuralTextures", "held-out", "video AUC"].to_list() == [line[2].text for line in table.entries]
    rows = pd.read_csv(files[3], keep_default_na=False, dtype={"value": str})
    expected = tidy(index)
    assert tuple(rows.columns) == TIDY_COLUMNS
    # 18 cells of 3 seeds, 2 tests, 2 levels, 5 metrics
    assert len(rows) == 54 * 2 * 2 * 5
    assert [float(value) for value in rows["value"]] == expected["value"].to_list()  # to the last bit
    assert set(rows["protocol"]) == set(expected["protocol"])
    assert files[1].read_text().startswith("% needs")


def test_escape() -> None:
    assert escape("FF++ a_b 50% A&B #1 $x$ {y} ~ ^") == (
        r"FF++ a\_b 50\% A\&B \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{}"
    )
    assert escape("\\cmd --flag") == r"\textbackslash{}cmd -{}-flag"
    assert escape("ρ=0.1 ± – …") == r"\ensuremath{\rho}=0.1 \ensuremath{\pm} \textendash{} \ldots{}"


def nasty() -> Table:
    names = ("sgd_50%", "A&B #1", "SAM ρ=0.2", "x^2~{y}$", r"back\slash", "--<|>`\"'…")
    grid = grid_file(names, ("FF++_c23 & friends", "xception"), (0, 1), title="100% of_the #grid & more", name="my_grid%1")
    records = [record(c.id, 0.6 + 0.01 * i, c.detector, c.optimizer, c.seed) for i, c in enumerate(grid.cells[:-3])]
    index = index_of(grid, records, {grid.cells[-3].id: r"failed: C:\path_to {x} 100% ~ ^"})
    return build_table(index, "top3_per_test", beside=True)


def test_latex_structure() -> None:
    text = latex(nasty(), "tab:my_grid%1")
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert [line.count(" & ") for line in body if line.endswith(r"\\")] == [7] * 6
    assert r"\label{tab:my-grid-1}" in text
    assert r"\caption{100\% of\_the \#grid \& more}" in text
    assert r"\multicolumn{3}{c}{FF++\_c23 \& friends}" in text
    for name in ("table", "tabular", "minipage"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    unescaped = text.replace(r"\{", "").replace(r"\}", "")
    assert unescaped.count("{") == unescaped.count("}")


def test_a_letter_that_pdflatex_cannot_print_is_said_at_the_head() -> None:
    grid = grid_file(("sgd", "sam τ≥0.1", "雪 «a»"))
    records = [record(c.id, 0.8, optimizer=c.optimizer) for c in grid.cells]
    head = latex(build_table(index_of(grid, records))).splitlines()[:3]
    assert head[1:] == ["% needs xelatex or lualatex, and a font that has: 雪«»", r"\begin{table}[t]"]
    assert latex(build_table(full())).splitlines()[1] == r"\begin{table}[t]"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    document = "\\documentclass{article}\n\\usepackage{booktabs}\n\\usepackage{graphicx}\n\\begin{document}\n"
    greek = " ".join(chr(at) for at in (*range(0x391, 0x3A2), *range(0x3A3, 0x3AA), *range(0x3B1, 0x3CA)))
    document += f"{escape(f'{greek} ≤ ≥ − ∇ ∞ ≈ ρ₁ r² “é”')}\n\n"
    document += f"{latex(nasty())}\n{latex(build_table(full(), beside=True), 'tab:two')}\n\\end{{document}}\n"
    (tmp_path / "main.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    log = (tmp_path / "main.log").read_text(errors="replace")
    assert done.returncode == 0, log[-3000:]
    assert (tmp_path / "main.pdf").stat().st_size > 0
    assert "Overfull" not in log
    assert "Missing character" not in log


def test_markdown_is_one_table() -> None:
    lines = [line for line in markdown(nasty()).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 6
    assert {line.replace("\\|", "").count("|") for line in lines} == {9}


def test_markers() -> None:
    assert [marker(i) for i in (0, 25, 26, 27, 51, 52)] == ["a", "z", "aa", "ab", "az", "ba"]


def test_wrong_arguments_are_one_sentence() -> None:
    index = full()
    with pytest.raises(RecordError, match="grid 'demo' has no test set 'nt'; it has in-domain, NeuralTextures"):
        build_table(index, tests=["nt"])
    for text in ("auk", "clip auc", "frame", ""):
        with pytest.raises(RecordError, match=f"unknown metric '{text}'; say one of auc, acc"):
            build_table(index, metrics=[text])
    with pytest.raises(RecordError, match="unknown selection 'x'"):
        build_table(index, "x")
