"""Self-blended images: the pictures, the batches, and cells that train on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.config import ConfigError, Grid
from benchmark.data import REAL, FaceFrames
from benchmark.decoded import CachedImages
from benchmark.reading import parse
from benchmark.run import run_cell
from benchmark.seeding import stream
from benchmark.self_blended import Blender, SelfBlendedBatches, SelfBlendedFrames, choose_source, source_frames
from benchmark.self_blending import HULLS, RATIOS, outline, self_blend
from benchmark.specs import SBI
from benchmark.train import Plan, faces_of_steps
from preprocessing.store import FaceStore
from results.record import Record
from results.scores import load_scores

torch.set_num_threads(1)

CONTENT: dict[str, Any] = {
    "name": "blended",
    "train": {"store": "stores/mini-a", "source": "sbi"},
    "tests": [{"name": "FaceSwap", "store": "stores/mini-a", "methods": ["FaceSwap"], "role": "held-out"}],
    "detectors": [{"name": "resnet10", "size": 32, "width": 4}],
    "optimizers": [{"name": "roga", "base": "adam"}],
    "seeds": [0],
    "protocol": {"epochs": 1, "batch_size": 8, "augment": "pim"},
}


def grid(**train: Any) -> Grid:
    return parse(Grid, {**CONTENT, "train": {**CONTENT["train"], **train}}, "g.yaml")


@pytest.fixture(scope="module")
def store(data: Path) -> FaceStore:
    return FaceStore(data / "stores" / "mini-a")


@pytest.fixture(scope="module")
def reals(store: FaceStore) -> FaceFrames:
    (rows, methods), _ = choose_source(grid().train, store.manifest)
    return FaceFrames(rows, methods, CachedImages(store, 64).images)


def test_a_pair_is_a_face_and_the_blend_of_it(store: FaceStore) -> None:
    key = store.manifest["key"].iloc[0]
    face, landmarks = store.image(key), store.landmarks(key)
    kept, ratios = 0, set()
    for draw in range(24):
        pair = self_blend(face, landmarks, stream("sbi", draw))
        assert pair.real.dtype == pair.fake.dtype == np.uint8
        assert pair.mask.shape == face.shape[:2]
        assert pair.mask.min() >= 0
        outside = pair.mask == 0
        assert np.array_equal(pair.fake[outside], pair.real[outside])
        assert outside.mean() > 0.3
        assert not np.array_equal(pair.fake, pair.real)
        middle = landmarks[27:36].mean(0).astype(int)
        assert pair.mask[middle[1], middle[0]] > 0.2
        ratios.add(min(RATIOS, key=lambda r: abs(r - float(pair.mask.max()))))
        kept += np.array_equal(pair.real, face)
        again = self_blend(face, landmarks, stream("sbi", draw))
        assert np.array_equal(pair.fake, again.fake)
    assert ratios == set(RATIOS)
    assert 4 < kept < 20  # the target is left alone in half of the pairs


def test_outlines_enclose_what_they_say(store: FaceStore) -> None:
    landmarks = store.landmarks(store.manifest["key"].iloc[0])
    whole, raised, inner = (outline(landmarks, hull) for hull in HULLS)
    assert (raised >= whole).mean() > 0.999
    assert raised.sum() > 1.05 * whole.sum()
    assert (inner <= whole).all()
    assert 0.3 * whole.sum() < inner.sum() < 0.9 * whole.sum()
    for x, y in np.rint(landmarks).astype(int):
        assert whole[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any()
    with pytest.raises(ValueError, match="enclose nothing"):
        self_blend(np.zeros((64, 64, 3), np.uint8), landmarks + 1000, stream("sbi", 0))


def test_81_landmarks_reach_the_forehead_in_three_masks_of_four(store: FaceStore) -> None:
    key = store.manifest["key"].iloc[0]
    points = store.landmarks(key)
    top = points[17:27].min(0)[1]
    forehead = np.stack([np.linspace(points[0, 0], points[16, 0], 13), np.full(13, max(top - 40, 2))], axis=1)
    tops = [
        np.flatnonzero(self_blend(store.image(key), np.concatenate([points, forehead]), stream("sbi", i)).mask.any(1))[0]
        for i in range(40)
    ]
    assert 4 < sum(t > top - 30 for t in tops) < 36


def test_a_step_holds_pairs_and_an_epoch_every_real_face(store: FaceStore, reals: FaceFrames) -> None:
    batches = SelfBlendedBatches(reals, 6, 0, store)
    order = batches.epoch(0)
    assert order.shape == (batches.steps, 3, 3)
    positions = order[..., 0].reshape(-1)
    assert sorted(set(positions[: len(reals)])) == list(range(len(reals)))
    assert not np.array_equal(order, batches.epoch(1))
    batch = batches.batch(order[0])
    assert batch.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.domains.tolist() == [0] * 6
    assert len(set(batch.videos[3:].tolist()) & set(batch.videos[:3].tolist())) == 0
    assert batch.images.dtype == torch.uint8
    images = batch.images.float()
    near = (images[:3] - images[3:]).abs().mean(dim=(1, 2, 3))
    far = (images[:3].roll(1, 0) - images[3:]).abs().mean(dim=(1, 2, 3))
    assert (near < far).all()
    ids = batches.examples(order)
    assert np.array_equal(ids[:, :3], ids[:, 3:])  # a pair is augmented alike


def test_a_pair_depends_on_seed_epoch_and_face_alone(store: FaceStore, reals: FaceFrames) -> None:
    six, four = SelfBlendedBatches(reals, 6, 0, store), SelfBlendedBatches(reals, 4, 0, store)

    def fakes(batches: SelfBlendedBatches, epoch: int) -> dict[int, torch.Tensor]:
        found: dict[int, torch.Tensor] = {}
        for step in batches.epoch(epoch):
            images = batches.batch(step).images
            found |= {int(p): images[len(step) + i] for i, (p, showing, _) in enumerate(step) if showing == 0}
        return found

    one, other, later = fakes(six, 0), fakes(four, 0), fakes(six, 1)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[p], other[p]) for p in one)
    assert not any(torch.equal(one[p], later[p]) for p in one)
    six.threads = 4
    assert all(torch.equal(one[p], image) for p, image in fakes(six, 0).items())
    some = FaceFrames(reals.rows.iloc[::-1].reset_index(drop=True), reals.methods, reals.images)
    assert np.array_equal(Blender(some, store).pair(0, 0, 0, 0).fake, six.blender.pair(len(reals) - 1, 0, 0, 0).fake)


def test_reading_from_the_middle_is_reading_on(store: FaceStore, reals: FaceFrames) -> None:
    plan = Plan(2, SelfBlendedBatches(reals, 8, 3, store), 1, 3, "dfb", "fp32", None)
    whole = list(faces_of_steps(plan, 0))
    start = plan.batches.steps + 1
    rest = list(faces_of_steps(plan, start))
    assert len(whole) == plan.steps
    assert len(rest) == plan.steps - start
    for (batch, ids), (again, same) in zip(whole[start:], rest, strict=True):
        assert torch.equal(batch.images, again.images)
        assert np.array_equal(ids, same)


def test_masks_are_those_of_the_blend(store: FaceStore, reals: FaceFrames) -> None:
    batches = SelfBlendedBatches(reals, 4, 0, store, lambda positions: {"masks": torch.zeros(len(positions), 1, 64, 64)})
    batch = batches.batch(batches.epoch(0)[0])
    assert batch.masks is not None
    assert not batch.masks[:2].any()
    changed = (batch.images[:2] != batch.images[2:]).any(1)
    assert (batch.masks[2:, 0][changed] == 1).all()
    assert 0.05 < float(batch.masks[2:].mean()) < 0.7


def test_validation_takes_the_stores_forgeries_or_else_blends(store: FaceStore) -> None:
    train, images = grid().train, CachedImages(store, 64).images
    _, (rows, methods) = choose_source(train, store.manifest)
    assert "FaceSwap" in methods
    assert type(source_frames(train, (rows, methods), images, store)) is FaceFrames
    manifest = store.manifest[store.manifest["method"] == REAL]
    chosen = choose_source(train, manifest)[1]
    frames = source_frames(train, chosen, images, store)
    assert isinstance(frames, SelfBlendedFrames)
    half = len(frames) // 2
    assert frames.rows["label"].tolist() == [0] * half + [1] * half
    assert frames.rows["key"].is_unique
    every = frames.pixels(np.arange(len(frames)))
    assert torch.equal(frames.pixels(np.array([half + 1, 0])), every[[half + 1, 0]])  # again, alone: the same
    assert not torch.equal(every[:half], every[half:])


class Bare:
    """A store whose faces came cut out, without landmarks."""

    path = Path("cut-out")

    def landmarks(self, key: str) -> np.ndarray:
        return np.zeros((0, 2), np.float32)


def test_mistakes_are_told_in_a_sentence(store: FaceStore, reals: FaceFrames) -> None:
    with pytest.raises(ConfigError, match=r"sbi needs the 68 or 81 landmarks of each real face, but .* in store cut-out has none"):
        SelfBlendedBatches(reals, 4, 0, Bare())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"take at most {2 * len(reals)}"):
        SelfBlendedBatches(reals, 2 * len(reals) + 2, 0, store)
    with pytest.raises(ConfigError, match=r"g.yaml: train: methods: with source sbi the fakes are made of real faces"):
        grid(methods=["Deepfakes"])
    with pytest.raises(ConfigError, match=r"train.source: .*sbi"):
        grid(source="cutmix")
    assert grid(methods=["SBI"]).train == grid(methods=[]).train == grid().train
    assert grid().train.methods == ("SBI",)


def test_cells_of_forgeries_keep_their_ids() -> None:
    plain = {**CONTENT, "train": {"store": "stores/mini-a", "methods": ["Deepfakes"]}}
    cell = Grid.model_validate(plain).cells()[0]
    named = Grid.model_validate({**plain, "train": {**plain["train"], "source": "forgeries"}}).cells()[0]
    assert cell.id == named.id
    assert cell.id != grid().cells()[0].id


def test_a_cell_trains_on_blends_and_repeats_to_the_bit(data: Path, tmp_path: Path) -> None:
    cell = grid().cells()[0]
    records = [run_cell(cell, tmp_path / name, data) for name in ("one", "two")]
    assert records[0].measures == records[1].measures
    assert records[0].losses == records[1].losses
    assert np.isfinite(records[0].losses[-1][1])
    record = Record.load(tmp_path / "one" / "record.json")
    assert record.data["train"]["source"] == "sbi"
    scores = load_scores(tmp_path / "one" / "scores.parquet")
    assert set(scores["test"]) == {"val", "FaceSwap"}


def test_diagnostics_name_the_domain_that_is_trained_on(data: Path, tmp_path: Path) -> None:
    """The blends, not the forgeries that validation takes from the store."""
    cell = grid().cells()[0]
    looking = cell.model_copy(update={"protocol": cell.protocol.model_copy(update={"diagnostics_every": 1})})
    run_cell(looking, tmp_path / "c", data)
    seen = pd.read_parquet(tmp_path / "c" / "diagnostics.parquet")
    assert set(seen["domain"]) == {"", SBI}
