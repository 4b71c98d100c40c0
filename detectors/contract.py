"""What every detector owes the rooms that use it, as checks that a newcomer's detector can be put through.

    problems = check(lambda: DETECTORS.build("mine", size=64))

Each problem is one sentence; an empty list means that the detector works with every optimizer, precision and protocol.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detectors.base import NEEDS, Batch, Detector, Prediction
from detectors.contract_training import gradients, learning, predict, replay, rows, shallow
from detectors.outcome import Outcome, Skipped, outcome
from optimizers.registry import did_you_mean

FACES = 8
FOUNDATIONS = ("construction", "prediction", "evaluation")
"""Checks without which the others have nothing to say: after the first of them that fails, none is made."""


def check(build: Callable[[], Detector], steps: int = 100, rate: float | None = None) -> list[str]:
    """`examine` as a list of problems, one sentence each."""
    return [f"{found.title}: {problem}" for found in examine(build, steps, rate) for problem in found.problems]


def examine(
    build: Callable[[], Detector],
    steps: int = 100,
    rate: float | None = None,
    compiled: str | None = None,
) -> Iterator[Outcome]:
    """All checks, on the CPU, one after the other, up to the first of `FOUNDATIONS` that fails.

    Args:
        build: makes the detector anew, e.g. ``lambda: DETECTORS.build("meso4", size=64)``; small faces make it fast.
        steps: the most steps of Adam after which all of eight faces must be told right and their loss have halved.
        rate: Adam's learning rate for that; by default 1e-3, and 1e-4 above 50 million parameters.
        compiled: backend of torch.compile that the detector is also put through, as one graph: "eager" only traces it, "inductor"
            needs a C++ compiler. None: no such check, which takes as long as all others together.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built: list[Detector] = []
        yield outcome("construction", lambda: _construct(build, built))
        if not built:
            return
        detector = built[0]
        batch = faces(detector.size)
        checks: dict[str, Callable[[], Iterator[str]]] = {
            "documentation": lambda: _documentation(detector),
            "prediction": lambda: _prediction(detector, batch),
            "evaluation": lambda: _evaluation(detector, batch),
            "number formats": lambda: _formats(detector, batch),
            "gradients": lambda: gradients(detector, batch),
            "random numbers": lambda: replay(detector, batch),
            "shallow": lambda: shallow(detector, batch),
            "state_dict": lambda: _state(detector, build, batch),
            "learning": lambda: learning(detector, batch, steps, rate),
        }
        if compiled is not None:
            checks[f"torch.compile ({compiled})"] = lambda: _compiles(detector, batch, compiled)
        for title, run in checks.items():
            found = outcome(title, run)
            yield found
            if title in FOUNDATIONS and found.problems:
                return


def faces(size: int) -> Batch:
    """Eight images of `size` px, of two domains, alternately real (white noise) and fake (noise smoothed over 2 x 2 px).

    They carry all that a detector may need: mirrored second views, masks (a fake face is forged all over), random landmarks.
    """
    images = torch.rand(FACES, 3, size, size)
    smooth = nn.functional.avg_pool2d(images[1::2], 2, stride=1)
    images[1::2, :, : size - 1, : size - 1] = smooth
    index = torch.arange(FACES)
    return Batch(
        images,
        labels=index % 2,
        domains=index // 2 % 2,
        videos=index,
        views=images.flip(3),
        masks=(index % 2).to(images.dtype).view(-1, 1, 1, 1).expand(-1, 1, size, size),
        landmarks=size * torch.rand(FACES, 81, 2),
    )


def _construct(build: Callable[[], Detector], built: list[Detector]) -> Iterator[str]:
    """Puts the detector into `built` if nothing is wrong with it."""
    with warnings.catch_warnings(record=True) as warned, _overheard() as printed:
        warnings.simplefilter("always")
        detector = build()
    problems = [f"warns '{w.message}'" for w in warned]
    if printed.getvalue():
        problems.append(f"prints '{printed.getvalue().strip()}'")
    if not isinstance(detector, Detector):
        problems.append(f"gives a {type(detector).__name__}, not a detectors.base.Detector")
    else:
        if isinstance(detector.size, bool) or not isinstance(detector.size, int) or detector.size < 1:
            problems.append(f"size is {detector.size!r}, but it must be the side of the faces in px")
        if not any(p.requires_grad for p in detector.parameters()):
            problems.append("there is no trainable parameter")
        names = {"shallow": detector.shallow, "unused": detector.unused, "needs": detector.needs}
        lone = {key: value for key, value in names.items() if isinstance(value, str)}
        problems += [f"{key} is '{value}', one string; write {key} = ('{value}',)" for key, value in lone.items()]
        needs = set() if "needs" in lone else {*detector.needs}
        problems += [f"it needs '{need}', which nothing provides: {did_you_mean(need, NEEDS)}" for need in needs - {*NEEDS}]
    yield from problems
    if not problems:
        built.append(detector)


def _documentation(detector: Detector) -> Iterator[str]:
    if "px" not in (type(detector).__doc__ or ""):
        yield "the class's docstring does not say for what size of faces, in px, it was made"


@contextlib.contextmanager
def _overheard() -> Iterator[io.StringIO]:
    """What is printed inside."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        yield printed


def _prediction(detector: Detector, batch: Batch) -> Iterator[str]:
    given = batch.images.clone()
    predictions = []
    with warnings.catch_warnings(), _overheard() as printed:
        warnings.simplefilter("ignore")
        _settle(detector, batch)
        for count in (2, 1):
            predictions.append(predict(detector, batch.images[:count]))
    if printed.getvalue():
        yield f"forward prints '{printed.getvalue().splitlines()[0]}'"
    if not torch.equal(batch.images, given):
        yield "forward writes into the images that it is given"
    for count, prediction in zip((2, 1), predictions, strict=True):
        if problem := _misshapen(prediction, count):
            yield problem
            return
        loss = detector.loss(prediction, rows(batch, count))
        if not isinstance(loss, torch.Tensor):
            yield f"the loss is a {type(loss).__name__}, not a torch.Tensor"
            return
        if loss.ndim != 0 or not loss.isfinite():
            yield f"the loss has shape {tuple(loss.shape)} and value {loss.tolist()}, but it must be one finite number"
            return


def _misshapen(prediction: object, count: int) -> str | None:
    """What is wrong with the prediction for `count` images."""
    if not isinstance(prediction, Prediction):
        return f"forward gives a {type(prediction).__name__}, not a detectors.base.Prediction"
    logits, features = prediction.logits, prediction.features
    for name, values in (("logits", logits), ("features", features)):
        if not isinstance(values, torch.Tensor):
            return f"{name} are a {type(values).__name__}, not a torch.Tensor"
    if logits.shape != (count, 2):
        return f"logits have shape {tuple(logits.shape)} for {count} images, not ({count}, 2)"
    if features.ndim != 2 or len(features) != count:
        return f"features have shape {tuple(features.shape)} for {count} images, not ({count}, D)"
    if logits.dtype != torch.float32 or features.dtype != torch.float32:
        return f"float32 images give logits in {logits.dtype} and features in {features.dtype}"
    if not logits.isfinite().all() or not features.isfinite().all():
        return "logits or features are not finite"
    if not bool(((prediction.fake >= 0) & (prediction.fake <= 1)).all()):
        return "P(fake) leaves [0, 1]"
    return None


def _evaluation(detector: Detector, batch: Batch) -> Iterator[str]:
    first, again = (predict(detector, batch.images).logits for _ in range(2))
    if not torch.equal(first, again):
        yield "two predictions in eval mode differ"
        return
    alone = predict(detector, batch.images[:1]).logits
    if not torch.allclose(alone, first[:1], rtol=1e-3, atol=1e-3):
        yield "in eval mode a face's logits depend on the other faces of its batch"
    state = {key: value.clone() for key, value in detector.named_buffers()}
    predict(detector, batch.images)
    if any(not torch.equal(value, state[key]) for key, value in detector.named_buffers()):
        yield "a prediction in eval mode changes a buffer"


def _formats(detector: Detector, batch: Batch) -> Iterator[str]:
    images = batch.images[:2]
    plain = predict(detector, images).logits
    channels_last = predict(detector, images.contiguous(memory_format=torch.channels_last)).logits
    if not torch.allclose(channels_last, plain, rtol=1e-3, atol=1e-3):
        yield "images in channels_last memory get other logits"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = predict(detector, images)
    if mixed.logits.shape != plain.shape or not mixed.logits.isfinite().all() or not mixed.fake.isfinite().all():
        yield "under bfloat16 autocast the logits are not finite"
    detector.double()
    try:
        double = predict(detector, images.double()).logits
    finally:
        detector.float()
    if double.dtype != torch.float64:
        yield f"after .double(), float64 images give logits in {double.dtype}"
    elif not torch.allclose(double.float(), plain, rtol=1e-2, atol=1e-2):
        yield "in float64 the logits are others than in float32"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = detector.train().objective(rows(batch, len(batch)))
    loss.backward()
    if not loss.isfinite():
        yield "under bfloat16 autocast the objective is not finite"
    elif not all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None):
        yield "under bfloat16 autocast a gradient is not finite"
    detector.zero_grad(set_to_none=True)
    _settle(detector, batch)


def _state(detector: Detector, build: Callable[[], Detector], batch: Batch) -> Iterator[str]:
    other = build()
    other.load_state_dict(detector.state_dict())
    if not torch.equal(predict(other, batch.images[:2]).logits, predict(detector, batch.images[:2]).logits):
        yield "a second detector with the same state_dict predicts something else"


def _compiles(detector: Detector, batch: Batch, backend: str) -> Iterator[str]:
    if backend == "inductor" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise Skipped("there is no C++ compiler here")
    plain = predict(detector, batch.images[:2]).logits
    torch._dynamo.reset()
    try:
        whole = torch.compile(detector, backend=backend, fullgraph=True)
        with torch.no_grad():
            logits = whole(batch.images[:2]).logits
    finally:
        torch._dynamo.reset()
    if not torch.allclose(logits, plain, rtol=1e-3, atol=1e-3):
        yield "compiled, its logits are others"


def _settle(detector: Detector, batch: Batch) -> None:
    """Running statistics from one batch: with those of a fresh BatchNorm the activations of a deep network explode in eval mode."""
    norms = [m for m in detector.modules() if isinstance(m, _BatchNorm)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
    detector.train()
    with torch.no_grad():
        detector(batch.images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
