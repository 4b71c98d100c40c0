"""What must not happen: a store begun in vain, foreign lines on the terminal, a wait for ever, a sequence lost to one name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from preprocessing_material import SMALL, Squares, clip, encode, frame, mask_clip, videos
from test_nothing_lost import largest_file

from benchmark.config import ConfigError
from benchmark.predict import find_inputs, predict
from detectors import DETECTORS
from preprocessing.codec import read_image
from preprocessing.doctor import check
from preprocessing.errors import PreprocessingError
from preprocessing.faces import BESIDE_MASK
from preprocessing.frames import NOT_A_FILE
from preprocessing.layouts import Video, read_layout
from preprocessing.pipeline import Settings, preprocess
from preprocessing.predictor import find_predictor
from preprocessing.probe import probe
from preprocessing.quiet import no_stderr
from preprocessing.sheet import contact_sheet
from preprocessing.store import FaceStore
from preprocessing.work import Work


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "folder", "pipe", "gone"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_predictor_is_noticed_before_the_store_is_begun(kind: str, workers: int, tmp_path: Path) -> None:
    file = tmp_path / "model.dat"
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind != "gone":
        with find_predictor().open("rb") as whole:
            file.write_bytes({"empty": b"", "text": b"<html>404</html>" * 99, "cut": whole.read(200_000)}[kind])
    made = [Video("toy", "real", 0, "train", n, n, tmp_path / f"{n}.mp4", "none") for n in "ab"]
    out = tmp_path / "below" / "store"
    with pytest.raises(PreprocessingError, match=r"predictor file .*model.dat (does not exist|is no)"):
        preprocess(made, out, Settings(predictor=file), workers=workers)
    assert not out.parent.exists()


def test_an_output_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    made = videos(tmp_path, 1)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PreprocessingError, match=r"cannot write to .*file/store"):
        preprocess(made, tmp_path / "file" / "store", SMALL, detector=Squares())
    with pytest.raises(PreprocessingError, match="cannot write to"):
        preprocess(made, tmp_path / "a" / ("b" * 300), SMALL, detector=Squares())
    assert not (tmp_path / "a").exists(), "folders that were made on the way are taken back"
    with largest_file(3000), pytest.raises(PreprocessingError, match="make room"):
        preprocess(made, tmp_path / "c" / "d", SMALL, detector=Squares())
    assert not (tmp_path / "c").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with largest_file(3000), pytest.raises(PreprocessingError, match="make room"):
        preprocess(made, tmp_path / "mine", SMALL, detector=Squares())
    assert {p.name for p in (tmp_path / "mine").iterdir()} <= {"notes.txt", "preprocess.lock"}
    assert preprocess(made, tmp_path / "mine", SMALL, detector=Squares()).counts["faces"] == 4


QUIET = """
import os, sys
sys.path[:0] = {paths!r}
if __name__ == "__main__":
    from pathlib import Path
    from preprocessing_material import Squares
    from preprocessing.doctor import check
    from preprocessing.layouts import read_layout
    from preprocessing.pipeline import Settings, preprocess
    from preprocessing.work import Work
    from benchmark.predict import _faces_of_image
    root = Path({root!r})
    check(root / "videos", "folder")
    check(root / "wild", "wilddeepfake")
    for layout, folder, mode, workers in (
        ("folder", "videos", "dfb", 1),
        ("folder", "videos", "dfb", 2),
        ("wilddeepfake", "wild", "strict", 1),
    ):
        settings = Settings(4, 64, mode)
        preprocess(read_layout(root / folder, layout), root / f"{{folder}}{{workers}}", settings, workers, detector=Squares())
    for image in sorted((root / "wild").rglob("*.*")):
        if image.is_file():
            _faces_of_image(image, Work(Settings(4, 64), Squares()))
"""
LOUD = """
import sys, cv2, numpy
from pathlib import Path
for path in sorted(Path(sys.argv[1]).rglob("*.*")):
    if path.is_file():
        cv2.imdecode(numpy.frombuffer(path.read_bytes(), numpy.uint8), 1)
        capture = cv2.VideoCapture(str(path)) if path.suffix in (".mp4", ".mkv") else None
        while capture and capture.read()[0]:
            pass
"""


def odd_files(root: Path) -> None:
    """Videos and images that make OpenCV, FFmpeg, libpng and libjpeg complain."""
    for label in ("real", "fake"):
        path = encode(root / f"videos/{label}/damaged.mkv", [frame(n) for n in range(60)], g="20", crf="10", bf="3")
        data = bytearray(path.read_bytes())
        for at in np.random.default_rng(1).integers(len(data) // 3, len(data) - 1000, 12):
            data[at] ^= 0x55
        path.write_bytes(data)
        path = encode(root / f"videos/{label}/cut.mp4", [frame(n) for n in range(60)], header_first=True, g="20", crf="10")
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        (root / f"videos/{label}/text.mp4").write_text("hello" * 100)
        folder = root / f"wild/{label}_train/1/a"
        folder.mkdir(parents=True)
        for number, suffix in enumerate((".png", ".jpg", ".webp")):
            data = bytearray(
                cv2.imencode(suffix, np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))[1].tobytes()
            )
            (folder / f"{number}{suffix}").write_bytes(data[: len(data) // 2])
            data[len(data) // 2 : len(data) // 2 + 20] = bytes(20)
            (folder / f"{number + 10}{suffix}").write_bytes(data)


def test_nothing_foreign_reaches_the_terminal(tmp_path: Path) -> None:
    odd_files(tmp_path)
    script = tmp_path / "run.py"
    script.write_text(QUIET.format(paths=[str(Path(__file__).parent), str(Path(__file__).parent.parent)], root=str(tmp_path)))
    # This process may have silenced its own OpenCV by then, and children inherit that.
    fresh = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}

    def complaints(*words: str) -> str:
        return subprocess.run([sys.executable, *words], env=fresh, capture_output=True, text=True, check=True).stderr

    loud = complaints("-c", LOUD, str(tmp_path))
    for complaint in ("h264", "Corrupt JPEG", "libpng", "WARN"):
        assert complaint in loud, "the material must make them complain"
    assert complaints(str(script)) == ""


def test_standard_error_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    with no_stderr(), no_stderr():
        os.write(2, b"inside")
    os.write(2, b"outside")
    assert capfd.readouterr().err == "outside"


def test_one_badly_named_image_does_not_cost_its_sequence(tmp_path: Path) -> None:
    folder = tmp_path / "real_train/1/a"
    for name, number in (("0", 0), ("0b", 1), ("1", 1), ("01", 2), ("9" * 30, 2), ("2", 2)):
        clean = folder / f"{name}.png"
        clean.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(clean), frame(number)[20:68, 20:90])
    (tmp_path / "fake_train/2/a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "fake_train/2/a/face.png"), frame(0))
    found = read_layout(tmp_path, "wilddeepfake")
    summary = preprocess(found, tmp_path / "store", SMALL, detector=Squares())
    assert summary.errors == [("WildDeepfake/none/fake/train/2/a", "image name 'face.png' is no frame number")]
    assert dict(summary.warnings)["WildDeepfake/none/real/train/1/a"].startswith("image ")
    with FaceStore(tmp_path / "store") as store:
        rows = store.ledger[store.ledger["video"] == "train/1/a"].set_index("frame")
        assert rows["status"].to_dict() == {**dict.fromkeys((-4, -3, -2), "unreadable"), **dict.fromkeys((0, 1, 2), "face")}
        assert sorted(rows["reason"][:3]) == [
            "image '1.png' has the frame number of '01.png'",
            "image name '0b.png' is no frame number",
            f"image name '{'9' * 30}.png' is no frame number",
        ]
        assert store.info["counts"]["unreadable_videos"] == 1
        assert store.verify() == []
        contact_sheet(store, tmp_path / "sheet.png")
    again = preprocess(found, tmp_path / "again", SMALL, detector=Squares(), workers=2)
    assert again.fingerprint == summary.fingerprint
    (finding,) = (f for f in check(tmp_path, "wilddeepfake") if "left out" in f.sentence)
    assert finding.sentence.startswith("3 images have no frame number of their own")


def test_the_ledger_says_that_the_mask_covers_no_face(tmp_path: Path) -> None:
    path = clip(tmp_path / "v.mp4")
    elsewhere = np.zeros((96, 128, 3), np.uint8)
    elsewhere[80:, :16] = 255
    beside = encode(tmp_path / "m.mp4", [elsewhere] * 12, preset="ultrafast", crf="1")
    (tmp_path / "no.mp4").write_bytes(b"")
    nobody = clip(tmp_path / "n.mp4", face=lambda n: False)
    made = [
        Video("toy", "swap", 1, "train", "a", "beside", path, "none", beside),
        Video("toy", "swap", 1, "train", "b", "nobody", nobody, "none", mask_clip(tmp_path / "m2.mp4")),
        Video("toy", "swap", 1, "train", "c", "unmasked", nobody, "none", tmp_path / "no.mp4"),
    ]
    preprocess(made, tmp_path / "store", Settings(4, 64, face="mask-overlap"), detector=Squares())
    with FaceStore(tmp_path / "store") as store:
        said = store.ledger.groupby("video")[["status", "reason"]].agg(set)
    assert said.loc["beside"].tolist() == [{"no_face"}, {BESIDE_MASK}]
    assert said.loc["nobody"].tolist() == [{"no_face"}, {""}]
    assert said.loc["unmasked"].tolist() == [{"no_face"}, {"mask: the file is empty"}]


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    good = clip(tmp_path / "good.mp4")
    for mode in ("strict", "dfb"):
        made = [*read_layout(tmp_path, "folder"), Video("toy", "x", 1, "none", "m", "masked", good, "none", tmp_path / "pipe.mp4")]
        summary = preprocess(made, tmp_path / mode, Settings(4, 64, mode), detector=Squares())
        assert {reason for _, reason in summary.errors} == {NOT_A_FILE}
        assert len(summary.errors) == 2
        assert summary.warnings == [("toy/none/x/masked", f"frame 0: mask: {NOT_A_FILE}")]
    for name in ("pipe.mp4", "pipe.png", "device.mp4"):
        if not name.endswith("png"):
            assert probe(tmp_path / name).reason == NOT_A_FILE
        with pytest.raises(ConfigError, match=rf"{name} {NOT_A_FILE}; save"):
            find_inputs([tmp_path / name])
    with pytest.raises(PreprocessingError, match="is no folder"):
        read_layout(tmp_path / "pipe.mp4", "folder")
    detector = DETECTORS.build(name="resnet10", size=32, width=4, weights="none")
    scored = {s.input.path.name: s for s in predict(find_inputs([tmp_path]), detector, Work(SMALL, Squares()))}
    for name in ("pipe.mp4", "pipe.png", "device.mp4"):
        assert scored[name].unreadable
        assert scored[name].reason == NOT_A_FILE
    assert scored["good.mp4"].score is not None


def test_an_image_that_is_cut_short_is_none() -> None:
    whole = cv2.imencode(".png", frame(0))[1].tobytes()
    with no_stderr():
        assert read_image(whole[: len(whole) // 2], cv2.IMREAD_COLOR) is None
