"""From videos to a store: accounted, parallel, and the same after any interruption."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from preprocessing_material import SMALL, Squares, clip, encode, ff_tree, mask_clip, videos

from preprocessing.errors import PreprocessingError
from preprocessing.layouts import Video, read_layout
from preprocessing.pipeline import Settings, VideoReport, preprocess
from preprocessing.store import FaceStore
from preprocessing.writer import StoreWriter

SQUARES = Squares()


def test_faceforensics_to_store(tmp_path: Path) -> None:
    found = read_layout(ff_tree(tmp_path / "ff"))
    reports: list[VideoReport] = []
    summary = preprocess(found, tmp_path / "store", SMALL, on_video=reports.append, detector=SQUARES)
    assert summary.processed == len(reports) == len(found) == 9
    assert summary.notes == []
    assert summary.counts["frames"] == {"face": 36, "no_face": 0, "no_landmarks": 0, "unreadable": 0}
    with FaceStore(tmp_path / "store") as store:
        manifest = store.manifest
        assert manifest["key"].iloc[0] == "FaceForensics++/c23/Deepfakes/000_003/000000"
        assert manifest["frame"].iloc[:4].tolist() == [0, 3, 7, 11]
        assert dict(zip(manifest["video"], manifest["split"], strict=True)) == {
            v: s
            for s, vs in {"train": ["000", "000_003"], "val": ["001", "001_002"], "test": ["004", "004_005"]}.items()
            for v in vs
        }
        # One stem in two methods stays two videos.
        both = manifest[manifest["video"] == "000_003"]
        assert both.groupby("method").size().to_dict() == {"Deepfakes": 4, "FaceSwap": 4}
        image = store.image(both["key"].iloc[0])
        assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
        assert image[32, 32, 1] > 200, "the green square is in the middle, and the channels are RGB"
        assert image[32, 32, 0] < 60
        assert store.landmarks(both["key"].iloc[0]).shape == (68, 2)


def test_masks_follow_the_face(tmp_path: Path) -> None:
    preprocess(read_layout(ff_tree(tmp_path / "ff")), tmp_path / "store", SMALL, detector=SQUARES)
    with FaceStore(tmp_path / "store") as store:
        for frame in (0, 3, 7, 11):
            mask = store.mask(f"FaceForensics++/c23/Deepfakes/000_003/{frame:06d}")
            assert mask is not None
            assert set(np.unique(mask)) == {0, 255}
            face = store.image(f"FaceForensics++/c23/Deepfakes/000_003/{frame:06d}")
            green = (face[..., 1] > 110) & (face[..., 0] < 90)
            right = np.arange(64)[None] >= 64 * 0.5
            assert ((mask > 0) == (green & right)).mean() > 0.95, "the right half of the square is the mask"
        assert store.mask("FaceForensics++/c23/FaceSwap/000_003/000000") is None


def test_a_bad_mask_costs_no_face_and_is_reported(tmp_path: Path) -> None:
    clip(tmp_path / "v.mp4")
    details = ("toy", "swap", 1, "train", "v")
    short, large, broken = (
        mask_clip(tmp_path / "short.mp4", 5),
        mask_clip(tmp_path / "large.mp4", width=256),
        tmp_path / "broken.mp4",
    )
    broken.write_bytes(b"")
    made = [Video(*details, name, tmp_path / "v.mp4", "none", m) for name, m in (("a", short), ("b", large), ("c", broken))]
    summary = preprocess(made, tmp_path / "store", SMALL, detector=SQUARES)
    assert summary.counts["faces"] == 12
    assert [words for _, words in summary.warnings] == [
        "frame 7: mask: frame missing or damaged",
        "frame 0: mask: another size than the video",
        "frame 0: mask: the file is empty",
    ]
    with FaceStore(tmp_path / "store") as store:
        assert store.mask("toy/none/swap/a/000003") is not None
        assert store.mask("toy/none/swap/a/000007") is None
        assert (store.ledger["reason"] != "").sum() == 2 + 4 + 4


def test_every_sampled_frame_is_accounted_for(tmp_path: Path) -> None:
    made = [
        *videos(tmp_path, 1),
        Video("toy", "real", 0, "train", "g", "gaps", clip(tmp_path / "gaps.mp4", face=lambda n: n >= 6), "none"),
        Video("toy", "real", 0, "train", "z", "zero", tmp_path / "zero.mp4", "none"),
        Video("toy", "real", 0, "train", "c", "corrupt", tmp_path / "corrupt.mp4", "none"),
        Video("toy", "real", 0, "train", "m", "missing", tmp_path / "missing.mp4", "none"),
    ]
    (tmp_path / "zero.mp4").write_bytes(b"")
    (tmp_path / "corrupt.mp4").write_bytes(os.urandom(5000))
    reports: list[VideoReport] = []
    summary = preprocess(made, tmp_path / "store", SMALL, on_video=reports.append, detector=SQUARES)
    assert summary.counts == {
        "videos": 5,
        "unreadable_videos": 3,
        "faces": 6,
        "frames": {"face": 6, "no_face": 2, "no_landmarks": 0, "unreadable": 3},
    }
    assert [key for key, _ in summary.errors] == ["toy/none/real/corrupt", "toy/none/real/missing", "toy/none/real/zero"]
    assert {r.video.video: r.error for r in reports}["zero"] == "the file is empty"
    with FaceStore(tmp_path / "store") as store:
        rows = {(r.video, r.frame): r.status for r in store.ledger.itertuples()}
        assert [rows["gaps", n] for n in (0, 3, 7, 11)] == ["no_face", "no_face", "face", "face"]
        assert rows["zero", -1] == "unreadable"
        assert str(tmp_path) not in store.ledger.to_csv()
        assert store.verify() == []


def test_unreadable_videos_are_done_again_on_request(tmp_path: Path) -> None:
    made = videos(tmp_path, 2)
    whole = made[1].path.read_bytes()
    made[1].path.write_bytes(b"")
    broken = preprocess(made, tmp_path / "store", SMALL, detector=SQUARES)
    made[1].path.write_bytes(whole)
    assert preprocess(made, tmp_path / "store", SMALL, detector=SQUARES).finished_before
    repaired = preprocess(made, tmp_path / "store", SMALL, detector=SQUARES, retry=True)
    assert (repaired.processed, repaired.skipped, repaired.errors) == (1, 1, [])
    fresh = preprocess(made, tmp_path / "fresh", SMALL, detector=SQUARES)
    assert repaired.fingerprint == fresh.fingerprint != broken.fingerprint


def test_two_workers_make_the_same_store(tmp_path: Path) -> None:
    made = videos(tmp_path / "videos", 4)
    one = preprocess(made, tmp_path / "one", SMALL, workers=1, detector=SQUARES)
    seen: list[str] = []
    two = preprocess(
        made[::-1], tmp_path / "two", SMALL, workers=2, on_video=lambda r: seen.append(r.video.video), detector=SQUARES
    )
    assert sorted(seen) == ["v0", "v1", "v2", "v3"]
    assert two.notes == ["all 4 videos of toy count as real: nothing here can be trained or scored alone"]
    assert one.fingerprint == two.fingerprint
    assert one.counts == two.counts
    assert multiprocessing.active_children() == []


def test_the_fingerprint_ignores_paths_and_image_format_but_not_content(tmp_path: Path) -> None:
    made = videos(tmp_path / "a", 2)
    prints = {"plain": preprocess(made, tmp_path / "plain", SMALL, detector=SQUARES).fingerprint}
    (tmp_path / "a").rename(tmp_path / "ünï 码")
    moved = [Video(**{**v.__dict__, "path": tmp_path / "ünï 码" / v.path.name}) for v in made]
    prints["moved"] = preprocess(moved, tmp_path / "störe", SMALL, detector=SQUARES).fingerprint
    prints["png"] = preprocess(moved, tmp_path / "png", Settings(4, 64, image_format="png"), detector=SQUARES).fingerprint
    assert len(set(prints.values())) == 1, prints
    relabelled = [Video(**{**v.__dict__, "split": "test"}) for v in moved]
    prints["split"] = preprocess(relabelled, tmp_path / "split", SMALL, detector=SQUARES).fingerprint
    prints["frames"] = preprocess(moved, tmp_path / "frames", Settings(5, 64), detector=SQUARES).fingerprint
    prints["size"] = preprocess(moved, tmp_path / "size", Settings(4, 65), detector=SQUARES).fingerprint
    clip(moved[0].path, tint=77)
    prints["pixels"] = preprocess(moved, tmp_path / "pixels", SMALL, detector=SQUARES).fingerprint
    assert len(set(prints.values())) == 5, prints


def test_a_finished_store_is_left_alone_and_can_grow(tmp_path: Path) -> None:
    made = videos(tmp_path / "videos", 3)
    preprocess(made[:2], tmp_path / "store", SMALL, detector=SQUARES)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "store").iterdir() if p.suffix in (".json", ".parquet")}
    again = preprocess(made[:2], tmp_path / "store", SMALL, detector=SQUARES)
    assert (again.finished_before, again.processed, again.skipped) == (True, 0, 2)
    assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "store").iterdir() if p.suffix in (".json", ".parquet")}
    grown = preprocess(made, tmp_path / "store", SMALL, detector=SQUARES)
    assert (grown.finished_before, grown.processed, grown.skipped) == (False, 1, 2)
    assert grown.fingerprint == preprocess(made, tmp_path / "fresh", SMALL, detector=SQUARES).fingerprint
    with FaceStore(tmp_path / "store") as store:
        assert len(store.manifest) == 12
        assert store.verify() == []


def test_a_store_that_grows_is_unfinished_until_it_is_done(tmp_path: Path) -> None:
    made = videos(tmp_path / "videos", 3)
    preprocess(made[:1], tmp_path / "store", SMALL, detector=SQUARES)

    def interrupt(report: VideoReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess(made, tmp_path / "store", SMALL, on_video=interrupt, detector=SQUARES)
    with pytest.raises(PreprocessingError, match="is unfinished"):
        FaceStore(tmp_path / "store")
    assert preprocess(made, tmp_path / "store", SMALL, detector=SQUARES).counts["videos"] == 3


def test_what_does_not_fit_a_store_is_refused(tmp_path: Path) -> None:
    made = videos(tmp_path / "videos", 2)
    preprocess(made, tmp_path / "store", SMALL, detector=SQUARES)
    with pytest.raises(PreprocessingError, match=r"was begun with frames = 4, not 8"):
        preprocess(made, tmp_path / "store", Settings(8, 64), detector=SQUARES)
    with pytest.raises(PreprocessingError, match=r"holds 1 videos that are not among those given, e\.g\. toy/none/real/v1"):
        preprocess(made[:1], tmp_path / "store", SMALL, detector=SQUARES)
    other = [made[0], Video(**{**made[1].__dict__, "split": "test"})]
    with pytest.raises(PreprocessingError, match=r"has split 'train' for toy/none/real/v1, now it is 'test'"):
        preprocess(other, tmp_path / "store", SMALL, detector=SQUARES)
    with pytest.raises(PreprocessingError, match="no videos to preprocess"):
        preprocess([], tmp_path / "store", SMALL, detector=SQUARES)
    with pytest.raises(PreprocessingError, match="would both be"):
        preprocess([made[0], Video(**{**made[0].__dict__, "path": made[1].path})], tmp_path / "x", SMALL, detector=SQUARES)
    with pytest.raises(PreprocessingError, match=r"nowhere\.dat does not exist"):
        preprocess(made, tmp_path / "x", Settings(predictor=tmp_path / "nowhere.dat"))
    with pytest.raises(PreprocessingError, match="workers must be at least 1"):
        preprocess(made, tmp_path / "x", SMALL, workers=0, detector=SQUARES)


def test_settings_are_checked() -> None:
    with pytest.raises(PreprocessingError, match="did you mean 'strict'"):
        Settings(mode="strikt")
    with pytest.raises(PreprocessingError, match="unknown image_format 'jpeg'"):
        Settings(image_format="jpeg")
    with pytest.raises(PreprocessingError, match="frames must be at least 1"):
        Settings(frames=0)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    made = videos(tmp_path, 1)
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(PreprocessingError, match="cannot write to"):
            preprocess(made, out, SMALL, detector=SQUARES)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    made = videos(tmp_path, 1)
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(PreprocessingError, match="cannot write to"):
        preprocess(made, tmp_path / "locked" / "store", SMALL, detector=SQUARES)


def test_two_runs_on_one_store_refuse_politely(tmp_path: Path) -> None:
    made = videos(tmp_path, 1)
    with (
        StoreWriter(tmp_path / "store", SMALL.recorded(SQUARES)),
        pytest.raises(PreprocessingError, match="another process is writing"),
    ):
        preprocess(made, tmp_path / "store", SMALL, detector=SQUARES)
    assert preprocess(made, tmp_path / "store", SMALL, detector=SQUARES).counts["faces"] == 4


def test_interrupt_ends_the_workers_and_the_store_resumes(tmp_path: Path) -> None:
    made = videos(tmp_path / "videos", 4)
    whole = preprocess(made, tmp_path / "whole", SMALL, detector=SQUARES)

    def interrupt(report: VideoReport) -> None:
        raise KeyboardInterrupt

    for workers in (1, 2):
        out = tmp_path / f"workers{workers}"
        with pytest.raises(KeyboardInterrupt):
            preprocess(made, out, SMALL, workers=workers, on_video=interrupt, detector=SQUARES)
        assert multiprocessing.active_children() == []
        with pytest.raises(PreprocessingError, match="is unfinished; run preprocess again"):
            FaceStore(out)
        resumed = preprocess(made, out, SMALL, detector=SQUARES)
        assert (resumed.processed, resumed.skipped) == (3, 1)
        assert resumed.fingerprint == whole.fingerprint


KILLED = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from preprocessing.layouts import read_layout
from preprocessing.pipeline import preprocess
from preprocessing_material import SMALL, Squares
if __name__ == "__main__":
    found = read_layout({videos!r}, "folder", name="toy")
    preprocess(found, {out!r}, SMALL, workers={workers}, on_video=lambda r: print("done", flush=True), detector=Squares(pause=0.01))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_at_any_moment_then_resume(workers: int, tmp_path: Path) -> None:
    videos(tmp_path / "videos", 12)
    found = read_layout(tmp_path / "videos", "folder", name="toy")
    whole = preprocess(found, tmp_path / "whole", SMALL, detector=SQUARES)
    out, random_moment = tmp_path / "store", random.Random(workers)
    script = tmp_path / "run.py"
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    script.write_text(textwrap.dedent(KILLED.format(paths=paths, videos=str(tmp_path / "videos"), out=str(out), workers=workers)))
    for _ in range(2):
        process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(random_moment.randint(1, 4)):
            assert process.stdout.readline() == b"done\n"
        try:
            process.wait(timeout=random_moment.uniform(0, 0.05))
        except subprocess.TimeoutExpired:
            process.kill()
        assert process.wait() == -signal.SIGKILL, "it must not have finished before the kill"
        process.stdout.close()
        with pytest.raises(PreprocessingError, match="is unfinished"):
            FaceStore(out)
    resumed = preprocess(found, out, SMALL, detector=SQUARES)
    assert resumed.skipped >= 2
    assert resumed.processed + resumed.skipped == 12
    assert resumed.fingerprint == whole.fingerprint
    with FaceStore(out) as store:
        assert store.verify() == []


def test_a_video_that_ends_the_process_costs_only_itself(tmp_path: Path) -> None:
    made = videos(tmp_path, 3)
    white = encode(tmp_path / "white.mp4", [np.full((96, 128, 3), 255, np.uint8)] * 12)
    made.insert(1, Video("toy", "real", 0, "train", "w", "white", white, "none"))
    summary = preprocess(made, tmp_path / "store", SMALL, workers=2, detector=Squares(die=3))
    assert summary.errors == [("toy/none/real/white", "decoding it ends the process")]
    assert summary.counts["faces"] == 12
    lucky = preprocess(made, tmp_path / "lucky", SMALL, workers=2, detector=Squares(die=3, once=str(tmp_path / "died")))
    assert (tmp_path / "died").exists()
    assert lucky.errors == [], "a process that ends once gets a second try"
    with pytest.raises(PreprocessingError, match="a worker process was killed, perhaps because memory ran out"):
        preprocess(made, tmp_path / "other", SMALL, workers=2, detector=Squares(die=-signal.SIGKILL))
    assert multiprocessing.active_children() == []


class Faulty(Squares):
    """A detector with a bug."""

    def boxes(self, image: object, upsample: int) -> list[object]:  # type: ignore[override]
        raise KeyError("bug")


@pytest.mark.parametrize("workers", [1, 2])
def test_our_own_mistakes_are_not_swallowed(workers: int, tmp_path: Path) -> None:
    with pytest.raises((KeyError, RuntimeError), match="bug"):
        preprocess(videos(tmp_path, 2), tmp_path / "store", SMALL, workers=workers, detector=Faulty())
