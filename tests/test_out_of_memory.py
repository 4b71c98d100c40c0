"""Memory that does not suffice: what is advised, and which errors of a device no cell outlives."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from small_cell import CONTENT, cell, grid

from benchmark.data import FaceFrames
from benchmark.launch import run_cells
from benchmark.memory import HELD, OutOfMemory, ran_out, spoils_its_process
from benchmark.objective import BatchObjective
from benchmark.run import run_cell
from optimizers.base import Optimizer


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_fits(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """A device on which five faces at once are too many; the advice is followed and the cell trains."""
    forward = BatchObjective._forward

    def small(self: BatchObjective, batch: Any, shifted: bool) -> Any:
        if len(batch) > 5:
            raise error
        return forward(self, batch, shifted)

    monkeypatch.setattr(BatchObjective, "_forward", small)
    protocol = {**CONTENT["protocol"], "batch_size": 16, "augment": "dfb"}
    adam = [{"name": "adam"}]
    with pytest.raises(OutOfMemory) as told:
        run_cell(cell(protocol=protocol, optimizers=adam), tmp_path / "c", data)
    sentence = str(told.value)
    assert sentence.startswith("out of memory with 16 faces in one forward pass (")
    assert "4 faces fit: set protocol.micro_batch: 4" in sentence
    assert "each step of 16 faces over 4 forward passes" in sentence
    if isinstance(error, MemoryError):
        run_cell(cell(protocol={**protocol, "micro_batch": 4}, optimizers=adam), tmp_path / "c4", data)


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_out_of_memory_in_what_the_base_optimizer_keeps(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_batch: int | None
) -> None:
    """Adam's memory of the weights is the same however few faces a step has: none are advised. It stays half made each time."""
    step = torch.optim.Adam.step

    def short(self: torch.optim.Adam, *args: Any, **settings: Any) -> Any:
        weights = self.param_groups[0]["params"]
        if len(weights) > 1 and any(w.grad is not None for w in weights):  # the detector's, and not a rule's own
            self.state[weights[0]].setdefault("step", torch.zeros(()))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(self, *args, **settings)

    monkeypatch.setattr(torch.optim.Adam, "step", short)
    protocol = {**CONTENT["protocol"], "batch_size": 16, "micro_batch": micro_batch}
    with pytest.raises(OutOfMemory, match="not even the smallest micro-batch fits: take smaller faces"):
        run_cell(cell(protocol=protocol, optimizers=[{"name": "adam"}]), tmp_path / "c", data)


def test_the_trial_of_what_fits_meets_what_the_base_optimizer_keeps(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is short in the second step alone, where Adam's state lies beside the passes: what fits is less than a first step."""
    forward = BatchObjective._forward
    started: list[Optimizer] = []
    init = Optimizer.__init__

    def kept(self: Optimizer, *args: Any, **settings: Any) -> None:
        init(self, *args, **settings)
        started.append(self)

    def small(self: BatchObjective, batch: Any, shifted: bool) -> Any:
        if len(batch) > (5 if any(started[-1].base.state.values()) else 10):
            raise MemoryError
        return forward(self, batch, shifted)

    monkeypatch.setattr(Optimizer, "__init__", kept)
    monkeypatch.setattr(BatchObjective, "_forward", small)
    protocol = {**CONTENT["protocol"], "batch_size": 16}
    with pytest.raises(OutOfMemory, match=r"4 faces fit: set protocol\.micro_batch: 4"):
        run_cell(cell(protocol=protocol, optimizers=[{"name": "adam"}]), tmp_path / "c", data)


def test_out_of_memory_whatever_the_size(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: BatchObjective, batch: Any, shifted: bool) -> Any:
        raise MemoryError

    monkeypatch.setattr(BatchObjective, "_forward", never)
    with pytest.raises(OutOfMemory, match=r"\(MemoryError\); not even the smallest micro-batch fits"):
        run_cell(cell(), tmp_path / "c", data)


def test_onednn_counts_where_memory_is_used_up(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has one sentence for all that it fails at; and a thread in which it has failed for want of memory fails ever after."""
    forward, spoilt = BatchObjective._forward, []

    def small(self: BatchObjective, batch: Any, shifted: bool) -> Any:
        if len(batch) > 5:
            spoilt.append(threading.current_thread())
        if threading.current_thread() in spoilt:
            raise RuntimeError("could not create a primitive")
        return forward(self, batch, shifted)

    monkeypatch.setattr(BatchObjective, "_forward", small)
    asked = cell(protocol={**CONTENT["protocol"], "batch_size": 16}, optimizers=[{"name": "adam"}])
    monkeypatch.setattr("benchmark.memory.used_up", lambda: True)
    with pytest.raises(OutOfMemory, match=r"16 faces in one forward pass \(could not create a primitive\); 4 faces fit: set"):
        run_cell(asked, tmp_path / "c", data)
    monkeypatch.setattr("benchmark.memory.used_up", lambda: False)
    with pytest.raises(RuntimeError, match=r"^could not create a primitive$"):
        run_cell(asked, tmp_path / "d", data)


@pytest.mark.skipif(not HELD.exists(), reason="Linux says what a process holds")
def test_memory_is_used_up_where_a_plain_allocation_fails() -> None:
    import resource

    error, before = RuntimeError("could not create a memory object"), resource.getrlimit(resource.RLIMIT_AS)
    assert not ran_out(error)
    mapped, held, *_ = (int(pages) * mmap.PAGESIZE for pages in HELD.read_text().split())
    resource.setrlimit(resource.RLIMIT_AS, (mapped + held // 2, before[1]))
    try:
        found = ran_out(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert found


def test_out_of_memory_while_a_step_is_read(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller micro-batch would not help; the advice is followed and the cell trains."""
    levels = FaceFrames.levels

    def few(self: FaceFrames, positions: Any) -> torch.Tensor:
        if len(positions) > 10:
            raise MemoryError("Unable to allocate 94.5 MiB for an array with shape (16, 32, 32, 3) and data type float32")
        return levels(self, positions)

    protocol = {**CONTENT["protocol"], "batch_size": 16, "micro_batch": 2}
    with monkeypatch.context() as patch:
        patch.setattr(FaceFrames, "levels", few)
        with pytest.raises(OutOfMemory) as told:
            run_cell(cell(protocol=protocol), tmp_path / "c", data)
    assert str(told.value).startswith("out of memory with 16 faces in a step, however few of them in one forward pass (Unable to")
    assert str(told.value).endswith("; steps of 8 faces fit: set protocol.batch_size: 8, which is another training")
    run_cell(cell(protocol={**protocol, "batch_size": 8}), tmp_path / "c8", data)


@pytest.mark.parametrize("words", ["could not create a primitive", "CUDA error: device-side assert triggered"])
def test_no_cell_follows_in_a_process_that_an_error_has_spoilt(data: Path, tmp_path: Path, words: str) -> None:
    told = f'RuntimeError("a spoilt process" if os.environ.get("SPOILT") else "{words}")'
    lines = (
        "import os",
        f"if os.getpid() != {os.getpid()}:",
        f"    error = {told}",
        "    os.environ['SPOILT'] = '1'",
        "    raise error",
    )
    (tmp_path / "spoils.py").write_text("\n".join(lines))
    two = grid(seeds=[0, 1], plugins=[str(tmp_path / "spoils.py")]).cells()
    reasons = list(run_cells(two, tmp_path / "runs", data).failed.values())
    assert len(reasons) == 2
    assert all(f"fails to load: RuntimeError: {words}" in reason for reason in reasons)


def test_which_errors_spoil_a_process() -> None:
    for library in (
        "CUDA error: an illegal memory access was encountered",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "NCCL error: unhandled cuda error",
    ):
        assert spoils_its_process(f"RuntimeError: {library} (see c/traceback.txt)"), library
    assert not spoils_its_process("the loss is not finite at step 2 of 9")
    assert not spoils_its_process("RuntimeError: Found no NVIDIA driver on your system")


def test_out_of_memory_while_scoring(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_many(self: FaceFrames, positions: Any) -> torch.Tensor:
        if len(positions) > 8:
            raise MemoryError
        return pixels(self, positions)

    pixels = FaceFrames.pixels
    monkeypatch.setattr(FaceFrames, "pixels", too_many)
    with pytest.raises(OutOfMemory, match=r"out of memory while \d+ faces are scored at once"):
        run_cell(cell(), tmp_path / "c", data)


@pytest.mark.parametrize(
    "sentence",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    ],
)
def test_cudas_other_sentences_about_memory_are_known(sentence: str) -> None:
    assert ran_out(RuntimeError(sentence))


def test_other_errors_are_not_taken_for_memory() -> None:
    assert not ran_out(RuntimeError("CUDA error: device-side assert triggered"))
    assert not ran_out(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))
    assert not ran_out(RuntimeError("shapes do not fit"))
    assert not ran_out(ValueError("DefaultCPUAllocator"))
