"""Every setting of every optimizer and base with values of the wrong kind, from a YAML grid: one sentence, before data are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from optimizer_reference import Tiny
from torch import Tensor

from benchmark.reading import ConfigError
from benchmark.study import load_grid
from detectors import DETECTORS
from detectors.base import Detector, Prediction
from optimizers import OPTIMIZERS
from optimizers.bases import BASES
from optimizers.registry import RegistryError

WRONG = [float("nan"), float("inf"), float("-inf"), -1, -0.1, True, "0.1", "", None, [0.1], {"a": 1}, 10**400]
GRID: dict[str, Any] = {
    "name": "g",
    "train": {"store": "absent", "methods": ["Deepfakes", "FaceSwap"]},
    "tests": [{"name": "t", "store": "absent", "methods": ["FaceSwap"], "role": "in-domain"}],
    "detectors": [{"name": "meso4", "size": 64}],
    "seeds": [0],
    "protocol": {"epochs": 1, "batch_size": 8},
}
RULES = ["asam", "dualflat", "gnp", "pim", "roga", "sagm", "sam"]


def refusal(folder: Path, **changes: Any) -> str:
    path = folder / "g.yaml"
    path.write_text(yaml.safe_dump({**GRID, **changes}))
    with pytest.raises(ConfigError) as caught:
        load_grid(path).cells()
    return str(caught.value)


@pytest.mark.parametrize("name", RULES)
def test_rules(tmp_path: Path, name: str) -> None:
    for key, default in OPTIMIZERS.settings(name).items():
        for value in WRONG:
            if (key == "eta" and value is None) or (isinstance(default, bool) and isinstance(value, bool)):
                continue
            said = refusal(tmp_path, optimizers=[{"name": name, key: value}])
            assert name in said
            assert f"{key} must be " in said or f"unknown {key} " in said
            assert repr(value)[:50] in said
            assert any(range_ in said for range_ in ("of at least 0", "from 0 to 1", "true or false", "one of", "Known: "))
            assert "\n" not in said
            assert len(said) < 200


@pytest.mark.parametrize("name", sorted(BASES))
def test_bases(tmp_path: Path, name: str) -> None:
    for key, default in BASES[name].defaults.items():
        for value in [*WRONG, [0.9, float("nan")], [0.9, "a"], [True, 0.9], [0.9, 1.0], [0.9]]:
            if isinstance(default, bool) and isinstance(value, bool):
                continue
            said = refusal(tmp_path, optimizers=[{"name": "sam", "base": {"name": name, key: value}}])
            assert f"base optimizer '{name}': {key}" in said
            assert any(range_ in said for range_ in ("of at least 0", "from 0 to below 1", "true or false"))
            assert "\n" not in said
            assert len(said) < 200


@pytest.mark.parametrize(
    ("optimizers", "sentence"),
    [
        ("sam", 'optimizers: must be a list, not "sam"'),
        ([], "optimizers: must have at least one entry, not []"),
        ([None], "optimizers.0: must be a mapping of keys and values, not null"),
        ([{"name": "sam", "base": {"lr": 0.1}}], "'sam': base has settings and no name; write base: {name: adam, lr: ...}"),
        ([{"name": "sam", "lr": 0.1}], "'sam' has no setting 'lr': the base has it, as in base: {name: sgd, lr: ...}"),
        ([{"name": "sgd", "rho": 0.1}], "'sgd' has no setting 'rho': there are none"),
    ],
)
def test_a_list_of_optimizers_that_is_none(tmp_path: Path, optimizers: Any, sentence: str) -> None:
    assert refusal(tmp_path, optimizers=optimizers).endswith(sentence)


def test_a_momentum_without_bound_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, optimizers=[{"name": "sgd", "base": {"name": "sgd", "momentum": 1.0}}])
    assert said.endswith("momentum must be a finite number from 0 to below 1, not 1.0")


@pytest.mark.parametrize("methods", [[], None])
def test_no_domain_at_all(tmp_path: Path, methods: Any) -> None:
    assert "train.methods" in refusal(tmp_path, train={"store": "absent", "methods": methods}, optimizers=["roga"])


class Rough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope * 2


class Once(Tiny):
    def forward(self, images: Tensor) -> Prediction:
        prediction = super().forward(images)
        return Prediction(Rough.apply(prediction.logits), prediction.features)


def test_exact_form_on_a_detector_without_second_derivatives() -> None:
    exact = OPTIMIZERS.build("roga", form="exact")
    detector = Once().train()
    with pytest.raises(RegistryError, match="roga with `form: exact` needs second derivatives, and the detector Once has none"):
        exact.attach(detector)
    assert all(module.training for module in detector.modules())
    OPTIMIZERS.build("roga").attach(detector)
    OPTIMIZERS.build("roga", form="exact", variant="b").attach(detector)


@pytest.mark.parametrize("name", ["meso4", "resnet10"])
def test_exact_form_attaches_and_leaves_the_detector_alone(name: str) -> None:
    detector: Detector = DETECTORS.build(name, size=32)
    before, state = {k: v.clone() for k, v in detector.state_dict().items()}, torch.get_rng_state()
    OPTIMIZERS.build("roga", form="exact").attach(detector)
    assert all(torch.equal(v, before[k]) for k, v in detector.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in detector.parameters())
