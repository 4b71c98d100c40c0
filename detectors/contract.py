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
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from detectors.base import Batch, Detector, Prediction
from detectors.outcome import Outcome, Skipped, outcome

FACES = 8
LARGE = 50_000_000
"""Parameters of a detector that 1e-3 is too fast for."""


def check(build: Callable[[], Detector], steps: int = 100, rate: float | None = None) -> list[str]:
    """`examine` as a list of problems, one sentence each."""
    return [f"{found.title}: {problem}" for found in examine(build, steps, rate) for problem in found.problems]


def examine(
    build: Callable[[], Detector],
    steps: int = 100,
    rate: float | None = None,
    compiled: str | None = None,
) -> Iterator[Outcome]:
    """All checks, on the CPU, one after the other; if the detector cannot be built, that is the only one.

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
            "prediction": lambda: _prediction(detector, batch),
            "evaluation": lambda: _evaluation(detector, batch),
            "number formats": lambda: _formats(detector, batch),
            "gradients": lambda: _gradients(detector, batch),
            "shallow": lambda: _shallow(detector, batch),
            "state_dict": lambda: _state(detector, build, batch),
            "learning": lambda: _learning(detector, batch, steps, rate),
        }
        if compiled is not None:
            checks[f"torch.compile ({compiled})"] = lambda: _compiles(detector, batch, compiled)
        for title, run in checks.items():
            yield outcome(title, run)


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
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
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
        if "px" not in (type(detector).__doc__ or ""):
            problems.append("the class's docstring does not say for what size of faces, in px, it was made")
        if not any(p.requires_grad for p in detector.parameters()):
            problems.append("there is no trainable parameter")
    yield from problems
    if not problems:
        built.append(detector)


def _prediction(detector: Detector, batch: Batch) -> Iterator[str]:
    _settle(detector, batch)
    for count in (2, 1):
        prediction = _predict(detector, batch.images[:count])
        if not isinstance(prediction, Prediction):
            yield f"forward gives a {type(prediction).__name__}, not a detectors.base.Prediction"
            return
        logits, features = prediction.logits, prediction.features
        if logits.shape != (count, 2):
            yield f"logits have shape {tuple(logits.shape)} for {count} images, not ({count}, 2)"
            return
        if features.ndim != 2 or len(features) != count:
            yield f"features have shape {tuple(features.shape)} for {count} images, not ({count}, D)"
        if logits.dtype != torch.float32 or features.dtype != torch.float32:
            yield f"float32 images give logits in {logits.dtype} and features in {features.dtype}"
        if not logits.isfinite().all() or not features.isfinite().all():
            yield "logits or features are not finite"
        if not bool(((prediction.fake >= 0) & (prediction.fake <= 1)).all()):
            yield "P(fake) leaves [0, 1]"
        loss = detector.loss(prediction, _rows(batch, count))
        if loss.ndim != 0 or not loss.isfinite():
            yield f"the loss has shape {tuple(loss.shape)} and value {loss.tolist()}, but it must be one finite number"


def _evaluation(detector: Detector, batch: Batch) -> Iterator[str]:
    first, again = (_predict(detector, batch.images).logits for _ in range(2))
    if not torch.equal(first, again):
        yield "two predictions in eval mode differ"
    alone = _predict(detector, batch.images[:1]).logits
    if not torch.allclose(alone, first[:1], rtol=1e-3, atol=1e-3):
        yield "in eval mode a face's logits depend on the other faces of its batch"
    state = {key: value.clone() for key, value in detector.named_buffers()}
    _predict(detector, batch.images)
    if any(not torch.equal(value, state[key]) for key, value in detector.named_buffers()):
        yield "a prediction in eval mode changes a buffer"


def _formats(detector: Detector, batch: Batch) -> Iterator[str]:
    images = batch.images[:2]
    plain = _predict(detector, images).logits
    channels_last = _predict(detector, images.contiguous(memory_format=torch.channels_last)).logits
    if not torch.allclose(channels_last, plain, rtol=1e-3, atol=1e-3):
        yield "images in channels_last memory get other logits"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = _predict(detector, images)
    if mixed.logits.shape != plain.shape or not mixed.logits.isfinite().all() or not mixed.fake.isfinite().all():
        yield "under bfloat16 autocast the logits are not finite"
    detector.double()
    try:
        double = _predict(detector, images.double()).logits
    finally:
        detector.float()
    if double.dtype != torch.float64:
        yield f"after .double(), float64 images give logits in {double.dtype}"
    elif not torch.allclose(double.float(), plain, rtol=1e-2, atol=1e-2):
        yield "in float64 the logits are others than in float32"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = detector.train().loss(detector(batch.images), batch)
    loss.backward()
    if not all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None):
        yield "under bfloat16 autocast a gradient is not finite"
    detector.zero_grad(set_to_none=True)
    _settle(detector, batch)


def _gradients(detector: Detector, batch: Batch) -> Iterator[str]:
    few = _rows(batch, 4)
    trainable = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    reached: set[str] = set()
    # A residual branch that begins at zero, as timm's do, hides what is in it from the first gradient, but from no later one.
    with torch.no_grad():
        for p in trainable.values():
            if not p.any():
                p.normal_(std=0.02)
    # In train mode a bias in front of BatchNorm has no gradient and a dropped branch none either; in eval mode a part that only
    # trains has none. So a parameter counts as reached if either mode reaches it.
    for training in (True, False):
        left = [name for name in trainable if name not in reached]
        if not left:
            break
        detector.train(training)
        loss = detector.objective(few)
        gradients = torch.autograd.grad(loss, [trainable[name] for name in left], allow_unused=True)
        for name, gradient in zip(left, gradients, strict=True):
            if gradient is not None and not gradient.isfinite().all():
                yield f"the gradient of {name} is not finite"
            elif gradient is not None and gradient.any():
                reached.add(name)
    unused = {name for name in trainable if any(name == u or (u.endswith(".") and name.startswith(u)) for u in detector.unused)}
    lost = sorted(trainable.keys() - reached - unused)
    if lost:
        yield f"no gradient reaches {len(lost)} parameters ({', '.join(lost[:5])}); name them in `unused` if the paper has them so"
    for name in sorted(reached & unused):
        yield f"{name} is named in `unused`, but has a gradient"


def _shallow(detector: Detector, batch: Batch) -> Iterator[str]:
    if not detector.shallow:
        yield "it names no module whose channel statistics PIM and DualFlat may push"
    modules = dict(detector.named_modules())
    missing = [name for name in detector.shallow if name not in modules]
    if missing:
        yield f"there is no submodule {', '.join(missing)}"
        return
    few = _rows(batch, 2)
    outputs: dict[str, list[Tensor]] = {name: [] for name in detector.shallow}
    shifts: dict[str, tuple[Tensor, Tensor]] = {}

    def push(name: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            outputs[name].append(output)
            if output.ndim != 4 or name in shifts:
                return output
            # The pushed statistics of the PIM paper, equation 8, at a push of zero: the values stay, the graph does not.
            mean = output.mean(dim=(2, 3), keepdim=True)
            deviation = (output.var(dim=(2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
            mean_shift, deviation_shift = (torch.zeros_like(mean[:1], requires_grad=True) for _ in range(2))
            shifts[name] = mean_shift, deviation_shift
            return (output - mean) / deviation * (deviation + deviation_shift) + mean + mean_shift

        return hook

    detector.eval()
    plain = _predict(detector, few.images).logits
    handles = [modules[name].register_forward_hook(push(name)) for name in outputs]
    try:
        # RoGA's exact form multiplies by the Hessian: of the ways to compute attention only this one has a second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            pushed = detector(few.images)
    finally:
        for handle in handles:
            handle.remove()
    for name, seen in outputs.items():
        if len(seen) != 1:
            yield f"{name} is called {len(seen)} times in one forward, not once"
        elif seen[0].ndim != 4 or len(seen[0]) != 2:
            yield f"the output of {name} has shape {tuple(seen[0].shape)} for 2 images, not (2, C, H, W)"
    if not torch.allclose(pushed.logits, plain, rtol=1e-2, atol=1e-2):
        yield "a hook that gives back a shallow module's own output changes the logits"
    loss = detector.loss(pushed, few)
    weights = [p for p in detector.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    for name, pair in shifts.items():
        for what, gradient in zip(
            ("mean", "deviation"), torch.autograd.grad(loss, pair, retain_graph=True, allow_unused=True), strict=True
        ):
            if gradient is None or not gradient.isfinite().all() or not gradient.any():
                yield f"a pushed {what} of {name} has no finite gradient: its output is not what the logits are made from"
    # The Hessian again: the backward pass must itself be differentiable.
    product = sum((g * g).sum() for g in gradients if g is not None)
    assert isinstance(product, Tensor)
    # Not autograd.grad: asked for the weights alone, it never runs the node that a once_differentiable function leaves to complain.
    product.backward()
    if not all(p.grad.isfinite().all() for p in weights if p.grad is not None):
        yield "the product with the Hessian is not finite"
    detector.zero_grad(set_to_none=True)


def _state(detector: Detector, build: Callable[[], Detector], batch: Batch) -> Iterator[str]:
    other = build()
    other.load_state_dict(detector.state_dict())
    if not torch.equal(_predict(other, batch.images[:2]).logits, _predict(detector, batch.images[:2]).logits):
        yield "a second detector with the same state_dict predicts something else"


def _learning(detector: Detector, batch: Batch, steps: int, rate: float | None) -> Iterator[str]:
    detector.train()
    if rate is None:
        rate = 1e-3 if sum(p.numel() for p in detector.parameters()) < LARGE else 1e-4
    optimizer = torch.optim.Adam([p for p in detector.parameters() if p.requires_grad], lr=rate)
    first = last = float("nan")
    for step in range(steps + 1):
        torch.manual_seed(1)  # the same dropout masks in every step, so only learning can lower the loss
        loss = detector.objective(batch)
        last = float(loss.detach())
        if step == 0:
            first = last
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # before anybody else uses the detector: that may move what the backward pass needs
        if last < first / 2 and _told_right(detector, batch):
            return
        optimizer.step()
    yield f"in {steps} steps of Adam eight faces were not learned: their loss goes from {first:.3g} to {last:.3g}"


def _compiles(detector: Detector, batch: Batch, backend: str) -> Iterator[str]:
    if backend == "inductor" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise Skipped("there is no C++ compiler here")
    plain = _predict(detector, batch.images[:2]).logits
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


def _predict(detector: Detector, images: Tensor) -> Prediction:
    detector.eval()
    with torch.no_grad():
        return detector(images)


def _told_right(detector: Detector, batch: Batch) -> bool:
    """Whether all faces are told right in training mode; the running statistics and random numbers stay as they were."""
    state = {name: buffer.clone() for name, buffer in detector.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        logits = detector(batch.images).logits
        for name, buffer in detector.named_buffers():
            buffer.copy_(state[name])
    return bool((logits.argmax(dim=1) == batch.labels).all())


def _rows(batch: Batch, count: int) -> Batch:
    return batch.only(torch.arange(count))
