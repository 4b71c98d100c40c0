"""Reading faces ahead of their use, scoring them once, and the figures of speed."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from benchmark import train as module
from benchmark.ahead import ahead
from benchmark.contract import Small
from benchmark.data import BalancedBatches, FaceFrames, choose, without_face
from benchmark.decoded import CachedImages
from benchmark.evaluate import EvaluationSet, score
from benchmark.memory import steps_beside
from benchmark.plain_batches import PlainBatches
from benchmark.scoring import score_sets
from benchmark.speed import data as speed_data
from benchmark.speed import peer_data
from benchmark.speed import train as speed_train
from benchmark.speed.paired import Median, median
from benchmark.train import ALIGNED, FLOAT, Plan, augmented, faces_of_steps, made_ready, train
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base
from preprocessing.store import FaceStore

torch.set_num_threads(1)


def test_items_keep_their_order_and_only_a_few_are_made_early() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            yield i

    for i, item in enumerate(ahead(items(), depth=2)):
        assert item == i
        assert len(made) <= i + 4
    assert made == list(range(20))


def test_an_error_is_raised_where_its_item_is_asked_for() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("unreadable")

    reader = ahead(items())
    assert next(reader) == 1
    with pytest.raises(OSError, match="unreadable"):
        next(reader)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_thread_ends_with_its_reader(error: type[BaseException]) -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 0

    reader = ahead(endless())
    next(reader)
    assert any(t.name.startswith("ahead") for t in threading.enumerate())
    with pytest.raises(error):
        reader.throw(error())
    assert not any(t.name.startswith("ahead") for t in threading.enumerate())


def test_a_reader_can_be_left_at_any_moment() -> None:
    """Neither thread waits for the other for ever, however they are interleaved."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for taken in range(600):
            reader = ahead(iter(range(6)), depth=1 + taken % 3)
            for _ in range(taken % 5):
                next(reader)
            reader.close()
    finally:
        sys.setswitchinterval(before)
    assert not any(t.name == "ahead" for t in threading.enumerate())


def test_what_was_taken_is_not_held() -> None:
    class Item:
        """Something that a weak reference can follow."""

    followed: list[weakref.ref[Item]] = []

    def items() -> Iterator[Item]:
        for _ in range(4):
            item = Item()
            followed.append(weakref.ref(item))
            yield item
            del item

    reader = ahead(items(), depth=1)
    next(reader)
    next(reader)
    gc.collect()
    assert followed[0]() is None
    reader.close()


class Counted(Small):
    """Counts the faces that it sees."""

    seen = 0

    def forward(self, images: torch.Tensor):  # type: ignore[no-untyped-def]
        self.seen += len(images)
        return super().forward(images)


def test_a_face_in_several_sets_is_scored_once_with_the_same_score(data: Path) -> None:
    torch.manual_seed(0)
    detector = Counted()
    with FaceStore(data / "stores" / "mini-a") as store:
        images = CachedImages(store, detector.size).images
        manifest, ledger = store.manifest, store.ledger
    wanted = (["Deepfakes"], ["FaceSwap"], ["Deepfakes", "FaceSwap"])
    sets = [
        EvaluationSet(
            str(i),
            "test",
            "held-out",
            without_face(ledger, methods, "test"),
            FaceFrames(*choose(manifest, "s", methods, "test", None), images),
        )
        for i, methods in enumerate(wanted)
    ]
    alone = [score(detector, s.frames, 8) for s in sets]
    apart, detector.seen = detector.seen, 0
    told: list[tuple[str, int, int]] = []
    together = score_sets(detector, sets, 8, lambda *count: told.append(count))
    for one, other in zip(alone, together, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    different = len(set().union(*(s.frames.rows["index"] for s in sets)))
    assert detector.seen == different < apart
    assert [name for name, done, total in told if done == total] == ["0", "1"]


def test_both_ways_of_reading_give_the_same_faces(data: Path, tmp_path: Path) -> None:
    import cv2

    with FaceStore(data / "stores" / "mini-b") as store:
        frames = FaceFrames(
            store.manifest.reset_index(drop=True).rename_axis("index").reset_index().head(4), (), CachedImages(store, 256).images
        )
        files = [tmp_path / f"{i}.png" for i in range(4)]
        for key, path in zip(frames.rows["key"], files, strict=True):
            cv2.imwrite(str(path), cv2.cvtColor(store.image(key), cv2.COLOR_RGB2BGR))
    assert speed_data.different_levels(files, frames, 256) == 0
    compared = speed_data.ways(files, frames, 256)
    peer, ours = compared["normalised tensors"]
    batch = np.array([2, 0])
    assert torch.allclose(peer(batch), ours(batch), atol=1e-6)  # type: ignore[arg-type]
    for peer, ours in compared.values():
        rates = speed_data.take_turns(peer, ours, [batch, batch])
        assert rates.peer > 0
        assert rates.ours > 0
    cv2.imwrite(str(files[0]), np.zeros((256, 256, 3), np.uint8))
    assert speed_data.different_levels(files, frames, 256) > 0
    seen = [peer_data.augmented(frames.images[0], np.random.default_rng(i)) for i in range(8)]
    assert all(face.shape == (256, 256, 3) and face.dtype == np.uint8 for face in seen)
    assert len({face.tobytes() for face in seen}) == 8


@pytest.mark.parametrize("preset", ["none", "light", "dfb"])
def test_steps_get_the_augmented_faces_of_their_own_step(tmp_path: Path, preset: str) -> None:
    """On the CPU another thread augments them ahead; a step sees the same floats as if it had asked for them by itself."""
    frames = speed_train.grainy(tmp_path, 16, 2, 6)
    plan = Plan(2, BalancedBatches(frames, 8, 0), 1, 0, preset, "fp32", None)
    detector = Small()
    rule = OPTIMIZERS.build("adam")
    optimizer = Optimizer(rule, build_base(rule.base, detector.parameters()), detector)
    seen: list[torch.Tensor] = []
    train(detector, optimizer, None, plan, lambda step, loss: None, 1, lambda step, batch: seen.append(batch.images))
    for step, (faces, ids) in enumerate(faces_of_steps(plan, 1), 1):
        assert faces.images.dtype == torch.uint8
        wanted = augmented(faces, plan, *divmod(step, plan.batches.steps), False, ids).images
        assert torch.equal(seen[step - 1], wanted)
        assert wanted.is_contiguous(memory_format=torch.channels_last)
        assert (wanted.min() >= 0) & (wanted.max() <= 1)
    assert len(seen) == plan.steps - 1


def marked(positions: NDArray[np.int64]) -> dict[str, torch.Tensor]:
    """A mask and landmarks that tell whose they are."""
    own = torch.from_numpy(positions).float()
    return {"masks": own.view(-1, 1, 1, 1).expand(-1, 1, 2, 2), "landmarks": own.view(-1, 1, 1).expand(-1, 81, 2)}


@pytest.mark.parametrize("side", [16, 15])
@pytest.mark.parametrize("preset", ["none", "flip", "light", "dfb", "pim"])
def test_steps_that_are_made_ready_together_get_the_same_faces(tmp_path: Path, preset: str, side: int) -> None:
    """As on a GPU: three steps at a time, of an epoch of four from the second one on; faces of 15 px would lie unaligned."""
    frames = speed_train.grainy(tmp_path, side, 2, 8)
    plan = Plan(2, PlainBatches(frames, 7, 0, annotate=marked), 1, 0, preset, "fp32", None)
    assert plan.batches.steps == 4  # of 7, 7, 7 and 3 faces
    calls = list(made_ready(plan, 1, torch.device("cpu"), True, 3))
    groups = [call() for call in calls]
    assert [len(group) for group in groups] == [3, 3, 1]
    found = [batch for group in groups for batch in group]
    for step, ((faces, ids), batch) in enumerate(zip(faces_of_steps(plan, 1), found, strict=True), 1):
        wanted = augmented(faces, plan, *divmod(step, plan.batches.steps), True, ids)
        for name, value in vars(wanted).items():
            own = getattr(batch, name)
            assert own is value is None or torch.equal(own, value), name
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert (batch.images.storage_offset() * FLOAT) % ALIGNED == 0
    shared = len({batch.images.untyped_storage().data_ptr() for batch in groups[0]}) == 1
    assert shared == (preset not in ("flip", "light") and side == 16)


def test_only_so_many_bytes_are_made_ready_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(1, PlainBatches(speed_train.grainy(tmp_path, 16, 2, 8), 4, 0), 1, 0, "none", "fp32", None)
    step = 4 * 3 * 16 * 16 * FLOAT
    for bound, views, sizes in ((2 * step, False, [2, 2, 2]), (2 * step, True, [1] * 6), (1, False, [1] * 6)):
        monkeypatch.setattr(module, "GROUP", bound)
        assert [len(call()) for call in made_ready(plan, 0, torch.device("cpu"), views, 4)] == sizes


def test_the_loop_and_bare_steps_are_both_timed(tmp_path: Path) -> None:
    frames = speed_train.grainy(tmp_path, 8, 2, 6)
    plan = Plan(1, BalancedBatches(frames, 8, 0), 1, 0, "flip", "fp32", None)
    pace = speed_train.measure(Small(), "sam", plan, rounds=2, steps=2)
    assert pace.bare > 0
    assert pace.loop > 0
    assert 0 < pace.waiting.value < 1
    assert pace.verdicts == ("undecided", "undecided")  # two rounds give no interval
    assert pace.rounds == 2
    good, bad = speed_train.Pace(100, 96, Median(0.96, 0.95, 0.97), Median(0.02, 0, 0.02), 9), Median(0.5, 0.4, 0.6)
    assert good.verdicts == ("met", "met")
    assert replace(good, of_bare=bad, waiting=bad).verdicts == ("NOT met", "NOT met")
    assert replace(good, of_bare=Median(0.96, 0.94, 0.97)).verdicts == ("met", "undecided")


def test_waiting_on_a_gpu_is_that_of_the_stream_that_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for its events: 7 s pass on the stream before each step's start, and the host's clock does not count."""
    stream, host = itertools.count(0, 7), itertools.count(0, 100)

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, on: str) -> None:
            assert on == "the stream that trains"
            self.at = next(stream)

        def elapsed_time(self, end: Event) -> float:
            return 1000.0 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the stream that trains")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(speed_train, "time", SimpleNamespace(perf_counter=lambda: next(host)))
    plan = Plan(1, BalancedBatches(speed_train.grainy(tmp_path, 8, 2, 6), 8, 0), 1, 0, "none", "fp32", None)
    detector = Small()
    rule = OPTIMIZERS.build("adam")
    optimizer = Optimizer(rule, build_base(rule.base, detector.parameters()), detector)
    seconds, waiting = speed_train._loop(detector, optimizer, plan, torch.device("cuda"))
    assert plan.steps == 3
    assert seconds == 100
    assert waiting == 2 * 7 / 200


def test_a_median_has_the_interval_of_the_sign_test() -> None:
    few, six = median([1.0, 2.0, 3.0, 4.0, 5.0]), median([6.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert (few.value, few.low, few.high) == (3.0, float("-inf"), float("inf"))
    assert (six.value, six.low, six.high) == (3.5, 1.0, 6.0)  # both ends lie beyond with 2 / 64
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        found = median(generator.exponential(size=9).tolist())
        inside += found.low <= np.log(2) <= found.high
    assert inside / 400 > 0.94  # 2 x 10 / 512 fall outside


def test_so_many_other_steps_lie_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For as many is memory taken when it is tried what fits: the rest of a group of four, and another; fewer in short epochs."""
    frames = speed_train.grainy(tmp_path, 16, 2, 8)
    for batch, others in ((2, 7), (8, 5), (24, 1)):
        plan = Plan(1, PlainBatches(frames, batch, 0), 1, 0, "none", "fp32", None)
        assert steps_beside(plan, plan.batches.batch(plan.batches.epoch(0)[0]), False) == others
    monkeypatch.setattr(module, "GROUP", 1)
    assert steps_beside(plan, plan.batches.batch(plan.batches.epoch(0)[0]), False) == 1
