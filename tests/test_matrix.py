"""Every detector under every optimizer, one step on four faces; and under PIM's push by zero."""

from __future__ import annotations

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.contract import pushed_by_zero
from benchmark.objective import BatchObjective
from detectors import DETECTORS
from detectors.contract import faces
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import build_base

FIRST_PASSES = {"roga": 2}
"""Rules that ask each of the two domains first; all others ask the whole batch once."""


@pytest.mark.parametrize("name", DETECTORS.names())
def test_one_step_under_every_optimizer(name: str) -> None:
    """The loss is finite, a rule hands the weights on as it found them, BatchNorm counts its first passes, and the base moves; PIM
    with Delta = 0 changes neither the loss nor a gradient by a bit."""
    torch.manual_seed(0)
    # Channels last, as on a GPU: half the time for an Xception, and the rules meet weights that are not contiguous.
    detector = DETECTORS.build(name, size=DETECTORS.get(name).smallest).to(memory_format=torch.channels_last).train()
    batch = faces(detector.size).only(torch.arange(4))  # a real and a fake face of each of two domains
    parameters = [p for p in detector.parameters() if p.requires_grad]
    counters = [m for m in detector.modules() if isinstance(m, _BatchNorm)]
    before = [p.detach().clone() for p in parameters]
    base = build_base("sgd", parameters, lr=1e-3, momentum=0.0)
    with torch.no_grad():
        detector.objective(batch)
    # DeepfakeBench's Meso-4 uses a norm twice; another detector may hold a part that its loss never calls.
    per_pass = [int(m.num_batches_tracked) for m in counters]
    handed_on: list[bool] = []
    base.register_step_pre_hook(lambda *_: handed_on.append(all(map(torch.equal, parameters, before))))
    for rule in OPTIMIZERS.names():
        counts = [int(m.num_batches_tracked) for m in counters]
        loss = Optimizer(OPTIMIZERS.build(rule), base, detector).step(BatchObjective(detector, [batch]))
        assert torch.isfinite(loss), rule
        assert handed_on.pop(), f"{rule} left the weights moved"
        counted = [int(m.num_batches_tracked) - count for m, count in zip(counters, counts, strict=True)]
        assert counted == [FIRST_PASSES.get(rule, 1) * of_one for of_one in per_pass], rule
        moved = False
        with torch.no_grad():
            for p, old in zip(parameters, before, strict=True):
                moved = moved or not torch.equal(p, old)
                old.copy_(p)
        assert moved, rule
    assert list(pushed_by_zero(detector)) == []
