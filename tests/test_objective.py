"""What a pass over the micro-batches computes: means, domains, precision, derivatives, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optimizer_reference import EQUAL, UNEQUAL, Tiny, faces, slope, weights_of
from torch import Tensor, nn

from benchmark.config import ConfigError
from benchmark.objective import BatchObjective
from detectors.base import Batch, Detector, Prediction
from optimizers import OPTIMIZERS
from optimizers.base import Rule
from optimizers.vector import Vector

RULES = ["sgd", "sam", "asam", "gnp", "sagm", "roga", "pim", "dualflat"]


def rule(name: str, detector: nn.Module, **settings: Any) -> Rule:
    built = OPTIMIZERS.build(name, **settings)
    built.attach(detector)
    return built


def float32(domains: list[int] = EQUAL, seed: int = 0) -> Batch:
    return faces(domains, seed, torch.float32)


# --- what a pass computes ---


def test_micro_batches_are_one_batch() -> None:
    """Of any sizes, for every method; without BatchNorm, whose statistics are the micro-batch's own."""
    detector, batch = Tiny(norm=False).double(), faces(UNEQUAL)
    parts = [batch.only(torch.arange(*ends)) for ends in ((0, 5), (5, 6), (6, 12))]
    for name in RULES:
        whole, split = BatchObjective(detector, [batch]), BatchObjective(detector, parts)
        difference = rule(name, detector).gradient(whole) - rule(name, detector).gradient(split)
        assert float(difference.norm()) < 1e-12
        assert abs(float(whole.loss - split.loss)) < 1e-12


def test_domains_gather_their_examples_from_all_micro_batches() -> None:
    batch = faces([5, 1, 5, 1, 5, 5, 1, 5])
    objective = BatchObjective(Tiny(norm=False).double(), [batch.only(torch.arange(0, 3)), batch.only(torch.arange(3, 8))])
    first, second = objective.domains()
    assert (first.domain, second.domain, objective.domain) == (1, 5, None)
    assert (first.examples, second.examples, objective.examples) == (3, 5, 8)
    assert torch.cat([b.videos for b in first.batches]).tolist() == [1, 3, 6]
    assert torch.cat([b.videos for b in second.batches]).tolist() == [0, 2, 4, 5, 7]
    expected = slope(weights_of(objective.detector), batch.only(batch.domains == 5))
    found = second.gradient()
    assert all(torch.allclose(found.parts[p], expected[n], atol=1e-12) for n, p in objective.detector.named_parameters())


def test_loss_is_that_of_the_first_pass() -> None:
    detector, batch = Tiny(norm=False).double(), faces(UNEQUAL)
    value = float(detector.loss(detector(batch.images), batch).detach())
    objective = BatchObjective(detector, [batch])
    with pytest.raises(RuntimeError, match="first pass"):
        _ = objective.loss
    rule("sam", detector, rho=1.0).gradient(objective)
    assert abs(float(objective.loss) - value) < 1e-12
    assert not objective.loss.requires_grad
    objective = BatchObjective(detector, [batch])
    rule("roga", detector, rho=1.0).gradient(objective)
    each = [float(detector.loss(detector(d.images), d).detach()) for d in (batch.only(batch.domains == k) for k in range(3))]
    assert abs(float(objective.loss) - sum(each) / 3) < 1e-12


def test_weights_are_a_copy() -> None:
    detector = Tiny()
    before = weights_of(detector)
    for part in BatchObjective(detector, [float32()]).weights().parts.values():
        part.add_(1)
    assert all(torch.equal(p, before[name]) for name, p in detector.named_parameters())


def test_shifting_something_else_than_weights_is_an_error() -> None:
    detector = Tiny()
    with pytest.raises(ValueError, match="no trainable weight"):
        BatchObjective(detector, [float32()]).gradient(at=Vector({torch.zeros(3): torch.ones(3)}))


# --- precision ---


def test_bf16_second_pass_sees_the_moved_weights() -> None:
    """Also inside somebody else's autocast context, whose cache would serve the first pass's casts again."""
    detector = Tiny(norm=False)
    for outer in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outer):
            objective = BatchObjective(detector, [float32()], precision="bf16")
            g = objective.gradient()
            moved = objective.gradient(at=0.5 / g.norm() * g)
        expected = BatchObjective(detector, [float32()])
        exact = expected.gradient(at=0.5 / expected.gradient().norm() * expected.gradient())
        assert float((moved - g).norm()) > 0.3 * float((exact - expected.gradient()).norm()) > 1e-3
        assert float((moved - exact).norm()) < 0.1 * float(exact.norm())


def test_bf16_casts_activations_and_nothing_else() -> None:
    class Looking(Tiny):
        def forward(self, images: Tensor) -> Prediction:
            prediction = super().forward(images)
            seen.append((self.first[0].weight.dtype, prediction.logits.dtype))
            return prediction

    seen: list[tuple[torch.dtype, torch.dtype]] = []
    detector = Looking()
    g = rule("sam", detector).gradient(BatchObjective(detector, [float32()], precision="bf16"))
    # Beside theta the activations are float32 too: a cast of the weights would round the shift away.
    assert seen == [(torch.float32, torch.bfloat16), (torch.float32, torch.float32)]
    assert {part.dtype for part in g.parts.values()} == {torch.float32}
    seen.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        BatchObjective(detector, [float32()]).gradient()
    assert seen == [(torch.float32, torch.float32)]  # fp32 is meant where it is said


def test_bf16_pushes_features() -> None:
    detector = Tiny()
    plain = rule("sgd", detector).gradient(BatchObjective(detector, [float32()], precision="bf16"))
    for name in ("pim", "dualflat"):
        g = rule(name, detector).gradient(BatchObjective(detector, [float32()], precision="bf16"))
        assert 1e-4 < float((g - plain).norm()) < float(plain.norm())


@pytest.mark.parametrize(
    ("make", "precision", "sentence"),
    [
        (Tiny, "fp8", "precision 'fp8' is not supported"),
        (lambda: Tiny().bfloat16(), "fp32", "torch.bfloat16"),
        (lambda: Tiny().double(), "bf16", "torch.float64"),
        (lambda: Tiny().requires_grad_(False), "fp32", "no weight to train"),
        (lambda: nn.DataParallel(Tiny()), "fp32", "DataParallel"),
    ],
)
def test_what_cannot_be_computed_rightly_is_refused(make: Any, precision: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        BatchObjective(make(), [float32()], precision=precision)


@pytest.mark.parametrize("batches", [[], [float32([])]])
def test_nothing_to_learn_from_is_an_error(batches: list[Batch]) -> None:
    with pytest.raises(ValueError, match="micro-batch"):
        BatchObjective(Tiny(), batches)


class Flat(Detector):
    """BatchNorm over vectors: one example has no variance."""

    size = 8

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(192), nn.Linear(192, 2)

    def forward(self, images: Tensor) -> Prediction:
        features = self.norm(images.flatten(1))
        return Prediction(self.head(features), features)


def test_a_domain_of_one_example_under_batch_norm() -> None:
    with pytest.raises(ConfigError, match="1 example of domain 7; choose batch_size and micro_batch"):
        rule("roga", Flat()).gradient(BatchObjective(Flat(), [float32([0, 0, 7])]))
    rule("roga", Tiny()).gradient(BatchObjective(Tiny(), [float32([0, 0, 7])]))  # positions give it a variance


class Comparing(Tiny):
    """Its loss is over pairs of the faces that it is given together."""

    least_micro_batch = 2


def test_a_domain_of_one_example_of_a_detector_that_compares_faces() -> None:
    with pytest.raises(ConfigError, match="Comparing compares faces with each other, and a micro-batch has 1 of domain 7; choose"):
        rule("roga", Comparing()).gradient(BatchObjective(Comparing(), [float32([0, 0, 7])]))
    rule("roga", Comparing()).gradient(BatchObjective(Comparing(), [float32([0, 0, 7, 7])]))
    rule("sam", Comparing()).gradient(BatchObjective(Comparing(), [float32([0, 0, 7])]))


# --- derivatives ---


def test_hessian_product_is_the_slope_of_the_gradient() -> None:
    detector, batch = Tiny().double(), faces(EQUAL)
    parts = [batch.only(torch.arange(0, 6)), batch.only(torch.arange(6, 12))]
    objective = BatchObjective(detector, parts)
    g = objective.gradient()
    v = Vector({p: torch.randn_like(p) for p in detector.parameters()})
    h = 1e-6
    difference = (objective.gradient(at=g + h * v) - objective.gradient(at=g - h * v)) / (2 * h)
    assert float((difference - objective.hessian_product(v, at=g)).norm()) < 1e-7 * float(difference.norm())


def test_gradient_by_other_leaves() -> None:
    detector = Tiny().double()
    objective = BatchObjective(detector, [faces(EQUAL)])
    some = objective.gradient(wrt=[detector.head.bias])
    assert list(some.parts) == [detector.head.bias]
    assert torch.equal(some.parts[detector.head.bias], objective.gradient().parts[detector.head.bias])
