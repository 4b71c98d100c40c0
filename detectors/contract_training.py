"""The checks of the contract that take gradients: what they reach, what PIM pushes, and whether the detector learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from detectors.base import Batch, Detector, Prediction

LARGE = 50_000_000
"""Parameters of a detector that 1e-3 is too fast for."""


def gradients(detector: Detector, batch: Batch) -> Iterator[str]:
    """Every trainable parameter has a finite gradient or is named in `unused`."""
    few, given = rows(batch, 4), rows(batch, 4)
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
        changed = [
            name for name, values in vars(few).items() if values is not None and not torch.equal(values, getattr(given, name))
        ]
        if changed:
            yield f"objective writes into the batch that it is given ({', '.join(changed)})"
            return
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


def replay(detector: Detector, batch: Batch) -> Iterator[str]:
    """The same random numbers give the same loss: a rule's second pass must see the dropout masks of its first."""
    detector.train()
    few = rows(batch, 4)
    losses = []
    for _ in range(2):
        torch.manual_seed(1)
        with torch.no_grad():
            losses.append(detector.objective(few))
    if not torch.allclose(losses[0], losses[1], rtol=1e-3, atol=1e-3):
        yield "from the same torch.manual_seed its loss is another one; random choices must come from torch's default generators"


def shallow(detector: Detector, batch: Batch) -> Iterator[str]:
    """The shallow modules exist, are called once, and what PIM adds to their statistics has a gradient and a Hessian."""
    if not detector.shallow:
        yield "it names no module whose channel statistics PIM and DualFlat may push"
    modules = dict(detector.named_modules())
    missing = [name for name in detector.shallow if name not in modules]
    if missing:
        yield f"there is no submodule {', '.join(missing)}"
        return
    few = rows(batch, 2)
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
    plain = predict(detector, few.images).logits
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


def learning(detector: Detector, batch: Batch, steps: int, rate: float | None) -> Iterator[str]:
    """Adam learns eight faces."""
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


def predict(detector: Detector, images: Tensor) -> Prediction:
    """In evaluation mode, without gradients."""
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


def rows(batch: Batch, count: int) -> Batch:
    """A copy of the first `count` faces."""
    return batch.only(torch.arange(count))
