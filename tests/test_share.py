"""Archives of results: the same bytes for the same content, merging, and everything that is refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest
from report_material import FINGERPRINTS, grid, record_of, scores_of, write_cell, write_grid
from results_grids import provenance

from benchmark.cli import main
from benchmark.share import export_grid, import_archives
from benchmark.verify import check_measures, verify
from results.archive import SUMS, pack, unpack
from results.diagnostics import Row, ranges, table
from results.files import RecordError
from results.index import GridIndex
from results.record import Diagnostics

CELLS = grid().cells()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grid(tmp_path_factory.mktemp("runs"), grid(), leave_out=1)


@pytest.fixture(scope="module")
def archive(folder: Path) -> Path:
    assert export_grid(folder, folder.parent / "small.tar.gz") == 3
    return folder.parent / "small.tar.gz"


def repacked(archive: Path, out: Path, **changed: bytes | None) -> Path:
    """The archive with files replaced (None: left out) and its checksums made anew; '__' stands for '/'."""
    files = {path: content for path, content in unpack(archive).items() if path != SUMS}
    for path, content in changed.items():
        files[path] = content  # type: ignore[assignment]
    pack(out, "small", {path: content for path, content in files.items() if content is not None})
    return out


def record_bytes(cell, scores=None, **more) -> bytes:
    return json.dumps(record_of(cell, scores_of(cell) if scores is None else scores, **more).model_dump(mode="json")).encode()


def parquet(scores) -> bytes:
    buffer = io.BytesIO()
    scores.to_parquet(buffer, index=False)
    return buffer.getvalue()


@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_an_archive_is_its_content(folder, tmp_path, ending):
    first, second = tmp_path / f"one.{ending}", tmp_path / f"two.{ending}"
    export_grid(folder, first)
    moved = tmp_path / "elsewhere" / "small"
    shutil.copytree(folder, moved, copy_function=shutil.copyfile)  # other times, another place
    export_grid(moved, second)
    assert first.read_bytes() == second.read_bytes()
    files = unpack(first)
    assert {f"{CELLS[0].id}/record.json", f"{CELLS[0].id}/scores.parquet", "tables/tidy.csv", "tables/table.md"} < set(files)
    readme = files["README.md"].decode()
    for words in ("A small grid", "3 of 4 cells", "sha256sum --check", "Protocol: name strict", "a" * 64, "c0dec0dec0de0000" * 4):
        assert words in readme, words
    (merged,) = import_archives([first], tmp_path / "there")
    assert sorted(merged.added) == sorted(GridIndex.read(folder).records)
    assert GridIndex.read(tmp_path / "there" / "small").records == GridIndex.read(folder).records


def test_checksums_are_those_of_sha256sum(archive, tmp_path):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    lines = (tmp_path / "small" / SUMS).read_text().splitlines()
    assert len(lines) == len([p for p in (tmp_path / "small").rglob("*") if p.is_file()]) - 1
    for line in lines:
        digest, name = line.split("  ")
        assert sha256((tmp_path / "small" / name).read_bytes()).hexdigest() == digest
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=tmp_path / "small", check=True)


def test_archives_of_two_machines_become_one_grid(archive, tmp_path):
    rest = tmp_path / "rest" / "small"
    shutil.copytree(write_grid(tmp_path / "other", grid(), leave_out=4), rest)
    for cell in CELLS[2:]:
        write_cell(rest, cell)
    export_grid(rest, tmp_path / "rest.zip")
    (merged,) = import_archives([archive, tmp_path / "rest.zip"], tmp_path / "runs")
    assert (len(merged.added), merged.same) == (4, [CELLS[2].id])
    index = GridIndex.read(tmp_path / "runs" / "small")
    assert (len(index.records), index.reasons) == (4, {})
    before = {p: p.read_bytes() for p in (tmp_path / "runs").rglob("*") if p.is_file()}
    (again,) = import_archives([archive, tmp_path / "rest.zip"], tmp_path / "runs")
    assert again.added == []
    assert {p: p.read_bytes() for p in (tmp_path / "runs").rglob("*") if p.is_file()} == before


def test_the_same_cell_with_other_numbers_is_named(archive, tmp_path):
    other = write_grid(tmp_path / "other", grid(), leave_out=4)
    write_cell(other, CELLS[0], shift=0.5)
    export_grid(other, tmp_path / "other.zip")
    with pytest.raises(RecordError, match=rf"cell {CELLS[0].id} is in .*other\.zip and in .*different content \(.*auc"):
        import_archives([archive, tmp_path / "other.zip"], tmp_path / "runs")
    assert not (tmp_path / "runs").exists()  # all or nothing
    write_cell(other, CELLS[0], provenance=provenance(stores=FINGERPRINTS, seconds=61.0))
    export_grid(other, tmp_path / "twice.zip")
    with pytest.raises(RecordError, match="the numbers are the same, but not seconds: it was run twice"):
        import_archives([archive, tmp_path / "twice.zip"], tmp_path / "runs")


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of one cell."""
    folder = write_grid(tmp_path_factory.mktemp("lone"), grid(), leave_out=3)
    export_grid(folder, folder.parent / "lone.tar.gz")
    return folder.parent / "lone.tar.gz"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scores", "changed", "from the scores"),
        ("settings", "changed", "are those of cell"),
        ("measures", "changed", "auc is"),
        ("title", "changed", "not of the cell that grid.json names"),
        ("scores", "gone", "without scores a cell cannot be checked"),
        ("scores", "nonsense", "is no parquet file"),
        ("format", "changed", "format 9, but this version reads format 1"),
        ("fingerprint", "changed", "not compared"),
        ("stranger", "added", "no cell of its grid.json"),
        ("grid", "gone", "has no grid.json"),
    ],
)
def test_what_does_not_hold_is_refused_though_its_checksums_do(lone, tmp_path, name, content, message):
    cell = CELLS[0]
    record, scores = f"{cell.id}/record.json", f"{cell.id}/scores.parquet"
    better = record_of(cell, scores_of(cell)).measures
    better = (*better[:-1], better[-1].model_copy(update={"auc": 0.999}))
    second = {f"{CELLS[1].id}/record.json": record_bytes(CELLS[1])}
    second |= {f"{CELLS[1].id}/scores.parquet": parquet(scores_of(CELLS[1]))}
    changed: dict[tuple[str, str], dict[str, bytes | None]] = {
        ("scores", "changed"): {scores: parquet(scores_of(cell, 0.5))},
        ("settings", "changed"): {record: record_bytes(cell, protocol={**record_of(cell, scores_of(cell)).protocol, "epochs": 20})},
        ("measures", "changed"): {record: record_bytes(cell, measures=better)},
        ("title", "changed"): {record: record_bytes(CELLS[1])},
        ("scores", "gone"): {scores: None},
        ("scores", "nonsense"): {scores: b"PAR1"},
        ("format", "changed"): {record: record_bytes(cell).replace(b'"format": 1', b'"format": 9')},
        ("fingerprint", "changed"): {record: record_bytes(cell, provenance=provenance(stores={"stores/a": "c" * 64})), **second},
        ("stranger", "added"): {"who/record.json": record_bytes(cell)},
        ("grid", "gone"): {"grid.json": None},
    }
    bad = repacked(lone, tmp_path / "bad.tar.gz", **changed[name, content])
    with pytest.raises(RecordError, match=message) as error:
        import_archives([bad], tmp_path / "runs")
    assert str(bad) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_stores_that_changed_between_archives_are_refused(archive, tmp_path):
    other = write_grid(tmp_path / "other", grid(), leave_out=4)
    write_cell(other, CELLS[3], provenance=provenance(stores={**FINGERPRINTS, "stores/b": "d" * 64}))
    export_grid(other, tmp_path / "other.zip")
    with pytest.raises(RecordError, match=r"store stores/b has the fingerprint bbbbbbbbbbbb in cell .* and dddddddddddd in cell"):
        import_archives([archive, tmp_path / "other.zip"], tmp_path / "runs")
    export_grid(
        write_grid(tmp_path / "third", grid(tests=[{"name": "UADFV", "store": "stores/b", "role": "cross-dataset"}])),
        tmp_path / "t.zip",
    )
    with pytest.raises(RecordError, match=r"other test sets .*CDFv2 \(cross-dataset\)"):
        import_archives([archive, tmp_path / "t.zip"], tmp_path / "runs")


def test_what_is_not_true_is_not_exported(tmp_path):
    folder = write_grid(tmp_path, grid(), leave_out=4)
    out = tmp_path / "x.tar.gz"
    with pytest.raises(RecordError, match="has a record yet; run `dfgrid grid run small`"):
        export_grid(folder, out)
    write_cell(folder, CELLS[0])
    scores_of(CELLS[0], 0.5).to_parquet(folder / CELLS[0].id / "scores.parquet", index=False)
    with pytest.raises(RecordError, match=r"is [0-9.]+ in the record, [0-9.]+ from the scores"):
        export_grid(folder, out)
    path = folder / CELLS[0].id / "record.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2', 1))
    with pytest.raises(RecordError, match="format 2, but this version reads format 1"):
        export_grid(folder, out)
    with pytest.raises(RecordError, match="must end in"):
        export_grid(folder, tmp_path / "x.rar")
    assert not out.exists()


def test_a_set_of_one_class_is_checked_as_undefined():
    cell = CELLS[0]
    scores = scores_of(cell, only_fake="CDFv2")
    record = record_of(cell, scores)
    assert any(m.undefined == dict.fromkeys(("auc", "ap", "eer"), "only fake faces") for m in record.measures)
    assert list(check_measures(record, scores)) == []
    assert "real and" in next(check_measures(record, scores_of(cell)))
    shorter = record.model_copy(update={"measures": record.measures[:-1]})
    assert "but no measure per" in next(check_measures(shorter, scores))
    assert next(check_measures(record, scores[scores["test"] != "val"])).endswith("but no scores")


def seen(rows) -> dict:
    """A record's field `diagnostics` that sums up these rows."""
    return {"diagnostics": Diagnostics(schedule="all", looks=2, passes=2.0, share=0.01, radii=(0.05,), ranges=ranges(rows))}


def test_diagnostics_must_be_those_that_the_record_sums_up(tmp_path):
    rows = table([Row(1, "gradient_norm", "", "", 0.5), Row(2, "gradient_norm", "", "", float("nan"))])
    folder = write_grid(tmp_path, grid(), leave_out=4)
    write_cell(folder, CELLS[0], **seen(rows))
    kept = folder / CELLS[0].id / "diagnostics.parquet"
    rows.to_parquet(kept, index=False)
    export_grid(folder, tmp_path / "a.zip")
    (merged,) = import_archives([tmp_path / "a.zip"], tmp_path / "there")
    assert (merged.folder / CELLS[0].id / kept.name).read_bytes() == kept.read_bytes()
    other = parquet(table([Row(1, "gradient_norm", "", "", 0.4), Row(2, "gradient_norm", "", "", float("nan"))]))
    for content, message in ((other, "does not give what the record tells of gradient_norm"), (b"junk", "is no parquet file")):
        bad = repacked(tmp_path / "a.zip", tmp_path / "bad.zip", **{f"{CELLS[0].id}/{kept.name}": content})
        with pytest.raises(RecordError, match=message) as error:
            import_archives([bad], tmp_path / "other")
        assert "/tmp" not in str(error.value).replace(str(bad), "")
    kept.write_bytes(other)
    with pytest.raises(RecordError, match="does not give what the record tells of gradient_norm"):
        export_grid(folder, tmp_path / "b.zip")
    assert [f.sentence for f in verify(folder).findings if "diagnostics" in f.sentence]


def test_packed_tables_follow_the_protocols_rule(tmp_path):
    of = grid(seeds=[0], protocol={"epochs": 2, "batch_size": 24, "selection": "last"})
    export_grid(write_grid(tmp_path, of), tmp_path / "a.zip")
    files = unpack(tmp_path / "a.zip")
    assert "under the rule last" in files["README.md"].decode()
    assert "checkpoint: last" in files["tables/table.csv"].decode()


def test_the_commands(tmp_path, monkeypatch, capsys):
    write_grid(tmp_path / "runs", grid(), leave_out=1)
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dfgrid", *args])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        return int(stopped.value.code or 0), " ".join(said.out.split()), " ".join(said.err.split())

    assert "wrote a.zip: 3 cells" in run("export", "small", "--out", "a.zip")[1]
    assert "there/small: 3 cells added, 0 there already" in run("import-results", "a.zip", "--runs", "there")[1]
    assert "there/small: 0 cells added, 3 there already" in run("import-results", "a.zip", "--runs", "there")[1]
    code, out, _ = run("report", "there", "--out", "site")
    assert (code, "wrote site/index.html: 4 cells of 1 grid" in out) == (0, True)
    for args, message in (
        (("export", "smal", "--out", "b.zip"), "did you mean 'small'?"),
        (("export", "small", "--out", "b.zip", "--runs", "no"), "no holds no grid; run `dfgrid grid run small`"),
        (("export", "a/small", "--out", "b.zip"), "is no name of a grid"),
        (("export", "small", "--out", "no/b.zip"), "the folder no does not exist"),
        (("export", "small", "--out", "b.txt"), "must end in .tar.gz"),
        (("import-results", "c.zip"), "c.zip does not exist"),
        (("report", "no", "--out", "s"), "no does not exist"),
        (("report", "runs", "--out", "a.zip"), "is a file"),
        (("report", "runs", "--out", "s", "--dataset", "nowhere"), "nowhere"),
    ):
        code, _, err = run(*args)
        assert code == 2, args
        assert message in err, args
