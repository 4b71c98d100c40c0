from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.reading import ConfigError
from benchmark.study import Study, grid_names, load_grid

GRID: dict[str, Any] = {
    "name": "g",
    "train": {"store": "s", "methods": ["Deepfakes", "FaceSwap"]},
    "tests": [{"name": "t", "store": "s", "methods": ["FaceSwap"], "role": "in-domain"}],
    "detectors": [{"name": "meso4", "size": 64}],
    "optimizers": ["sgd", {"name": "sam", "base": "adam", "rho": 0.1}],
    "bases": {"adam": {"lr": 0.002}},
    "seeds": [0, 1],
    "protocol": {"epochs": 1, "batch_size": 8},
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "g.yaml"
    path.write_text(yaml.safe_dump({**GRID, **changes}))
    return path


def test_product_order_and_resolved_settings(tmp_path: Path) -> None:
    cells = load_grid(write(tmp_path)).cells()
    assert [(c.detector.title, c.optimizer.title, c.seed) for c in cells] == [
        ("meso4", "sgd", 0),
        ("meso4", "sgd", 1),
        ("meso4", "sam", 0),
        ("meso4", "sam", 1),
    ]
    sam = cells[2]
    assert sam.optimizer.settings["rho"] == 0.1
    assert sam.base.name == "adam"
    assert sam.base.settings["lr"] == 0.002
    assert sam.base.settings["weight_decay"] == 5e-4  # the default is written out
    assert cells[0].base.name == "sgd"


def test_ids_differ_by_every_setting_and_not_by_the_machine(tmp_path: Path) -> None:
    first = load_grid(write(tmp_path)).cells()
    assert len({c.id for c in first}) == 4
    assert [c.id for c in load_grid(write(tmp_path)).cells()] == [c.id for c in first]
    changed = load_grid(write(tmp_path, optimizers=["sgd", {"name": "sam", "base": "adam", "rho": 0.2}])).cells()
    assert [a.id == b.id for a, b in zip(first, changed, strict=True)] == [True, True, False, False]


def test_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(yaml.safe_dump(GRID).replace("lr: 0.002", "lr: 2e-3"))
    assert load_grid(path).cells()[2].base.settings["lr"] == 0.002


def test_a_detector_may_have_base_settings_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, detectors=[{"name": "meso4", "size": 64, "bases": {"adam": {"lr": 0.004}}}, "resnet18"], seeds=[0])
    assert [c.base.settings["lr"] for c in load_grid(path).cells()] == [0.005, 0.004, 0.005, 0.002]
    own = {"name": "sam", "base": {"name": "adam", "lr": 0.1}}
    path = write(tmp_path, detectors=[{"name": "meso4", "bases": {"adam": {"lr": 0.004}}}], optimizers=[own], seeds=[0])
    assert load_grid(path).cells()[0].base.settings["lr"] == 0.1


WRONG = [
    (
        {"tests": [{"name": "t", "store": "s", "methods": ["FaceShifter"], "role": "in-domain"}]},
        "FaceShifter is no training method",
    ),
    ({"tests": [{"name": "t", "store": "s", "methods": ["FaceSwap"], "role": "held-out"}]}, "FaceSwap is a training method"),
    ({"tests": [{"name": "t", "store": "s", "role": "in-domain"}]}, "name its methods"),
    ({"tests": [{"name": "t", "store": "s", "role": "cross-dataset"}]}, "is of the training store"),
    ({"tests": [{"name": "t", "store": "o", "role": "held-out"}]}, "its role is cross-dataset"),
    ({"tests": [{"name": "val", "store": "o", "role": "cross-dataset"}]}, "the name 'val' belongs to the validation set"),
    (
        {"tests": [{"name": "t", "store": "s", "methods": ["FaceSwap"], "role": "in-domain", "split": "train"}]},
        "trained or validated",
    ),
    (
        {
            "train": {"store": "s", "methods": ["A", "B"], "val_split": "train"},
            "tests": [{"name": "t", "store": "o", "role": "cross-dataset"}],
        },
        "validation needs faces of its own",
    ),
    ({"seeds": ["0"]}, "seeds.0"),
    ({"plugins": [3]}, "plugins must be a list of file names"),
    ({"bases": {"adam": {"betas": [0.9]}}, "optimizers": ["adam"]}, "betas must be a pair"),
    ({"bases": {"adam": {"betas": 3}}, "optimizers": ["adam"]}, "betas must be a pair"),
    ({"bases": {"adam": {"lr": float("inf")}}, "optimizers": ["adam"]}, "lr must be a finite number"),
    ({"optimizers": [{"name": "adam", "base": "sgd"}]}, "cannot be spent by the base optimizer 'sgd'"),
    ({"detectors": ["mesoo4"]}, "unknown detector 'mesoo4': did you mean 'meso4'"),
    ({"detectors": [{"name": "meso4", "sise": 64}]}, "detector 'meso4' has no setting 'sise': did you mean 'size'"),
    ({"optimizers": ["samm"]}, "unknown optimizer 'samm': did you mean 'sam'"),
    ({"optimizers": [{"name": "sam", "rho": -0.1}]}, "rho"),
    ({"optimizers": [{"name": "sam", "base": "addam"}]}, "unknown base optimizer 'addam', did you mean 'adam'"),
    ({"optimizers": ["sam", "sam"]}, "'sam' stands there twice"),
    ({"bases": {"adam": {"learning_rate": 1}}, "optimizers": ["adam"]}, "learning_rate"),
    ({"bases": {"adamw": {}}}, "adamw"),
    ({"bases": {"adam": {"lr": -1}}, "optimizers": ["adam"]}, "lr must be a finite number of at least 0, not -1"),
    ({"protocoll": {}}, "unknown key 'protocoll', did you mean 'protocol'"),
    ({"protocol": {"epochs": 1, "batch_size": 8, "epoch": 2}}, "unknown key 'protocol.epoch', did you mean 'epochs'"),
    ({"protocol": {"epochs": 1, "batch_size": 10}}, "take a multiple of 4, such as 8"),
    ({"protocol": {"epochs": 0, "batch_size": 8}}, "protocol.epochs"),
    ({"protocol": {"batch_size": 8}}, "the key 'protocol.epochs' is missing"),
    (
        {"tests": [{"name": "t", "store": "s", "role": "in-domain", "splitt": "x"}]},
        "unknown key 'tests.0.splitt', did you mean 'split'",
    ),
    ({"seeds": [1, 1]}, "seeds must be distinct"),
    ({"train": {"store": "s", "methods": []}}, "train.methods"),
    ({"plugins": ["no_such_file.py"]}, "no_such_file.py does not exist"),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG, ids=[s[:30] for _, s in WRONG])
def test_wrong_grids_end_in_one_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_grid(write(tmp_path, **changes)).cells()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_grid_and_broken_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown grid 'demoo': did you mean 'demo'"):
        load_grid("demoo")
    with pytest.raises(ConfigError, match="does not exist"):
        load_grid(tmp_path / "none.yaml")
    (tmp_path / "g.yaml").write_text("a: [1\nb: 2")
    with pytest.raises(ConfigError, match=r"g.yaml, line 2: no valid YAML"):
        load_grid(tmp_path / "g.yaml")
    (tmp_path / "g.yaml").write_text("seeds: [2020-99-99]")
    with pytest.raises(ConfigError, match="no valid YAML"):
        load_grid(tmp_path / "g.yaml")
    (tmp_path / "g.yaml").write_text("name: a\nseeds: [0]\nname: b")
    with pytest.raises(ConfigError, match=r"line 3: no valid YAML .the key 'name' stands there twice"):
        load_grid(tmp_path / "g.yaml")
    (tmp_path / "g.yaml").write_text("just text")
    with pytest.raises(ConfigError, match="must hold keys"):
        load_grid(tmp_path / "g.yaml")


@pytest.mark.parametrize("name", grid_names())
def test_grids_that_come_along_are_sound(name: str) -> None:
    assert isinstance(load_grid(name), Study)
    assert load_grid(name).cells()


def test_the_demo_has_nine_optimizers_and_two_backbones() -> None:
    cells = load_grid("demo").cells()
    assert [c.optimizer.title for c in cells[:9]] == ["adam", "sgd", "sam", "asam", "gnp", "sagm", "roga", "pim", "dualflat"]
    assert len(cells) == 18
