"""Domains that a batch lacks."""

from __future__ import annotations

import pytest
from optimizer_reference import Tiny, faces, roga, weights_of

from benchmark.objective import BatchObjective
from optimizers import OPTIMIZERS


@pytest.mark.parametrize("present", [(0, 2), (1, 3), (2,)])
def test_k_counts_the_domains_that_are_present(present: tuple[int, ...]) -> None:
    detector = Tiny().double()
    batch = faces([domain for domain in present for _ in range(4)])
    ours = OPTIMIZERS.build("roga", rho=0.1, alpha=0.02).gradient(BatchObjective(detector, [batch]))
    expected = roga(weights_of(detector), batch, rho=0.1, alpha=0.02)
    for name, p in detector.named_parameters():
        assert float((ours.parts[p] - expected[name]).abs().max()) < 1e-12
