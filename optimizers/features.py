"""Channel statistics of named submodules, pushed by forward hooks (eq. 6-9 of PIM, Guan et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from optimizers.kept import Kept
from optimizers.pushing import Seen, gate, subtract, watch
from optimizers.registry import RegistryError
from optimizers.vector import TINY, Vector


def push(features: Tensor, d_mu: Tensor, d_sigma: Tensor) -> Tensor:
    """f' = norm(f) (sigma + d_sigma) + mu + d_mu, which is f + norm(f) d_sigma + d_mu.

    mu and sigma are the mean and standard deviation of each sample and channel over its positions (population variance), and stay
    attached to the graph. Under autocast this is computed in the precision of the shift and handed on in that of the features.

    Args:
        features: (N, C, H, W).
        d_mu: (C,) shift of the mean, constant.
        d_sigma: (C,) shift of the standard deviation, constant.
    """
    return subtract(features, 0 - d_mu, 0 - d_sigma)


class FeatureShift:
    """Where a detector's channel statistics can be pushed: d_mu and d_sigma of each named submodule, all zero.

    The shifts lie side by side in one leaf tensor that a gradient can be taken with respect to, and a `Vector` over it pushes the
    features as a `Vector` over the parameters moves the weights; the two compose. Hooks exist only inside `pushed`, so inference,
    checkpoints and copies of the detector never meet one.

    A submodule that is called several times in a forward pass is pushed by the same shift each time, and the shift's gradient is
    the sum over the calls: it has one (d_mu, d_sigma), as it has one set of weights. A submodule that two names lead to counts
    once. One that is not called at all is refused here; should a forward pass in training mode leave it out, it is not pushed.

    Args:
        detector: the model, on its device. One grey face of `detector.size` is forwarded, in evaluation mode, to learn how many
            channels each submodule has, and where the features come from.
        names: dotted names of submodules whose output is (N, C, H, W).

    Raises:
        RegistryError: no names, a name that is no submodule, a submodule that is not called or gives something else.
    """

    def __init__(self, detector: nn.Module, names: Sequence[str]) -> None:
        kind = type(detector).__name__
        check_named(kind, names)
        modules: dict[nn.Module, str] = {}
        for name in names:
            try:
                modules.setdefault(detector.get_submodule(name), name)
            except AttributeError as error:
                raise RegistryError(f"the detector {kind} lists '{name}' in `shallow`, which is no submodule of it") from error
        self._modules = modules
        example = next(p for p in detector.parameters() if p.is_floating_point())
        self._widths: list[int] = []
        shapes, self._past = _tried(detector, list(modules), example)
        for name, shape in zip(modules.values(), shapes, strict=True):
            if shape is None:
                raise RegistryError(f"the detector {kind} lists '{name}' in `shallow`, but its forward pass does not call it")
            if len(shape) != 4:
                raise RegistryError(f"'{name}' in `shallow` of the detector {kind} gives {shape or 'no tensor'}, not (N, C, H, W)")
            self._widths.append(shape[1])
        self._leaf = torch.zeros(2, sum(self._widths), dtype=example.dtype, device=example.device, requires_grad=True)
        self._buffered = [m for m in detector.modules() if m._buffers and not isinstance(m, _BatchNorm)]

    @property
    def leaf(self) -> Tensor:
        """d_mu and d_sigma, (2, C), where C counts the channels of every submodule in turn."""
        return self._leaf

    def parts(self, shift: Tensor) -> dict[str, Tensor]:
        """What of a tensor like the leaf is about each submodule, (2, its channels), by the submodule's name."""
        return dict(zip(self._modules.values(), shift.split(self._widths, dim=1), strict=True))

    def shares(self, slope: Vector) -> dict[str, Tensor]:
        """Each submodule's share of the squared norm of a vector over the leaf, by the submodule's name."""
        whole = slope.norm() + TINY
        parts = self.parts(slope.parts[self._leaf])
        return {name: (torch.linalg.vector_norm(part) / whole).square() for name, part in parts.items()}

    def kept(self) -> Kept | None:
        """Lets two passes over the same faces, the first by the leaf alone, share what the first pushed submodule computes.

        None where weights or features up to there lead to the prediction of one face another way, too: their gradient is then
        summed in another order. A way that only training takes, or only the detector's own `objective`, is not seen; there, too,
        the gradient is right, but for its last digits.
        """
        return None if self._past else Kept(self._modules, self._buffered, self._leaf.device)

    @contextmanager
    def pushed(self, at: Vector | None = None, length: float | None = None, kept: Kept | None = None) -> Iterator[None]:
        """Passes in here see the features pushed by `at`, or by the leaf itself: by zero, differentiably (once).

        Args:
            at: a vector over the leaf.
            length: push by length at / ||at|| instead.
            kept: there is one pass, and the one by `at` takes from the one by the leaf what it may.
        """
        with ExitStack() as stack:
            if kept is not None:
                stack.enter_context(kept.noted() if at is None else kept.taken())
            functions = self._watching() if at is None else self._pushing(at, length)
            for module, function in zip(self._modules, functions, strict=True):
                handle = module.register_forward_hook(lambda _module, _inputs, output, function=function: function(output))
                stack.callback(handle.remove)
            yield

    def _watching(self) -> list[Callable[[Tensor], Tensor]]:
        seen: Seen = []
        tokens = gate(seen, self._widths, self._leaf)
        return [partial(watch, token=token, seen=seen, number=number) for number, token in enumerate(tokens)]

    def _pushing(self, at: Vector, length: float | None) -> list[Callable[[Tensor], Tensor]]:
        away = zero = self._leaf.detach()
        if self._leaf in at.parts:
            d = at.parts[self._leaf].detach()
            away = zero - d if length is None else torch.addcdiv(zero, d, at.norm() + TINY, value=-length)  # 0 - length d / ||d||
        return [partial(subtract, mu=mu, sigma=sigma) for mu, sigma in (part.unbind() for part in away.split(self._widths, dim=1))]


def check_named(kind: str, names: object) -> None:
    """Some modules must be named, in a tuple or list.

    Args:
        kind: the detector's class.
        names: its `shallow`.

    Raises:
        RegistryError: none are, or `names` is a string.
    """
    if not names:
        raise RegistryError(
            f"pim and dualflat push features of shallow modules, and the detector {kind} names none: "
            "give it a tuple `shallow` of submodule names, or take another optimizer"
        )
    if isinstance(names, str):
        raise RegistryError(f"the detector {kind} has shallow = '{names}', one string; write shallow = ('{names}',)")


def _tried(detector: nn.Module, modules: list[nn.Module], example: Tensor) -> tuple[list[tuple[int, ...] | None], bool]:
    """What one face tells: the shape of each module's output, and whether what makes the first one leads elsewhere, too.

    A shape is None if the module is not called, () if it gives no tensor.
    """
    seen: dict[nn.Module, Any] = {}

    def look(module: nn.Module, _inputs: Any, output: Any) -> None:
        seen[module] = output

    size = getattr(detector, "size", 256)
    training = {module: module.training for module in detector.modules()}
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices=[example.device] if example.device.type == "cuda" else []))
        for module in modules:
            stack.callback(module.register_forward_hook(look).remove)
        for module, mode in training.items():
            stack.callback(setattr, module, "training", mode)
        detector.eval()
        told = detector(torch.full((1, 3, size, size), 0.5, dtype=example.dtype, device=example.device))
    shapes = {module: tuple(output.shape) if isinstance(output, Tensor) else () for module, output in seen.items()}
    first = next(iter(seen.values()), None)
    return [shapes.get(module) for module in modules], isinstance(first, Tensor) and _leads_elsewhere(first, told)


def _leads_elsewhere(inner: Tensor, outcome: Any) -> bool:
    """Whether `outcome`, an object that holds tensors, depends on what `inner` is made of by another way than through `inner`."""
    roots = [t.grad_fn for t in getattr(outcome, "__dict__", {}).values() if isinstance(t, Tensor)]
    return not roots or bool((_behind([inner.grad_fn]) - {inner.grad_fn}) & _behind(roots, closed=inner.grad_fn))


def _behind(nodes: Iterable[Any], closed: Any = None) -> set[Any]:
    """Nodes of autograd's graph and all that they lead to, but for what `closed` leads to."""
    found: set[Any] = {None}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [] if node is closed else [next_node for next_node, _ in node.next_functions]
    return found - {None}
