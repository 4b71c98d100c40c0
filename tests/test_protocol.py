"""The protocol's switches: presets and ids, and in closed form what each switch of data and training does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_config import GRID
from test_data import manifest
from torch import Tensor, nn

from benchmark.by_detector import AUGMENTED
from benchmark.config import Cell, Grid
from benchmark.data import FaceFrames, choose
from benchmark.not_reproduced import NOT_REPRODUCED
from benchmark.objective import BatchObjective, LaterPasses
from benchmark.plain_batches import PlainBatches
from benchmark.protocol import PRESETS, SWITCHES, Protocol, preset_value, values_of
from benchmark.reading import ConfigError, parse
from benchmark.study import load_grid
from benchmark.train import Plan, batches_for, train
from detectors import DETECTORS
from detectors.base import Batch, Detector, Prediction
from optimizers.vector import Vector

OTHER_NUMBER = {"frames": 5, "epochs_extra": 2}
"""Values of the switches that are numbers, other than any preset's."""


def cell(protocol: Any, **changes: Any) -> Cell:
    grid: Grid = parse(Grid, {**GRID, "protocol": protocol, **changes}, "g.yaml")
    return grid.cells()[0]


def test_strict_cells_keep_the_ids_that_they_had_before_there_were_switches() -> None:
    ids = [c.id for c in load_grid("demo").cells()]
    assert ids[:4] == ["meso4-adam-s0-75ad7c7b", "meso4-sgd-s0-108de2e7", "meso4-sam-s0-2125cd4a", "meso4-asam-s0-b2886d7a"]


def test_every_switch_is_part_of_the_id_unless_it_is_strict() -> None:
    short = {"epochs": 1, "batch_size": 8}
    plain = cell(short)
    ids = {plain.id}
    for name in SWITCHES:
        strict = {**short, name: preset_value("strict", name)}
        assert cell(strict).id == plain.id, name
        for value in values_of(name) or (OTHER_NUMBER[name],):
            if value != preset_value("strict", name):
                also = {"class_balance": "none"} if name == "duplicates" else {"frames": 9} if name == "frame_pick" else {}
                ids.add(cell({**short, **also, name: value}).id)
    # By detector, meso4 is trained without augmentation: that is the plain cell.
    assert cell({**short, "augment": "dfb-by-detector"}).id == plain.id
    assert len(ids) == sum(len(values_of(name)) - 1 if values_of(name) else 1 for name in SWITCHES)


def test_a_preset_is_all_its_switches_and_what_is_said_goes_before_it() -> None:
    compat = cell("dfb-compat").protocol
    peer = {name: switch.peer_value for name, switch in SWITCHES.items()}
    assert {name: getattr(compat, name) for name in SWITCHES} == {**peer, "augment": "none"}  # what it means for meso4
    assert Protocol.model_validate("dfb-compat").augment == peer["augment"] == "dfb-by-detector"
    assert (compat.epochs, compat.all_epochs, compat.batch_size) == (10, 11, 32)
    own = cell({"name": "dfb-compat", "epochs": 3, "video_key": "full"}).protocol
    assert {k for k, v in own.model_dump().items() if v != compat.model_dump()[k]} == {"epochs", "video_key"}
    assert Protocol.model_validate(own.model_dump(mode="json")) == own, "a record's protocol is read as it was written"
    strict = cell({"epochs": 1, "batch_size": 8}).protocol
    assert all(getattr(strict, name) == preset_value("strict", name) for name in SWITCHES)


def test_every_difference_is_a_documented_switch() -> None:
    assert set(SWITCHES) | Protocol.FIRST | {"weights_dtype", "diagnostics_every"} == set(Protocol.model_fields)
    for name, switch in SWITCHES.items():
        assert (switch.does[-1], switch.peer[-1], switch.row[:2]) == (".", ".", "3."), name
    assert all(row.startswith("3.") and why.endswith(".") for row, why in NOT_REPRODUCED.values())
    rows = [switch.row.partition(" (")[0] for switch in SWITCHES.values()] + [row for row, _ in NOT_REPRODUCED.values()]
    named = {(row[:3], int(number)) for row in rows for number in re.findall(r"#(\d+)", row)}
    assert named == {(section, n) for section, last in (("3.1", 7), ("3.2", 12), ("3.4", 9)) for n in range(1, last + 1)}
    assert {"3.3", "3.5", "3.6"} <= set(rows)  # the survey's sections without numbers
    differing = [name for name in SWITCHES if preset_value("dfb-compat", name) != preset_value("strict", name)]
    assert set(SWITCHES) - set(differing) == {"missing_face", "clip_average"}
    assert set(PRESETS) == {"strict", "dfb-compat"}


def test_the_peers_augmentation_goes_by_the_detector() -> None:
    wanted = {
        **dict.fromkeys(["efficientnet_b4", "resnet34", "spsl", "ucf", "dfb-efficientnet_b4", "dfb-spsl"], "dfb"),
        **dict.fromkeys(["meso4", "mesoinception4", "recce", "srm", "f3net", "core", "dfb-core", "dfb-meso4", "dfb-f3net"], "none"),
        "xception": "dfb-no-rotation",
    }
    made = {name: cell("dfb-compat", detectors=[name]) for name in wanted}
    assert {name: c.protocol.augment for name, c in made.items()} == wanted
    said = cell({"name": "dfb-compat", "augment": "dfb-no-rotation"}, detectors=["xception"])
    assert made["xception"].id == said.id, "what is resolved is what counts"
    assert cell({"name": "dfb-compat", "augment": "flip"}, detectors=["vit_b_16"]).protocol.augment == "flip"
    for name in ("vit_b_16", "resnet50", "resnet10"):
        with pytest.raises(ConfigError, match=f"DeepfakeBench has no settings for detector '{name}'; say augment: none, or dfb"):
            cell("dfb-compat", detectors=[name])
    assert {name.removeprefix("dfb-") for name in DETECTORS.names() if name.startswith("dfb-")} <= AUGMENTED.keys()
    assert AUGMENTED.keys() <= set(DETECTORS.names())


@pytest.mark.parametrize(
    ("protocol", "sentence"),
    [
        ("strict", r"g.yaml: the key 'protocol.epochs' is missing"),
        ("dfb", r"protocol.name: .*'strict' or 'dfb-compat', not \"dfb\""),
        ({"name": "dfb-compat", "video_kee": "full"}, "unknown key 'protocol.video_kee', did you mean 'video_key'"),
        ({"name": "dfb-compat", "eer": "exact"}, "protocol.eer: .*'interpolated' or 'nearest', not \"exact\""),
        ({"name": "dfb-compat", "class_balance": "domains"}, "duplicates: keep has no effect with class_balance: domains"),
        ({"name": "dfb-compat", "evaluations_per_epoch": 2}, "evaluations_per_epoch has no effect with evaluation_points: dfb"),
        ({"epochs": 1, "batch_size": 8, "frame_pick": "first"}, "train: frame_pick 'first' needs frames"),
    ],
)
def test_mistakes_are_one_sentence(protocol: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        cell(protocol)


def test_a_data_set_may_say_its_own_faces() -> None:
    test = {**GRID["tests"][0], "frames": 4, "frame_pick": "uniform"}
    made = cell("dfb-compat", tests=[test])
    assert (made.train.frames, made.train.frame_pick) == (32, "first")
    assert (made.tests[0].frames, made.tests[0].frame_pick) == (4, "uniform")
    said = cell("dfb-compat", train={**GRID["train"], "frames": None, "frame_pick": "uniform"})
    assert (said.train.frames, said.train.frame_pick) == (None, "uniform")


# --- what is trained on, and when it is evaluated ---


def faces(**counts: int) -> FaceFrames:
    table = manifest({"real": counts["real"], "A": counts["A"], "B": counts["B"]}, 2)
    rows, methods = choose(table, "s", ["A", "B"], "train", None)
    return FaceFrames(rows, methods, np.zeros((len(table), 4, 4, 3), np.uint8))


def protocol(**said: Any) -> Protocol:
    return Protocol.model_validate({"epochs": 2, "batch_size": 4, **said})


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_without_balance_every_face_comes_once_an_epoch(duplicates: str) -> None:
    frames = faces(real=3, A=4, B=2)  # videos of two faces
    batches: Any = batches_for(protocol(class_balance="none", duplicates=duplicates, batch_size=5), frames, seed=1)
    copies = 2 if duplicates == "keep" else 1
    total = 12 + 6 * copies
    for epoch in (0, 1):
        steps = batches.epoch(epoch)
        assert [len(step) for step in steps] == [5] * (total // 5) + [total % 5] * (total % 5 > 0)
        assert len(steps) == batches.steps
        parts = [batches.batch(step) for step in steps]
        labels, domains = torch.cat([p.labels for p in parts]), torch.cat([p.domains for p in parts])
        seen = np.concatenate([batches.rows[step] for step in steps])
        assert np.bincount(seen).tolist() == [copies if d == -1 else 1 for d in frames.rows["domain"]]
        assert (int((labels == 0).sum()), int((labels == 1).sum())) == (6 * copies, 12)
        assert [int(((domains == d) & (labels == 1)).sum()) for d in (0, 1)] == [8, 4]
        assert [int(((domains == d) & (labels == 0)).sum()) for d in (0, 1)] == [3 * copies] * 2
    again: Any = PlainBatches(frames, 5, 1, duplicates == "keep")
    assert all(np.array_equal(a, b) for a, b in zip(batches.epoch(1), again.epoch(1), strict=True))
    assert not np.array_equal(np.concatenate(batches.epoch(0)), np.concatenate(batches.epoch(1)))


def test_a_step_of_more_faces_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size: 40 is more than the 18 training faces"):
        batches_for(protocol(class_balance="none", batch_size=40), faces(real=3, A=4, B=2), 0)


class Counted:
    """So many steps an epoch."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def epoch(self, epoch: int) -> list[int]:
        return [epoch] * self.steps

    def batch(self, step: int) -> Batch:
        return Batch(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), torch.zeros(2, dtype=torch.int64), torch.arange(2))


def plan(steps: int, epochs: int, **more: Any) -> Plan:
    return Plan(epochs, Counted(steps), 1, 0, "none", "fp32", None, **more)


def test_evaluation_points_of_the_peer() -> None:
    """nEpochs 10 trains 11 epochs and evaluates 21 times; with odd loaders the points do not keep to the epochs' ends."""
    compat = cell("dfb-compat").protocol
    even = plan(4, compat.all_epochs, points="dfb")
    assert len(even.evaluation_steps()) == 21
    assert even.evaluation_steps() == {4, *range(6, 45, 2)}
    assert plan(5, 3, points="dfb").evaluation_steps() == {5, 6, 8, 10, 12, 14}
    assert plan(1, 3, points="dfb").evaluation_steps() == {1, 2, 3}, "where len(loader) // 2 is 0"
    assert plan(5, 3).evaluation_steps() == {5, 10, 15}


class Tiny(Detector):
    """A linear layer behind BatchNorm and dropout."""

    size = 4

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.drop, self.last = nn.BatchNorm2d(3), nn.Dropout(dropout), nn.Linear(48, 2)

    def forward(self, images: Tensor) -> Prediction:
        features = self.drop(self.norm(images).flatten(1))
        return Prediction(self.last(features), features)


@pytest.mark.parametrize(("stepping", "times"), [("step", 6), ("epoch", 2), ("never", 0)])
def test_when_the_schedule_moves(stepping: Any, times: int) -> None:
    class Still:
        scaler = None

        def step(self, objective: BatchObjective) -> Tensor:
            return torch.zeros(())

    class Count:
        moved = 0

        def step(self) -> None:
            self.moved += 1

    schedule: Any = Count()
    optimizer: Any = Still()
    train(Tiny(), optimizer, schedule, plan(3, 2, stepping=stepping), lambda step, loss: None)
    assert schedule.moved == times


# --- passes after a step's first ---


def batch(n: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    return Batch(torch.rand(n, 3, 4, 4, generator=generator), labels, torch.zeros(n, dtype=torch.int64), torch.arange(n))


def passes(detector: Tiny, later: LaterPasses | None, at: float = 0.0) -> tuple[Vector, Vector]:
    """The gradients of a first pass and of a second one with all weights shifted by `at`."""
    objective = BatchObjective(detector, [batch()], later=later)
    shift = Vector({p: torch.full_like(p, at) for p in objective.parameters})
    return objective.gradient(), objective.gradient(at=shift)


def test_batchnorm_moves_once_or_once_in_every_pass() -> None:
    mean = batch().images.mean(dim=(0, 2, 3))
    for later, moves in ((None, 1), (LaterPasses(batchnorm="update"), 2)):
        detector = Tiny()
        passes(detector, later)
        # Each update is m <- 0.9 m + 0.1 mean, from zero.
        torch.testing.assert_close(detector.norm.running_mean, (1 - 0.9**moves) * mean)
        assert int(detector.norm.num_batches_tracked or 0) == moves


def test_masks_are_replayed_or_drawn_anew() -> None:
    for later, same in ((None, True), (LaterPasses(masks="fresh"), False)):
        torch.manual_seed(0)
        first, second = passes(Tiny(dropout=0.5), later)
        assert (float((first - second).norm()) == 0.0) == same


def test_weights_come_home_by_copy_or_by_subtraction() -> None:
    at = 0.1
    for later, exact in ((None, True), (LaterPasses(home="subtract"), False)):
        torch.manual_seed(0)
        detector = Tiny()
        before = detector.last.weight.detach().clone()
        passes(detector, later, at)
        expected = before if exact else (before + at) - at
        assert torch.equal(detector.last.weight, expected)
    assert not torch.equal((before + at) - at, before), "rounding shows in these numbers"


def test_a_grid_file_may_name_a_preset(tmp_path: Path) -> None:
    from test_config import write

    assert {c.protocol.name for c in load_grid(write(tmp_path, protocol="dfb-compat")).cells()} == {"dfb-compat"}


def test_faces_of_the_whole_store_count_videos_without_any(tmp_path: Path) -> None:
    from benchmark.data import without_face

    columns = ["dataset", "method", "label", "split", "video", "frame", "status"]
    ledger = pd.DataFrame(
        [
            ("d", "A", 1, "test", "one", 0, "no_face"),
            ("d", "A", 1, "test", "one", 1, "face"),
            ("d", "A", 1, "test", "two", 0, "no_face"),
            ("d", "A", 1, "test", "two", 1, "no_face"),
            ("d", "real", 0, "test", "two", -1, "unreadable"),
            ("d", "B", 1, "test", "two", -1, "unreadable"),
            ("d", "A", 1, "val", "three", -1, "unreadable"),
        ],
        columns=columns,
    )
    assert without_face(ledger, ["A"], "test").to_numpy().tolist() == [["d", "A", "two", 1], ["d", "real", "two", 0]]


def test_every_switch_of_training_reaches_the_training(data: Path, tmp_path: Path) -> None:
    """The weights and BatchNorm's statistics after two epochs of SAM, with dropout and a cosine schedule, differ under each."""
    from test_run import cell as tiny

    from benchmark import checkpoint
    from benchmark.run import run_cell

    common = {"epochs": 2, "batch_size": 8, "schedule": "cosine"}
    turned = {
        "strict": {},
        "frames": {"frames": 1},
        "class_balance": {"class_balance": "none"},
        "duplicates": {"class_balance": "none", "duplicates": "keep"},
        "epochs_extra": {"epochs_extra": 1},
        "stepping": {"schedule_stepping": "epoch"},
        "never": {"schedule_stepping": "never"},
        "bn_second_pass": {"bn_second_pass": "update"},
        "masks": {"masks": "fresh"},
        "weights_home": {"weights_home": "subtract"},
    }
    ends = set()
    for name, said in turned.items():
        made = tiny(
            protocol={**common, **said},
            detectors=[{"name": "meso4", "size": 32}],
            optimizers=[{"name": "sam", "base": "adam"}],
        )
        run_cell(made, tmp_path / name, data)
        state = checkpoint.load(tmp_path / name / "checkpoint.pt")["detector"]
        ends.add(torch.cat([t.flatten().double() for t in state.values()]).numpy().tobytes())
    assert len(ends) == len(turned)
