"""What cannot work together is told of detectors, rules and protocols alone, before a store is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from optimizer_reference import Tiny

from benchmark.cli.single import train
from benchmark.config import ConfigError
from benchmark.fitting import check_fit
from benchmark.study import load_grid
from detectors import DETECTORS
from optimizers import OPTIMIZERS
from optimizers.registry import RegistryError
from preprocessing.store import FaceStore

GRID: dict[str, Any] = {
    "name": "g",
    "train": {"store": "absent", "methods": ["Deepfakes", "FaceSwap"]},
    "tests": [{"name": "t", "store": "elsewhere", "role": "cross-dataset"}],
    "detectors": [{"name": "resnet10", "size": 32, "width": 4}],
    "optimizers": ["sam"],
    "seeds": [0],
    "protocol": {"epochs": 1, "batch_size": 8},
}


class Named(Tiny):
    """Its instances name their shallow modules."""

    shallow = ()

    def __init__(self) -> None:
        super().__init__()
        self.shallow = ("second",)


class Unnamed(Tiny):
    shallow = ()


def cells(folder: Path, **changes: Any) -> Any:
    file = folder / "g.yaml"
    file.write_text(yaml.safe_dump({**GRID, **changes}))
    return load_grid(file).cells()


@pytest.fixture(autouse=True)
def registered() -> None:
    DETECTORS.register("names_by_instance")(Named)
    DETECTORS.register("names_nothing")(Unnamed)


@pytest.mark.parametrize("detector", ["names_by_instance", {"name": "timm/resnet18", "size": 64}])
@pytest.mark.parametrize("rule", ["pim", "dualflat"])
def test_shallow_modules_that_an_instance_names_are_good_enough(tmp_path: Path, detector: Any, rule: str) -> None:
    check_fit(cells(tmp_path, detectors=[detector], optimizers=["sam", rule]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"detectors": ["names_nothing"], "optimizers": ["sam", "pim"]}, "optimizer 'pim': .* the detector Unnamed names none"),
        (
            {"detectors": [{"name": "timm/twins_svt_small", "size": 64}], "optimizers": ["dualflat"]},
            "optimizer 'dualflat': .* the detector timm/twins_svt_small names none",
        ),
        ({"train": {"store": "absent", "methods": ["Deepfakes"]}, "optimizers": ["roga"]}, r"'roga': .*have one \(Deepfakes\)"),
        ({"train": {"store": "absent", "source": "sbi"}, "optimizers": ["roga"]}, r"'roga': .*have one \(SBI\)"),
        ({"detectors": [{"name": "core", "size": 64}]}, "protocol.augment is none, but detector 'core' learns from two"),
        (
            {"detectors": [{"name": "ucf", "size": 64}], "protocol": {"epochs": 1, "batch_size": 8, "micro_batch": 1}},
            "protocol.micro_batch is 1, but detector 'ucf'",
        ),
        ({"detectors": [{"name": "ucf", "size": 64, "methods": 1}]}, "'ucf' tells 1 forgery methods apart"),
        ({"detectors": [{"name": "meso4", "size": 7}]}, "Meso4.*7"),
        ({"detectors": [{"name": "xception", "weights": "/nowhere.pth"}]}, "weights file /nowhere.pth does not exist"),
    ],
)
def test_what_cannot_work_is_one_sentence(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, RegistryError), match=said) as caught:
        check_fit(cells(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_a_plan_needs_no_weights_file(tmp_path: Path) -> None:
    check_fit(cells(tmp_path, detectors=[{"name": "xception", "size": 64, "weights": "/nowhere.pth"}]), weights=False)


def test_every_pair_of_a_large_grid_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, attached = [], []
    build = DETECTORS.build
    monkeypatch.setattr(DETECTORS, "build", lambda name, **settings: built.append(name) or build(name, **settings))
    monkeypatch.setattr(OPTIMIZERS.get("pim"), "check", lambda rule, detector: None)
    monkeypatch.setattr(OPTIMIZERS.get("pim"), "attach", lambda rule, detector: attached.append(type(detector).__name__))
    check_fit(cells(tmp_path, detectors=["names_by_instance", "names_nothing"], optimizers=["sam", "pim"], seeds=[0, 1, 2]))
    assert built == ["names_by_instance", "names_nothing"]
    assert attached == ["Named", "Unnamed"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"optimizers": [{"name": "sam", "base": {"name": ["sgd"]}}]},
            r"the base's name is \['sgd'\], but it must be one of sgd, adam",
        ),
        ({"optimizers": [{"name": "sam", "base": {"name": {}}}]}, "the base's name is {}"),
        ({"optimizers": [{"name": "sam", "base": 3}]}, "base: must be a name, or {name: adam, lr: ...}, not 3"),
        (
            {"optimizers": [{"name": "sam", "base": {"name": "sgd", "momentum": 0, "nesterov": True}}]},
            "nesterov looks ahead along the momentum, which is 0",
        ),
        ({"bases": {"adam": {"lr": -1}}, "optimizers": ["sgd"]}, "bases.adam: .*lr must be"),
        ({"protocol": {"epochs": 1, "batch_size": 8, "clip": float("inf")}}, "protocol.clip: must be a finite number"),
        ({"protocol": {"epochs": 1, "batch_size": 8, "clip": 0}}, "protocol.clip: must be above 0, not 0"),
        ({"protocol": {"epochs": 0, "batch_size": 8}}, "protocol.epochs: must be at least 1, not 0"),
        ({"protocol": {"epochs": 1.5, "batch_size": 8}}, "protocol.epochs: must be a whole number, not 1.5"),
        ({"protocol": {"epochs": 1, "batch_size": 8, "precision": "bf17"}}, "protocol.precision: must be 'fp32', 'bf16' or 'fp16'"),
    ],
)
def test_wrong_settings_are_told_in_the_user_s_words(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        cells(tmp_path, **changes)
    assert "Input should" not in str(caught.value)


def test_train_looks_at_its_settings_before_it_opens_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any) -> None:
        raise AssertionError("a store was opened")

    monkeypatch.setattr(FaceStore, "__init__", opened)
    for settings, optimizer, said in (
        (["optimizer.rho=-1"], "sam", "rho must be"),
        (["detector.size=7"], "sam", "Meso4.* 7"),
        ([], "roga", "have one"),
    ):
        with pytest.raises((ConfigError, RegistryError), match=said):
            train("meso4", optimizer, tmp_path / "absent", ["Deepfakes"], setting=["detector.size=64", *settings], batch_size=4)


def test_a_weights_file_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    state = DETECTORS.build("meso4", size=64).state_dict()
    first = next(key for key, value in state.items() if value.is_floating_point())
    torch.save(state | {first: torch.full_like(state[first], torch.nan)}, tmp_path / "w.pth")
    with pytest.raises(RegistryError, match=f"1 not finite \\({first}\\)"):
        DETECTORS.build("meso4", size=64, weights=tmp_path / "w.pth")
