"""`dfgrid predict` makes the faces that its checkpoint was trained on, and says where it cannot know or was told otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_cli import Dfgrid, assert_mistake, dfgrid
from test_predict import save

from benchmark.config import ConfigError
from benchmark.face_settings import differences, face_warnings, in_words, settings_like
from benchmark.predict import Input, predict
from benchmark.reads import faces_of
from benchmark.restore import restore
from preprocessing.errors import PreprocessingError
from preprocessing.faces import Dlib
from preprocessing.interop.importing import MODE
from preprocessing.layouts import read_layout
from preprocessing.modes import DFB, STRICT
from preprocessing.pipeline import Settings, preprocess
from preprocessing.predictor import find_predictor
from preprocessing.store import FaceStore

__all__ = ["dfgrid"]

IMPORTED = {"mode": MODE, "splits": "one per video", "image_format": "webp", "json_sha256": [["DFDC.json", "0" * 64]]}
OTHER = {"name": "dlib-hog", "predictor_sha256": "81" * 32}


@pytest.fixture(scope="module")
def dlib() -> Dlib:
    return Dlib(find_predictor())


@pytest.fixture(scope="module")
def video(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video in a folder of its own, so that a store of it is scored in one batch, as `predict` scores the video."""
    folder = tmp_path_factory.mktemp("one") / "own/fake"
    folder.mkdir(parents=True)
    (folder.parent / "real").mkdir()
    return Path(shutil.copy(next((data / "mini-b/Celeb-synthesis").rglob("*.mp4")), folder / "one.mp4"))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(frames=2),
        Settings(frames=2, mode="dfb", size=128),
        Settings(switches={"similarity": "float32", "second_detection": "crop"}, sampling="every"),
    ],
    ids=["strict", "dfb", "strict changed"],
)
def test_the_faces_and_scores_of_the_store(dfgrid: Dfgrid, video: Path, tmp_path: Path, settings: Settings) -> None:
    layout = read_layout(video.parent.parent, layout="folder")
    preprocess(layout, tmp_path / "store", settings)
    store = FaceStore(tmp_path / "store")
    assert len(store.manifest) == 2
    path = save(tmp_path / "checkpoint.pt", faces=faces_of(store))
    restored = restore(path)
    making = settings_like(restored.faces, str(path))
    assert making.warnings == ()
    assert making.work.settings.in_force == settings.in_force
    (scored,) = predict([Input("one", video, "video")], restored.detector, making.work)
    ledger = store.ledger.sort_values("frame")
    assert [(f.frame, f.status) for f in scored.frames] == list(zip(ledger["frame"], ledger["status"], strict=True))
    for row in store.manifest.itertuples():
        face = next(f.face for f in scored.frames if f.frame == row.frame)
        assert face is not None
        assert np.array_equal(face, store.image(row.key))
    code, out, err = dfgrid("evaluate", path, tmp_path / "store", "--split", "all", "--out", "scores.parquet")
    assert (code, err) == (0, "")
    assert [f.score for f in scored.frames] == pd.read_parquet("scores.parquet").sort_values("frame")["score"].tolist()
    if settings.mode == "dfb":  # the command, once
        code, out, err = dfgrid("predict", video, "-c", path)
        assert code == 0, err
        assert "warning" not in err
        assert f"faces: {in_words(store.info['settings'])}" in out
        assert pd.read_csv("predictions/frames.csv")["score"].tolist() == [f.score for f in scored.frames]


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(frames=5, size=64, image_format="png", face="mask-overlap", top_up=True),
        Settings(mode="dfb", switches={"frame_count": "packets"}, sampling="fixed-stride", stride=7),
        Settings(switches={"frame_count": "header", "inside": "any"}, sampling="every"),
    ],
)
def test_recorded_settings_are_read_back(settings: Settings, dlib: Dlib) -> None:
    recorded = settings.recorded(dlib)
    again = Settings.from_recorded(recorded)
    assert again.recorded(dlib) == recorded
    assert again.in_force == settings.in_force
    assert differences(recorded, again.recorded(dlib)) is None


def test_settings_that_cannot_be_read_back(dlib: Dlib) -> None:
    with pytest.raises(PreprocessingError, match="'imported from DeepfakeBench' do not say how they were made"):
        Settings.from_recorded(IMPORTED)
    with pytest.raises(PreprocessingError, match="'glasses', which this dfgrid does not know"):
        Settings.from_recorded({**Settings().recorded(dlib), "glasses": True})


def test_what_is_asked_for_goes_before_the_training_s(dlib: Dlib) -> None:
    trained = Settings(frames=5, size=64, mode="dfb", sampling="every").recorded(dlib)
    made = settings_like(trained, "c.pt")
    assert (made.work.settings.in_force, made.work.settings.sampling, made.warnings) == (DFB, "every", ())
    assert settings_like(trained, "c.pt", mode="dfb", frames=3).warnings == (), "another number of frames is no other face"
    assert settings_like(trained, "c.pt", frames=3).work.settings.recorded(dlib)["frames"] == 3
    made = settings_like(trained, "c.pt", mode="strict")
    assert (made.work.settings.in_force, made.work.settings.size) == (STRICT, 64)
    (warning,) = made.warnings
    assert warning.startswith("c.pt was trained on other faces than these: mode dfb there, mode strict here")
    made = settings_like(trained, "c.pt", switches={"frame_count": "packets"})
    assert made.work.settings.in_force.frame_count == "packets"
    assert made.work.settings.in_force.crop_channels == "bgr"
    assert "mode dfb there, mode dfb with frame_count=packets here" in made.warnings[0]


def test_another_landmark_model(dfgrid: Dfgrid, video: Path, tmp_path: Path, dlib: Dlib) -> None:
    trained = {**Settings(frames=2).recorded(dlib), "detector": OTHER}
    path = save(tmp_path / "other.pt", faces={"settings": trained, "notes": []})
    mine = dlib.description["predictor_sha256"][:12]
    assert_mistake(dfgrid("predict", video, "-c", path), f"landmark model {'81' * 6}", f"landmark model {mine}", "--predictor")
    code, _, err = dfgrid("predict", video, "-c", path, "--predictor", dlib.predictor)
    assert code == 0, err
    assert (
        f"warning {path} was trained on other faces than these: landmark model {'81' * 6} there, landmark model {mine} here" in err
    )


def test_imported_faces_are_of_an_unknown_kind(dfgrid: Dfgrid, video: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "imported.pt", faces={"settings": IMPORTED, "notes": ["a note on them"]})
    mistake = dfgrid("predict", video, "-c", path)
    assert_mistake(mistake, "imported from DeepfakeBench, whose files do not say how they were made", "--mode")
    code, out, err = dfgrid("predict", video, "-c", path, "--mode", "dfb", "--switch", "crop-channels=rgb", "--frames", 1)
    assert code == 0, err
    assert "imported from DeepfakeBench there, mode dfb with crop_channels=rgb here" in err
    assert "note of the training faces: a note on them" in err
    assert "faces: mode dfb with crop_channels=rgb, 256 pixels" in out


def test_a_checkpoint_of_before(dfgrid: Dfgrid, video: Path, tmp_path: Path) -> None:
    import torch

    content = torch.load(save(tmp_path / "new.pt"), weights_only=True)
    del content["faces"]
    torch.save(content, tmp_path / "old.pt")
    assert restore(tmp_path / "old.pt").faces is None
    code, out, err = dfgrid("predict", video, "-c", tmp_path / "old.pt", "--frames", 2)
    assert code == 0, err
    assert "old.pt does not say how its training faces were made; these are made with mode strict, 256 pixels" in err
    assert "faces: mode strict, 256 pixels" in out


def test_mistakes(dfgrid: Dfgrid, video: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt")
    assert_mistake(dfgrid("predict", video, "-c", path, "--mode", "dbf"), "unknown mode 'dbf': did you mean 'dfb'")
    assert_mistake(dfgrid("predict", video, "-c", path, "--switch", "frame_cuont=header"), "did you mean 'frame_count'")
    assert_mistake(dfgrid("predict", video, "-c", path, "--switch", "header"), "must read name=value")
    broken: list[Any] = [3, {"settings": {}, "notes": []}, {"settings": {"mode": "strict"}}]
    for faces in broken:
        with pytest.raises(ConfigError, match=r"c.pt is no checkpoint of a dfgrid cell"):
            restore(save(path, faces=faces))


def test_test_sets_made_otherwise_are_named(dlib: Dlib) -> None:
    from benchmark.specs import TestSet, TrainData

    train = TrainData(store="a", methods=("fake",))
    tests = [TestSet(name=n, store=n[0], role="cross-dataset") for n in ("b1", "b2", "c", "d")]
    strict, dfb = Settings().recorded(dlib), Settings(mode="dfb", frames=8).recorded(dlib)
    found = face_warnings(
        train, tests, {"a": strict, "b": dfb, "c": {**strict, "frames": 4, "face": "mask-overlap"}, "d": IMPORTED}
    )
    assert found == [
        "store b has other faces than training store a: mode dfb there, mode strict here",
        "store d has other faces than training store a: imported from DeepfakeBench there, mode strict here",
    ]
