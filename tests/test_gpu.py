"""What holds on the CPU holds on a GPU. Skipped, with the reason, where torch sees none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from optimizer_reference import EQUAL, UNEQUAL, Tiny, faces
from small_cell import cell
from test_optimizers_reference import CASES, NAMES
from test_presets import PRESETS, examples, noisy

from benchmark.allocator import give_back
from benchmark.checkpoint import load
from benchmark.data import BalancedBatches
from benchmark.objective import BatchObjective
from benchmark.plain_batches import PlainBatches
from benchmark.presets import augment_examples
from benchmark.run import run_cell
from benchmark.speed.ideals import Measurement
from benchmark.speed.optimizers import beyond
from benchmark.speed.train import _loop, grainy
from benchmark.train import Plan, Stopped, augmented, augmented_together, faces_of_steps, train
from detectors import DETECTORS
from detectors.base import Batch
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base
from results.record import Record
from results.scores import load_scores

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]


@pytest.mark.parametrize("domains", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize(("name", "settings"), CASES, ids=NAMES)
def test_steps_in_float64_are_those_of_the_cpu(name: str, settings: dict[str, Any], domains: list[int]) -> None:
    ends = []
    for device in ("cpu", "cuda"):
        detector = Tiny().to(device, torch.float64)
        optimizer = Optimizer(OPTIMIZERS.build(name, **settings), build_base("sgd", detector.parameters(), lr=0.05), detector)
        for step in range(4):
            optimizer.step(BatchObjective(detector, [faces(domains, seed=step).to(device)]))
        ends.append([p.detach().cpu() for p in detector.parameters()])
    assert max(float((a - b).abs().max()) for a, b in zip(*ends, strict=True)) < 1e-10


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
def test_mesoinception4_in_float64_is_that_of_the_cpu(layout: torch.memory_format) -> None:
    """Its inception modules are rectified in another order there, and biases added elsewhere without gradients."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, 64, 64, dtype=torch.float64).contiguous(memory_format=layout)
    detector = DETECTORS.build("mesoinception4", size=64).double().eval()
    found = []
    for device in ("cpu", "cuda"):
        detector.to(device, memory_format=layout)
        logits = detector(images.to(device)).logits
        slopes = torch.autograd.grad(logits.square().sum(), list(detector.parameters()))
        with torch.no_grad():
            scored = detector(images.to(device)).logits
        found.append([t.detach().cpu() for t in (logits, scored, *slopes)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def counted() -> dict[str, tuple[int, int, float]]:
    found = Measurement("resnet10", OPTIMIZERS.names(), 8, 32, 4, torch.device("cuda"))
    for _ in found.count_all():
        pass
    return {row.name: beyond(found, row) for row in found.rows}


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_the_host_never_waits_for_the_gpu(counted: dict[str, tuple[int, int, float]], name: str) -> None:
    launches, waits, _ = counted[name]
    assert launches > 0
    assert waits == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_draws_the_same_faces(preset: str) -> None:
    """The same bits twice and in two halves, and within rounding those that OpenCV draws on the CPU."""
    images, ids = torch.from_numpy(noisy(24, 64)).permute(0, 3, 1, 2), examples(24)
    there = augment_examples(preset, images.cuda(), 1, 2, ids)
    assert torch.equal(there, augment_examples(preset, images.cuda(), 1, 2, ids))
    halves = [augment_examples(preset, images[rows].cuda(), 1, 2, ids[rows]) for rows in (slice(0, 12), slice(12, 24))]
    assert torch.equal(there, torch.cat(halves))
    apart = (there.cpu() - augment_examples(preset, images, 1, 2, ids)).abs() * 255
    assert float(apart.mean()) < 0.3


@pytest.mark.parametrize("side", [32, 15])
@pytest.mark.parametrize("preset", ["none", "flip", "dfb"])
def test_steps_get_the_augmented_faces_of_their_own_step(tmp_path: Path, preset: str, side: int) -> None:
    """They come in groups, on a stream of their own; the trainer keeps the stream that it runs on busy all the while."""
    frames = grainy(tmp_path, side, 2, 24)
    batches = BalancedBatches(frames, 8, 0) if side == 32 else PlainBatches(frames, 7, 0)  # whose labels change
    plan = Plan(2, batches, 1, 0, preset, "fp32", None)
    detector = Tiny().cuda()
    optimizer = Optimizer(OPTIMIZERS.build("adam"), build_base("adam", detector.parameters(), lr=0.0), detector)
    busy, seen = torch.ones(2000, 2000, device="cuda"), []

    def before(step: int, batch: Batch) -> None:
        busy.matmul(busy)
        seen.append((batch.images.clone(), batch.labels.clone()))

    train(detector, optimizer, None, plan, lambda step, loss: None, 1, before)
    assert len(seen) == plan.steps - 1
    for step, (eight_bit, ids) in enumerate(faces_of_steps(plan, 1), 1):
        assert eight_bit.images.is_pinned()
        wanted = augmented(eight_bit.to("cuda"), plan, *divmod(step, plan.batches.steps), False, ids)
        images, labels = seen[step - 1]
        assert torch.equal(images, wanted.images)
        assert torch.equal(labels, wanted.labels)


def test_waiting_for_faces_that_are_made_ready_on_the_gpu_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the loop's time goes there, and none of the host's."""

    def slow(*args: Any, **settings: Any) -> list[Batch]:
        torch.cuda._sleep(2 * 10**8)  # about 0.1 s, on the stream of the delivery
        return augmented_together(*args, **settings)

    monkeypatch.setattr("benchmark.train.augmented_together", slow)
    monkeypatch.setattr("benchmark.train.TOGETHER", 1)
    detector = Tiny().cuda()
    optimizer = Optimizer(OPTIMIZERS.build("adam"), build_base("adam", detector.parameters()), detector)
    plan = Plan(1, BalancedBatches(grainy(tmp_path, 32, 2, 24), 8, 0), 1, 0, "none", "fp32", None)
    _loop(detector, optimizer, plan, torch.device("cuda"))
    _, waiting = _loop(detector, optimizer, plan, torch.device("cuda"))
    assert waiting > 0.5


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_cell_repeats_and_resumes(data: Path, tmp_path: Path, precision: str) -> None:
    """These kernels are deterministic ones; that not all are is what the record says."""
    small = cell(protocol={"epochs": 1, "batch_size": 8, "augment": "dfb", "precision": precision})
    run_cell(small, tmp_path / "whole", data, device="cuda")
    record = Record.load(tmp_path / "whole" / "record.json")
    assert record.provenance.device == torch.cuda.get_device_name()
    assert not record.provenance.deterministic
    assert "deterministic" in record.provenance.inexact
    with pytest.raises(Stopped):
        run_cell(small, tmp_path / "stopped", data, device="cuda", should_stop=lambda: True)
    run_cell(small, tmp_path / "stopped", data, device="cuda")
    one, other = (load(tmp_path / name / "checkpoint.pt")["detector"] for name in ("whole", "stopped"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    scores = [load_scores(tmp_path / name / "scores.parquet") for name in ("whole", "stopped")]
    assert scores[0].equals(scores[1])
    assert scores[0]["score"].between(0, 1).all()


def test_memory_is_given_back_between_cells() -> None:
    """What another process on this GPU may need; a tensor that lies in a cycle counts, too."""
    give_back()
    before = torch.cuda.memory_reserved()
    cycle: list[Any] = [torch.empty(2**28, dtype=torch.uint8, device="cuda")]
    cycle.append(cycle)
    assert torch.cuda.memory_reserved() >= before + 2**28
    del cycle
    give_back()
    assert torch.cuda.memory_reserved() == before


def test_a_cell_on_the_gpu_is_that_on_the_cpu_but_for_rounding(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # its rounding is thousands of times that of float32
    small = cell(protocol={"epochs": 1, "batch_size": 8})
    for device in ("cpu", "cuda"):
        run_cell(small, tmp_path / device, data, device=device)
    scores = [load_scores(tmp_path / device / "scores.parquet") for device in ("cpu", "cuda")]
    assert scores[0]["key"].tolist() == scores[1]["key"].tolist()
    assert float((scores[0]["score"] - scores[1]["score"]).abs().max()) < 0.05  # Adam makes much of small differences
