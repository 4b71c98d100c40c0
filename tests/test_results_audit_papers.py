"""The audit of papers' tables that were measured here finds what was changed behind its back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from results_papers import scored_study
from typer.testing import CliRunner

from benchmark.cli import app
from results.audit.claim import Finding
from results.audit.grid import audit_grid
from results.index import GridIndex
from results.papers import PAPER_TABLES
from results.papers.build import build_paper_table
from results.papers.render import write_paper_table
from results.report.audits import Auditor
from results.report.board import ReadGrid


def write(folder: Path, *names: str, **more: str) -> None:
    for name in names:
        table, mode = name.split()
        printed = build_paper_table(PAPER_TABLES[table], mode, GridIndex.read(folder), **more)  # type: ignore[arg-type]
        write_paper_table(printed, folder / "tables")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PIM's table 7 with two seeds, in which alpha 1 is far better."""
    folder = scored_study(
        tmp_path_factory.mktemp("runs"), "pim/table7", lambda cell, test: 5.0 if cell.optimizer.title == "alpha 1" else 0.5, (0, 1)
    )
    write(folder, "pim/7 measured", "pim/7 beside")
    return folder


@pytest.fixture
def grid(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / kept.name))


def audited(folder: Path) -> dict[str, Finding]:
    return {f.claim.id.removeprefix("pim-table7-mini-"): f for f in audit_grid(GridIndex.read(folder))}


def test_papers_tables_of_ours_hold(kept: Path) -> None:
    found = audited(kept)
    kinds = [f"pim-7-{mode}-{kind}" for mode in ("measured", "beside") for kind in ("digits", "means", "best")]
    assert {id_: f.verdict for id_, f in found.items()} == dict.fromkeys(["scores", *kinds], "holds")
    assert [c.found for c in found["pim-7-beside-digits"].checks] == ["5 numbers agree"] * 5
    assert [c.found for c in found["pim-7-beside-means"].checks] == ["5 add up"]
    assert {c.statement for c in found["pim-7-measured-best"].checks} == {
        f"1, 0.1 is best in {column}" for column in ("CDF", "DFDCP", "DFDC", "WDF", "Avg-AUC")
    }


def test_a_changed_digit_difference_or_average_is_found(grid: Path) -> None:
    path = grid / "tables" / "pim-7-beside.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    old = cells[2]
    mean = old.split("±")[0]
    lines[1] = ",".join([*cells[:2], old.replace(mean, f"{float(mean) + 0.11:.2f}"), *cells[3:]])
    path.write_text("\n".join(lines) + "\n")
    found = audited(grid)
    digits = found["pim-7-beside-digits"]
    assert digits.verdict == found["pim-7-beside-means"].verdict == "contradicted"
    assert f"1, 0.1: {float(mean) + 0.11:.2f}±" in digits.checks[0].found
    assert f"printed, mean {mean[:4]}" in digits.checks[0].found
    assert f"printed, {float(mean) + 0.11:.2f} - 87.34 = " in digits.checks[0].found
    assert found["pim-7-measured-digits"].verdict == "holds"


def test_bold_that_is_chance_is_contradicted(tmp_path: Path) -> None:
    folder = scored_study(tmp_path, "pim/table7", lambda cell, test: 1.0)
    write(folder, "pim/7 measured", bold="best")
    found = audited(folder)
    assert found["pim-7-measured-best"].verdict == "contradicted"
    assert {c.found for c in found["pim-7-measured-best"].checks} == {"the best does not differ significantly from the runner-up"}
    write(folder, "pim/7 measured")
    assert [c.found for c in audited(folder)["pim-7-measured-best"].checks] == ["no bold number"]


def test_without_scores_or_with_broken_files_it_is_undecidable(grid: Path) -> None:
    for path in grid.glob("*/scores.parquet"):
        path.unlink()
    found = audited(grid)
    assert {found[f"pim-7-measured-{kind}"].verdict for kind in ("digits", "best")} == {"undecidable"}
    assert found["pim-7-measured-means"].verdict == "holds"
    (grid / "tables" / "pim-7-measured.md").unlink()
    (check,) = audited(grid)["pim-7-measured-best"].checks
    assert "run `dfgrid table pim/7 --mode measured --mini` again" in check.found


def test_a_probed_table_is_audited_from_the_probes_scores(tmp_path: Path) -> None:
    folder = scored_study(
        tmp_path, "pim/table2", lambda cell, test: 4.0, changed=lambda cell, test: 4.5 if cell.optimizer.name == "pim" else 0.3
    )
    write(folder, "pim/2 measured", "pim/3 beside")
    found = {f.claim.id: f for f in audit_grid(GridIndex.read(folder))}
    assert {f.verdict for f in found.values()} == {"holds"}
    assert [c.found for c in found["pim-table2-mini-pim-3-beside-digits"].checks] == ["4 numbers agree"] * 2
    assert "DF, w is best in Acc" in [c.statement for c in found["pim-table2-mini-pim-3-beside-best"].checks]
    # The site keeps an audit only as long as the probe is the same.
    auditor, read = Auditor(tmp_path / "site"), ReadGrid(folder, GridIndex.read(folder))
    before = auditor.audit(read, lambda cell: None)
    path = next(folder.glob("*/probes/statistics.parquet"))
    pd.read_parquet(path).assign(score=0.5).to_parquet(path, index=False)
    after = auditor.audit(read, lambda cell: None)
    assert before.audited_from != after.audited_from
    assert {f.verdict for f in before.findings} == {"holds"}
    assert "undecidable" in {f.verdict for f in after.findings} | {f.verdict for f in after.contradicted}


def test_on_the_command_line(kept: Path) -> None:
    done = CliRunner().invoke(app, ["audit", kept.name, "--runs", str(kept.parent), "--brief"])
    assert done.exit_code == 0, done.output
    assert "7 holds, 0 contradicted, 0 undecidable" in done.output
