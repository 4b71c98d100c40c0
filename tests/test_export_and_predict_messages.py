"""What `store export` and `predict` say of names, rounded landmarks, and results that would go among the inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
from deepfakebench_trees import uadfv, write
from preprocessing_material import clip
from test_cli import Dfgrid, assert_mistake, dfgrid
from test_predict import save

from benchmark.config import ConfigError
from benchmark.predict import find_inputs
from preprocessing.errors import PreprocessingError
from preprocessing.interop import export_deepfakebench, import_deepfakebench
from preprocessing.store import FaceStore

__all__ = ["dfgrid"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("uadfv")
    import_deepfakebench([write(root / "UADFV.json", uadfv(root))], root / "store", rgb=root)
    return root / "store"


@pytest.mark.parametrize("name", ["a/b", "a\\b", "..", "", " ", "/"])
def test_a_name_with_slashes_is_refused_before_anything_is_written(name: str, store: Path, tmp_path: Path) -> None:
    with FaceStore(store) as faces, pytest.raises(PreprocessingError, match="give a plain name without slashes"):
        export_deepfakebench(faces, tmp_path / "out", name=name, with_lmdb=True)
    assert not (tmp_path / "out").exists()


def test_rounded_landmarks_are_said(store: Path, tmp_path: Path, dfgrid: Dfgrid) -> None:
    words = "landmarks in the LMDBs are rounded to whole pixels"
    code, out, err = dfgrid("store", "export", "deepfakebench", store, "-o", tmp_path / "plain")
    assert code == 0, err
    assert words not in out
    code, out, err = dfgrid("store", "export", "deepfakebench", store, "-o", tmp_path / "packed", "--lmdb")
    assert code == 0, err
    assert words in out
    code, out, _ = dfgrid("store", "export", "deepfakebench", "--help")
    assert "rounded" in out


def test_results_among_the_inputs(tmp_path: Path) -> None:
    clip(tmp_path / "set/a.mp4", 2)
    for out in ("set", "set/../set"):
        with pytest.raises(ConfigError, match=r"would be mixed into folder .*set; give another --out, such as .*set/predictions$"):
            find_inputs([tmp_path / "set"], leave_out=tmp_path / out)
    (tmp_path / "set/predictions/strips").mkdir(parents=True)
    (tmp_path / "set/predictions/strips/a.mp4.png").write_bytes(b"")
    found = [i.path.name for i in find_inputs([tmp_path / "set"], leave_out=tmp_path / "set/predictions")]
    assert found == ["a.mp4"], "an earlier prediction's strips are no inputs"
    assert len(find_inputs([tmp_path / "set"], leave_out=tmp_path)) == 2, "results above the inputs do not hide them"
    with pytest.raises(ConfigError, match="would be mixed into"):
        find_inputs([tmp_path / "set/predictions/strips"], leave_out=tmp_path / "set/predictions")


def test_the_others_are_named_only_where_there_are_others(dfgrid: Dfgrid, tmp_path: Path) -> None:
    checkpoint = save(tmp_path / "checkpoint.pt")
    (tmp_path / "broken.mp4").write_bytes(b"")
    code, _, err = dfgrid("predict", tmp_path / "broken.mp4", "-c", checkpoint)
    assert code == 2
    assert "1 of 1 inputs could not be read" in err
    assert "the others" not in err
    clip(tmp_path / "good.mp4", 2)
    code, _, err = dfgrid("predict", tmp_path / "broken.mp4", tmp_path / "good.mp4", "-c", checkpoint, "--frames", 2)
    assert code == 2
    assert "1 of 2 inputs could not be read" in err
    assert "the others are in the results" in err
    assert_mistake(dfgrid("predict", tmp_path, "-c", checkpoint, "-o", tmp_path), "give another --out")
