"""Every network goes through torch.compile as one graph, and one that cannot is told so."""

from pathlib import Path

import pytest
import torch

from detectors import DETECTORS
from detectors.base import Detector, Prediction
from detectors.contract import _compiles, examine, faces
from detectors.outcome import Outcome
from optimizers.registry import load_plugin

torch.set_num_threads(1)
load_plugin(Path(__file__).parents[1] / "examples" / "my_detector.py")

NETWORKS = ("efficientnet_b0", "f3net", "mesoinception4", "recce", "resnet18", "spsl", "srm", "ucf")
"""Those that are not one of the others with other widths or losses; Xception is inside half of them."""


@pytest.mark.parametrize("name", ["meso4", "my_detector", "resnet10", "timm/test_vit"])
def test_the_contract_compiles_into_one_graph(name):
    # Tracing alone: with a C++ compiler behind it the larger ones take minutes.
    *_, compiled = examine(lambda: DETECTORS.build(name, size=32), steps=0, compiled="eager")
    assert compiled == Outcome("torch.compile (eager)")


@pytest.mark.parametrize("name", NETWORKS)
def test_compiles_into_one_graph(name):
    torch.manual_seed(0)
    detector = DETECTORS.build(name, size=DETECTORS.get(name).smallest)
    assert list(_compiles(detector, faces(detector.size), "eager")) == []


class ReadsItsOwnNumbers(Detector):
    """Its choice by a value breaks the graph."""

    def forward(self, images):
        features = images.mean(dim=(2, 3))
        return Prediction(features[:, :2] * (2 if images.sum().item() > 0 else 1), features)


def test_a_graph_that_breaks_is_no_success():
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        list(_compiles(ReadsItsOwnNumbers(), faces(8), "eager"))
