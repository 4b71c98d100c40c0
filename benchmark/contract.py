"""A detector or an optimizer put through everything that this project asks of one: `dfgrid check`.

`detectors.contract` looks at a detector alone. Here it meets the optimizers, and an optimizer meets a small detector.
"""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmark.objective import BatchObjective
from detectors import DETECTORS
from detectors.base import Batch, Detector, Prediction
from detectors.contract import FOUNDATIONS, examine, faces
from detectors.outcome import Outcome, Skipped, outcome
from optimizers import OPTIMIZERS
from optimizers.base import Optimizer, Rule
from optimizers.bases import BASES, build_base
from optimizers.features import FeatureShift
from optimizers.registry import RegistryError, did_you_mean
from optimizers.vector import Vector


def check_detector(name: str, settings: dict[str, Any], compiled: str | None = None) -> Iterator[Outcome]:
    """The detector alone, then PIM's push by zero, then one gradient of every registered rule; see `FOUNDATIONS`.

    Args:
        name: in the registry.
        settings: of the detector; a small `size` makes it fast.
        compiled: see `detectors.contract.examine`.

    Raises:
        RegistryError: an unknown name or setting.
    """
    DETECTORS.settings(name)

    def build() -> Detector:
        detector: Detector = DETECTORS.build(name, **settings)
        return detector

    sound = True
    for result in examine(build, compiled=compiled):
        sound = sound and not (result.title in FOUNDATIONS and result.problems)
        yield result
    if sound:
        yield outcome("PIM with Delta = 0", lambda: pushed_by_zero(build()))
        for rule in OPTIMIZERS.names():
            yield outcome(f"under {rule}", lambda rule=rule: under(rule, build()))  # type: ignore[misc]
    else:
        yield Outcome("all other checks", skipped="they build on the one that failed")


def pushed_by_zero(detector: Detector) -> Iterator[str]:
    """Features pushed by zero give the loss and the gradient of every weight to the bit; so does PIM, but for the last digits of
    detectors whose training leads past the first shallow module, though its second pass goes on from what the first one kept."""
    if not detector.shallow:
        raise Skipped("the detector names no shallow modules, so PIM and DualFlat refuse it")
    shift = FeatureShift(detector, detector.shallow)
    batch = faces(detector.size).only(torch.arange(4))
    weights = [p for p in detector.parameters() if p.requires_grad]
    found = []
    for zero in (None, Vector({shift.leaf: torch.zeros_like(shift.leaf)})):
        state = copy.deepcopy(detector.state_dict())
        torch.manual_seed(1)
        detector.train()
        if zero is None:
            loss = detector.objective(batch)
        else:
            with shift.pushed(zero):
                loss = detector.objective(batch)
        found.append((loss.detach(), torch.autograd.grad(loss, weights, allow_unused=True)))
        detector.load_state_dict(state)
    rule = OPTIMIZERS.build("pim", r=0.0)
    rule.attach(detector)
    torch.manual_seed(1)
    by_pim = rule.gradient(BatchObjective(detector, [batch])).parts
    detector.load_state_dict(state)
    (plain, slope), (pushed, slope_pushed) = found
    if not torch.equal(plain, pushed):
        yield f"the loss is {float(pushed)!r} where it is {float(plain)!r} without a push"
    if not all(map(_same, slope, slope_pushed)):
        yield "a gradient is another one"
    if not all(map(_alike, slope, map(by_pim.get, weights))):
        yield "PIM's gradient is another one: its second pass does not compute what the first did up to the first shallow module"


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other is None or (one is not None and other is not None and torch.equal(one, other))


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    """But for the order of sums: a thousandth of the largest entry."""
    if one is None or other is None:
        return one is other
    return float((one - other).abs().max()) <= 1e-3 * float(one.abs().max())


def under(rule: str, detector: Detector) -> Iterator[str]:
    """One gradient and one step of a rule: finite, the weights at home in between, and the step moves them."""
    built = OPTIMIZERS.build(rule)
    try:
        built.check(detector)
    except RegistryError as error:
        raise Skipped(str(error)) from error
    detector.train()
    optimizer = Optimizer(built, build_base("sgd", detector.parameters(), lr=0.01), detector)
    before = [p.detach().clone() for p in detector.parameters()]
    batch = faces(detector.size)
    gradient = optimizer.rule.gradient(BatchObjective(detector, [batch]))
    if not gradient.parts or not all(part.isfinite().all() for part in gradient.parts.values()):
        yield "the gradient is empty or not finite"
    if any(not torch.equal(p, old) for p, old in zip(detector.parameters(), before, strict=True)):
        yield "the weights did not come home"
    optimizer.step(BatchObjective(detector, [batch]))
    if all(torch.equal(p, old) for p, old in zip(detector.parameters(), before, strict=True)):
        yield "a step moves no weight"


class Small(Detector):
    """Two convolutions and a BatchNorm, for faces of 8 px: the detector that optimizers are checked on."""

    shallow = ("first",)
    size = 8

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh())
        self.second = nn.Conv2d(4, 6, 3)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, H, W) float RGB in [0, 1] -> Prediction."""
        features = self.second(self.first(self.normalize(images))).tanh().mean(dim=(2, 3))
        return Prediction(self.head(self.dropout(features)), features)


def check_optimizer(name: str, settings: dict[str, Any]) -> Iterator[Outcome]:
    """A rule on `Small`: its settings, its gradient, what it leaves behind, its memory, and whether it learns.

    Args:
        name: in the registry.
        settings: the rule's hyper-parameters.

    Raises:
        RegistryError: an unknown name or setting, or a value that the rule refuses.
    """
    known = OPTIMIZERS.settings(name)
    if settings or all(default is not OPTIMIZERS.NO_DEFAULT for default in known.values()):
        OPTIMIZERS.build(name, **settings)

    def make() -> tuple[Small, Optimizer]:
        detector = Small().train()
        rule = OPTIMIZERS.build(name, **settings)
        return detector, Optimizer(rule, build_base("sgd", detector.parameters(), lr=0.05, momentum=0.9), detector)

    with torch.random.fork_rng(devices=[]):
        checks: dict[str, Callable[[], Iterator[str]]] = {
            "settings": lambda: _settings(name, settings),
            "gradient": lambda: _gradient(*make()),
            "nothing left behind": lambda: _leaves_no_trace(*make()),
            "step": lambda: _step(*make()),
            "frozen weights": lambda: _frozen(name, settings),
            "memory": lambda: _memory(make),
            "waiting": lambda: _waiting(*make()),
            "learning": lambda: _learning(*make()),
        }
        for title, run in checks.items():
            torch.manual_seed(0)
            yield outcome(title, run)


def _eight(seed: int = 0) -> Batch:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return faces(Small.size)


def _settings(name: str, settings: dict[str, Any]) -> Iterator[str]:
    rule = OPTIMIZERS.build(name, **settings)
    if not isinstance(rule, Rule):
        yield f"it is a {type(rule).__name__}, not an optimizers.base.Rule"
        return
    if not dataclasses.is_dataclass(rule):
        yield "its class is no dataclass, so its hyper-parameters are not known"
    if rule.base not in BASES:
        yield f"its base optimizer '{rule.base}' is unknown: {did_you_mean(rule.base, BASES)}"
    bare = [key for key, value in OPTIMIZERS.settings(name).items() if value is OPTIMIZERS.NO_DEFAULT]
    if bare:
        yield f"{', '.join(bare)} has no default"


def _gradient(detector: Small, optimizer: Optimizer) -> Iterator[str]:
    gradient = optimizer.rule.gradient(BatchObjective(detector, [_eight()]))
    if not isinstance(gradient, Vector):
        yield f"it is a {type(gradient).__name__}, not an optimizers.vector.Vector"
        return
    if set(gradient.parts) != set(detector.parameters()):
        yield "it has a part for other tensors than the detector's weights"
    for p, part in gradient.parts.items():
        if part.shape != p.shape or part.dtype != p.dtype or part.requires_grad or not part.isfinite().all():
            yield f"a part is {tuple(part.shape)} {part.dtype} for a weight {tuple(p.shape)} {p.dtype}, not finite, or not detached"
    if not float(gradient.norm()) > 0:
        yield "it is zero"


def _leaves_no_trace(detector: Small, optimizer: Optimizer) -> Iterator[str]:
    before = copy.deepcopy(detector)
    for seed in range(2):
        optimizer.rule.gradient(BatchObjective(detector, [_eight(seed)]))
    for (name, p), q in zip(detector.named_parameters(), before.parameters(), strict=True):
        if not torch.equal(p.detach().view(torch.int32), q.detach().view(torch.int32)):
            yield f"the weights {name} are not what they were, to the bit"
        if p.grad is not None:
            yield f"it leaves a gradient on {name}"
    for module, old in zip(detector.modules(), before.modules(), strict=True):
        if module.training != old.training or module._forward_hooks or module._forward_pre_hooks:
            yield f"it leaves a hook or another mode on {type(module).__name__}"


def _step(detector: Small, optimizer: Optimizer) -> Iterator[str]:
    before = [p.detach().clone() for p in detector.parameters()]
    objective = BatchObjective(detector, [_eight()])
    loss = optimizer.step(objective)
    if loss.ndim or loss.requires_grad or not torch.equal(loss, objective.loss):
        yield "it does not give back the first pass's loss, detached"
    if any(torch.equal(p, old) for p, old in zip(detector.parameters(), before, strict=True)):
        yield "it leaves some weights where they were"


def _frozen(name: str, settings: dict[str, Any]) -> Iterator[str]:
    detector = Small().train()
    detector.first.requires_grad_(False)
    before = [p.clone() for p in detector.first.parameters()]
    optimizer = Optimizer(OPTIMIZERS.build(name, **settings), build_base("sgd", detector.parameters()), detector)
    optimizer.step(BatchObjective(detector, [_eight()]))
    if any(not torch.equal(p, old) for p, old in zip(detector.first.parameters(), before, strict=True)):
        yield "weights that require no gradient are moved"


def _memory(make: Callable[[], tuple[Small, Optimizer]]) -> Iterator[str]:
    """Six steps, and the same six with the state saved and read again after half of them."""
    torch.manual_seed(5)
    detector, optimizer = make()
    for seed in range(6):
        if seed == 3:
            file = io.BytesIO()
            torch.save(
                {"detector": detector.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}, file
            )
        optimizer.step(BatchObjective(detector, [_eight(seed)]))
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other, after = make()
    other.load_state_dict(saved["detector"])
    after.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["random"])
    for seed in range(3, 6):
        after.step(BatchObjective(other, [_eight(seed)]))
    ends = detector.state_dict(), other.state_dict()
    if any(not torch.equal(ends[0][key], ends[1][key]) for key in ends[0]):
        yield "a run that was saved and resumed ends elsewhere: something it remembers is not in state_dict()"


class _Reads(TorchDispatchMode):
    """Notes every operation that fetches a number from the device, and so makes the host wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def _waiting(detector: Small, optimizer: Optimizer) -> Iterator[str]:
    objective = BatchObjective(detector, [_eight()])
    with _Reads() as reads:
        optimizer.rule.gradient(objective)
    if reads.found:
        yield f"it makes the host wait for the device {len(reads.found)} times a step ({reads.found[0]})"


def _learning(detector: Small, optimizer: Optimizer) -> Iterator[str]:
    detector.dropout.p = 0.0
    losses = [float(optimizer.step(BatchObjective(detector, [_eight()]))) for _ in range(40)]
    if not losses[-1] < 0.8 * losses[0]:
        yield f"in 40 steps on eight faces the loss goes from {losses[0]:.3g} to {losses[-1]:.3g}"
