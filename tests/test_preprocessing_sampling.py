"""Which frames, which face: strides, stand-ins for frames without a face, and the face that the mask covers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from preprocessing_material import SMALL, Squares, clip, ff_tree, mask_clip, videos
from typer.testing import CliRunner

from benchmark.cli import app
from preprocessing.faces import ARCFACE, FIVE, Box, Finder, overlap
from preprocessing.layouts import Video, read_layout
from preprocessing.pipeline import Settings, preprocess
from preprocessing.sampling import REACH, sample, stand_ins
from preprocessing.store import FaceStore


def test_sampling() -> None:
    assert sample(100, "fixed-number", 4, 1) == [0, 33, 66, 99]
    assert sample(10, "fixed-stride", 4, 4) == [0, 4, 8]
    assert sample(5, "every", 4, 1) == [0, 1, 2, 3, 4]


def test_stand_ins_are_near_and_belong_to_one_frame_only() -> None:
    assert stand_ins(10, [0, 10, 17], 30) == [9, 11, 8, 12, 7, 13, 6]
    assert stand_ins(0, [0, 4], 9) == [1]
    assert stand_ins(29, [0, 29], 30) == [28, 27, 26, 25, 24]
    assert stand_ins(4, [3, 4, 5], 9) == []
    sampled = sample(97, "fixed-number", 7, 1)
    of_all = [n for failed in sampled for n in stand_ins(failed, sampled, 97)]
    assert len(of_all) == len(set(of_all))
    assert not set(of_all) & set(sampled)
    assert max(abs(n - f) for f in sampled for n in stand_ins(f, sampled, 97)) == REACH


@pytest.mark.parametrize(
    ("settings", "frames"),
    [
        (Settings(4, 64, sampling="fixed-stride", stride=5), [0, 5, 10]),
        (Settings(4, 64, sampling="every"), list(range(12))),
        (Settings(4, 64, "dfb", sampling="every"), list(range(12))),
    ],
)
def test_strides_in_a_store(settings: Settings, frames: list[int], tmp_path: Path) -> None:
    made = videos(tmp_path / "videos", 1)
    preprocess(made, tmp_path / "store", settings, detector=Squares())
    with FaceStore(tmp_path / "store") as store:
        assert store.manifest["frame"].tolist() == frames
        assert store.info["settings"]["sampling"] == settings.sampling
        assert store.info["settings"]["frames"] is None
        assert store.info["settings"].get("stride") == (5 if settings.stride == 5 else None)
        assert store.verify() == []


@pytest.mark.parametrize("mode", ["strict", "dfb"])
def test_top_up_takes_a_neighbour_and_the_ledger_keeps_both(mode: str, tmp_path: Path) -> None:
    # Sampled are 0, 13, 26 and 39; 13 has its nearest face at 15, 26 none near, and the last one at 38.
    gaps = {*range(12, 15), *range(20, 33), 39}
    path, masks = clip(tmp_path / "v.mp4", 40, face=lambda n: n not in gaps), mask_clip(tmp_path / "m.mp4", 40)
    made = [Video("toy", "swap", 1, "train", "v", "v", path, "none", masks)]
    summary = preprocess(made, tmp_path / "store", Settings(4, 64, mode, top_up=True), detector=Squares())
    assert summary.warnings == [], "a stand-in is no warning"
    with FaceStore(tmp_path / "store") as store:
        rows = {row.frame: (row.status, row.reason) for row in store.ledger.itertuples()}
        assert rows == {
            0: ("face", ""),
            13: ("no_face", "replaced by frame 11"),
            11: ("face", "in place of frame 13"),
            26: ("no_face", ""),
            38: ("face", "in place of frame 39"),
            39: ("no_face", "replaced by frame 38"),
        }
        for number in (0, 11, 38):
            assert store.mask(f"toy/none/swap/v/{number:06d}") is not None
        assert store.verify() == []
        assert store.info["settings"]["top_up"] is True
    plain = preprocess(made, tmp_path / "plain", Settings(4, 64, mode), detector=Squares())
    assert plain.fingerprint != summary.fingerprint
    assert plain.counts["faces"] == 1


@dataclass(frozen=True)
class TwoFaces:
    """A large face at the left, where the mask never is, and the green square of the material, a small one."""

    @property
    def description(self) -> dict[str, str]:
        return {"name": "two"}

    def boxes(self, image: NDArray[np.uint8], upsample: int) -> list[Box]:
        return [Box(0, 0, 89, 89), *Squares().boxes(image, upsample)]

    def landmarks(self, image: NDArray[np.uint8], box: Box) -> NDArray[np.float64]:
        points = np.full((68, 2), 0.5)
        points[list(FIVE)] = (np.array(ARCFACE) + np.array((8, 0))) / 112
        return points * (box.right - box.left + 1) + (box.left, box.top)


def test_overlap_is_intersection_over_union() -> None:
    inside = np.zeros((10, 10), bool)
    inside[2:6, 2:6] = True
    assert overlap(inside, Box(2, 2, 5, 5)) == 1
    assert overlap(inside, Box(2, 2, 5, 9)) == 0.5
    assert overlap(inside, Box(-4, -4, -1, -1)) == 0
    assert overlap(inside, Box(-2, 2, 5, 5)) == 0.5


def test_the_face_that_the_mask_covers(tmp_path: Path) -> None:
    image = np.zeros((96, 128, 3), np.uint8)
    mask = np.zeros_like(image)
    mask[24:68, 70:110] = 255
    image[20:68, 66:114] = (20, 230, 20)
    finder = Finder(TwoFaces(), 64)
    small, large = finder.find(image, mask), finder.find(image)
    assert not isinstance(small, str)
    assert not isinstance(large, str)
    assert small.image[32, 32, 1] == 230
    assert small.matrix[0, 0] > large.matrix[0, 0], "the smaller face is enlarged more"
    elsewhere = finder.find(image, np.roll(mask, 200, axis=0) * 0)
    assert not isinstance(elsewhere, str)
    np.testing.assert_array_equal(elsewhere.image, large.image)


def test_mask_overlap_in_a_store(tmp_path: Path) -> None:
    found = read_layout(ff_tree(tmp_path / "ff", ("Deepfakes",)))
    preprocess(found, tmp_path / "largest", SMALL, detector=TwoFaces())
    chosen = Settings(4, 64, face="mask-overlap")
    summary = preprocess(found, tmp_path / "chosen", chosen, detector=TwoFaces())
    with FaceStore(tmp_path / "largest") as largest, FaceStore(tmp_path / "chosen") as masked:
        assert masked.info["settings"]["face"] == "mask-overlap"
        fake, real = "FaceForensics++/c23/Deepfakes/000_003/000003", "FaceForensics++/c23/real/000/000003"
        np.testing.assert_array_equal(largest.image(real), masked.image(real))
        assert np.abs(largest.image(fake).astype(int) - masked.image(fake)).mean() > 5
        assert masked.image(fake)[32, 32, 1] > 200
        mask = masked.mask(fake)
        assert mask is not None
        assert mask.max() == 255
    assert summary.warnings == []


def test_the_command_line(data: Path, tmp_path: Path) -> None:
    source = read_layout(data / "mini-a", "faceforensics++")[0].path
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "v.mp4").symlink_to(source)
    options = ["--mode", "dfb", "--switch", "frame-count=packets", "--sampling", "every", "--top-up", "--face", "mask-overlap"]
    out = tmp_path / "store"
    done = CliRunner().invoke(app, ["preprocess", str(tmp_path / "videos"), "-o", str(out), "--layout", "folder", *options])
    assert done.exit_code == 0, done.output
    with FaceStore(out) as store:
        settings = store.info["settings"]
        assert (settings["mode"], settings["sampling"], settings["face"], settings["top_up"]) == (
            "dfb",
            "every",
            "mask-overlap",
            True,
        )
        assert "frame_count" not in settings["switches"]
        assert len(store.manifest) == 2
