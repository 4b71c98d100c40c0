"""A video that a store has at two compression levels is two videos to the store and one to whatever scores it: it is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from deepfakebench_trees import imported
from test_cli import Dfgrid, assert_mistake, dfgrid
from test_data import manifest
from test_frame_pick import cell
from test_predict import save

from benchmark.config import ConfigError
from benchmark.data import choose
from benchmark.reads import select
from preprocessing.interop import import_deepfakebench
from preprocessing.store import FaceStore

__all__ = ["dfgrid"]

METHODS = {"real": 1, "Deepfakes": 1, "FaceSwap": 1}


def faces(split: str, *levels: str, videos: dict[str, int] = METHODS) -> pd.DataFrame:
    return pd.concat([manifest(videos, split=split).assign(compression=level) for level in levels], ignore_index=True)


@pytest.fixture(scope="module")
def ff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rgb/, FaceForensics++.json and a finished store of both its levels; do not write to it."""
    return imported(tmp_path_factory.mktemp("ff"))


@pytest.mark.parametrize("frames", [None, 1])
def test_only_two_levels_of_one_video_are_refused(frames: int | None) -> None:
    words = "store s has faces of D/Deepfakes/000 at the compression levels c23 and c40, .* a store of one level .* --compression"
    with pytest.raises(ConfigError, match=words):
        choose(faces("test", "c40", "c23"), "s", ["Deepfakes"], "test", frames)
    apart = pd.concat([faces("train", "c23"), faces("test", "c40")], ignore_index=True)
    for split in ("train", "test"):
        assert len(choose(apart, "s", ["Deepfakes"], split, None)[0]) == 4, "each video at one level"
    beside = pd.concat([faces("test", "c23"), faces("test", "c40", videos={"FaceSwap": 1})], ignore_index=True)
    assert len(choose(beside, "s", ["Deepfakes"], "test", None)[0]) == 4, "a method that is not asked for"


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_no_part_of_a_cell_reads_them(split: str) -> None:
    parts = [faces(one, *(("c23", "c40") if one == split else ("c23",))) for one in ("train", "val", "test")]
    stores: Any = {"s": SimpleNamespace(manifest=pd.concat(parts, ignore_index=True))}
    with pytest.raises(ConfigError, match="c23 and c40"):
        select(cell({}, {}), stores)


def test_neither_train_nor_evaluate_takes_them(ff: Path, dfgrid: Dfgrid, tmp_path: Path) -> None:
    model = ("--detector", "resnet10", "--set", "detector.size=32", "--set", "detector.width=4", "--set", "detector.weights=none")
    train = ("train", *model, "--optimizer", "adam", "--epochs", 1, "--batch-size", 2, "--method", "Deepfakes", "--store")
    assert_mistake(dfgrid(*train, ff / "store"), "store", "levels c23 and c40", "--compression")
    checkpoint = save(tmp_path / "checkpoint.pt")
    for split in ("test", "all"):
        code, _, err = dfgrid("evaluate", checkpoint, ff / "store", "--split", split)
        assert code == 2
        assert f"Error: store {ff / 'store'} has faces of FaceForensics++/Deepfakes/00" in err
        assert "at the compression levels c23 and c40" in err
    import_deepfakebench([ff / "FaceForensics++.json"], tmp_path / "c23", rgb=ff / "rgb", compressions=["c23"])
    code, _, err = dfgrid(*train, tmp_path / "c23")
    assert code == 0, err
    code, _, err = dfgrid("evaluate", checkpoint, tmp_path / "c23")
    assert code == 0, err


def test_an_import_says_so(ff: Path, tmp_path: Path) -> None:
    def found(out: str, **options: Any) -> list[str]:
        return import_deepfakebench([ff / "FaceForensics++.json"], tmp_path / out, rgb=ff / "rgb", **options).findings

    words = (
        "6 videos are there at several compression levels, e.g. x/Deepfakes/000_003 at c23 and c40: nothing is trained or tested on"
        " such a store; take one level with --compression"
    )
    assert found("both", name="x") == [words]
    assert found("kept", name="x", keep_splits=True) == [words]
    assert found("one", compressions=["c40"]) == []
    with FaceStore(tmp_path / "both") as store:
        assert set(store.manifest["compression"]) == {"c23", "c40"}, "a store of both can still be made, looked at and exported"
