"""The audit of our own tables finds what was changed behind its back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from results_scores import scored_grid
from typer.testing import CliRunner

from benchmark.cli import app
from results.audit.grid import audit_grid
from results.audit.ours import rounds
from results.index import GridIndex
from results.record import Record
from results.tables import write_tables


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = scored_grid(tmp_path_factory.mktemp("runs") / "demo", {"sgd": 0.6, "sam": 0.7, "roga": 3.0}, seeds=(0, 1), videos=12)
    write_tables(GridIndex.read(folder), folder / "tables", interval=True, metrics=["auc", "frame log_loss"])
    return folder


@pytest.fixture
def grid(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "demo"))


def verdicts(folder: Path) -> dict[str, str]:
    return {f.claim.id: f.verdict for f in audit_grid(GridIndex.read(folder))}


def test_a_table_of_ours_holds(kept: Path) -> None:
    found = {f.claim.id: f for f in audit_grid(GridIndex.read(kept))}
    assert {id_: f.verdict for id_, f in found.items()} == dict.fromkeys(
        ("demo-scores", "demo-digits", "demo-means", "demo-best"), "holds"
    )
    # 2 steps x 3 sets x 2 levels x (5 metrics and 2 counts)
    assert found["demo-scores"].checks[0].found.startswith("84 of 84 agree, largest difference ")
    assert [c.found for c in found["demo-digits"].checks] == ["3 numbers agree"] * 6
    assert "roga is best in meso4, NeuralTextures, video AUC" in [c.statement for c in found["demo-best"].checks]


def test_a_changed_digit_is_found(grid: Path) -> None:
    path = grid / "tables" / "table.csv"
    old = pd.read_csv(path, header=[0, 1, 2, 3], index_col=0, dtype=str).iloc[0, 0]
    mean = old.split("±")[0]
    path.write_text(path.read_text().replace(mean, f"{float(mean) + 0.01:.2f}"))
    findings = {f.claim.id: f for f in audit_grid(GridIndex.read(grid))}
    assert findings["demo-digits"].verdict == findings["demo-means"].verdict == "contradicted"
    assert f"sgd: {float(mean) + 0.01:.2f}" in findings["demo-digits"].checks[0].found
    assert f"mean {mean[:4]}" in findings["demo-digits"].checks[0].found
    assert findings["demo-scores"].verdict == findings["demo-best"].verdict == "holds"


def test_a_tie_may_be_rounded_either_way() -> None:
    assert rounds(50.625, "50.62")
    assert rounds(50.625, "50.63")
    assert not rounds(50.6249, "50.63")
    assert not rounds(None, "50.63")
    assert rounds(0.5, None)  # nothing is printed


def test_changed_scores_and_records_are_found(grid: Path) -> None:
    path = grid / "meso4-sam-s1" / "record.json"
    record = Record.load(path)
    measures = [m.model_copy(update={"auc": m.auc - 0.001}) if m.role == "held-out" else m for m in record.measures]
    record.model_copy(update={"measures": tuple(measures)}).save(path)
    findings = {f.claim.id: f for f in audit_grid(GridIndex.read(grid))}
    assert findings["demo-scores"].verdict == "contradicted"
    (bad,) = [c for c in findings["demo-scores"].checks if not c.holds]
    assert bad.statement.startswith("meso4-sam-s1")
    assert "not frame auc of NeuralTextures at step 10" in bad.found
    scores = grid / "meso4-sgd-s0" / "scores.parquet"
    pd.read_parquet(scores).iloc[1:].to_parquet(scores, index=False)
    assert "not frames of val at step 10: real" in audit_grid(GridIndex.read(grid))[0].checks[0].found


def test_bold_without_significance_is_contradicted(grid: Path) -> None:
    shutil.rmtree(grid / "meso4-roga-s0")
    shutil.rmtree(grid / "meso4-roga-s1")
    write_tables(GridIndex.read(grid), grid / "tables", bold="best")
    found = {f.claim.id: f for f in audit_grid(GridIndex.read(grid))}
    assert found["demo-best"].verdict == "contradicted"
    assert {c.found for c in found["demo-best"].checks} == {"the best does not differ significantly from the runner-up"}
    assert found["demo-digits"].verdict == "holds"
    assert found["demo-scores"].verdict == "undecidable"  # two cells have no record
    write_tables(GridIndex.read(grid), grid / "tables")
    assert verdicts(grid)["demo-best"] == "holds"


def test_without_tables_or_scores_it_is_undecidable(grid: Path) -> None:
    (grid / "meso4-sgd-s0" / "scores.parquet").unlink()
    assert verdicts(grid) == dict.fromkeys(("demo-scores", "demo-digits", "demo-best"), "undecidable") | {"demo-means": "holds"}
    shutil.rmtree(grid / "tables")
    assert set(verdicts(grid).values()) == {"undecidable"}


@pytest.mark.parametrize("names", [("NA", "None", "nan", "null"), ("0.50", "1.50", "2")])
def test_rows_may_be_called_what_pandas_takes_for_nothing_or_a_number(names: tuple[str, ...], tmp_path: Path) -> None:
    folder = scored_grid(tmp_path / "demo", {name: 0.5 + at for at, name in enumerate(names)}, videos=6)
    write_tables(GridIndex.read(folder), folder / "tables")
    assert set(verdicts(folder).values()) == {"holds"}


def test_on_the_command_line(kept: Path, tmp_path: Path) -> None:
    page = tmp_path / "audit.md"
    done = CliRunner().invoke(app, ["audit", "demo", "--runs", str(kept.parent), "--brief", "--out", str(page)])
    assert done.exit_code == 0, done.output
    assert "4 holds, 0 contradicted, 0 undecidable" in done.output
    assert page.read_text().startswith("# Audit: demo, recomputed")
    # A grid may have a paper's name.
    shutil.copytree(kept, tmp_path / "runs" / "pim")
    done = CliRunner().invoke(app, ["audit", "pim", "--runs", str(tmp_path / "runs"), "--brief"])
    assert {"pim-1", "demo-scores", "demo-best"} <= {line.split(" ")[0] for line in done.output.splitlines()}
    done = CliRunner().invoke(app, ["audit", "nothing", "--runs", str(kept.parent)])
    assert "nothing to audit is called 'nothing'; say a paper (roga, pim)" in str(done.exception)
    assert "a grid that was run (demo)" in str(done.exception)


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("table.md", None, "best", "table.md cannot be read; run `dfgrid table demo` again"),
        ("table.md", "| a |\n", "best", "table.md has other rows or columns than the CSV file"),
        ("table.csv", "", "digits", "table.csv is no table of ours; run `dfgrid table demo` again"),
        ("table.csv", "a,b\n1,2\n", "digits", "table.csv is no table of ours"),
    ],
)
def test_tables_that_cannot_be_read_are_undecidable(grid: Path, name: str, content: str | None, kind: str, message: str) -> None:
    path = grid / "tables" / name
    path.unlink() if content is None else path.write_text(content)
    found = {f.claim.id: f for f in audit_grid(GridIndex.read(grid))}[f"demo-{kind}"]
    assert found.verdict == "undecidable"
    assert message in found.checks[0].found
