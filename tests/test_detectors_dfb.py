"""DeepfakeBench's checkpoints: files with the keys and shapes of its detectors' state_dicts, as they were read off its classes."""

import csv
import logging
import re
from pathlib import Path

import pytest
import torch

from detectors import DETECTORS
from detectors.weights import KeyMap
from optimizers.registry import RegistryError

torch.set_num_threads(1)
KEYS = Path(__file__).with_name("deepfakebench_keys.csv")
PAIRS = {  # DeepfakeBench's detector -> ours; some of its keys -> where they belong; how many of its tensors have no use
    "meso4": ("dfb-meso4", {"backbone.bn1.running_var": "block1.bn.running_var", "backbone.conv2.weight": "conv2.weight"}, 0),
    "meso4Inception": (
        "dfb-mesoinception4",
        {"backbone.Incption2_conv3_2.weight": "block2.inception.dilated.1.weight", "backbone.bn1.bias": "bn1.bias"},
        0,
    ),
    "resnet34": (
        "resnet34",
        {"backbone.resnet.0.weight": "backbone.conv1.weight", "backbone.resnet.7.2.bn2.bias": "backbone.layer4.2.bn2.bias"},
        0,
    ),
    "xception": (
        "xception",
        {
            "backbone.last_linear.weight": "head.weight",
            "backbone.block3.rep.1.pointwise.weight": "backbone.block3.rep.1.pointwise.weight",
        },
        7,
    ),
    "efficientnetb4": (
        "dfb-efficientnet_b4",
        {"backbone.efficientnet._conv_stem.weight": "backbone._conv_stem.weight", "backbone.last_layer.bias": "head.bias"},
        0,
    ),
}


def published(peer: str) -> dict[str, torch.Tensor]:
    """What DeepfakeBench's file holds, with numbers of our own."""
    with KEYS.open(newline="") as file:
        shapes = {row["key"]: row["shape"] for row in csv.DictReader(file) if row["detector"] == peer}
    generator = torch.Generator().manual_seed(0)
    state = {key: torch.rand([int(n) for n in shape.split("x") if n], generator=generator) for key, shape in shapes.items()}
    return {key: torch.tensor(7) if key.endswith("num_batches_tracked") else value for key, value in state.items()}


@pytest.mark.parametrize("peer", PAIRS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_tensor_finds_its_place(peer, prefix, tmp_path, caplog):
    name, places, useless = PAIRS[peer]
    state = published(peer)
    path = tmp_path / f"{peer}_best.pth"
    torch.save({prefix + key: value for key, value in state.items()}, path)
    with caplog.at_level(logging.INFO, "detectors.weights"):
        detector = DETECTORS.build(name, weights=f"dfb:{path}")
    own = detector.state_dict()
    for theirs, ours in places.items():
        assert torch.equal(own[ours], state[theirs])
    floats = {key: value for key, value in own.items() if value.is_floating_point()}
    left = {value.double().sum().item() for value in state.values()}
    assert all(value.double().sum().item() in left for value in floats.values())
    assert f"{len(state) - useless} tensors loaded" in caplog.text
    assert (f"dropped {useless} of the file (backbone.adjust_channel" in caplog.text) == (useless > 0)
    assert len(own) == len(state) - useless


def test_a_checkpoint_that_lacks_a_key_or_has_one_more_is_refused(tmp_path):
    state = published("resnet34")
    state["backbone.resnet.9.weight"] = state.pop("backbone.fc.weight")
    path = tmp_path / "changed.pth"
    torch.save(state, path)
    with pytest.raises(RegistryError, match=re.escape("1 missing (head.weight), 1 unexpected (backbone.resnet.9.weight)")):
        DETECTORS.build("resnet34", weights=f"dfb:{path}")


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("meso4", "dfb:x.pth", "belong to 'dfb-meso4'"),
        ("mesoinception4", "dfb:x.pth", "belong to 'dfb-mesoinception4'"),
        ("efficientnet_b4", "dfb:x.pth", "belong to 'dfb-efficientnet_b4'"),
        ("resnet10", "dfb:x.pth", "has no counterpart in DeepfakeBench"),
        ("dfb-meso4", "dfb:", "nothing behind it"),
        ("dfb-meso4", "dfb:none.pth", "none.pth does not exist"),
    ],
)
def test_a_checkpoint_that_cannot_be_loaded_is_one_sentence(name, weights, said):
    with pytest.raises(RegistryError, match=re.escape(said)):
        DETECTORS.build(name, weights=weights)


def test_the_name_that_takes_the_checkpoint_does():
    for name in DETECTORS.names():
        other = DETECTORS.get(name).dfb
        if isinstance(other, str):
            assert isinstance(DETECTORS.get(other).dfb, KeyMap)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_malicious_checkpoint_is_refused_and_not_run(tmp_path):
    torch.save({"backbone.conv1.weight": RunsCode(tmp_path / "pwned")}, tmp_path / "evil.pth")
    with pytest.raises(RegistryError, match=r"evil\.pth is no plain state_dict.*refused"):
        DETECTORS.build("dfb-meso4", weights=f"dfb:{tmp_path / 'evil.pth'}")
    assert not (tmp_path / "pwned").exists()


def test_two_keys_never_become_one():
    twice = KeyMap({"a.": "c.", "b.": "c."})
    with pytest.raises(ValueError, match=r"two of its keys become 'c\.w'"):
        twice.apply({"a.w": torch.zeros(1), "b.w": torch.zeros(1)})


def test_the_longest_beginning_is_exchanged():
    state = {key: torch.zeros(0) for key in ("a.b.w", "a.w", "a.c.w", "z")}
    mapped, dropped = KeyMap({"a.": "x.", "a.b.": "y."}, drop=("a.c",)).apply(state)
    assert list(mapped) == ["y.w", "x.w", "z"]
    assert dropped == ["a.c.w"]


def test_the_stem_of_deepfakebenchs_efficientnet_is_never_pretrained(tmp_path):
    plain = DETECTORS.build("efficientnet_b4")
    file = plain.backbone.state_dict() | {"_fc.weight": torch.zeros(1000, 1792), "_fc.bias": torch.zeros(1000)}
    torch.save(file, tmp_path / "efficientnet-b4-6ed6700e.pth")
    loaded = DETECTORS.build("dfb-efficientnet_b4", weights=str(tmp_path / "efficientnet-b4-6ed6700e.pth")).backbone
    assert loaded._conv_stem.padding == (0, 0)
    assert not torch.equal(loaded._conv_stem.weight, plain.backbone._conv_stem.weight)
    assert torch.equal(loaded._blocks[0]._depthwise_conv.weight, plain.backbone._blocks[0]._depthwise_conv.weight)


def test_deepfakebenchs_xception_file_loads(tmp_path):
    """xception-b5690688.pth: pointwise convolutions are matrices, the 1000-class layer is `fc`, there are no batch counters."""
    own = DETECTORS.build("xception").backbone.state_dict()
    file = {k: v.flatten(1) if "pointwise" in k else v for k, v in own.items() if "num_batches" not in k}
    torch.save(file | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, tmp_path / "xception-b5690688.pth")
    loaded = DETECTORS.build("xception", weights=tmp_path / "xception-b5690688.pth").backbone.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in own.items())
