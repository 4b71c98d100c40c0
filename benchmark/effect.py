"""How far each switch of the evaluation moves a finished run's numbers: recomputed from its record and its scores alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.evaluate import ScoredSet, measures
from benchmark.frame_pick import pick_frames
from benchmark.protocol import SWITCHES, Protocol, preset_value, values_of
from benchmark.reading import ConfigError, parse
from results.files import RecordError
from results.record import Level, Measure, Record
from results.scores import load_scores
from results.selection import Chosen, select, selection_named

OTHER = {"strict": "dfb-compat", "dfb-compat": "strict"}
"""The preset that a run is compared with."""

ANOTHER_CHECKPOINT = "another checkpoint"
"""What is said of a number that comes from other weights than the recorded one."""


@dataclass(frozen=True)
class Effect:
    """What one change of the protocol makes of one test set at one level.

    Attributes:
        change: such as "video_key: full -> basename", or "recorded" for the protocol of the run.
        test, level: which numbers.
        auc, eer: under the change; None where they are not defined.
        auc_points, eer_points: by how much that is more than under the run's own protocol, in percentage points.
        oracle: whether the change's selection looks at the test set to choose.
        note: why there is no number, or that another checkpoint was chosen.
    """

    change: str
    test: str
    level: Level
    auc: float | None = None
    eer: float | None = None
    auc_points: float | None = None
    eer_points: float | None = None
    oracle: bool = False
    note: str = ""


def read_run(path: Path) -> tuple[Record, pd.DataFrame]:
    """Record and scores of a cell's folder.

    Raises:
        RecordError: one of them is missing or broken.
    """
    return Record.load(path / "record.json"), load_scores(path / "scores.parquet")


def find_runs(given: list[Path]) -> list[Path]:
    """The folders of cells that paths stand for: record files, cells' folders, or folders of runs.

    Raises:
        RecordError: a path without any record.
    """
    found: dict[Path, None] = {}
    for path in given:
        if path.name == "record.json":
            folders = [path.parent]
        else:
            folders = sorted(record.parent for record in path.rglob("record.json")) if path.is_dir() else []
        if not folders:
            raise RecordError(f"{path} holds no record.json; give a record, a cell's folder or a folder of runs")
        found |= dict.fromkeys(folders)
    return list(found)


def protocol_of(record: Record) -> Protocol:
    """The protocol of a record; switches that are younger than the record are strict, as its code was.

    Raises:
        ConfigError: the record's protocol is none of this version.
    """
    protocol: Protocol = parse(Protocol, dict(record.protocol), f"the protocol of record {record.cell}")
    return protocol


def changes(record: Record, protocol: Protocol) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every change that scores can tell of, one switch at a time, and last what the other preset would make of the evaluation.

    Yields:
        A name and what it sets.
    """
    other = OTHER[protocol.name]
    faces = {name: preset_value(other, name) for name in ("frames", "frame_pick")}
    names = [name for name, switch in SWITCHES.items() if switch.side in ("evaluation", "selection")]
    yield f"frames, frame_pick: {_faces(protocol.frames, protocol.frame_pick)} -> {_faces(**faces)}", faces
    for name in names:
        was = getattr(protocol, name)
        for value in values_of(name) if name not in faces else ():
            if value != was:
                yield f"{name}: {was} -> {value}", {name: value}
    whole = {name: preset_value(other, name) for name in names}
    if _never_scored(record, **faces):
        yield f"all of {other} but frames, frame_pick", {name: value for name, value in whole.items() if name not in faces}
    else:
        yield f"all of {other}", whole


def _faces(frames: int | None, frame_pick: str) -> str:
    return "all" if frames is None else f"{frames} {frame_pick}"


def effects(record: Record, scores: pd.DataFrame) -> list[Effect]:
    """What each change of `changes` makes of every test set and level, the run's own protocol first.

    A change is made in the whole protocol, so that a rule which selects by a changed number may choose another checkpoint.

    Raises:
        ConfigError, RecordError: the run's own numbers cannot be computed again.
    """
    protocol = protocol_of(record)
    known: dict[str, list[Measure]] = {}

    def choose(changed: Protocol, pick: bool) -> list[Chosen]:
        evaluation = str([pick, *(getattr(changed, name) for name, switch in SWITCHES.items() if switch.side == "evaluation")])
        if evaluation not in known:
            known[evaluation] = remeasure(record, scores, changed, pick)
        return select(known[evaluation], selection_named(changed.selection))

    own = {(c.test, c.level): c for c in choose(protocol, False)}
    oracle = _is_oracle(protocol)
    found = [Effect("recorded", c.test, c.level, c.metrics["auc"], c.metrics["eer"], 0.0, 0.0, oracle) for c in own.values()]
    for change, said in changes(record, protocol):
        changed = protocol.model_copy(update=said)
        try:
            chosen = choose(changed, "frames" in said)
        except (ConfigError, RecordError) as error:
            found += [Effect(change, test, level, note=str(error)) for test, level in own]
            continue
        for c in chosen:
            before = own[c.test, c.level]
            note = ANOTHER_CHECKPOINT if c.epochs != before.epochs else ""
            found.append(
                Effect(
                    change,
                    c.test,
                    c.level,
                    c.metrics["auc"],
                    c.metrics["eer"],
                    _points(c.metrics["auc"], before.metrics["auc"]),
                    _points(c.metrics["eer"], before.metrics["eer"]),
                    _is_oracle(changed),
                    note or c.undefined.get("auc", ""),
                )
            )
    return found


def _is_oracle(protocol: Protocol) -> bool:
    return selection_named(protocol.selection).oracle


def _points(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else 100 * (now - before)


def remeasure(record: Record, scores: pd.DataFrame, protocol: Protocol, pick: bool = False) -> list[Measure]:
    """Every measure of a run, from its scores, under a protocol.

    Args:
        record: for the data sets' settings and their videos without any face.
        scores: of the run.
        protocol: its switches of the evaluation are followed.
        pick: whether `frames` and `frame_pick` are followed too; a run's scores hold the faces that it picked already.

    Raises:
        ConfigError: the picked faces were never scored, or a video's faces disagree about their label where that is refused.
    """
    if pick and (reason := _never_scored(record, protocol.frames, protocol.frame_pick)):
        raise ConfigError(reason)
    found = []
    for _, rows in scores.groupby(["step", "split", "test"], sort=False, observed=True):
        if pick and protocol.frames is not None:
            rows = pick_frames(rows.sort_values(["dataset", "method", "video", "frame"]), protocol.frames, protocol.frame_pick)
        first = rows.iloc[0]
        of = ScoredSet(first["test"], first["split"], first["role"], _missing(record, first["test"], protocol))
        found += measures(rows, of, float(first["epoch"]), int(first["step"]), protocol)
    return found


def _never_scored(record: Record, frames: int | None, frame_pick: str) -> str:
    """Why the run's scores do not tell what other faces would give; empty where they do."""
    for of in (record.data["train"], *record.data["tests"]):
        scored = (of.get("frames"), of.get("frame_pick", "uniform"))
        if scored[0] is not None and scored != (frames, frame_pick):
            return f"the run scored {_faces(*scored)} faces of each video, which do not tell of {_faces(frames, frame_pick)}"
    return ""


def _missing(record: Record, name: str, protocol: Protocol) -> pd.DataFrame:
    known = record.data.get("missing")
    if known is None and protocol.missing_face == "half":
        raise ConfigError("the record does not say which videos have no face; run the cell again")
    return pd.DataFrame((known or {}).get(name, []), columns=["dataset", "method", "video", "label"])
