"""Every registered detector, and one from outside the project, is put through the public contract at the smallest size."""

from pathlib import Path

import pytest
import torch
from broken_detectors import (
    Arrays,
    CalledTwice,
    Chatters,
    Counts,
    DeadBranch,
    Dice,
    DropsInEval,
    Featureless,
    FlatShallow,
    ForgottenCommas,
    GoesAround,
    Hidden,
    Infinite,
    InPlace,
    Leaves,
    NeedsDepth,
    NoSize,
    NothingShallow,
    OnceDifferentiable,
    OneLogit,
    Overflows,
    Overwrites,
    Pair,
    PlainLoss,
    Prints,
    Relabels,
    SeesItsNeighbours,
    SinglePrecision,
    Stubborn,
    Tiny,
    Undocumented,
    WronglyUnused,
    WrongName,
)
from torch import nn

from detectors import DETECTORS
from detectors.contract import check
from optimizers.registry import load_plugin

torch.set_num_threads(1)
load_plugin(Path(__file__).parents[1] / "examples" / "my_detector.py")


# convnext_base is convnext_tiny's class with other widths, and takes as long as all others; `dfgrid check detector` does it whole.
NAMES = sorted({*DETECTORS.names(), "timm/resnet10t", "timm/test_vit"} - {"convnext_base"})


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    assert check(lambda: DETECTORS.build(name, size=DETECTORS.get(name).smallest)) == []


def test_the_tiny_detector_keeps_the_contract():
    assert check(Tiny, rate=1e-1) == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (nn.ReLU, "not a detectors.base.Detector"),
        (Prints, "construction: prints 'loading'"),
        (Chatters, "prediction: forward prints 'forward 8'"),
        (Overwrites, "prediction: forward writes into the images"),
        (Relabels, "gradients: objective writes into the batch that it is given (labels)"),
        (Dice, "random numbers: from the same torch.manual_seed"),
        (NeedsDepth, "construction: it needs 'depth', which nothing provides"),
        (ForgottenCommas, "construction: needs is 'views', one string; write needs = ('views',)"),
        (ForgottenCommas, "construction: shallow is 'conv', one string; write shallow = ('conv',)"),
        (ForgottenCommas, "construction: unused is 'head.', one string; write unused = ('head.',)"),
        (Pair, "prediction: forward gives a tuple"),
        (Arrays, "prediction: logits are a ndarray, not a torch.Tensor"),
        (Featureless, "prediction: features are a NoneType, not a torch.Tensor"),
        (PlainLoss, "prediction: the loss is a float, not a torch.Tensor"),
        (Leaves, "prediction: SystemExit: no licence"),
        (Undocumented, "docstring"),
        (NoSize, "size is 0"),
        (OneLogit, "not (2, 2)"),
        (Infinite, "not finite"),
        (DropsInEval, "two predictions in eval mode differ"),
        (SeesItsNeighbours, "depend on the other faces"),
        (Counts, "changes a buffer"),
        (SinglePrecision, "torch.float32"),
        (DeadBranch, "extra.weight"),
        (WronglyUnused, "head.weight is named in `unused`"),
        (NothingShallow, "names no module"),
        (WrongName, "no submodule stem"),
        (FlatShallow, "not (2, C, H, W)"),
        (CalledTwice, "2 times"),
        (GoesAround, "a pushed mean of conv"),
        (InPlace, "shallow: "),
        (OnceDifferentiable, "once_differentiable"),
        (Hidden, "same state_dict"),
        (Stubborn, "were not learned"),
        (Overflows, "under bfloat16 autocast a gradient is not finite"),
        (lambda: DETECTORS.build("meso4", size=33), "construction: RegistryError"),
    ],
)
def test_a_broken_detector_is_told_what_is_wrong(broken, said):
    assert said in "\n".join(check(broken, steps=5, rate=1e-1))


@pytest.mark.parametrize("broken", [NoSize, OneLogit, Infinite, DropsInEval, Chatters, Overwrites, Pair, Leaves])
def test_what_the_other_checks_build_on_is_one_line(broken):
    assert len(check(broken, steps=5, rate=1e-1)) == 1


def test_a_docstring_without_px_hides_nothing_else():
    class Both(OneLogit):
        """Of no size."""

    problems = check(Both, steps=5, rate=1e-1)
    assert [problem.split(":")[0] for problem in problems] == ["documentation", "prediction"]


def test_the_check_leaves_the_caller_his_random_numbers():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    check(Tiny, steps=1)
    assert torch.equal(torch.rand(3), expected)
