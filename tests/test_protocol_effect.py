"""`dfgrid protocol`, and what each switch of the evaluation makes of a finished run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_grids import measure, record
from test_cli import Dfgrid, dfgrid  # noqa: F401  (the fixture)
from test_run import cell

from benchmark.cli.protocol import _over_runs
from benchmark.effect import ANOTHER_CHECKPOINT, Effect, changes, effects, protocol_of, remeasure
from benchmark.protocol import SWITCHES
from benchmark.run import run_cell
from results.record import Record
from results.scores import load_scores

TESTS = [{"name": "t", "store": "s", "split": "test", "frames": None, "frame_pick": "uniform"}]


def run(data: dict[str, Any] | None = None, protocol: dict[str, Any] | None = None) -> tuple[Record, pd.DataFrame]:
    """Two evaluations: source validation is perfect at the first, the test set is better at the second."""
    faces = [
        *(("real", "1", 0, 0.2), ("real", "1", 1, 0.3), ("real", "2", 0, 0.4), ("real", "2", 1, 0.5)),
        *(("A", "3", 0, 0.9), ("A", "3", 1, 0.1), ("B", "3", 0, 0.1), ("B", "3", 1, 0.1)),
    ]
    sets = []
    for step in (10, 20):
        for split, test, role in (("val", "val", "source-val"), ("test", "t", "cross-dataset")):
            table = pd.DataFrame(faces, columns=["method", "video", "frame", "score"])
            label = (table["method"] != "real").astype("int64")
            ideal = step == (10 if split == "val" else 20)
            score = 0.1 + 0.8 * label if ideal else table["score"]
            sets.append(
                table.assign(label=label, score=score, dataset="d", epoch=step / 10, step=step, split=split, test=test, role=role)
            )
    scores = pd.concat(sets, ignore_index=True)
    scores["key"] = scores["method"] + scores["video"] + scores["frame"].astype(str)
    more = {"data": {"train": {"store": "s", "frames": None}, "tests": TESTS, "missing": {"val": [], "t": []}, **(data or {})}}
    said = {"name": "strict", "epochs": 2, "batch_size": 8, **(protocol or {})}
    return record("c", [measure(0.5)], protocol=said, **more), scores


def of(found: list[Effect], change: str, level: str = "video") -> Effect:
    return next(e for e in found if e.change.startswith(change) and e.level == level)


def test_each_change_by_hand() -> None:
    found = effects(*run(data={"missing": {"val": [], "t": [["d", "real", "9", 0]]}}))
    # Videos: real 0.25 and 0.45; A3 0.5 beats both, B3 0.1 none. Faces: 0.9 beats all four, three times 0.1 none.
    assert (of(found, "recorded").auc, of(found, "recorded", "frame").auc) == (0.5, 0.25)
    # One group of 0.9 and three times 0.1: 0.3 beats 0.25 alone, as before. Validation stays perfect.
    assert (of(found, "video_key").auc, of(found, "video_key").note) == (0.5, "")
    # A real video of 0.5 ties with A3 and beats B3: (1 + 1 + 0.5) / 6 of the pairs.
    assert of(found, "missing_face").auc == pytest.approx(2.5 / 6)
    assert of(found, "missing_face").auc_points == pytest.approx(100 * (2.5 / 6 - 0.5))
    assert of(found, "missing_face", "frame").auc_points == 0
    assert (of(found, "clip_average").auc, of(found, "clip_average").auc_points) == (0.25, -25.0)
    assert (of(found, "selection: source_val -> last").auc, of(found, "selection: source_val -> last").note) == (
        1.0,
        "another checkpoint",
    )
    best, three = (of(found, f"selection: source_val -> {rule}") for rule in ("best_per_test", "top3_per_test"))
    assert (best.auc, best.oracle, three.auc, three.oracle) == (1.0, True, 0.75, True)
    # 32 faces are all of them.
    assert of(found, "frames, frame_pick: all -> 32 first").auc_points == 0
    every = of(found, "all of dfb-compat")
    assert (every.auc, every.oracle) == (0.75, True)


def test_picked_faces_are_recomputed_where_all_were_scored() -> None:
    r, scores = run()
    first = remeasure(r, scores, protocol_of(r).model_copy(update={"frames": 1, "frame_pick": "first"}), pick=True)
    frame = next(m for m in first if m.test == "t" and m.level == "frame" and m.step == 10)
    # The first faces: real 0.2 and 0.4; fakes 0.9 and 0.1.
    assert (frame.auc, frame.n) == (0.5, 4)


def test_faces_that_were_never_scored_are_named() -> None:
    found = effects(*run(data={"tests": [{**TESTS[0], "frames": 8}]}))
    note = of(found, "frames, frame_pick").note
    assert note == "the run scored 8 uniform faces of each video, which do not tell of 32 first"
    assert of(found, "all of dfb-compat but frames, frame_pick").auc == 0.75


def test_a_mixed_video_is_a_reason_and_not_a_crash() -> None:
    r, scores = run()
    found = effects(r, scores.assign(video="same"))
    assert "has frames of both labels" in of(found, "video_key").note
    assert of(found, "video_key").auc is None
    assert of(found, "all of dfb-compat").note != ""  # one real group: no fake video is left


def test_a_run_of_the_peer_is_compared_with_strict() -> None:
    r, _ = run(protocol={"name": "dfb-compat"})
    names = [name for name, _ in changes(r, protocol_of(r))]
    assert "video_key: basename -> full" in names
    assert "selection: top3_per_test -> source_val" in names
    assert names[-1] == "all of strict"
    turned = {name.split(":")[0] for name in names[1:-1]}
    assert turned == {n for n, s in SWITCHES.items() if s.side in ("evaluation", "selection")} - {"frames", "frame_pick"}


def test_records_from_before_the_switches_are_strict() -> None:
    r, scores = run()
    old = r.model_copy(update={"data": {k: v for k, v in r.data.items() if k != "missing"}})
    found = effects(old, scores)
    assert of(found, "recorded").auc == 0.5
    assert "run the cell again" in of(found, "missing_face").note


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "cell"
    run_cell(cell(), folder, data)
    return folder


def test_remeasuring_gives_the_record_itself(finished: Path) -> None:
    r = Record.load(finished / "record.json")
    assert tuple(remeasure(r, load_scores(finished / "scores.parquet"), protocol_of(r))) == r.measures


def test_effect_on_the_command_line(dfgrid: Dfgrid, finished: Path, tmp_path: Path) -> None:  # noqa: F811
    shutil.copytree(finished, tmp_path / "runs" / "one")
    shutil.copytree(finished, tmp_path / "runs" / "two")
    code, out, _ = dfgrid("protocol", "effect", "runs", "--each", "--out", "effect.csv")
    assert (code, "2 runs" in out, out.count(cell().id)) == (0, True, 2)
    assert "video_key: full -> basename" in out
    assert "ORACLE" in out
    table = pd.read_csv(tmp_path / "effect.csv")
    assert set(table["test"]) == {"NeuralTextures", "mini-b"}
    assert table.loc[table["change"] == "recorded", "auc_points"].eq(0).all()
    assert table.groupby("change").size().eq(8).all(), "two runs, two test sets, two levels"
    moved = table.drop_duplicates(["change", "test", "level"]).set_index(["change", "test", "level"])["auc_points"]
    summary = out[out.index("2 runs") :].splitlines()
    for change in ("clip_average: of_videos -> of_frames", "selection: source_val -> last"):
        line = next(text for text in summary if change in text and "mini-b" in text and "│ video │" in text)
        below = summary[summary.index(line) + 1]  # least and most
        mean = f"{moved[change, 'mini-b', 'video']:+.2f}"
        assert mean in line
        assert f"{mean}, {mean}" in below, "least and most of two equal runs"
    assert "EER by: mean" in out
    by_eer = table[(table["change"] == "eer: interpolated -> nearest") & table["eer_points"].ne(0)]
    for points in by_eer["eer_points"]:
        assert f"{points:+.2f}, {points:+.2f}" in out[out.index("2 runs") :]
    (tmp_path / "empty").mkdir()
    code, _, err = dfgrid("protocol", "effect", "empty")
    assert code == 2
    assert "holds no record.json" in err


def test_several_runs_say_where_another_checkpoint_was_chosen() -> None:
    row = {"change": "a -> b", "test": "t", "level": "video", "auc_points": 1.0, "eer_points": -2.0, "oracle": False}
    rows = pd.DataFrame([{**row, "note": note} for note in (ANOTHER_CHECKPOINT, "")])
    other = pd.DataFrame([{**row, "change": "c -> d", "note": ANOTHER_CHECKPOINT}] * 2)
    table = _over_runs(pd.concat([rows, other]), 2)
    assert list(table.columns[-1].cells) == ["another checkpoint in 1 run", "another checkpoint"]
    assert list(table.columns[5].cells) == ["-2.00\n-2.00, -2.00"] * 2


def test_show_diff_and_list(dfgrid: Dfgrid) -> None:  # noqa: F811
    code, out, _ = dfgrid("protocol", "diff", "strict", "dfb-compat")
    assert code == 0
    for name, switch in SWITCHES.items():
        differs = name not in ("missing_face", "clip_average")
        assert (f"│ {name} " in out, switch.row[:6] in out) == (differs, differs), name
    assert "Alike in both: missing_face count, clip_average of_videos\n" in out
    code, out, _ = dfgrid("protocol", "show", "dfb-compat")
    assert all(f"│ {name} " in out for name in SWITCHES)
    assert "What no preset reproduces" in out
    code, out, _ = dfgrid("protocol", "diff", "strict", "strict")
    assert "do not differ" in out
    assert "dfb-compat" in dfgrid("protocol", "list")[1]
    code, _, err = dfgrid("protocol", "show", "dfb")
    assert (code, "unknown protocol 'dfb'," in err) == (2, True)
