"""The command line as a user meets it: every command, and every mistake as one sentence with exit code 2."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from in_process import command

from preprocessing.codec import read_image

Result = tuple[int, str, str]
Dfgrid = Callable[..., Result]

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def dfgrid(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dfgrid:
    """Run `dfgrid ARGS` in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    return partial(command, capsys, monkeypatch)


def grid(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "name": "g",
        "train": {"store": "stores/mini-a", "methods": ["Deepfakes", "Face2Face"]},
        "tests": [{"name": "NeuralTextures", "store": "stores/mini-a", "methods": ["NeuralTextures"], "role": "held-out"}],
        "detectors": [{"name": "resnet10", "size": 32, "width": 4}],
        "optimizers": ["adam", "roga"],
        "seeds": [0],
        "protocol": {"epochs": 1, "batch_size": 16},
    }
    path = folder / "g.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


def assert_mistake(result: Result, *words: str) -> None:
    code, _, err = result
    assert code == 2, err
    assert "Traceback" not in err
    sentence = " ".join(err.split())
    assert sentence.startswith("Error: ")
    for word in words:
        assert word in sentence


def test_help_is_a_table_of_contents_and_needs_no_torch() -> None:
    code = "import sys; from benchmark.cli import main\nsys.argv = ['dfgrid', '--help']\ntry: main()\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=EXAMPLES.parent, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("demo", "synth", "preprocess", "store", "list", "grid", "train", "evaluate", "table"):
        assert re.search(rf"│ {name} ", done.stdout), name


def test_lists(dfgrid: Dfgrid) -> None:
    for what, names in (
        ("detectors", ["meso4", "resnet34", "xception", "efficientnet_b4", "convnext_base"]),
        ("optimizers", ["adam", "sgd", "sam", "asam", "gnp", "sagm", "roga", "pim", "dualflat"]),
        ("datasets", ["faceforensics++", "celeb-df-v2", "folder"]),
        ("grids", ["demo"]),
    ):
        code, out, err = dfgrid("list", what)
        assert code == 0, err
        for name in names:
            assert name in out


def test_plugins_are_listed(dfgrid: Dfgrid) -> None:
    assert "my_detector" in dfgrid("list", "detectors", "--plugin", EXAMPLES / "my_detector.py")[1]
    assert "my_optimizer" in dfgrid("list", "optimizers", "--plugin", EXAMPLES / "my_optimizer.py")[1]


def test_the_road_on_a_few_people(dfgrid: Dfgrid, tmp_path: Path) -> None:
    """synth -> preprocess -> store -> grid -> status -> table -> evaluate, each again without doing anything twice."""
    assert dfgrid("synth", "data/small", "--identities", 8, "--frames", 2, "--workers", 1)[0] == 0
    assert "Nothing to draw" in dfgrid("synth", "data/small", "--identities", 8, "--frames", 2)[1]
    code, out, err = dfgrid("preprocess", "data/small", "--name", "small", "--frames", 2, "--out", "data/stores/mini-a")
    assert code == 0, err
    assert "80 sampled frames: 80 face, 0 no face, 0 no landmarks, 0 unreadable" in out
    assert "nothing to do" in dfgrid("preprocess", "data/small", "--name", "small", "--frames", 2, "-o", "data/stores/mini-a")[1]

    code, out, err = dfgrid("store", "info", "data/stores/mini-a")
    assert code == 0, err
    assert "NeuralTextures" in out
    assert "fingerprint" in out
    assert dfgrid("store", "verify", "data/stores/mini-a")[0] == 0
    assert dfgrid("store", "sheet", "data/stores/mini-a", "--out", "sheet.png")[0] == 0
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")

    path = grid(tmp_path)
    code, out, err = dfgrid("grid", "run", path)
    assert code == 0, err
    assert "nothing to run, all 2 cells are done" in dfgrid("grid", "run", path)[1]
    assert "2 of 2 cells done" in dfgrid("grid", "status", "g")[1]

    code, out, err = dfgrid("table", "g", "--metric", "frame auc", "--metric", "video eer")
    assert code == 0, err
    assert "roga" in out
    table = pd.read_csv(tmp_path / "runs/g/tables/table.csv", header=[0, 1, 2, 3], index_col=0)
    assert list(table.index) == ["adam", "roga"]
    assert "\\toprule" in (tmp_path / "runs/g/tables/table.tex").read_text()

    (checkpoint,) = (tmp_path / "runs/g").glob("*roga*/checkpoint.pt")
    code, out, err = dfgrid("evaluate", checkpoint, "data/stores/mini-a", "--out", "scores.parquet")
    assert code == 0, err
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    record = json.loads((checkpoint.parent / "record.json").read_text())
    nt = scores[scores["method"].isin(["NeuralTextures", "real"])]
    kept = pd.read_parquet(checkpoint.parent / "scores.parquet")
    kept = kept[(kept["test"] == "NeuralTextures") & (kept["step"] == record["steps"])]
    assert nt.set_index("key")["score"].to_dict() == kept.set_index("key")["score"].to_dict()


def test_train_one_cell_with_plugins(dfgrid: Dfgrid, data: Path) -> None:
    code, out, err = dfgrid(
        "train", "--detector", "my_detector", "--optimizer", "my_optimizer", "--store", data / "stores/mini-a",
        "--method", "Deepfakes", "--held-out", "FaceSwap", "--test", data / "stores/mini-b", "--epochs", 1, "--batch-size", 8,
        "--lr", "1e-3", "--plugin", EXAMPLES / "my_detector.py", "--plugin", EXAMPLES / "my_optimizer.py",
        "--set", "detector.size=64",
    )  # fmt: skip
    assert code == 0, err
    assert "held-out" in out
    assert "mini-b" in out


def test_unknown_names(dfgrid: Dfgrid, data: Path, tmp_path: Path) -> None:
    run = ("grid", "run", grid(tmp_path, detectors=["mezo4"]), "--data", data)
    assert_mistake(dfgrid(*run), "unknown detector 'mezo4'", "did you mean 'meso4'")
    assert_mistake(dfgrid("grid", "run", grid(tmp_path, detektors=["meso4"]), "--data", data), "'detektors'", "'detectors'")
    assert_mistake(dfgrid("grid", "run", grid(tmp_path), "--data", data, "--only", "rogaa"), "rogaa", "did you mean 'roga'")
    assert_mistake(dfgrid("grid", "run", "demoo"), "unknown grid 'demoo'", "did you mean 'demo'")
    assert_mistake(dfgrid("table", "never"), "never", "dfgrid grid run never")
    assert_mistake(dfgrid("list", "detectors", "--plugin", "none.py"), "none.py does not exist")
    assert_mistake(dfgrid("grid", "run", grid(tmp_path), "--data", data, "--device", "gpu"), "unknown device 'gpu'")


def test_mistakes_in_the_detector_are_told_before_anything_runs(dfgrid: Dfgrid, data: Path, tmp_path: Path) -> None:
    for settings, word in (({"size": -8}, "size"), ({"size": "big"}, "big"), ({"weights": "nope.pth"}, "nope.pth")):
        path = grid(tmp_path, detectors=[{"name": "resnet10", **settings}])
        assert_mistake(dfgrid("grid", "run", path, "--data", data), word)
    assert not (tmp_path / "runs").exists()


def test_mistakes_on_the_command_line(dfgrid: Dfgrid, data: Path, tmp_path: Path) -> None:
    cell = ("--detector", "meso4", "--optimizer", "adam", "--store", data / "stores/mini-a", "--method", "Deepfakes")
    assert_mistake(dfgrid("train", *cell, "--set", "detector.size=[1"), "no valid YAML")
    assert_mistake(dfgrid("train", *cell, "--set", "detector.name=resnet10"), "--detector")
    assert_mistake(dfgrid("train", *cell, "--set", "size=64"), "must start with detector.")
    assert_mistake(dfgrid("train", *cell, "--test", data / "stores/mini-a"), "is of the training store")
    os.chdir(data / "stores/mini-a")
    assert_mistake(dfgrid("train", *cell, "--test", "."), "'mini-a' is of the training store")
    os.chdir(tmp_path)
    (tmp_path / "leaves.py").write_text("import sys; sys.exit(3)")
    assert_mistake(dfgrid("list", "detectors", "--plugin", "leaves.py"), "leaves.py", "SystemExit")
    import torch

    torch.save({"format": 1}, tmp_path / "c.pt")
    assert_mistake(dfgrid("evaluate", "c.pt", data / "stores/mini-b"), "c.pt is no checkpoint of a dfgrid cell")
    assert_mistake(dfgrid("evaluate", "c.pt", data / "stores/mini-b", "--out", "none/x.parquet"), "none does not exist")
    assert_mistake(dfgrid("evaluate", tmp_path, data / "stores/mini-b"), "is a folder")


def test_values_out_of_range(dfgrid: Dfgrid, data: Path, tmp_path: Path) -> None:
    path = grid(tmp_path, optimizers=[{"name": "sam", "rho": -0.05}])
    assert_mistake(dfgrid("grid", "run", path, "--data", data), "rho", "-0.05")


def test_stores_that_are_not_there_or_of_another_format(dfgrid: Dfgrid, data: Path, tmp_path: Path) -> None:
    assert_mistake(dfgrid("grid", "run", grid(tmp_path), "--data", "nowhere"), "nowhere")
    shutil.copytree(data / "stores/mini-b", tmp_path / "old")
    info = json.loads((tmp_path / "old/store.json").read_text())
    (tmp_path / "old/store.json").write_text(json.dumps({**info, "format": 99}))
    assert_mistake(dfgrid("store", "info", "old"), "old", "99")


def test_domains_that_the_store_lacks(dfgrid: Dfgrid, data: Path, tmp_path: Path) -> None:
    path = grid(tmp_path, train={"store": "stores/mini-a", "methods": ["Deepfakes", "FaceShifter"]}, optimizers=["roga"])
    assert_mistake(dfgrid("grid", "run", path, "--data", data), "no faces of 'FaceShifter'", "it has Deepfakes, Face2Face")
    home = {"name": "t", "store": "stores/mini-b", "methods": ["Celeb-synthesis"], "role": "in-domain"}
    path = grid(tmp_path, train={"store": "stores/mini-b", "methods": ["Celeb-synthesis"]}, tests=[home], optimizers=["sam"])
    assert_mistake(dfgrid("grid", "run", path, "--data", data), "no 'Celeb-synthesis' faces in split 'train'; it has them in test")
    assert not (tmp_path / "runs").exists()


def test_folders_and_files_that_do_not_fit(dfgrid: Dfgrid, data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_mistake(dfgrid("preprocess", "empty", "--layout", "folder", "--out", "s"), "empty")
    assert_mistake(dfgrid("preprocess", "missing", "--out", "s"), "missing")
    (tmp_path / "file").write_text("")
    source = data / "mini-b"
    assert_mistake(dfgrid("preprocess", source, "--out", "file"), "file")
    assert_mistake(dfgrid("preprocess", source, "--out", "s", "--predictor", "none.dat"), "none.dat")
    assert_mistake(dfgrid("preprocess", source, "--out", "s", "--layout", "faceforensic"), "did you mean 'faceforensics++'")
    assert_mistake(dfgrid("grid", "run", grid(tmp_path), "--data", data, "--runs", "file"), "file")
    assert_mistake(dfgrid("evaluate", "none.pt", data / "stores/mini-b"), "none.pt does not exist")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_without_the_right_to_write(dfgrid: Dfgrid, data: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert_mistake(dfgrid("preprocess", data / "mini-b", "--out", "locked/s"), "locked")
    assert_mistake(dfgrid("grid", "run", grid(tmp_path), "--data", data, "--runs", "locked/r"), "locked")


def test_a_corrupt_video_among_good_ones(dfgrid: Dfgrid, data: Path, tmp_path: Path) -> None:
    real = sorted((data / "mini-a/original_sequences/youtube/c23/videos").glob("*.mp4"))[:3]
    (tmp_path / "videos").mkdir()
    for video in real:
        shutil.copy(video, tmp_path / "videos")
    (tmp_path / "videos/broken.mp4").write_bytes(real[0].read_bytes()[:200])
    code, out, err = dfgrid("preprocess", "videos", "--layout", "folder", "--frames", 2, "--out", "s")
    assert code == 2, err
    assert "broken.mp4" in err
    assert "1 of 4 videos could not be read" in err
    assert "4 videos (1 unreadable)" in out
    assert "6 face" in out
    assert dfgrid("store", "verify", "s")[0] == 0
    shutil.copy(real[0], tmp_path / "videos/broken.mp4")
    code, out, err = dfgrid("preprocess", "videos", "--layout", "folder", "--frames", 2, "--out", "s", "--retry")
    assert code == 0, err
    assert "1 video done now, 3 there already" in out


def test_damaged_and_oddly_named_files_do_not_end_a_run(dfgrid: Dfgrid, data: Path, tmp_path: Path) -> None:
    """Names that look like markup are shown as they are; pictures and checkpoints that are none are refused."""
    (tmp_path / "odd[bold]").mkdir()
    (tmp_path / "odd[bold]" / "a[b].mp4").write_bytes(b"no video")
    code, _, err = dfgrid("preprocess", "odd[bold]", "--layout", "folder", "--out", "s")
    assert code == 2
    assert "odd[bold]/a[b].mp4" in err
    assert "Traceback" not in err

    header = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    huge = header + zlib.crc32(header[12:]).to_bytes(4, "big")
    assert read_image(huge, 1) is None

    for number, content in enumerate((b"hello", b"{}", b"PK\x03\x04", bytes(range(256)))):
        (tmp_path / f"{number}.pt").write_bytes(content)
        assert_mistake(dfgrid("evaluate", f"{number}.pt", data / "stores/mini-b"), f"{number}.pt is no checkpoint")


def test_cut_out_faces_take_no_option_that_would_not_be_applied(dfgrid: Dfgrid, tmp_path: Path) -> None:
    for kind in ("real", "fake"):
        for split in ("train", "test"):
            folder = tmp_path / "wild" / f"{kind}_{split}" / "1" / "0"
            folder.mkdir(parents=True)
            assert cv2.imwrite(str(folder / "3.png"), np.zeros((8, 8, 3), np.uint8))
    layout = ("--layout", "wilddeepfake", "--out", "s")
    assert_mistake(dfgrid("preprocess", "wild", *layout, "--mode", "dfb"), "--mode has no meaning")
    assert_mistake(dfgrid("preprocess", "wild", *layout, "--check", "--mode", "nonsense"), "nonsense")
