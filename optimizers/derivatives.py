"""Whether a detector can be differentiated twice, asked before anything is trained."""

from __future__ import annotations

import torch
from torch import nn

from optimizers.registry import RegistryError


def check_twice_differentiable(detector: nn.Module, what: str) -> None:
    """Differentiate a detector's answer to one grey face of `detector.size` twice, in evaluation mode; it is left as it was.

    Args:
        detector: the model; its answer has `logits`.
        what: what needs the second derivative, for the message.

    Raises:
        RegistryError: an operation of the detector has no second derivative.
    """
    weights = [p for p in detector.parameters() if p.requires_grad]
    if not weights:
        return
    kept = [p.grad for p in weights]
    modes = {module: module.training for module in detector.modules()}
    size, first = getattr(detector, "size", 256), weights[0]
    try:
        detector.eval()
        with torch.random.fork_rng(devices=[first.device] if first.device.type == "cuda" else []):
            face = torch.full((1, 3, size, size), 0.5, dtype=first.dtype, device=first.device)
            value = detector(face).logits.logsumexp(dim=1).sum()
            slopes = torch.autograd.grad(value, weights, create_graph=True, allow_unused=True)
            squares = [slope.square().sum() for slope in slopes if slope is not None and slope.requires_grad]
            if squares:
                # Not autograd.grad: that walks the paths to the weights alone, and a function that was marked as differentiable
                # once is cut off from them, so its second derivative would pass for zero without a word.
                torch.stack(squares).sum().backward()
    except (RuntimeError, NotImplementedError) as error:
        sentence = str(error).splitlines()[0]
        if not any(word in sentence for word in ("derivative", "differentiable", "differentiate twice", "not implemented")):
            raise
        raise RegistryError(
            f"{what} needs second derivatives, and the detector {type(detector).__name__} has none ({sentence}); "
            "take `form: first_order` or another detector"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
        for p, slope in zip(weights, kept, strict=True):
            p.grad = slope
