"""A user's mistake in a setting is one sentence, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optimizer_reference import Tiny

from optimizers import OPTIMIZERS
from optimizers.base import Optimizer
from optimizers.bases import BASES, build_base
from optimizers.registry import RegistryError


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("sam", {"rho": -0.1}, "optimizer 'sam': rho must be a finite number of at least 0, not -0.1"),
        ("sam", {"rho": float("nan")}, "rho must be a finite number"),
        ("sam", {"rho": "0.05"}, "rho must be a finite number of at least 0, not '0.05'"),
        ("sam", {"rho": True}, "rho must be"),
        ("sam", {"rh": 0.1}, "optimizer 'sam' has no setting 'rh': did you mean 'rho'?"),
        ("asam", {"eta": -1}, "eta must be"),
        ("asam", {"scaling": "author"}, "unknown scaling 'author': did you mean 'authors'?"),
        ("gnp", {"alpha": 1.5}, "alpha must be a finite number from 0 to 1, not 1.5"),
        ("gnp", {"r": -1}, "r must be"),
        ("sagm", {"alpha": -1}, "alpha must be"),
        ("sagm", {"average": "no"}, "average must be true or false, not 'no'"),
        ("roga", {"rho": float("inf")}, "rho must be"),
        ("roga", {"alpha": -1e-4}, "alpha must be"),
        ("roga", {"variant": "a"}, "unknown variant 'a'"),
        ("roga", {"form": "first-order"}, "did you mean 'first_order'"),
        ("roga", {"align": "main"}, "unknown align 'main'"),
        ("roga", {"weighting": "sizes"}, "did you mean 'size'"),
        ("pim", {"alpha": 1.01}, "alpha must be"),
        ("pim", {"r": -0.1}, "r must be"),
        ("dualflat", {"alpha": 0.7, "beta": 0.5}, "alpha \\+ beta must be a finite number from 0 to 1"),
        ("dualflat", {"beta": -0.1}, "beta must be"),
        ("dualflat", {"rho": None}, "rho must be"),
    ],
)
def test_refused_settings(name: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RegistryError, match=sentence) as caught:
        OPTIMIZERS.build(name, **settings)
    assert "\n" not in str(caught.value)


def test_defaults_are_those_of_the_papers() -> None:
    expected = {
        "sgd": {},
        "adam": {},
        "sam": {"rho": 0.05},
        "asam": {"rho": 0.5, "eta": 0.01, "scaling": "authors"},
        "gnp": {"r": 0.05, "alpha": 0.8},
        "sagm": {"rho": 0.05, "alpha": 0.001, "average": True},
        "roga": {
            "rho": 0.1, "alpha": 2e-4, "variant": "d", "form": "first_order", "align": "domain", "weighting": "equal",
        },
        "pim": {"r": 0.1, "alpha": 1.0},
        "dualflat": {"r": 0.1, "rho": 0.05, "alpha": 0.5, "beta": 0.5},
    }  # fmt: skip
    for name, settings in expected.items():
        rule = OPTIMIZERS.build(name)
        assert {key: getattr(rule, key) for key in OPTIMIZERS.settings(name)} == settings
    assert OPTIMIZERS.build("asam", scaling="all").eta == 0.0
    assert OPTIMIZERS.build("dualflat", alpha=0.7, beta=0.3).beta == 0.3
    assert OPTIMIZERS.get("sgd").base == "sgd"
    assert OPTIMIZERS.get("adam").base == "adam"


def test_bases() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2), requires_grad=False)]
    sgd = build_base("sgd", parameters)
    assert isinstance(sgd, torch.optim.SGD)
    assert {key: sgd.defaults[key] for key in ("lr", "momentum", "weight_decay")} == {
        "lr": 0.005,
        "momentum": 0.9,
        "weight_decay": 5e-4,
    }
    adam = build_base("adam", parameters, lr=0.1, betas=[0.5, 0.9])
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.defaults["lr"], adam.defaults["betas"], adam.defaults["weight_decay"]) == (0.1, (0.5, 0.9), 5e-4)
    assert [p for group in sgd.param_groups for p in group["params"]] == parameters[:1]
    assert BASES["adam"].resolve(lr=1) == {"lr": 1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 5e-4}


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("adamm", {}, "unknown base optimizer 'adamm': did you mean 'adam'"),
        ("sgd", {"momentun": 0.9}, "base optimizer 'sgd' has no setting 'momentun': did you mean 'momentum'"),
        ("sgd", {"lr": -1.0}, "base optimizer 'sgd'.*-1.0"),
        ("sgd", {"lr": "fast"}, "base optimizer 'sgd'"),
        ("sgd", {"momentum": float("nan")}, "momentum must be a finite number from 0 to below 1, not nan"),
        ("sgd", {"nesterov": "yes"}, "nesterov must be true or false, not 'yes'"),
        ("sgd", {"nesterov": True, "momentum": 0}, "(?i)nesterov"),
        ("adam", {"betas": [0.9, 1.5]}, "1.5"),
        ("adam", {"betas": 0.9}, "base optimizer 'adam'"),
        ("adam", {"lr": True}, "lr must be a finite number of at least 0, not True"),
    ],
)
def test_refused_bases(name: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RegistryError, match=sentence):
        build_base(name, [torch.nn.Parameter(torch.zeros(2))], **settings)


def test_a_base_needs_something_to_train() -> None:
    with pytest.raises(RegistryError, match="base optimizer 'sgd': optimizer got an empty parameter list"):
        build_base("sgd", Tiny().requires_grad_(False).parameters())


@pytest.mark.parametrize("clip", [0, -1.0, float("nan")])
def test_refused_clip(clip: float) -> None:
    detector = Tiny()
    with pytest.raises(RegistryError, match="clip must be"):
        Optimizer(OPTIMIZERS.build("sgd"), build_base("sgd", detector.parameters()), detector, clip=clip)
