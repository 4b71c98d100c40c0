"""A record is enough to run its cell again, and its numbers are those of its scores."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from in_process import command
from small_cell import cell, grid

from benchmark.circumstances import settings_used
from benchmark.config import ConfigError
from benchmark.energy import GPU, PROCESSOR, Meter, processor
from benchmark.launch import write_index
from benchmark.recorded import cell_of, find_stores, matching_plugins
from benchmark.reproduce import reproduce
from benchmark.run import run_cell
from benchmark.study import study_of
from benchmark.verify import verify
from results.record import Energy, Record

EXAMPLE = Path(__file__).parent.parent / "examples" / "my_optimizer.py"


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_index(study_of(grid()), folder / "small")
    run_cell(cell(), folder / "small" / cell().id, data)
    return folder


@pytest.fixture
def copy(runs: Path, tmp_path: Path) -> Path:
    """The grid's folder, to be spoilt."""
    shutil.copytree(runs / "small", tmp_path / "small")
    return tmp_path / "small"


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def dfgrid(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: object) -> tuple[int, str]:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = command(capsys, monkeypatch, *args)
    return code, out + err


def test_a_record_says_what_a_run_cost(runs: Path) -> None:
    record = Record.load(runs / "small" / cell().id / "record.json")
    p = record.provenance
    assert p.examples == record.steps * 8
    assert p.passes == record.steps * 2  # RoGA: every domain's faces at theta, and beside it
    assert p.restarts == 0
    assert p.inexact == ""
    assert p.energy is not None
    assert (p.energy.joules is None) == (p.energy.source != PROCESSOR)


def test_an_older_record_is_still_read(copy: Path) -> None:
    path = copy / cell().id / "record.json"

    def old(content: dict[str, Any]) -> None:
        for name in ("restarts", "passes", "examples", "energy", "inexact"):
            del content["provenance"][name]

    edit(path, old)
    assert Record.load(path).provenance.energy is None
    assert verify(copy).findings == ()


def test_what_is_no_record_is_not_to_be_deleted(runs: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"grid.json is no record of a cell; give a cell's record.json, or the folder that holds"):
        reproduce(runs / "small" / "grid.json", data, tmp_path / "again")


def test_the_record_alone_gives_the_cell(runs: Path) -> None:
    record = Record.load(runs / "small" / cell().id / "record.json")
    assert cell_of(record).id == cell().id
    for label in ("mine", "resnet10"):
        named = cell(detectors=[{"name": "resnet10", "size": 32, "width": 4, "label": label}])
        used = record.detector.model_copy(update={"label": named.detector.title})
        assert cell_of(record.model_copy(update={"cell": named.id, "detector": used})).id == named.id


@pytest.mark.parametrize(("asked", "eta"), [({}, 0.01), ({"scaling": "all"}, 0.0), ({"eta": 0.1}, None)])
def test_a_record_says_what_a_rule_chose_for_itself_and_gives_the_same_id(
    runs: Path, asked: dict[str, Any], eta: float | None
) -> None:
    of = cell(optimizers=[{"name": "asam", **asked}])
    used = settings_used(of)
    assert used["optimizer"].settings["eta"] == asked.get("eta")
    assert used["optimizer"].built == ({} if eta is None else {"eta": eta})
    assert used["optimizer"].used["eta"] == asked.get("eta", eta)
    record = Record.load(runs / "small" / cell().id / "record.json").model_copy(update=used)
    assert cell_of(record).id == of.id == record.cell


def test_run_again_it_is_identical(
    runs: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the stores lie elsewhere and are called otherwise: they are known by their content."""
    shutil.copytree(data / "stores", tmp_path / "elsewhere" / "moved")
    (tmp_path / "elsewhere" / "moved" / "mini-a").rename(tmp_path / "elsewhere" / "moved" / "other-name")
    path = runs / "small" / cell().id / "record.json"
    code, told = dfgrid(capsys, monkeypatch, "reproduce", path, "--data", tmp_path / "elsewhere", "--keep", tmp_path / "again")
    assert code == 0, told
    assert "identical: 20 measures, 1 losses, scores, to the bit" in told
    assert (tmp_path / "again" / "record.json").exists()
    code, told = dfgrid(capsys, monkeypatch, "reproduce", path, "--data", data, "--keep", tmp_path / "again")
    assert code == 2
    assert "holds a run already" in told


def test_what_moved_is_told_with_what_is_different(
    copy: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy / cell().id

    def other(content: dict[str, Any]) -> None:
        content["provenance"]["packages"]["torch"] = "1.0"
        content["provenance"]["code"] = "0" * 64
        content["measures"][0]["acc"] = content["measures"][0]["acc"] / 2
        content["losses"][0][1] += 0.25

    edit(folder / "record.json", other)
    scores = pd.read_parquet(folder / "scores.parquet")
    scores.loc[3, "score"] = 1.0 if scores.loc[3, "score"] < 0.5 else 0.0
    scores.to_parquet(folder / "scores.parquet")
    code, told = dfgrid(capsys, monkeypatch, "reproduce", folder, "--data", data)
    assert code == 1, told
    assert "not identical" in told
    assert "other torch: 1.0 then" in told
    assert "other code: 000000000000... then" in told
    assert "losses differ by at most 0.25" in told
    assert "1 of 20 measures moved" in told
    assert "scores differ by at most 0." in told


def test_what_is_missing_is_said(copy: Path, data: Path, tmp_path: Path) -> None:
    path = copy / cell().id / "record.json"
    record = Record.load(path)
    with pytest.raises(ConfigError, match=r"no store below .* has the fingerprint .* of store stores/mini-a; give its folder"):
        find_stores(record, tmp_path / "small")
    assert find_stores(record, tmp_path, [data / "stores" / "mini-b", data / "stores" / "mini-a"]).keys() == {
        "stores/mini-a",
        "stores/mini-b",
    }
    plugged = record.model_copy(update={"provenance": record.provenance.model_copy(update={"plugins": {"my.py": "1" * 64}})})
    with pytest.raises(ConfigError, match=r"was made with the plug-in my\.py"):
        matching_plugins(plugged, [EXAMPLE])
    edit(path, lambda content: content.update(seed=7))
    with pytest.raises(ConfigError, match="its settings are those of resnet10-roga-s7"):
        reproduce(path, data, tmp_path / "again")


def test_a_mistake_is_told_without_a_bar(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = dfgrid(capsys, monkeypatch, "reproduce", copy / cell().id, "--data", tmp_path / "small")
    assert code == 2
    assert told.strip().startswith("Error: no store below")
    assert "0/?" not in told


def test_verify_finds_what_differs(
    copy: Path, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = dfgrid(capsys, monkeypatch, "verify", runs)
    assert code == 0, told
    assert "1 record, 20 numbers computed again: all as recorded" in told

    path = copy / cell().id / "record.json"
    edit(path, lambda content: content["measures"][1].update(auc=content["measures"][1]["auc"] * 0.999))
    (found,) = verify(copy).findings
    assert "val per video at step" in found.sentence
    assert "auc is" in found.sentence
    code, told = dfgrid(capsys, monkeypatch, "verify", copy)
    assert code == 1
    assert "differs" in told


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["measures"].pop(), "mini-b has scores at step"),
        (lambda c: c["measures"][0].update(step=1), "val has a measure per frame at step 1, but no scores"),
        (lambda c: c["measures"][0].update(n_real=3), "3 real and"),
        (lambda c: c["protocol"].update(clip=1.0), "its settings are those of cell"),
        (lambda c: c.update(seed=3), "grid.json calls it resnet10 / roga / seed 0"),
        (lambda c: c["data"]["train"].update(nonsense=1), "settings that this version does not know: train.nonsense"),
    ],
)
def test_verify_finds_every_kind(copy: Path, change: Callable[[dict[str, Any]], None], sentence: str) -> None:
    edit(copy / cell().id / "record.json", change)
    assert any(sentence in f.sentence for f in verify(copy).findings), verify(copy).findings


def test_verify_finds_strangers_and_files_that_are_gone(copy: Path) -> None:
    shutil.copytree(copy / cell().id, copy / "stranger")
    told = [f.sentence for f in verify(copy).findings]
    assert any("grid.json does not want this cell" in s for s in told)
    assert any("belongs to cell resnet10-roga-s0" in s for s in told)
    shutil.rmtree(copy / "stranger")
    (copy / cell().id / "scores.parquet").unlink()
    assert "does not exist" in verify(copy).findings[0].sentence
    with pytest.raises(ConfigError, match="holds no record"):
        verify(copy / cell().id / "events")


def test_a_gpus_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked by the GPU's UUID, in millijoules; a driver that stops answering ends the count, not the run."""
    counts = iter([0, 1_000_000, 1_002_500])
    asked = []
    fake = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: asked.append(uuid),
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counts),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    meter = Meter("cuda:1", Energy(joules=1.0, source=GPU))
    assert meter.sample() == Energy(joules=3.5, source=GPU)
    assert asked == ["GPU-1234"]
    assert meter.sample() == Energy(joules=None, source="the counter stopped: StopIteration")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Meter("cuda").sample() == Energy(joules=None, source="the package nvidia-ml-py is not installed")


def test_the_processors_counter_turns_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text("900000000")
        (tmp_path / name / "max_energy_range_uj").write_text("1000000000")
    monkeypatch.setattr("benchmark.energy.processor", lambda: processor(tmp_path))
    meter = Meter("cpu", Energy(joules=5.0, source=PROCESSOR))
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100000000")  # 200 J further, past its range
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("950000000")  # 50 J
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("990000000")  # a part of package 0
    assert meter.sample().joules == pytest.approx(255.0)
    lost = Meter("cpu", Energy(joules=None, source="nothing there"))
    assert lost.sample() == Energy(joules=None, source="not counted before a restart: nothing there")
    assert Meter("cpu", lost.sample()).sample() == lost.sample()  # a second restart says it no second time
    stuttered = Energy(joules=None, source="not counted before a restart: " * 3 + "nothing there")  # an older version's
    assert Meter("cpu", stuttered).sample() == lost.sample()
    assert processor(tmp_path / "none") == ("this machine shows no RAPL counter", None)
