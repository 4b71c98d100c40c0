"""The site without a browser: its data, its links, users' words in it, and every mistake."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_material import FINGERPRINTS, grid, record_of, scores_of, write_cell, write_grid
from results_grids import provenance

from benchmark.metrics import auc
from benchmark.report import Faces, dataset_checks, stores_shown
from preprocessing.store import FaceStore
from results.files import RecordError
from results.index import GridIndex
from results.record import METRICS, DiagnosticRange, Diagnostics, Record
from results.report import Video, read_grids, write_report
from results.report.board import LEVELS
from results.report.curves import roc_points
from results.report.papers import printed_rows
from results.selection import SELECTIONS
from results.tidy import tidy


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One grid with a cell missing, one whose second set has fakes only."""
    folder = tmp_path_factory.mktemp("runs")
    write_grid(folder, grid(), leave_out=1)
    write_grid(folder, grid(name="fakes", seeds=[0]), only_fake="CDFv2")
    return folder


@pytest.fixture(scope="module")
def site(runs: Path) -> Path:
    def faces(record: Record, video: Video) -> dict[str, bytes] | str:
        return {key: b"RIFF" + key.encode() for key in video.keys} if record.grid == "small" else "the store is on another machine"

    written = write_report(read_grids(runs), runs / "site", faces)
    assert (written.cells, written.problems) == (6, {})
    assert written.faces > 0
    return runs / "site"


def island_of(site: Path) -> dict:
    text = (site / "index.html").read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_every_number_is_the_one_of_the_tidy_rows(site, runs):
    data = island_of(site)
    columns = {(t["name"]): i for i, t in enumerate(data["tests"])}
    assert len(columns) == 2  # both grids test on the same sets of the same stores
    checked = 0
    for number, name in enumerate(data["grids"]):
        index = GridIndex.read(runs / name)
        cells = {c["page"].split("/")[1]: c for c in data["cells"] if c["g"] == number}
        for s, rule in enumerate(SELECTIONS):
            for row in tidy(index, rule).to_dict("records"):
                (cell,) = (c for page, c in cells.items() if row["cell"] in page)
                place = (s * len(LEVELS) + LEVELS.index(row["level"])) * len(METRICS) + METRICS.index(row["metric"])
                if cell["p"] < 0:
                    assert data["reasons"][-1 - cell["why"]] == row["reason"] == "not run yet"
                    continue
                found = cell["v"][str(columns[row["test"]])][place]
                if row["reason"]:
                    assert data["reasons"][-1 - found] == row["reason"]
                else:
                    assert found == pytest.approx(row["value"], abs=1e-6)
                checked += 1
    assert checked == 5 * 2 * 4 * 2 * 5


def test_every_link_leads_to_a_file_of_the_site_and_none_out_of_it(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) == 4 + 2 + 6  # leaderboard, list of figures, audit, data; figures of two grids; cells
    for page in pages:
        text = page.read_text()
        targets = re.findall(r'(?:href|src)="([^"]*)"', text)
        assert targets
        for target in map(html.unescape, targets):
            if target.startswith("#"):
                assert f'id="{target[1:]}"' in text
            elif target != "data:,":
                assert (page.parent / target).resolve().is_relative_to(site), target
                assert (page.parent / target).is_file(), target
    for cell in island_of(site)["cells"]:
        assert (site / cell["page"]).is_file()
    for asset in (site / "assets").iterdir():
        assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttp|innerHTML", asset.read_text())


def test_users_words_are_words_and_no_number_is_nan(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert "<b>RoGA" not in text
        assert "<i>mind" not in text
        assert not re.search(r"\b(nan|NaN|Infinity)\b|>None<", text)
    assert {c["o"] for c in island_of(site)["cells"]} == {"sgd", '<b>RoGA</b> & "co"'}


def test_a_cells_page_tells_everything(site, runs):
    (page,) = (site / "cells").glob("small-meso4-sgd-s0-*")
    text = page.read_text()
    record = next(r for r in GridIndex.read(runs / "small").records.values() if r.optimizer.name == "sgd" and r.seed == 0)
    for words in (record.cell, "source_val", "best_per_test", "frame AUC", "a" * 64, "&lt;i&gt;mind&lt;/i&gt; the gap", "lr"):
        assert words in text, words
    assert text.count('class="tag oracle"') == 3  # the explanation and both rules
    assert text.count('<svg class="chart"') == 5  # loss, AUC of two roles, two ROC curves
    shown = re.findall(r'<img src="\.\./(faces/[0-9a-f]+\.webp)"', text)
    assert shown
    assert all((site / name).is_file() for name in shown)
    (missing,) = (p for p in (site / "cells").iterdir() if "not run yet" in p.read_text())
    assert "dfgrid grid run small" in missing.read_text()


def test_a_set_of_one_class_is_said_and_has_no_curve(site):
    (page,) = (site / "cells").glob("fakes-meso4-sgd-s0-*")
    text = page.read_text()
    assert "CDFv2: AUC and ROC curve are not defined: only fake faces" in text
    assert text.count('<svg class="chart"') == 4
    assert "the store is on another machine" in text
    assert "AUC not defined: only fake faces" in island_of(site)["reasons"]


def test_scores_that_do_not_match_are_named_and_marked(tmp_path):
    of = grid()
    folder = write_grid(tmp_path, of)
    first, second, third, _ = of.cells()
    changed = scores_of(first)
    changed["score"] = 1 - changed["score"]
    changed.to_parquet(folder / first.id / "scores.parquet", index=False)
    fewer = scores_of(second)
    fewer[(fewer["test"] != "CDFv2") | (fewer["video"] != "v11")].to_parquet(folder / second.id / "scores.parquet", index=False)
    (folder / third.id / "scores.parquet").unlink()
    written = write_report(read_grids(folder), tmp_path / "site", figures=False)
    problems = {cell: p for (_, cell), p in written.problems.items()}
    assert set(problems) == {first.id, second.id, third.id}
    assert "AUC of NeuralTextures" in problems[first.id]
    assert "CDFv2 has 18 real + 15 fake frames in scores.parquet, 18 + 18 in record.json" in problems[second.id]
    assert "scores.parquet does not exist" in problems[third.id]
    assert str(tmp_path) not in "".join(problems.values())
    marked = {c["page"]: c["doubt"] for c in island_of(tmp_path / "site")["cells"]}
    assert sorted(filter(None, marked.values())) == sorted(problems.values())
    (page,) = (p for p in (tmp_path / "site" / "cells").iterdir() if first.id in p.name)
    assert "These numbers are in doubt" in page.read_text()


def test_a_record_of_another_format_is_a_reason_and_not_alone_enough(tmp_path):
    of = grid(seeds=[0])
    folder = write_grid(tmp_path, of)
    records = [folder / c.id / "record.json" for c in of.cells()]
    records[0].write_text(records[0].read_text().replace('"format": 1', '"format": 7', 1))
    written = write_report(read_grids(tmp_path), tmp_path / "site", figures=False)
    assert any("format 7, but this version reads format 1" in r for r in island_of(written.index.parent)["reasons"])
    records[1].write_text("{")
    with pytest.raises(RecordError, match=r"no cell of small has a record that can be read: .*record\.json"):
        read_grids(tmp_path)


def test_what_cannot_be_reported_is_told(tmp_path):
    with pytest.raises(RecordError, match="does not exist"):
        read_grids(tmp_path / "none")
    with pytest.raises(RecordError, match="holds no grid"):
        read_grids(tmp_path)
    write_grid(tmp_path / "runs", grid(), leave_out=4)
    with pytest.raises(RecordError, match="no cell of small has a record yet; run `dfgrid grid run small`"):
        read_grids(tmp_path / "runs")
    grids = read_grids(write_grid(tmp_path / "runs", grid(), leave_out=3))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(RecordError, match="holds other things than a report"):
        write_report(grids, tmp_path / "full", figures=False)
    with pytest.raises(RecordError, match="is a file"):
        write_report(grids, tmp_path / "full" / "thesis.tex", figures=False)
    before = {p.name for p in (write_report(grids, tmp_path / "site", figures=False).index.parent).rglob("*")}
    (tmp_path / "site" / "cells" / "old.html").touch()
    assert {p.name for p in (write_report(grids, tmp_path / "site", figures=False).index.parent).rglob("*")} == before


def test_a_papers_row_stands_beside_what_it_is_about(site, tmp_path):
    found = {(r["source"], r["d"], r["o"]): r["v"] for r in island_of(site)["reported"]}
    # Trained on three forgeries, tested on the fourth: only RoGA's table II has that, for RoGA.
    assert found == {("RoGA, table II", "", "Ours(RoGA)"): {"0": {"auc": "70.52", "acc": "59.43"}}}
    four = {"store": "stores/a", "methods": ["Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"]}
    whole = grid(name="whole", train=four, seeds=[0], tests=[{"name": "CDFv2", "store": "stores/b", "role": "cross-dataset"}])
    write_report(read_grids(write_grid(tmp_path, whole)), tmp_path / "site", figures=False)
    rows = {(r["source"], r["d"], r["o"]): r for r in island_of(tmp_path / "site")["reported"]}
    assert rows["DeepfakeBench", "Meso4", ""]["v"] == {"0": {"auc": "60.91"}}
    assert rows["DeepfakeBench", "Meso4", ""]["level"] == "frame"
    assert rows["RoGA, table I", "Meso4", ""]["v"] == {"0": {"auc": "60.9"}}  # as many digits as are printed
    assert len(rows) == 2


def test_every_published_digit_is_kept():
    printed = {p.source for p in printed_rows()}
    assert {"DeepfakeBench", "RoGA, table I", "RoGA, table IV", "RoGA, table V", "PIM, table 1", "PIM, table 4"} <= printed
    (row,) = (p for p in printed_rows() if (p.source, p.rule) == ("RoGA, table IV", "roga"))
    assert set(row.numbers.values()) == {"93.63", "85.30", "95.95", "62.08"}


def test_the_area_is_the_metrics(tmp_path):
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 200), np.round(random.random(200), 2)  # with ties
    assert roc_points(labels, scores)[2] == pytest.approx(auc(labels, scores), abs=1e-12)


def test_the_worst_videos_are_the_farthest_from_their_label(site, runs):
    (page,) = (site / "cells").glob("small-meso4-sgd-s0-*")
    listed = re.findall(r"<strong>(v\d\d)</strong>.*?(real|fake), score ([0-9.]+)</span>", page.read_text(), re.S)[:6]
    errors = [abs((label == "fake") - float(score)) for _, label, score in listed]
    assert errors[:3] == sorted(errors[:3], reverse=True)
    assert min(errors[:3]) > max(errors[3:])
    assert len({video for video, _, _ in listed}) == 6


def test_faces_come_from_the_store_that_was_scored(data):
    with FaceStore(data / "stores" / "mini-a") as store:
        cell = grid(tests=[{"name": "held", "store": "stores/mini-a", "role": "cross-dataset"}]).cells()[0]
        key = str(store.manifest["key"].iloc[0])
        video = Video("held", "mini-a", "real", "x", 0, 0.5, (key,), (0.5,))
        record = record_of(cell, scores_of(cell), provenance=provenance(stores={"stores/mini-a": store.fingerprint}))
        faces = Faces(data)
        assert faces(record, video)[key][8:12] == b"WEBP"
        other = record_of(cell, scores_of(cell), provenance=provenance(stores={"stores/mini-a": "f" * 64}))
        assert "has another content now" in faces(other, video)
        gone = Faces(data / "nowhere")(record, video)
        assert "no face store at stores/mini-a" in gone
        assert str(data) not in gone
        assert "does not say which store" in faces(record, Video("x", "", "", "", 0, 0.5, (), ()))


def test_the_data_page_shows_stores_and_the_doctor(data, tmp_path):
    with FaceStore(data / "stores" / "mini-a") as store:
        fingerprint, faces = store.fingerprint, store.info["counts"]["faces"]
    of = grid(seeds=[0])
    folder = write_grid(tmp_path, of, leave_out=1)
    write_cell(folder, of.cells()[0], provenance=provenance(stores={"stores/mini-a": fingerprint, "stores/gone": "1" * 64}))
    grids = read_grids(tmp_path)
    gone, shown = stores_shown(grids, Faces(data))
    assert gone.reason.startswith("no face store at stores/gone")
    assert shown.same
    assert sum(g["faces"] for g in shown.groups) == faces
    (checked,) = dataset_checks([data / "mini-a"], "faceforensics++", "c23")
    write_report(grids, tmp_path / "site", stores=[gone, shown], datasets=[checked], figures=False)
    text = (tmp_path / "site" / "data.html").read_text()
    assert fingerprint[:16] in text
    assert html.escape(checked.findings[0][1], quote=False) in html.unescape(text) or checked.findings[0][1] in html.unescape(text)
    assert str(data) not in text
    assert all("without a data folder" in s.reason for s in stores_shown(grids, None))
    assert set(FINGERPRINTS) == {"stores/a", "stores/b"}


def test_diagnostics_are_shown_with_what_was_not_a_number(tmp_path):
    of = grid(seeds=[0])
    folder = write_grid(tmp_path, of, leave_out=1)
    gone = DiagnosticRange(name="gradient_norm", domain="FaceSwap", count=4, finite=0)
    kept = DiagnosticRange(
        name="gradient_cosine", domain="A", other="B", count=4, finite=3, first=0.5, last=-0.25, mean=0.1, lowest=-0.25, highest=0.5
    )
    seen = Diagnostics(schedule="ten times", looks=4, passes=7.0, share=0.031, radii=(0.05,), ranges=(gone, kept))
    write_cell(folder, of.cells()[0], diagnostics=seen)
    write_report(read_grids(tmp_path), tmp_path / "site", figures=False)
    (page,) = (tmp_path / "site" / "cells").glob("small-meso4-sgd-*")
    text = " ".join(page.read_text().split())
    assert "4 looks at gradients and sharpness (ten times); at most 3.1 % of training’s passes" in text
    assert '<td>A × B</td><td class="num">0.5</td><td class="num">-0.25</td>' in text
    assert '<th scope="row">gradient_norm</th><td>FaceSwap</td><td class="num"><span class="none">–</span></td>' in text
    assert "0 of 4" in text


def test_a_video_level_of_another_definition_is_not_held_against_the_scores(tmp_path):
    of = grid(seeds=[0], protocol={"epochs": 2, "batch_size": 24, "clip_average": "of_frames"})
    write_grid(tmp_path, of, leave_out=1)
    written = write_report(read_grids(tmp_path), tmp_path / "site", figures=False)
    assert written.problems == {}
    (page,) = (tmp_path / "site" / "cells").glob("small-meso4-sgd-*")
    text = page.read_text()
    assert "defines in its own way (clip_average of_frames)" in text
    assert "frame AUC" in text
    assert "video AUC 1" not in text
