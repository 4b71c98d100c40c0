"""What a pass leaves behind: running statistics move in first passes only, weights come home to the bit, masks are replayed."""

from __future__ import annotations

import pytest
import torch
from optimizer_reference import EQUAL, Tiny, faces
from torch import Tensor, nn

from benchmark.objective import BatchObjective
from detectors import DETECTORS
from detectors.base import Batch, Prediction
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer, Rule
from optimizers.bases import build_base

RULES = ["sgd", "sam", "asam", "gnp", "sagm", "roga", "pim", "dualflat"]


def rule(name: str, detector: nn.Module) -> Rule:
    built = OPTIMIZERS.build(name)
    built.attach(detector)
    return built


def bits(detector: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone().view(torch.int32) for name, p in detector.named_parameters()}


def same_bits(before: dict[str, Tensor], detector: nn.Module) -> bool:
    return all(torch.equal(t, before[name]) for name, t in bits(detector).items())


def float32(domains: list[int] = EQUAL, seed: int = 0) -> Batch:
    return faces(domains, seed, torch.float32)


# --- BatchNorm and other buffers ---


def counts(detector: nn.Module) -> list[int]:
    return [int(m.num_batches_tracked) for m in detector.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", RULES)
def test_running_statistics_move_in_first_passes_only(name: str) -> None:
    detector, twin, batch = Tiny(), Tiny(), float32(EQUAL)
    rule(name, detector).gradient(BatchObjective(detector, [batch]))
    passes = [batch.only(batch.domains == k) for k in range(3)] if name == "roga" else [batch]
    for part in passes:
        twin(part.images)
    assert counts(detector) == [len(passes)] * 2
    assert all(torch.equal(a, b) for a, b in zip(detector.buffers(), twin.buffers(), strict=True))
    assert all(m.track_running_stats for m in detector.modules() if isinstance(m, nn.BatchNorm2d))


def test_running_statistics_with_micro_batches_move_as_in_plain_training() -> None:
    detector, twin = Tiny(), Tiny()
    parts = [float32([0] * 4, seed=1), float32([0] * 6, seed=2)]
    rule("sam", detector).gradient(BatchObjective(detector, parts))
    for part in parts:
        twin(part.images)
    assert all(torch.equal(a, b) for a, b in zip(detector.buffers(), twin.buffers(), strict=True))


def test_cumulative_average_and_shared_norm() -> None:
    def make() -> Tiny:
        detector = Tiny()
        detector.first[0] = nn.Conv2d(3, 5, 3, padding=1)
        detector.second[0] = nn.Conv2d(5, 5, 3, padding=1)
        detector.first[1] = detector.second[1] = nn.BatchNorm2d(5, momentum=None)
        return detector

    torch.manual_seed(0)
    detector = make()
    twin = make()
    twin.load_state_dict(detector.state_dict())
    for step in range(3):
        rule("sam", detector).gradient(BatchObjective(detector, [float32(seed=step)]))
        twin(float32(seed=step).images)
    norm = detector.first[1]
    assert int(norm.num_batches_tracked) == 6  # called twice in each of three first passes
    assert torch.equal(norm.running_mean, twin.first[1].running_mean)
    assert torch.equal(norm.running_var, twin.first[1].running_var)
    assert norm.track_running_stats


@pytest.mark.parametrize(("name", "passes"), [("sam", 1), ("sagm", 1), ("pim", 1), ("roga", 3)])
def test_a_meso4_whose_norms_are_shared(name: str, passes: int) -> None:
    """As DeepfakeBench's are, by two convolutions each: a step moves them as so many plain passes do."""
    detector, twin = (DETECTORS.build("meso4", size=64) for _ in range(2))
    twin.load_state_dict(detector.state_dict())
    for model in (detector, twin):
        model.block2.bn, model.block4.bn = model.block1.bn, model.block3.bn
    batch = faces(EQUAL, 0, torch.float32, size=64)
    rule(name, detector).gradient(BatchObjective(detector, [batch]))
    for k in range(passes):
        twin((batch if passes == 1 else batch.only(batch.domains == k)).images)
    assert counts(detector) == [2 * passes] * 2
    twins = dict(twin.named_buffers())
    assert all(torch.allclose(b, twins[name], rtol=1e-6) for name, b in detector.named_buffers())
    assert all(m.track_running_stats for m in detector.modules() if isinstance(m, nn.BatchNorm2d))


def test_an_explosion_in_the_second_pass_spares_the_statistics() -> None:
    detector = Tiny()
    objective = BatchObjective(detector, [float32()])
    g = objective.gradient()
    before = [b.clone() for b in detector.buffers()]
    objective.gradient(at=float("inf") * g)
    assert all(torch.equal(a, b) for a, b in zip(detector.buffers(), before, strict=True))


def test_later_passes_normalise_by_batch_statistics() -> None:
    detector = Tiny().double()
    objective = BatchObjective(detector, [faces(EQUAL)])
    first, second = objective.gradient(), objective.gradient()
    assert float((first - second).norm()) == 0.0


def test_a_detector_in_evaluation_mode_stays_so() -> None:
    detector = Tiny().eval()
    before = [b.clone() for b in detector.buffers()]
    rule("sam", detector).gradient(BatchObjective(detector, [float32()]))
    assert all(torch.equal(a, b) for a, b in zip(detector.buffers(), before, strict=True))


class Remembering(Tiny):
    """Keeps a buffer of its own: changed in place, and replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2))

    def forward(self, images: Tensor) -> Prediction:
        prediction = super().forward(images)
        self.calls += 1
        self.last = prediction.logits.detach().mean(dim=0)
        return prediction


def test_other_buffers_stay_as_the_first_pass_left_them() -> None:
    detector = Remembering()
    objective = BatchObjective(detector, [float32()])
    g = objective.gradient()
    last = detector.last.clone()
    objective.gradient(at=g)
    assert float(detector.calls) == 1
    assert torch.equal(detector.last, last)


# --- weights come home ---


@pytest.mark.parametrize("name", RULES)
def test_weights_come_home_to_the_bit(name: str) -> None:
    detector = Tiny()
    before = bits(detector)
    rule(name, detector).gradient(BatchObjective(detector, [float32()]))
    assert same_bits(before, detector)


@pytest.mark.parametrize("name", RULES)
def test_learning_rate_zero_changes_no_weight(name: str) -> None:
    detector = Tiny()
    before = bits(detector)
    optimizer = Optimizer(OPTIMIZERS.build(name), build_base("sgd", detector.parameters(), lr=0.0), detector)
    for step in range(3):
        optimizer.step(BatchObjective(detector, [float32(seed=step)]))
    assert same_bits(before, detector)


class Failing(Tiny):
    """Raises, or leaves out a layer, in the pass that it is told."""

    fail_in = skip_in = -1
    passes = 0

    def forward(self, images: Tensor) -> Prediction:
        self.passes += 1
        if self.passes == self.fail_in:
            raise ZeroDivisionError
        if self.passes == self.skip_in:
            features = self.second(self.first(self.normalize(images))).mean(dim=(2, 3))
            return Prediction(features[:, :2], features)
        return super().forward(images)


@pytest.mark.parametrize(("name", "passes"), [("sam", 2), ("dualflat", 3), ("roga", 5)])
def test_an_exception_in_a_later_pass_leaves_everything_in_place(name: str, passes: int) -> None:
    detector = Failing()
    method = rule(name, detector)
    detector.passes, detector.fail_in = 0, passes
    before = bits(detector)
    with pytest.raises(ZeroDivisionError):
        method.gradient(BatchObjective(detector, [float32()]))
    assert same_bits(before, detector)
    assert all(m.track_running_stats for m in detector.modules() if isinstance(m, nn.BatchNorm2d))
    assert all(not m._forward_hooks for m in detector.modules())


def test_an_infinite_gradient_leaves_the_weights_in_place() -> None:
    detector = Tiny()
    batch = float32()
    batch.images[0, 0, 0, 0] = float("inf")
    before = bits(detector)
    rule("sam", detector).gradient(BatchObjective(detector, [batch]))
    assert same_bits(before, detector)


def test_a_weight_that_the_second_pass_does_not_use_comes_home() -> None:
    detector = Failing()
    detector.skip_in = 2
    before = bits(detector)
    g = rule("sam", detector).gradient(BatchObjective(detector, [float32()]))
    assert same_bits(before, detector)
    assert detector.head.weight not in g.parts  # no gradient: the base optimizer leaves it alone
    assert detector.first[0].weight in g.parts


# --- random masks ---


@pytest.mark.parametrize("name", RULES)
def test_generator_ends_where_the_first_passes_left_it(name: str) -> None:
    detector, twin = Tiny(dropout=0.5), Tiny(dropout=0.5)
    method = rule(name, detector)
    batch = float32()
    parts = [batch.only(torch.arange(0, 6)), batch.only(torch.arange(6, 12))]
    torch.manual_seed(3)
    method.gradient(BatchObjective(detector, parts))
    ours = torch.get_rng_state()
    torch.manual_seed(3)
    for domain in range(3) if name == "roga" else [None]:
        for part in parts:
            twin((part if domain is None else part.only(part.domains == domain)).images)
    assert torch.equal(ours, torch.get_rng_state())


def test_masks_are_replayed_for_each_micro_batch() -> None:
    detector = Tiny(norm=False, dropout=0.5).double()
    parts = [faces([0] * 4, seed=1), faces([0] * 6, seed=2)]
    objective = BatchObjective(detector, parts)
    first = objective.gradient()
    torch.rand(7)
    state = torch.get_rng_state()
    assert float((objective.gradient() - first).norm()) == 0.0
    assert torch.equal(torch.get_rng_state(), state)
    assert float((BatchObjective(detector, parts).gradient() - first).norm()) > 1e-3  # another step, other masks


def test_masks_of_each_domain_are_its_own() -> None:
    detector = Tiny(norm=False, dropout=0.5).double()
    domains = BatchObjective(detector, [faces(EQUAL)]).domains()
    first = [d.gradient() for d in domains]
    again = [d.gradient() for d in reversed(domains)][::-1]
    assert all(float((a - b).norm()) == 0.0 for a, b in zip(first, again, strict=True))
