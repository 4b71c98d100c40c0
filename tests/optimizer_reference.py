"""The formulas of every optimizer once more, as naively as they can be written: what the tests of `optimizers/` compare with.

Nothing of `optimizers/` or `benchmark/` is used: weights are a dict of tensors, every sum is a Python loop, BatchNorm and the
channel statistics are spelled out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detectors.base import Batch, Detector, Prediction

Weights = dict[str, Tensor]


class Tiny(Detector):
    """Two smooth convolutional blocks and a linear head; smooth, because some tests look at derivatives."""

    shallow = ("first", "second")
    size = 8

    def __init__(self, norm: bool = True, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1, bias=not norm), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.Tanh()
            )
            self.second = nn.Sequential(
                nn.Conv2d(4, 5, 3, stride=2, padding=1, bias=not norm), nn.BatchNorm2d(5) if norm else nn.Identity(), nn.Tanh()
            )
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(5, 2)
            for p in self.parameters():
                nn.init.normal_(p, std=0.5)

    def forward(self, images: Tensor) -> Prediction:
        features = self.dropout(self.second(self.first(self.normalize(images))).mean(dim=(2, 3)))
        return Prediction(logits=self.head(features), features=features)


def faces(domains: list[int], seed: int = 0, dtype: torch.dtype = torch.float64, size: int = 8) -> Batch:
    """Noise with labels, one face for each entry of `domains`."""
    generator = torch.Generator().manual_seed(seed)
    n = len(domains)
    return Batch(
        images=torch.rand(n, 3, size, size, generator=generator, dtype=torch.float64).to(dtype),
        labels=torch.arange(n) // 2 % 2,
        domains=torch.tensor(domains),
        videos=torch.arange(n),
    )


EQUAL = [0, 1, 2] * 4
UNEQUAL = [0] * 6 + [1] * 4 + [2] * 2


def weights_of(detector: nn.Module) -> Weights:
    return {name: p.detach().clone() for name, p in detector.named_parameters()}


def batch_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def pushed(f: Tensor, shift: tuple[Tensor, Tensor]) -> Tensor:
    """f' = norm(f) (sigma + d_sigma) + mu + d_mu, to the letter."""
    mu = f.mean(dim=(2, 3), keepdim=True)
    sigma = torch.sqrt(((f - mu) ** 2).mean(dim=(2, 3), keepdim=True) + 1e-5)
    d_mu, d_sigma = (s.view(1, -1, 1, 1) for s in shift)
    return (f - mu) / sigma * (sigma + d_sigma) + mu + d_mu


def loss_at(w: Weights, batch: Batch, shifts: list[Tensor] | None = None) -> Tensor:
    x = (batch.images - 0.5) / 0.5
    for index, (name, stride) in enumerate((("first", 1), ("second", 2))):
        x = nn.functional.conv2d(x, w[f"{name}.0.weight"], w.get(f"{name}.0.bias"), stride=stride, padding=1)
        if f"{name}.1.weight" in w:
            x = batch_norm(x, w[f"{name}.1.weight"], w[f"{name}.1.bias"])
        x = torch.tanh(x)
        if shifts is not None:
            x = pushed(x, (shifts[2 * index], shifts[2 * index + 1]))
    logits = x.mean(dim=(2, 3)) @ w["head.weight"].T + w["head.bias"]
    return -torch.log_softmax(logits, dim=1)[torch.arange(len(batch)), batch.labels].mean()


def slope(w: Weights, batch: Batch, shifts: list[Tensor] | None = None) -> Weights:
    """The gradient by the weights."""
    leaves = {name: t.clone().requires_grad_() for name, t in w.items()}
    found = torch.autograd.grad(loss_at(leaves, batch, shifts), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def feature_shift(w: Weights, batch: Batch, r: float) -> list[Tensor]:
    """PIM's Delta."""
    zeros = [torch.zeros(c, dtype=torch.float64, requires_grad=True) for c in (4, 4, 5, 5)]
    found = torch.autograd.grad(loss_at(w, batch, zeros), zeros)
    length = sum(float((g**2).sum()) for g in found) ** 0.5
    return [r * g / (length + 1e-12) for g in found]


def hessian_times(w: Weights, batch: Batch, v: Weights) -> Weights:
    names = list(w)
    whole = torch.cat([w[n].reshape(-1) for n in names])

    def flat_loss(flat: Tensor) -> Tensor:
        pieces = torch.split(flat, [w[n].numel() for n in names])
        return loss_at({n: p.view_as(w[n]) for n, p in zip(names, pieces, strict=True)}, batch)

    _, product = torch.autograd.functional.vhp(flat_loss, whole, torch.cat([v[n].reshape(-1) for n in names]))
    return {n: p.view_as(w[n]) for n, p in zip(names, torch.split(product, [w[n].numel() for n in names]), strict=True)}


def norm(v: Weights) -> float:
    return sum(float((t**2).sum()) for t in v.values()) ** 0.5


def plus(a: Weights, b: Weights, factor: float = 1.0) -> Weights:
    return {name: a[name] + factor * b[name] for name in a}


def times(factor: float, a: Weights) -> Weights:
    return {name: factor * t for name, t in a.items()}


def per_domain(batch: Batch) -> list[Batch]:
    return [batch.only(batch.domains == d) for d in sorted(set(batch.domains.tolist()))]


def sgd(w: Weights, batch: Batch) -> Weights:
    return slope(w, batch)


def sam(w: Weights, batch: Batch, rho: float) -> Weights:
    g = slope(w, batch)
    return slope(plus(w, g, rho / (norm(g) + 1e-12)), batch)


def asam(w: Weights, batch: Batch, rho: float, eta: float = 0.01, scaling: str = "authors") -> Weights:
    g = slope(w, batch)
    scaled, direction = {}, {}
    for name in w:
        if scaling == "all" or "weight" in name:
            t = w[name].abs() + eta
        else:
            t = torch.ones_like(w[name])
        scaled[name], direction[name] = t * g[name], t * t * g[name]
    return slope(plus(w, direction, rho / (norm(scaled) + 1e-12)), batch)


def gnp(w: Weights, batch: Batch, r: float, alpha: float) -> Weights:
    return plus(times(1 - alpha, slope(w, batch)), sam(w, batch, r), alpha)


def sagm(w: Weights, batch: Batch, rho: float, alpha: float, average: bool = True) -> Weights:
    g = slope(w, batch)
    both = plus(g, slope(plus(w, g, rho / (norm(g) + 1e-12) - alpha), batch))
    return times(0.5, both) if average else both


def roga(w: Weights, batch: Batch, rho: float, alpha: float, **options: str) -> Weights:
    variant, form = options.get("variant", "d"), options.get("form", "first_order")
    domains = per_domain(batch)
    shares = [1 / len(domains) if options.get("weighting") != "size" else len(d) / len(batch) for d in domains]
    own = [slope(w, d) for d in domains]
    main = times(0.0, w)
    for share, g in zip(shares, own, strict=True):
        main = plus(main, g, share)
    total = times(0.0, w)
    for share, d, g in zip(shares, domains, own, strict=True):
        towards = main if options.get("align") == "global" else g
        up = plus(w, g, rho / (norm(g) + 1e-12))
        if variant == "b":
            term = slope(up, d)
        elif form == "exact":
            term = plus(g if variant == "c" else slope(up, d), hessian_times(up, d, towards), -alpha)
        elif variant == "c":
            term = plus(plus(g, slope(plus(up, towards, -alpha), d)), slope(up, d), -1.0)
        else:
            term = slope(plus(up, towards, -alpha), d)
        total = plus(total, term, share)
    return total


def pim(w: Weights, batch: Batch, r: float, alpha: float = 1.0) -> Weights:
    return plus(times(1 - alpha, slope(w, batch)), slope(w, batch, feature_shift(w, batch, r)), alpha)


def dualflat(w: Weights, batch: Batch, r: float, rho: float, alpha: float, beta: float) -> Weights:
    mixed = plus(times(1 - alpha - beta, slope(w, batch)), slope(w, batch, feature_shift(w, batch, r)), alpha)
    return plus(mixed, sam(w, batch, rho), beta)


RULES: dict[str, Callable[..., Weights]] = {
    "sgd": sgd, "adam": sgd, "sam": sam, "asam": asam, "gnp": gnp, "sagm": sagm, "roga": roga, "pim": pim, "dualflat": dualflat,
}  # fmt: skip


class NaiveSGD:
    """Momentum and L2 weight decay."""

    def __init__(self, lr: float, momentum: float, weight_decay: float) -> None:
        self.lr, self.momentum, self.decay = lr, momentum, weight_decay
        self.velocity: Weights = {}

    def step(self, w: Weights, g: Weights) -> Weights:
        moved = {}
        for name in w:
            d = g[name] + self.decay * w[name]
            self.velocity[name] = d if name not in self.velocity else self.momentum * self.velocity[name] + d
            moved[name] = w[name] - self.lr * self.velocity[name]
        return moved


class NaiveAdam:
    """Kingma & Ba's algorithm 1 with L2 weight decay."""

    def __init__(self, lr: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.lr, self.decay, self.betas, self.eps = lr, weight_decay, betas, eps
        self.first: Weights = {}
        self.second: Weights = {}
        self.steps = 0

    def step(self, w: Weights, g: Weights) -> Weights:
        self.steps += 1
        moved = {}
        for name in w:
            d = g[name] + self.decay * w[name]
            self.first[name] = self.betas[0] * self.first.get(name, 0.0) + (1 - self.betas[0]) * d
            self.second[name] = self.betas[1] * self.second.get(name, 0.0) + (1 - self.betas[1]) * d**2
            m = self.first[name] / (1 - self.betas[0] ** self.steps)
            v = self.second[name] / (1 - self.betas[1] ** self.steps)
            moved[name] = w[name] - self.lr * m / (v.sqrt() + self.eps)
        return moved


BASE_SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
    "adam": {"lr": 0.01, "weight_decay": 5e-4},
}
NAIVE_BASES: dict[str, Callable[..., Any]] = {"sgd": NaiveSGD, "adam": NaiveAdam}
