"""The doctor says what is wrong with a dataset before hours are spent on it, and nothing about a sound one."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from preprocessing_material import clip, ff_tree
from test_preprocessing_datasets import celeb_v1, deeper, dfd, dfdc, dfdcp, touch, uadfv, wild

from benchmark.cli import main
from preprocessing import doctor
from preprocessing.doctor import Finding, check
from preprocessing.errors import PreprocessingError
from preprocessing.layouts import LAYOUTS
from preprocessing.peer_splits import read_peer_file, split_errors
from preprocessing.settings import Settings


def said(findings: list[Finding], severity: str, words: str) -> Finding:
    """The one finding of this severity with these words."""
    matching = [f for f in findings if f.severity == severity and words in f.sentence]
    assert len(matching) == 1, [(f.severity, f.sentence) for f in findings]
    return matching[0]


def tiny(root: Path, *names: str) -> Path:
    """Readable videos of different content; a few bytes after the end do no harm to an MP4."""
    one = clip(root / "one.mp4", 2).read_bytes()
    (root / "one.mp4").unlink()
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(one + (8 + number).to_bytes(4, "big") + b"free" + bytes(number))
    return root


def whole_uadfv(root: Path) -> Path:
    return tiny(root, *(f"real/{i:04d}.mp4" for i in range(49)), *(f"fake/{i:04d}_fake.mp4" for i in range(49)))


def test_a_sound_dataset_has_notes_only(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    findings = check(whole_uadfv(tmp_path), on_progress=lambda done, total: seen.append((done, total)))
    assert {f.severity for f in findings} == {"note"}
    assert seen == [(i, 98) for i in range(1, 99)]
    said(findings, "note", "98 videos have 196 frames to sample (32 in each), a store of about 9.8 MB")
    said(findings, "note", "if you compare: DeepfakeBench puts every video into train, val and test")


def test_expected_against_found_counts(tmp_path: Path) -> None:
    (whole_uadfv(tmp_path) / "fake/0048_fake.mp4").unlink()
    said(check(tmp_path), "warning", "fake has 48 videos; UADFV has 49 there")
    findings = check(celeb_v1(tmp_path / "celeb"))
    said(findings, "warning", "Celeb-real has 1 videos; Celeb-DF-v1 has 158 there")
    assert not any("in test" in f.sentence and f.severity == "warning" for f in findings), "the test list is complete"


def test_missing_folders_and_split_files(tmp_path: Path) -> None:
    findings = check(ff_tree(tmp_path, count=2))
    assert said(findings, "warning", "2 folders of the dataset").examples == (
        "manipulated_sequences/Face2Face/c23",
        "manipulated_sequences/NeuralTextures/c23",
    )
    assert "manipulated_sequences/FaceShifter/c23" in said(findings, "note", "4 folders that are optional").examples
    said(findings, "warning", "1 videos are real in train; FaceForensics++ has 720")
    (tmp_path / "val.json").unlink()
    findings = check(tmp_path)
    assert said(findings, "error", "1 of the 3 files with the official splits").examples == ("val.json",)
    said(findings, "error", "val.json is missing; copy the three lists")


def test_a_file_in_no_list_and_a_list_without_its_file(tmp_path: Path) -> None:
    root = touch(ff_tree(tmp_path / "ff", count=2), "manipulated_sequences/Deepfakes/c23/900_901.mp4")
    said(check(root), "warning", "1 videos of FaceForensics++ are in no split list")
    celeb_v1(tmp_path / "celeb")
    (tmp_path / "celeb/YouTube-real/00003.mp4").unlink()
    said(check(tmp_path / "celeb", "celeb-df-v1"), "warning", "1 of the 100 videos in List_of_testing_videos.txt")


def test_equal_names(tmp_path: Path) -> None:
    root = touch(ff_tree(tmp_path / "ff", count=2), "original_sequences/youtube/c23/copy/000.mp4")
    found = said(check(root), "error", "1 names occur more than once in original_sequences/youtube/c23")
    assert "copy/000.mp4 and original_sequences/youtube/c23/videos/000.mp4" in found.examples[0]
    said(check(dfdcp(tmp_path / "dfdcp")), "note", "kept apart here, merged by DeepfakeBench")


def test_overlap_by_video_and_by_identity_pair(tmp_path: Path) -> None:
    root = dfdc(tmp_path / "dfdc")
    table = {"ddd.mp4": {"label": "REAL"}}
    touch(root, "train/dfdc_train_part_2/ddd.mp4")
    (root / "train/dfdc_train_part_2/metadata.json").write_text(json.dumps(table))
    findings = check(root)
    assert said(findings, "error", "1 videos are in training (or validation) and in test").examples == ("ddd",)
    root = dfdcp(tmp_path / "dfdcp")
    assert said(check(root), "warning", "people (or targets) of the test split").examples == ("22",)
    rows = json.loads((root / "dataset.json").read_text())
    rows["method_A/22/22_11_B_002.mp4"] = {"label": "fake", "set": "test", "target_id": 22, "swapped_id": 11}
    touch(root, "method_A/22/22_11_B_002.mp4")
    (root / "dataset.json").write_text(json.dumps(rows))
    pairs = said(check(root), "warning", "1 of the 2 identity pairs of the test split are in training or validation too")
    assert pairs.examples == ("11_22",), "the order of the pair does not matter"
    touch(celeb_v1(tmp_path / "celeb"), "Celeb-synthesis/id0_id1_0900.mp4")
    assert "results there are not on unseen people" in said(check(tmp_path / "celeb"), "note", "1 of the 1 identity pairs").sentence


def test_the_same_file_under_two_names(tmp_path: Path) -> None:
    root = tiny(tmp_path, "real/a.mp4", "real/b.mp4", "fake/swap/c.mp4")
    assert {f.severity for f in check(root)} == {"note"}
    shutil.copy(root / "real/a.mp4", root / "real/again.mp4")
    assert said(check(root), "warning", "1 files are there more than once in one split").examples == ("a.mp4 = again.mp4",)
    shutil.copy(root / "real/b.mp4", root / "fake/swap/b.mp4")
    said(check(root), "error", "1 files are there again in another split or class")


def test_unreadable_files(tmp_path: Path) -> None:
    root = whole_uadfv(tmp_path)
    whole = (root / "real/0000.mp4").read_bytes()
    (root / "real/0000.mp4").write_bytes(b"")
    (root / "real/0001.mp4").write_bytes(whole[:200])
    (root / "fake/0000_fake.mp4").write_text("<html>quota exceeded</html>")
    found = said(check(root), "error", "3 of 98 files cannot be read")
    assert "real/0000.mp4: the file is empty" in found.examples
    assert {e.split(":")[0] for e in found.examples} == {"real/0000.mp4", "real/0001.mp4", "fake/0000_fake.mp4"}
    root = wild(tmp_path / "wild")
    archive = root / "fake_train/8.tar.gz"
    archive.write_bytes(archive.read_bytes()[:900])
    (root / "real_train/5/real/0/3.png").write_bytes(b"x")
    found = said(check(root), "error", "2 of 7 files cannot be read")
    assert any("8.tar.gz" in e for e in found.examples)
    assert "real_train/5/real/0: the first image cannot be decoded" in found.examples


def test_files_are_probed_even_where_the_layout_cannot_be_read(tmp_path: Path) -> None:
    root = ff_tree(tmp_path, count=2)
    (root / "test.json").unlink()
    (root / "original_sequences/youtube/c23/videos/000.mp4").write_bytes(b"")
    said(check(root), "error", "files cannot be read")


def test_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 10**6

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: Usage)
    root = tmp_path
    for name in ("real/a.mp4", "fake/swap/b.mp4"):
        clip(root / name, 40)
    found = said(check(root, out=tmp_path / "new/store"), "error", "a store of about 3.2 MB; 1 MB are free")
    assert found.sentence.endswith(str(tmp_path)), "the nearest folder that is there"
    said(check(root, settings=Settings(frames=8)), "note", "a store of about 0.8 MB")


def test_every_layout_is_looked_at(tmp_path: Path) -> None:
    for name, make in (("deepfakedetection", dfd), ("deeperforensics-1.0", deeper), ("wilddeepfake", wild), ("uadfv", uadfv)):
        said(check(make(tmp_path / name)), "note", f"is read as layout '{name}'")
    findings = check(deeper(tmp_path / "source"), "deeperforensics-1.0-source")
    said(findings, "note", "its authors say these are not meant for detection")
    with pytest.raises(PreprocessingError, match="did you mean 'uadfv'"):
        check(tmp_path, "uadf")
    with pytest.raises(PreprocessingError, match="is missing"):
        check(tmp_path / "nowhere")


def leaf(path: str, frames: int = 2) -> dict[str, Any]:
    return {"label": "x", "frames": [f"{path}/frames/v/{i:03d}.png" for i in range(frames)]}


def errors_in(content: dict[str, Any], folder: Path) -> dict[str, list[str]]:
    (folder / "x.json").write_text(json.dumps(content))
    classes = read_peer_file(folder / "x.json")
    assert classes is not None
    return dict(split_errors(classes))


def test_peer_celeb_df_loses_a_folder_and_trains_on_the_test(tmp_path: Path) -> None:
    youtube = {f"{i:05d}": leaf("Celeb-DF-v1\\YouTube-real") for i in range(3)}
    content = {
        "Celeb-DF-v1": {"CelebDFv1_real": {"train": youtube, "val": {"00000": youtube["00000"]}, "test": {"00000": leaf("a", 0)}}}
    }
    errors = errors_in(content, tmp_path)
    assert set(errors) == {
        "Celeb-DF-v1/CelebDFv1_real: 1 of the 1 test videos are in train too",
        "Celeb-DF-v1/CelebDFv1_real: val is the same 1 videos as test",
        "Celeb-DF-v1/CelebDFv1_real: 1 videos have no frames",
        "Celeb-DF-v1/CelebDFv1_real: all 3 real training videos are from YouTube-real; those of Celeb-real are lost",
    }
    youtube["id0_0000"] = leaf("Celeb-DF-v1/Celeb-real")
    assert not any("are lost" in e for e in errors_in(content, tmp_path))


def test_peer_one_list_for_all_splits(tmp_path: Path) -> None:
    same = {"0000": leaf("UADFV/real")}
    content = {"UADFV": {"UADFV_Real": dict.fromkeys(("train", "val", "test"), same)}}
    assert list(errors_in(content, tmp_path)) == ["UADFV/UADFV_Real: train, val and test are the same 1 videos"]
    deep = {"DeeperForensics-1.0": {"DF_real": {"train": {"a": leaf("DeeperForensics-1.0/source_videos/M004")}}}}
    assert any("source videos stand for the real class" in e for e in errors_in(deep, tmp_path))


def test_peer_unknown_names_in_every_split(tmp_path: Path) -> None:
    splits = {s: {"c23": {n: leaf("FF"), "900_901": leaf("FF")}} for s, n in (("train", "a"), ("val", "b"), ("test", "c"))}
    errors = errors_in({"FaceForensics++": {"FF-DF": splits}}, tmp_path)
    assert errors == {"FaceForensics++/FF-DF: 1 videos are in train, val and test": ["c23/900_901"]}


def test_peer_dfdc_validation(tmp_path: Path) -> None:
    content = {
        "DFDC": {
            "DFDC_Fake": {"train": {"a": leaf("DFDC")}, "val": {**leaf("DFDC"), "a": leaf("DFDC")}, "test": {"b": leaf("DFDC")}}
        }
    }
    assert set(errors_in(content, tmp_path)) == {
        "DFDC/DFDC_Fake: 'val' holds the fields of one video instead of videos, what was there is lost",
        "DFDC/DFDC_Fake: 1 of the 1 val videos are in train too",
    }


def test_peer_files_in_the_folder_are_found_and_sound_ones_praised(tmp_path: Path) -> None:
    root = tiny(tmp_path, "real/a.mp4", "fake/swap/b.mp4")
    same = {"0000": leaf("UADFV/real")}
    (root / "dataset_json").mkdir()
    (root / "dataset_json/UADFV.json").write_text(
        json.dumps({"UADFV": {"UADFV_Real": dict.fromkeys(("train", "val", "test"), same)}})
    )
    (root / "good.json").write_text(json.dumps({"D": {"D_real": {"train": same, "test": {"1": leaf("x")}}}}))
    (root / "other.json").write_text('{"a": [1, 2]}')
    findings = check(root)
    said(findings, "warning", "dataset_json/UADFV.json (DeepfakeBench): UADFV/UADFV_Real: train, val and test are the same")
    said(findings, "note", "good.json (DeepfakeBench): none of its known split errors")
    assert not any("other.json" in f.sentence for f in findings)


def run(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["dfgrid", *map(str, args)])
    try:
        main()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_command_and_its_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = whole_uadfv(tmp_path / "uadfv")
    assert run(monkeypatch, "preprocess", root, "--check") == 0
    assert "nothing wrong" in capsys.readouterr().out
    (root / "real/0000.mp4").write_bytes(b"")
    assert run(monkeypatch, "preprocess", root, "--check", "--layout", "uadfv", "--out", tmp_path / "store") == 1
    out = capsys.readouterr().out
    assert "1 of 98 files cannot be read" in out
    assert "1 errors, 0 warnings; nothing was written" in out
    assert not (tmp_path / "store").exists()
    assert run(monkeypatch, "preprocess", root, "--check", "--layout", "nothing") == 2
    assert run(monkeypatch, "preprocess", root) == 2
    assert "--out" in capsys.readouterr().err


def test_list_datasets_tells_everything(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "list", "datasets") == 0
    out = capsys.readouterr().out
    for layout in LAYOUTS.values():
        for text in (layout.name, layout.url, layout.terms, layout.counts, layout.splits, *layout.tree.splitlines()):
            assert text.strip() in out, (layout.name, text)
        assert layout.sources in out
        assert layout.uncertain in out
        assert layout.sources or layout.name == "folder"
        assert layout.terms
        assert layout.counts
        assert layout.splits
