"""The doctor's estimate of a store's size, expected counts, and what DeepfakeBench would make of a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from preprocessing_material import clip, encode, ff_tree, frame
from test_preprocessing_datasets import celeb_v1, deeper, dfd, dfdcp, touch, wild
from test_preprocessing_doctor import errors_in, leaf, said

from preprocessing.doctor import check
from preprocessing.errors import PreprocessingError
from preprocessing.layouts import read_layout
from preprocessing.layouts.base import Total
from preprocessing.layouts.dfdc import DFDCP
from preprocessing.peer_splits import read_peer_file
from preprocessing.peer_trees import count_errors, frame_errors
from preprocessing.probe import BYTES_PER_FACE, Probe, estimate, probe
from preprocessing.settings import Settings


def test_header_counts(tmp_path: Path) -> None:
    assert probe(clip(tmp_path / "a.mp4", 12)).frames == 12
    assert probe(encode(tmp_path / "a.mkv", [frame(n) for n in range(10)])).frames == 10, "from the length; Matroska has no count"
    assert probe(wild(tmp_path / "wild") / "real_train/5/real/0", "crops").frames == 5
    assert probe(touch(tmp_path, "b.mp4") / "b.mp4").frames is None


@pytest.mark.parametrize(
    ("settings", "frames", "words"),
    [
        (Settings(), 12 + 32, "(32 in each)"),
        (Settings(frames=8), 16, "(8 in each)"),
        (Settings(sampling="fixed-stride", stride=5), 3 + 8, "(one in 5)"),
        (Settings(sampling="every"), 12 + 40, "(all of them)"),
        (Settings(frames=8, size=512), 64, "(8 in each)"),
    ],
)
def test_the_size_follows_the_sampling(settings: Settings, frames: int, words: str, tmp_path: Path) -> None:
    clip(tmp_path / "real/a.mp4", 12)
    clip(tmp_path / "fake/swap/b.mp4", 40)
    touch(tmp_path, "real/broken.mp4")
    found = said(check(tmp_path, settings=settings), "note", words)
    assert f"a store of about {frames * BYTES_PER_FACE / 1e6:.2g} MB" in found.sentence


def test_a_store_that_is_there_half_way_needs_less(tmp_path: Path) -> None:
    clip(tmp_path / "set/real/a.mp4", 40)
    (tmp_path / "store").mkdir()
    (tmp_path / "store/faces.lmdb").write_bytes(bytes(range(256)) * 4000)
    said(check(tmp_path / "set", out=tmp_path / "store"), "note", "a store of about 1.6 MB, 1 MB of it there already;")
    said(check(tmp_path / "set", out=tmp_path / "set/real/a.mp4/store"), "error", "a.mp4 is a file")


def test_headers_without_a_count(tmp_path: Path) -> None:
    clip(tmp_path / "real/a.mp4", 12)
    shutil.copy(tmp_path / "real/a.mp4", tmp_path / "real/b.mp4")
    videos = read_layout(tmp_path)
    probes = {(v.path, v.kind, v.inside): probe(v.path) for v in videos}
    unsaid = dict.fromkeys(list(probes)[:1], Probe())
    every = Settings(sampling="every")
    assert (estimate(videos, {**probes, **unsaid}, every).frames, estimate(videos, {**probes, **unsaid}, every).guessed) == (24, 1)
    assert estimate(videos, {**probes, **unsaid}, Settings()).frames == 12 + 32
    with pytest.raises(PreprocessingError, match="none of 2 headers says how many frames"):
        estimate(videos, dict.fromkeys(probes, next(iter(unsaid.values()))), every)


def test_other_counts_in_use_are_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Total(4119, 1, also=(4113,)) in DFDCP.totals
    monkeypatch.setattr(DFDCP, "totals", (Total(2, 0), Total(3, 1, also=(2,))))
    findings = check(dfdcp(tmp_path))
    said(findings, "note", "2 videos are fake; DFDCP has 3 (some sources count 2)")
    monkeypatch.setattr(DFDCP, "totals", (Total(2, 0), Total(4, 1, also=(3,))))
    said(check(tmp_path), "warning", "2 videos are fake; DFDCP has 4 (some sources count 3)")


def test_rearrange_would_stop_at_faceforensics_alone(tmp_path: Path) -> None:
    root = ff_tree(tmp_path, count=2)
    found = said(check(root), "note", "would stop with a KeyError, because 3 folders are not here")
    assert "original_sequences/actors" in found.examples
    touch(dfd(root), "manipulated_sequences/FaceShifter/c23/videos/000_003.mp4")
    assert not any("KeyError, because" in f.sentence for f in check(root))
    touch(root, "manipulated_sequences/Deepfakes/c23/videos/900_901.mp4")
    assert said(check(root), "note", "would put 1 forged videos that no list names into").examples == ("900_901.mp4",)


def test_rearrange_would_stop_at_a_name_of_no_list(tmp_path: Path) -> None:
    assert not any("NameError" in f.sentence for f in check(deeper(tmp_path)))
    touch(tmp_path, "manipulated_videos/end_to_end/900_M101.mp4")
    assert said(check(tmp_path), "note", "would stop with a NameError at 1 forged videos").examples == ("900_M101.mp4",)


def test_rearrange_would_lose_a_celeb_df_folder(tmp_path: Path) -> None:
    touch(celeb_v1(tmp_path), "YouTube-real/90000.mp4")
    said(check(tmp_path), "note", "one of the two real folders only and lose the other (1 of Celeb-real or 1 of YouTube-real)")
    said(check(tmp_path), "note", "DeepfakeBench would train on all 100 test videos too")


def test_frames_and_names_in_deeperforensics_json(tmp_path: Path) -> None:
    frames = tmp_path / "source_videos/M004/frames/v"
    frames.mkdir(parents=True)
    (frames / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n...")
    (frames / "001.png").write_bytes(b"")
    listed = leaf("D:\\data/DeeperForensics-1.0/source_videos/M004", 3)
    content = {
        "DeeperForensics-1.0": {"DF_real": {"train": {"D:\\data\\DeeperForensics-1.0\\source_videos\\M004\\frames\\v": listed}}}
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    classes = read_peer_file(tmp_path / "x.json")
    assert classes is not None
    (named, names), (broken, files) = frame_errors(classes, tmp_path)
    assert "DF_real: 1 videos are named by their whole path" in named
    assert names == ["D:\\data\\DeeperForensics-1.0\\source_videos\\M004\\frames\\v"]
    assert "DF_real: 1 listed frames are no PNG files" in broken
    assert files == [listed["frames"][1]], "000 is one, and 002 is not here"
    assert not any(
        "whole path" in e for e in errors_in({"UADFV": {"UADFV_Real": content["DeeperForensics-1.0"]["DF_real"]}}, tmp_path)
    )


def test_counts_of_the_authors_files(tmp_path: Path) -> None:
    def of(videos: int, frames: int) -> dict[str, object]:
        listed = {str(i): leaf("UADFV/real", frames // videos + (i < frames % videos)) for i in range(videos)}
        return {"UADFV": {"UADFV_Real": dict.fromkeys(("train", "val", "test"), listed)}}

    for content, wanted in ((of(49, 1548), []), (of(48, 1500), ["48 videos and 1500 frames", "49 videos and 1548 frames"])):
        (tmp_path / "x.json").write_text(json.dumps(content))
        classes = read_peer_file(tmp_path / "x.json")
        assert classes is not None
        sentences = [sentence for sentence, _ in count_errors(classes)]
        assert len(sentences) == (1 if wanted else 0)
        assert all(word in sentences[0] for word in wanted)
