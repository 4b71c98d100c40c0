"""A detector that keeps the contract, and one for each clause of it that breaks that clause."""

import random

import torch
from torch import nn

from detectors.base import Detector, Prediction


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


class ForgottenCommas(Tiny):
    """8 px."""

    needs = "views"
    shallow = "conv"
    unused = "head."


class Pair(Tiny):
    """8 px."""

    def forward(self, images):
        prediction = super().forward(images)
        return prediction.logits, prediction.features


class Arrays(Tiny):
    """8 px."""

    def forward(self, images):
        prediction = super().forward(images)
        return Prediction(prediction.logits.detach().numpy(), prediction.features)


class Featureless(Tiny):
    """8 px."""

    def forward(self, images):
        return Prediction(super().forward(images).logits, None)


class PlainLoss(Tiny):
    """8 px."""

    def loss(self, prediction, batch):
        return super().loss(prediction, batch).item()


class Leaves(Tiny):
    """8 px."""

    def forward(self, images):
        raise SystemExit("no licence")


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
