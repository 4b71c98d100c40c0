"""What detectors need beyond labelled faces: provided by the data path, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from benchmark.config import ConfigError, Grid, Protocol
from benchmark.data import BalancedBatches, FaceFrames, choose
from benchmark.decoded import CachedImages
from benchmark.needs import annotator, check_needs
from benchmark.objective import BatchObjective
from benchmark.run import run_cell
from benchmark.train import Plan, augmented, micro_batches
from detectors import DETECTORS
from detectors.base import Batch, Detector, Prediction
from preprocessing.store import FaceStore


class Needy(Detector):
    """Faces of 16 px."""

    size = 16
    shallow = ("conv",)

    def __init__(self, *needs: str, methods: int = 0) -> None:
        super().__init__()
        self.needs, self.methods = needs, methods
        self.conv, self.head = nn.Conv2d(3, 2, 3), nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Prediction:
        features = self.conv(self.normalize(images)).mean(dim=(2, 3))
        return Prediction(self.head(features), features)


class Forgotten(Needy):
    """Faces of 16 px; a comma is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.needs = "views"  # type: ignore[assignment]


class Comparing(Needy):
    """Faces of 16 px."""

    least_micro_batch = 2


def protocol(**settings: object) -> Protocol:
    return Protocol.model_validate({"epochs": 1, "batch_size": 8, "augment": "flip", **settings})


@pytest.mark.parametrize(
    ("detector", "settings", "methods", "said"),
    [
        (Needy("views"), {"augment": "none"}, 2, "two augmentations of each face, which would be the same; take flip or light"),
        (Needy("pairs"), {"micro_batch": 1}, 2, "protocol.micro_batch is 1"),
        (Needy("methods", methods=1), {}, 2, "give it the setting methods: 2"),
        (Needy("masks"), {"augment": "light"}, 2, "needs masks, which augmentation does not move with the face; take none"),
        (Needy("landmarks"), {"augment": "flip"}, 2, "needs landmarks"),
        (Needy("depth"), {}, 2, "needs 'depth', which nothing provides"),
        (Forgotten(), {}, 2, r"has needs = 'views', one string; write needs = \('views',\)"),
        (Comparing(), {"micro_batch": 1}, 2, "protocol.micro_batch is 1, .* compares faces with each other; take 2, or none"),
        (
            Comparing(),
            {"batch_size": 9, "micro_batch": 2, "class_balance": "none"},
            2,
            "no more than 1 of 9 faces .*; take 3, or none",
        ),
    ],
)
def test_what_cannot_be_given_is_refused(detector: Detector, settings: dict[str, object], methods: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        check_needs("mine", detector, protocol(**settings), methods)
    assert "'mine'" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_can_be_given_is_not() -> None:
    check_needs("mine", Needy("views", "pairs", "methods", methods=3), protocol(micro_batch=2), 2)
    check_needs("mine", Needy("masks", "landmarks"), protocol(augment="none"), 2)
    check_needs("mine", Needy(), protocol(augment="none", micro_batch=1), 2)
    for micro_batch in (2, 3, 8, 20, None):
        check_needs("mine", Comparing(), protocol(micro_batch=micro_batch), 2)


def test_deepfakebenchs_core_is_not_trained_without_its_consistency() -> None:
    with torch.device("meta"):
        detector = DETECTORS.build("dfb-core", size=32)
    with pytest.raises(ConfigError, match=r"protocol.micro_batch is 1.* detector 'dfb-core'"):
        check_needs("dfb-core", detector, protocol(micro_batch=1), 2)


@pytest.mark.parametrize(("name", "said"), [("core", r"\(dfb-by-detector means none for it\)$"), ("mine", "take flip or light$")])
def test_an_augmentation_that_went_by_the_detector_is_explained(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_needs(name, Needy("views"), protocol(augment="none"), 2)


def frames_of(data: Path, size: int, methods: list[str] | None = None) -> tuple[FaceStore, FaceFrames]:
    store = FaceStore(data / "stores" / "mini-a")
    rows, found = choose(store.manifest, "mini-a", methods, "train", None)
    return store, FaceFrames(rows, found, CachedImages(store, size).images)


def test_masks_and_landmarks_come_with_their_faces(data: Path) -> None:
    store, frames = frames_of(data, 16)
    annotate = annotator("mine", Needy("masks", "landmarks"), store, frames)
    assert annotate is not None
    batches = BalancedBatches(frames, 2 * len(frames.methods), 0, annotate)
    step = batches.epoch(0)[0]
    batch = batches.batch(step)
    assert batch.masks is not None
    assert batch.landmarks is not None
    assert batch.masks.shape == (len(batch), 1, 16, 16)
    assert set(batch.masks.unique().tolist()) <= {0.0, 1.0}
    forged = batch.masks.flatten(1).sum(dim=1) > 0
    assert torch.equal(forged, batch.labels == 1)
    row = frames.rows.iloc[int(step.reshape(-1)[-1])]
    scale = 16 / store.image(row["key"]).shape[0]
    expected = (store.landmarks(row["key"]) + 0.5) * scale - 0.5
    assert np.allclose(batch.landmarks[-1].numpy(), expected, atol=1e-4)
    assert torch.equal(batch.images, BalancedBatches(frames, 2 * len(frames.methods), 0).batch(step).images)
    part = batch.to("cpu").only(torch.tensor([1, 0]))
    assert part.masks is not None
    assert torch.equal(part.masks, batch.masks[[1, 0]])
    assert part.views is None
    assert annotator("mine", Needy("views"), store, frames) is None


class Bare:
    """A store that knows neither masks nor landmarks."""

    path = Path("bare")

    def mask(self, key: str) -> None:
        return None

    def landmarks(self, key: str) -> np.ndarray:
        return np.zeros((0, 2), np.float32)


@pytest.mark.parametrize(("need", "said"), [("masks", "has none of 1 forged training faces"), ("landmarks", "have 0 of them")])
def test_a_store_without_them_is_refused(need: str, said: str) -> None:
    rows = pd.DataFrame({"key": ["a", "b"], "method": ["real", "X"], "domain": [-1, 0], "index": [0, 1]})
    frames = FaceFrames(rows, ("X",), np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(ConfigError, match=said):
        annotator("mine", Needy(need), Bare(), frames)  # type: ignore[arg-type]


def plan(frames: FaceFrames, **changed: object) -> Plan:
    settings = {"epochs": 1, "evaluations_per_epoch": 1, "seed": 5, "augment": "light", "precision": "fp32", "micro_batch": None}
    return Plan(batches=BalancedBatches(frames, 8, 5), **{**settings, **changed})  # type: ignore[arg-type]


def test_views_are_drawn_apart_and_again_alike(data: Path) -> None:
    _, frames = frames_of(data, 32, ["Deepfakes", "FaceSwap"])
    p = plan(frames)
    faces = p.batches.batch(p.batches.epoch(0)[0])
    plain, twice, again = augmented(faces, p, 0, 0, False), augmented(faces, p, 0, 0, True), augmented(faces, p, 0, 0, True)
    assert plain.views is None
    assert torch.equal(plain.images, twice.images)
    assert twice.views is not None
    assert again.views is not None
    assert torch.equal(twice.views, again.views)
    assert not torch.equal(twice.views, twice.images)
    later = augmented(faces, p, 0, 1, True)
    assert later.views is not None
    assert not torch.equal(later.views, twice.views)


def test_micro_batches_keep_pairs_together() -> None:
    labels = torch.arange(2).repeat_interleave(3).repeat(2)
    domains = torch.arange(2).repeat_interleave(6)
    batch = Batch(torch.zeros(12, 3, 1, 1), labels, domains, torch.arange(12))
    pairs = set(zip(torch.nonzero(labels == 0).flatten().tolist(), torch.nonzero(labels == 1).flatten().tolist(), strict=True))
    for at_most in (2, 3, 4, 5, 7, 12, None):
        parts = micro_batches(batch, at_most, pairs=True)
        found = set()
        for part in parts:
            assert len(part) <= (at_most or 12)
            for objective in (BatchObjective(Needy(), [part]), *BatchObjective(Needy(), [part]).domains()):
                inside = objective.batches[0]
                real, fake = (inside.videos[inside.labels == label].tolist() for label in (0, 1))
                assert len(real) == len(fake)
                found |= set(zip(real, fake, strict=True))
        assert found == pairs


def test_a_cell_that_cannot_be_trained_says_so_first(data: Path, tmp_path: Path) -> None:
    content = {
        "name": "small",
        "train": {"store": "stores/mini-a", "methods": ["Deepfakes", "Face2Face"]},
        "tests": [{"name": "NT", "store": "stores/mini-a", "methods": ["NeuralTextures"], "role": "held-out"}],
        "detectors": [{"name": "core", "size": 32}],
        "optimizers": ["sgd"],
        "bases": {"sgd": {"lr": 0.001}},
        "seeds": [0],
        "protocol": {"epochs": 1, "batch_size": 8},
    }
    with pytest.raises(ConfigError, match="augment is none, but detector 'core'"):
        run_cell(Grid.model_validate(content).cells()[0], tmp_path, data)
    assert not list(tmp_path.glob("*.pt"))
