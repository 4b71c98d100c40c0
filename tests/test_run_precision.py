"""A cell in fp16 and with rounded weights: it resumes to the bit, and its record says what rounding left of the shifts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import CONTENT, assert_same, cell

from benchmark import mishaps
from benchmark.checkpoint import load
from benchmark.evaluate import Diverged
from benchmark.run import run_cell
from benchmark.train import Stopped
from results.record import Record


def short(precision: str, weights_dtype: str = "fp32", optimizer: str = "sam", **protocol: Any) -> Any:
    settings = {"precision": precision, "weights_dtype": weights_dtype, "epochs": 1, **protocol}
    return cell(optimizers=[{"name": optimizer, "base": "adam"}], protocol={**CONTENT["protocol"], **settings})


def test_fp16_resumes_to_the_bit(data: Path, tmp_path: Path) -> None:
    run_cell(short("fp16"), tmp_path / "whole", data)
    for _ in range(2):
        with pytest.raises(Stopped):
            run_cell(short("fp16"), tmp_path / "parts", data, should_stop=lambda: True)
    run_cell(short("fp16"), tmp_path / "parts", data)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    whole, parts = (load(tmp_path / name / "checkpoint.pt")["optimizer"] for name in ("whole", "parts"))
    assert whole["scaler"] == parts["scaler"]
    assert whole["scaler"]["_growth_tracker"] + whole["skipped_steps"] >= Record.load(tmp_path / "whole" / "record.json").steps - 1


def test_rounded_weights_are_warned_of_once_and_recorded(data: Path, tmp_path: Path) -> None:
    asked = short("bf16", "bf16", evaluations_per_epoch=2)
    with pytest.warns(UserWarning, match="weights_dtype bf16: the shift of sam has a cosine of 0") as told, pytest.raises(Stopped):
        run_cell(asked, tmp_path / "c", data, should_stop=lambda: True)
    assert len([w for w in told if "cosine" in str(w.message)]) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "weights_dtype")  # not again by a run that goes on
        record = run_cell(asked, tmp_path / "c", data)
    (note,) = record.warnings
    assert "take weights_dtype fp32" in note
    assert Record.load(tmp_path / "c" / "record.json").warnings == (note,)


def test_whole_weights_are_not_warned_of(data: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "weights_dtype")
        assert run_cell(short("bf16"), tmp_path / "c", data).warnings == ()


def test_a_run_that_overflows_at_every_scale_ends(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mishaps, "LEAST_SCALE", 2.0**15)
    finite = torch.autograd.grad

    def overflowing(*args: Any, **kwargs: Any) -> Any:
        return tuple(None if g is None else g * float("inf") for g in finite(*args, **kwargs))

    monkeypatch.setattr(torch.autograd, "grad", overflowing)
    with pytest.raises(Diverged, match="gradients overflow float16 at every scale"):
        run_cell(short("fp16"), tmp_path / "c", data)
