"""Every registered detector, and one from outside the project, is put through the public contract at the smallest size."""

import random
from pathlib import Path

import pytest
import torch
from torch import nn

from detectors import DETECTORS
from detectors.base import Detector, Prediction
from detectors.contract import check, examine
from detectors.outcome import Outcome
from optimizers.registry import load_plugin

torch.set_num_threads(1)
load_plugin(Path(__file__).parents[1] / "examples" / "my_detector.py")


# convnext_base is convnext_tiny's class with other widths, and takes as long as all others; `dfgrid check detector` does it whole.
NAMES = sorted({*DETECTORS.names(), "timm/resnet10t", "timm/test_vit"} - {"convnext_base"})


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    assert check(lambda: DETECTORS.build(name, size=DETECTORS.get(name).smallest)) == []


@pytest.mark.parametrize("name", ["meso4", "resnet10", "timm/test_vit", "my_detector"])
def test_compiles_into_one_graph(name):
    # Tracing alone: with a C++ compiler behind it the larger ones take minutes.
    *_, compiled = examine(lambda: DETECTORS.build(name, size=32), steps=0, compiled="eager")
    assert compiled == Outcome("torch.compile (eager)")


class Tiny(Detector):
    """A detector that keeps the contract; faces of 8 px. The classes below break one clause each."""

    size = 8
    shallow = ("conv",)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 2)

    def forward(self, images):
        features = self.conv(self.normalize(images)).square().mean(dim=(2, 3))
        return Prediction(self.head(features), features)


class Prints(Tiny):
    """8 px."""

    def __init__(self):
        super().__init__()
        print("loading")


class Chatters(Tiny):
    """8 px."""

    def forward(self, images):
        print("forward", len(images))
        return super().forward(images)


class Overwrites(Tiny):
    """8 px. Normalises in place what others still need."""

    def forward(self, images):
        images.sub_(0.5)
        return super().forward(images)


class Relabels(Tiny):
    """8 px."""

    def objective(self, batch):
        batch.labels.zero_()
        return super().objective(batch)


class Dice(Tiny):
    """8 px. Its random numbers cannot be replayed."""

    def objective(self, batch):
        return super().objective(batch) * random.uniform(1, 2)


class NeedsDepth(Tiny):
    """8 px."""

    needs = ("depth",)


class Pair(Tiny):
    """8 px."""

    def forward(self, images):
        prediction = super().forward(images)
        return prediction.logits, prediction.features


class Undocumented(Tiny):
    """A detector."""


class NoSize(Tiny):
    """8 px."""

    size = 0


class OneLogit(Tiny):
    """8 px."""

    def forward(self, images):
        prediction = super().forward(images)
        return Prediction(prediction.logits[:, :1], prediction.features)


class Infinite(Tiny):
    """8 px."""

    def forward(self, images):
        prediction = super().forward(images)
        return Prediction(prediction.logits / 0, prediction.features)


class DropsInEval(Tiny):
    """8 px."""

    def forward(self, images):
        prediction = super().forward(images)
        return Prediction(nn.functional.dropout(prediction.logits, 0.5), prediction.features)


class SeesItsNeighbours(Tiny):
    """8 px."""

    def forward(self, images):
        return super().forward(images - images.mean(dim=0))


class Counts(Tiny):
    """8 px."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images):
        self.seen += len(images)
        return super().forward(images)


class SinglePrecision(Tiny):
    """8 px."""

    def forward(self, images):
        prediction = super().forward(images)
        return Prediction(prediction.logits.float(), prediction.features)


class DeadBranch(Tiny):
    """8 px."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(1, 1)


class WronglyUnused(Tiny):
    """8 px."""

    unused = ("head.",)


class NothingShallow(Tiny):
    """8 px."""

    shallow = ()


class WrongName(Tiny):
    """8 px."""

    shallow = ("stem",)


class FlatShallow(Tiny):
    """8 px."""

    shallow = ("head",)


class CalledTwice(Tiny):
    """8 px."""

    def forward(self, images):
        self.conv(images)
        return super().forward(images)


class GoesAround(Tiny):
    """8 px."""

    def forward(self, images):
        self.conv(images)
        x = nn.functional.conv2d(self.normalize(images), self.conv.weight, self.conv.bias)
        features = x.square().mean(dim=(2, 3))
        return Prediction(self.head(features), features)


class InPlace(Tiny):
    """8 px. Overwrites what the shallow module gave, which a recorder of its statistics still needs."""

    def forward(self, images):
        x = self.conv(self.normalize(images))
        x.data.zero_()
        features = x.square().mean(dim=(2, 3))
        return Prediction(self.head(features), features)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class OnceDifferentiable(Tiny):
    """8 px."""

    def forward(self, images):
        features = Square.apply(self.conv(self.normalize(images))).mean(dim=(2, 3))
        return Prediction(self.head(features), features)


class Hidden(Tiny):
    """8 px. Its state_dict does not say all that it predicts with."""

    def __init__(self):
        super().__init__()
        self.secret = torch.randn(())

    def forward(self, images):
        prediction = super().forward(images)
        return Prediction(prediction.logits + prediction.logits * self.secret.to(images.dtype), prediction.features)


class Overflows(Tiny):
    """8 px. The gradient of a root at zero."""

    def forward(self, images):
        prediction = super().forward(images)
        if prediction.logits.dtype == torch.bfloat16:
            return Prediction(prediction.logits + (prediction.logits * 0).sqrt(), prediction.features)
        return prediction


class Stubborn(Tiny):
    """8 px. Learns the opposite."""

    def loss(self, prediction, batch):
        return nn.functional.cross_entropy(prediction.logits, 1 - batch.labels)


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
        (Pair, "prediction: forward gives a tuple"),
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


@pytest.mark.parametrize("broken", [NoSize, OneLogit, Infinite, DropsInEval, Chatters, Overwrites, Pair])
def test_what_the_other_checks_build_on_is_one_line(broken):
    assert len(check(broken, steps=5, rate=1e-1)) == 1


def test_the_check_leaves_the_caller_his_random_numbers():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    check(Tiny, steps=1)
    assert torch.equal(torch.rand(3), expected)
