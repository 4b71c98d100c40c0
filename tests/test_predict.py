"""`dfgrid predict`: the scores that `evaluate` gives, for files without a store; and what it says of those without a face."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from preprocessing_material import SMALL, Squares, clip, encode, frame
from test_cli import Dfgrid, assert_mistake, dfgrid

from benchmark import checkpoint
from benchmark.config import ConfigError
from benchmark.predict import FRAME_COLUMNS, VIDEO_COLUMNS, Input, Results, Scored, ScoredFrame, find_inputs, predict
from benchmark.restore import restore
from detectors import DETECTORS
from preprocessing.faces import Dlib
from preprocessing.frames import index_frames, read_frames
from preprocessing.predictor import find_predictor
from preprocessing.settings import Settings
from preprocessing.strip import FILL, TRACK, Tile, score_strip
from preprocessing.work import Work

__all__ = ["dfgrid"]

CELL = {"name": "resnet10", "size": 32, "width": 4, "weights": "none"}
WORK = Work(SMALL, Squares())


def save(path: Path, **changes: object) -> Path:
    """A checkpoint of a detector that was never trained: what it says does not matter here, only that it is the same."""
    torch.manual_seed(1)
    cell = {k: v for k, v in CELL.items() if k in ("name", *DETECTORS.settings("resnet10"))}
    weights = DETECTORS.build(**cell).state_dict()
    faces = {"settings": Settings(frames=2).recorded(Dlib(find_predictor())), "notes": []}
    checkpoint.save(path, {"cell": {"detector": cell}, "detector": weights, "step": 7, "faces": faces, **changes})
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("trained") / "checkpoint.pt")


def test_the_scores_are_those_of_evaluate(dfgrid: Dfgrid, data: Path, trained: Path) -> None:
    code, _, err = dfgrid("evaluate", trained, data / "stores/mini-b", "--out", "scores.parquet")
    assert code == 0, err
    scores = pd.read_parquet("scores.parquet")
    code, out, err = dfgrid("predict", data / "mini-b/Celeb-synthesis", data / "mini-b/Celeb-real", "-c", trained, "--frames", 2)
    assert code == 0, err
    assert "resnet10 at step 7" in out
    frames = pd.read_csv("predictions/frames.csv")
    assert list(frames.columns) == FRAME_COLUMNS
    found = {(Path(r.input).stem, r.frame): r.score for r in frames.itertuples()}
    wanted = {(r.video.split("/")[-1], r.frame): r.score for r in scores.itertuples() if (r.video.split("/")[-1], r.frame) in found}
    assert len(wanted) >= 4
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, abs=1e-6)
    videos = pd.read_csv("predictions/videos.csv")
    means = frames.groupby("input")["score"].mean()
    for row in videos.itertuples():
        assert row.score == pytest.approx(means[row.input], abs=1e-12)
        assert Path("predictions", row.strip).read_bytes().startswith(b"\x89PNG")
        assert f"{row.score:.4f}" in out


def test_inputs_of_every_kind(dfgrid: Dfgrid, data: Path, trained: Path, tmp_path: Path) -> None:
    source = next((data / "mini-a/original_sequences/youtube/c23/videos").glob("*.mp4"))
    folder = tmp_path / "ünï 码"
    folder.mkdir()
    shutil.copy(source, folder / "[red]one.mp4")
    (folder / "below").mkdir()
    shutil.copy(source, folder / "below" / "[red]one.mp4")
    ((_, image),) = read_frames(source, index_frames(source), [1])
    assert image is not None
    cv2.imwrite(str(folder / "face.png"), image[..., ::-1])
    cv2.imwrite(str(folder / "wall.jpg"), np.full((120, 160, 3), 90, np.uint8))
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("not looked at")
    for _ in range(2):  # again: the strips of the first run lie below the folder and are no inputs
        code, out, err = dfgrid("predict", folder, folder / "face.png", "-c", trained, "--frames", 2, "-o", folder / "out")
        assert code == 2
        assert "3 of 7 inputs could not be read" in err
        videos = pd.read_csv(folder / "out/videos.csv", keep_default_na=False).set_index("input")
        assert len(videos) == 7
    reasons = {Path(name).name: reason for name, reason in videos["reason"].items() if reason}
    assert reasons == {
        "wall.jpg": "no face in 1 sampled frame",
        "empty.png": "the file is empty",
        "text.jpg": "is no image that OpenCV can decode",
        "zero.mp4": "the file is empty",
    }
    assert videos.loc[f"{folder}/below/[red]one.mp4", "score"] == videos.loc[f"{folder}/[red]one.mp4", "score"] != ""
    assert videos["strip"].is_unique
    frames = pd.read_csv(folder / "out/frames.csv")
    second = frames[(frames["input"] == f"{folder}/[red]one.mp4") & (frames["frame"] == 1)]["score"].item()
    assert float(videos.loc[f"{folder}/face.png", "score"]) == pytest.approx(second, abs=1e-6), (
        "a frame alone is scored like the frame"
    )
    assert frames[frames["status"] == "unreadable"]["frame"].tolist() == [-1] * 3
    assert "[red]one.mp4" in out


def test_gaps_and_scores_in_the_strip(trained: Path, tmp_path: Path) -> None:
    clip(tmp_path / "half.mp4", face=lambda n: n < 6)
    encode(tmp_path / "nobody.mp4", [frame(n, face=False) for n in range(4)])
    detector = restore(trained).detector
    with Results(tmp_path / "out") as results:
        done = list(predict(find_inputs([tmp_path / "half.mp4", tmp_path / "nobody.mp4"]), detector, WORK))
        for scored in done:
            results.add(scored)
    assert [f.status for f in done[0].frames] == ["face", "face", "no_face", "no_face"]
    assert [f.score is None for f in done[0].frames] == [False, False, True, True]
    assert done[0].score == pytest.approx(sum(done[0].scores) / 2)
    assert (done[1].score, done[1].reason, done[1].unreadable) == (None, "no face in 4 sampled frames", False)
    strip = np.asarray(PIL.Image.open(tmp_path / "out/strips/half.mp4.png"))
    assert (strip == (228, 228, 228)).all(axis=-1).sum() > 2 * 10_000, "two gaps"
    green = (strip[..., 1] > 200) & (strip[..., 0] < 60) & (strip[..., 2] < 60)
    assert green.sum() > 2 * 2_000, "two faces"


def test_an_earlier_prediction_is_replaced_with_its_strips(tmp_path: Path) -> None:
    def predicted(*names: str) -> set[str]:
        with Results(tmp_path / "out") as results:
            for name in names:
                results.add(Scored(Input(name, tmp_path / name, "image"), [ScoredFrame(0, "no_face", "")]))
        return {path.name for path in (tmp_path / "out/strips").iterdir()}

    assert predicted("a\nb.png", "b.png") == {"a\nb.png.png", "b.png.png"}
    (tmp_path / "out/strips/mine.png").touch()
    assert predicted("b.png", "c.png") == {"b.png.png", "c.png.png", "mine.png"}, "what it did not make is left alone"
    for content in ("other,strip\nx,strips/mine.png\n", ",".join(VIDEO_COLUMNS) + "\n,,,,,,../mine.png\n,\n", "\0"):
        (tmp_path / "mine.png").touch()
        (tmp_path / "out/videos.csv").write_text(content)
        assert "mine.png" in predicted("b.png")
        assert (tmp_path / "mine.png").exists()


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_a_bar_is_as_long_as_the_score(value: float, tmp_path: Path) -> None:
    score_strip(tmp_path / "s.png", "x" * 500, "v", [Tile("frame 0", "face", np.zeros((64, 64, 3), np.uint8), value)], side=100)
    strip = np.asarray(PIL.Image.open(tmp_path / "s.png"))
    bar = strip[12 + 2 * 15 + 6 + 100 + 2, 12:112]  # margin, two lines, gap, face
    assert (bar == FILL).all(axis=-1).sum() == 100 * value
    assert (bar == TRACK).all(axis=-1).sum() == 100 - 100 * value


def test_a_detector_that_gives_no_numbers(trained: Path, tmp_path: Path) -> None:
    detector = restore(trained).detector
    with torch.no_grad():
        next(detector.parameters()).fill_(float("nan"))
    inputs = find_inputs([clip(tmp_path / "v.mp4")])
    with pytest.raises(ConfigError, match=r"v.mp4: the detector's scores are not finite .* take another checkpoint"):
        list(predict(inputs, detector, WORK))


def test_restored_as_it_was_saved(trained: Path) -> None:
    one, two = restore(trained), restore(trained)
    assert (one.name, one.step, one.detector.training) == ("resnet10", 7, False)
    assert all(torch.equal(a, b) for a, b in zip(one.detector.parameters(), two.detector.parameters(), strict=True))


def test_mistakes(dfgrid: Dfgrid, data: Path, trained: Path, tmp_path: Path) -> None:
    video = clip(tmp_path / "v.mp4", 2)
    assert_mistake(dfgrid("predict", video, "-c", "none.pt"), "checkpoint none.pt does not exist")
    assert_mistake(dfgrid("predict", video, "-c", video), "v.mp4 is no checkpoint")
    torch.save({"format": 99}, tmp_path / "other.pt")
    assert_mistake(dfgrid("predict", video, "-c", "other.pt"), "other.pt has checkpoint format 99, this dfgrid reads 1")
    torch.save({"state_dict": {}}, tmp_path / "foreign.pt")
    assert_mistake(dfgrid("predict", video, "-c", "foreign.pt"), "foreign.pt is no checkpoint of dfgrid")
    torch.save({"format": 1, "cell": {}}, tmp_path / "half.pt")
    assert_mistake(dfgrid("predict", video, "-c", "half.pt"), "half.pt is no checkpoint of a dfgrid cell: it lacks its 'detector'")
    plugin = save(tmp_path / "plugin.pt", cell={"detector": {"name": "my_own_detector"}})
    assert_mistake(dfgrid("predict", video, "-c", plugin), "unknown detector 'my_own_detector'", "--plugin")
    changed = save(tmp_path / "changed.pt", cell={"detector": {**CELL, "width": 8}})
    assert_mistake(dfgrid("predict", video, "-c", changed), "does not fit detector 'resnet10'", "size mismatch")
    assert_mistake(dfgrid("predict", "gone.mp4", "-c", trained), "gone.mp4 does not exist")
    (tmp_path / "nothing").mkdir()
    assert_mistake(dfgrid("predict", video, "nothing", "-c", trained), "folder nothing holds no videos or images")
    assert_mistake(dfgrid("predict", video, "-c", trained, "--device", "gpu"), "unknown device 'gpu'")
    assert_mistake(dfgrid("predict", video, "-c", trained, "--predictor", "none.dat"), "none.dat does not exist")
    assert_mistake(dfgrid("predict", video, "-c", trained, "-o", video), "v.mp4", "give another --out")
    assert_mistake(dfgrid("evaluate", changed, data / "stores/mini-b"), "does not fit detector 'resnet10'")
    assert not (tmp_path / "predictions").exists(), "nothing is written before a mistake is known"
