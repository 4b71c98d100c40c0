"""The site's pages of figures, and the audit of our own tables in it."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from report_material import grid, record_of, scores_of, write_grid

from results.figures import draw, write_figures
from results.figures.kept import Family, Kept, digest, picture_digest
from results.figures.style import Drawing, panels
from results.index import GridIndex
from results.report import read_grids, write_report
from results.tables import write_tables
from results.tidy import protocol_label


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid with a cell missing, and pictures of faces that `dfgrid figures` drew beside its records."""
    folder = write_grid(tmp_path_factory.mktemp("runs"), grid(), leave_out=1)
    figure, (axis,) = panels(1)
    axis.set_title("sgd")
    drawn = draw(iter([Drawing("gradcam-meso4-CDFv2", figure, "Faces of CDFv2.")]), "gradcam", "", made(folder / "figures"))
    Kept().replaced(folder / "figures", {"/gradcam": Family(drawn_from=picture_digest(GridIndex.read(folder)), figures=drawn)})
    return folder.parent


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def site(runs: Path) -> Path:
    return write_report(read_grids(runs), runs.parent / f"{runs.name}-site").index.parent


def page_of(site: Path, grid_name: str = "small") -> str:
    (page,) = site.glob(f"figures/{grid_name}-figures-*.html")
    return html.unescape(page.read_text())


def test_every_figure_says_what_it_is_of(site: Path, runs: Path) -> None:
    text = page_of(site)
    label = protocol_label(next(iter(GridIndex.read(runs / "small").records.values())))
    shown = re.findall(r'<img src="([^"]*)" width="(\d+)" height="\d+" loading="lazy" alt="([^"]*)"', text)
    names = {Path(src).stem for src, _, _ in shown}
    assert names == {
        *("heatmap", "roc-NeuralTextures", "roc-CDFv2", "det-NeuralTextures", "det-CDFv2"),
        *("histogram-meso4-NeuralTextures", "histogram-meso4-CDFv2"),
        *("training-meso4-s0", "training-meso4-s1", "training-loss-meso4", "gradcam-meso4-CDFv2"),
    }
    for src, width, alt in shown:
        assert (site / "figures" / src).stat().st_size > 1000
        assert (site / "figures" / src).with_suffix(".pdf").is_file()
        assert 300 < int(width) < 720  # a column or a page of a journal, at 100 pixels an inch
        if "gradcam" not in src:
            assert f"Protocol {label}; " in alt
            assert ("checkpoint: source_val" in alt) == ("training" not in src), alt
            assert re.search(r"seeds? [01](, 1)?; 3 of 4 cells have a record\.", alt), alt
    assert 'series: sgd, <b>RoGA</b> & "co"' in text
    assert "ranks: three optimizers" in text
    assert "tsne: `dfgrid figures small --only tsne`" in text
    assert 'href="figures/small-figures-' in (site / "figures.html").read_text()


def test_what_has_not_changed_is_not_drawn_again(runs: Path, site: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    again = write_report(read_grids(runs), site, progress=lambda *step: told.append(step))
    assert (again.figures, again.unchanged) == (11, 10)  # that of faces is copied
    assert [step for step in told if step[0] == "draw figures"] == []
    (picture,) = site.glob("figures/*/heatmap.png")
    whole = picture.read_bytes()
    picture.write_bytes(b"")
    (picture.parent / "old.png").write_bytes(b"")
    assert write_report(read_grids(runs), site).unchanged == 9
    assert picture.read_bytes() == whole
    assert not (picture.parent / "old.png").exists()
    write_report(read_grids(runs), site, figures=False)
    assert list((site / "figures").iterdir()) == []
    assert "left out by --no-figures" in (site / "figures.html").read_text()
    write_report(read_grids(runs), site)


def test_a_changed_record_changes_its_figures(tmp_path: Path) -> None:
    of = grid(seeds=[0])
    folder = write_grid(tmp_path, of)
    first = write_figures(GridIndex.read(folder), tmp_path / "out", ["heatmap", "training"])
    assert (len(first.entries), first.unchanged) == (3, 0)
    cell = of.cells()[0]
    other = scores_of(cell, shift=0.5)
    other.to_parquet(folder / cell.id / "scores.parquet", index=False)
    record_of(cell, other).save(folder / cell.id / "record.json")
    second = write_figures(GridIndex.read(folder), tmp_path / "out", ["heatmap"])
    assert second.unchanged == 0
    assert first.entries[0].sums != second.entries[0].sums
    assert write_figures(GridIndex.read(folder), tmp_path / "out", ["heatmap"], selection="last").unchanged == 0
    before = digest(GridIndex.read(folder))
    made(folder / cell.id / "probes")
    assert digest(GridIndex.read(folder)) == before
    (folder / cell.id / "probes" / "statistics.json").write_text("{}")
    assert digest(GridIndex.read(folder)) != before
    (tmp_path / "out" / "figures.json").write_text("{")
    assert write_figures(GridIndex.read(folder), tmp_path / "out", ["heatmap"]).entries == second.entries


def test_pictures_of_other_records_and_scores_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    of = grid(seeds=[0])
    folder = write_grid(tmp_path, of)
    kept = Kept().replaced(made(folder / "figures"), {"/umap": Family(drawn_from="of other records")})
    assert set(kept.families) == {"/umap"}
    (folder / of.cells()[0].id / "scores.parquet").unlink()
    write_report(read_grids(folder), tmp_path / "site")
    text = page_of(tmp_path / "site")
    assert "the records or the files have changed since it was drawn" in text
    assert f"roc: cells that can be read: {of.cells()[0].id}/scores.parquet does not exist" in text
    assert str(tmp_path) not in text
    assert "heatmap.png" in text


def test_our_tables_are_audited_and_what_does_not_hold_is_marked(tmp_path: Path) -> None:
    of = grid()
    folder = write_grid(tmp_path, of)
    index = GridIndex.read(folder)
    write_tables(index, folder / "tables")
    write_report(read_grids(folder), tmp_path / "site", figures=False)
    assert "does not hold" not in (tmp_path / "site" / "index.html").read_text()
    audit = html.unescape((tmp_path / "site" / "audit.html").read_text())
    assert re.search(r'id="small-digits" class="claim">\s*<h4>small-digits <span class="tag holds">', audit)
    cell = of.cells()[0]
    path = folder / cell.id / "record.json"
    record = json.loads(path.read_text())
    last = max(record["measures"], key=lambda m: (m["step"], m["test"], m["level"] == "frame"))
    last["log_loss"] += 0.01  # which no curve is drawn of
    path.write_text(json.dumps(record))
    table = folder / "tables" / "table.csv"
    digits = re.search(r"\d\d\.\d\d", table.read_text())
    assert digits
    table.write_text(table.read_text().replace(digits[0], f"{float(digits[0]) + 1:.2f}"))
    written = write_report(read_grids(folder), tmp_path / "site", figures=False)
    assert "the audit recomputed its measures" in written.problems["small", cell.id]
    assert "log_loss" in written.problems["small", cell.id]
    board = (tmp_path / "site" / "index.html").read_text()
    assert "The audit of small finds what does not hold" in board
    for name in ("small-scores", "small-digits"):
        assert f'href="audit.html#{name}"' in board
    (page,) = (p for p in (tmp_path / "site" / "cells").iterdir() if cell.id in p.name)
    assert "These numbers are in doubt" in page.read_text()
    assert '<svg class="chart"' in page.read_text()  # what could be drawn is there
    assert str(tmp_path) not in (tmp_path / "site" / "audit.html").read_text()
