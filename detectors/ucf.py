"""UCF: a face taken apart into content, traces of one forgery method, and traces that all methods share."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors import xception_parts as xception
from detectors.about import About
from detectors.base import Batch, Prediction
from detectors.weights import KeyMap, State, load_weights
from optimizers.registry import RegistryError

SHARE = 256
"""Channels of each half of the forgery features."""

SHUFFLED = 0.7
"""Probability that a pass exchanges the common features of faces of one class; the authors' code."""


class Decoder(nn.Module):
    """Content (N, 512, h, w), restyled by forgery features of the same shape -> an image (N, 3, 32 h, 32 w) from -1 to 1.

    Adaptive instance normalisation at three scales; both inputs pass the same convolutions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.dropout = nn.Dropout(0.3)
        self.dconv_up3, self.dconv_up2, self.dconv_up1 = _two(512, 256), _two(256, 128), _two(128, 64)
        self.conv_last = nn.Conv2d(64, 3, 1)
        self.up_last = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=True)

    def forward(self, style: Tensor, content: Tensor) -> Tensor:
        """The image."""
        for convolutions in (self.dconv_up3, self.dconv_up2):
            content = convolutions(self.dropout(self.upsample(restyle(content, style))))
            style = convolutions(self.dropout(self.upsample(style)))
        content = self.dconv_up1(self.dropout(self.upsample(restyle(content, style))))
        return torch.tanh(self.up_last(self.conv_last(content)))


def restyle(content: Tensor, style: Tensor) -> Tensor:
    """Adaptive instance normalisation (Huang and Belongie 2017): (N, C, h, w) with mean and deviation of `style`'s channels."""
    (variance, mean), (wanted, centre) = (torch.var_mean(x, dim=(2, 3), keepdim=True) for x in (content, style))
    return (content - mean) / (variance + 1e-5).sqrt() * (wanted + 1e-5).sqrt() + centre


def _two(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU())


class _Split(nn.Module):
    """The forgery features (N, 512, h, w) -> one half of them, (N, 256, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = nn.Conv2d(2 * SHARE, SHARE, 1), nn.Conv2d(SHARE, SHARE, 1), nn.Conv2d(SHARE, SHARE, 1)
        self.conv2d = nn.Sequential(first, nn.LeakyReLU(), second, nn.LeakyReLU(), third)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.conv2d(x))


class _Head(nn.Module):
    """(N, 256, h, w) -> logits (N, classes), with dropout on them as in the authors' code, and the pooled features (N, 256)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(SHARE, 2 * SHARE), nn.LeakyReLU(), nn.Linear(2 * SHARE, classes))
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = x.mean(dim=(2, 3))
        return self.dropout(self.mlp(features)), features


class _Encoder(nn.Module):
    """Xception with 512 channels at its end: (N, 3, H, W) -> (N, 512, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = xception.body()
        self.adjust_channel = nn.Sequential(nn.Conv2d(xception.FEATURES, 2 * SHARE, 1), nn.BatchNorm2d(2 * SHARE), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        x = xception.blocks(self.body, xception.start(self.body, images), 1, 12)
        return torch.as_tensor(self.adjust_channel(xception.end(self.body, x)))


ADJUST = tuple(
    f"{name}.adjust_channel.{key}"
    for name in ("forgery", "content")
    for key in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
)
"""What an encoder has behind its Xception."""


def _twice(state: State, backbone: nn.Module) -> State:
    return {f"{name}.body.{key}": value for name in ("forgery", "content") for key, value in state.items()}


class UCF(xception.XceptionDetector):
    """UCF (Yan et al., "UCF: Uncovering Common Features for Generalizable Deepfake Detection", ICCV 2023, arXiv 2304.13949).

    One encoder finds the content of a face, another its forgery features, which are split into those of the forgery method and
    those common to all methods. The common ones alone decide. Loss, with the weights of the authors' code (DeepfakeBench, whose
    first author is the paper's): cross entropy of real and fake on the common features + `specific` x cross entropy of the forgery
    method on the specific ones + `reconstruction` x the sum of the mean absolute errors of real and of fake faces, each rebuilt
    from its content with its own and with its pair's forgery features, + `contrastive` x the contrastive regularisation
    (`contrast`). In 7 of 10 passes the common features are exchanged among faces of one class first.

    A pair is a batch's i-th real and i-th fake face.

    Faces of 256 px by default; any size divisible by 32, from 64 px. Global average pooling; features: 256, the common ones.
    Normalised with mean and std 0.5, the range of the decoder's tanh. Parameters: 46,830,234.

    PIM's insertion point is the first block of the forgery encoder; the PIM paper says "shallow layers" only, so the choice is
    ours.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: "none", "imagenet" (Xception's, for both encoders), the path of such a file or of a state_dict of this
            detector, or DeepfakeBench's checkpoint (of 4 methods).
        methods: how many forgery methods the specific features tell apart; at least as many as it is trained on.
        specific: weight of the cross entropy of the methods.
        reconstruction: weight of the reconstruction errors.
        contrastive: weight of the contrastive regularisation.
        margin: of the contrastive regularisation.
    """

    about = About(
        title="UCF",
        paper="Yan et al., UCF: Uncovering Common Features for Generalizable Deepfake Detection, ICCV 2023, arXiv 2304.13949",
        year=2023,
        backbone="two Xceptions, pretrainedmodels",
        insertion="the first block of the forgery encoder (our choice)",
    )
    needs = ("pairs", "methods")
    smallest = 64
    shallow = ("backbone.forgery.body.block1",)
    imagenet = xception.imagenet(_twice, ADJUST)
    dfb = KeyMap(
        {
            "encoder_f.": "backbone.forgery.body.",
            "encoder_f.adjust_channel.": "backbone.forgery.adjust_channel.",
            "encoder_c.": "backbone.content.body.",
            "encoder_c.adjust_channel.": "backbone.content.adjust_channel.",
            "con_gan.": "decoder.",
            "head_sha.": "head.",
            "head_spe.": "specific_head.",
            "block_sha.": "common.",
            "block_spe.": "specific.",
        },
        drop=("encoder_f.last_linear.", "encoder_c.last_linear."),  # built, never called
    )

    def __init__(
        self,
        size: int = 256,
        weights: str | Path = "none",
        methods: int = 4,
        specific: float = 0.1,
        reconstruction: float = 0.3,
        contrastive: float = 0.05,
        margin: float = 3.0,
    ) -> None:
        super().__init__(size, "half", multiple=32)
        if isinstance(methods, bool) or not isinstance(methods, int) or methods < 1:
            raise RegistryError(f"UCF: methods is {methods!r}, but it must be a whole number of forgery methods, at least 1")
        self.methods = methods
        self.weights = {
            "specific": xception.positive("UCF", "specific", specific),
            "reconstruction": xception.positive("UCF", "reconstruction", reconstruction),
            "contrastive": xception.positive("UCF", "contrastive", contrastive),
        }
        self.margin = xception.positive("UCF", "margin", margin)
        self.backbone = nn.ModuleDict({"forgery": _Encoder(), "content": _Encoder()})
        self.specific, self.common = _Split(), _Split()
        self.specific_head, self.head = _Head(methods + 1), _Head(2)
        self.decoder = Decoder()
        load_weights(self, weights, self.imagenet)

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, H, W) float RGB in [0, 1] -> Prediction, from the common features alone."""
        return Prediction(*self.head(self.common(self.backbone["forgery"](self.normalize(images)))))

    def objective(self, batch: Batch) -> Tensor:
        """The four losses.

        Raises:
            ValueError: a batch with another number of real than of fake faces.
        """
        real, fake = (torch.nonzero(batch.labels == label).flatten() for label in (0, 1))
        if len(real) != len(fake):
            raise ValueError(f"ucf needs pairs, but the batch has {len(real)} real and {len(fake)} fake faces")
        order = torch.cat([real, fake])
        images, kind = self.normalize(batch.images[order]), batch.labels[order]
        method = torch.where(kind == 1, batch.domains.to(kind.device)[order] + 1, 0)
        forgery, content = self.backbone["forgery"](images), self.backbone["content"](images)
        specific, common = self.specific(forgery), self.common(forgery)
        if float(torch.rand(())) < SHUFFLED:
            common = common[among_equals(kind)]
        logits, common_features = self.head(common)
        guesses, specific_features = self.specific_head(specific)
        return (
            F.cross_entropy(logits, kind)
            + self.weights["specific"] * F.cross_entropy(guesses, method)
            + self.weights["reconstruction"] * self._rebuilt(torch.cat([specific, common], dim=1), content, images)
            + self.weights["contrastive"] * contrast(common_features, specific_features, kind, method, self.margin)
        )

    def _rebuilt(self, forgery: Tensor, content: Tensor, images: Tensor) -> Tensor:
        """The sum of four mean absolute errors; the first half of each (N, ...) is real, the second fake."""
        other = forgery.roll(len(forgery) // 2, dims=0)
        # Real and fake faces are equally many, so twice the mean over both is the sum of their means.
        return 2 * (F.l1_loss(self.decoder(forgery, content), images) + F.l1_loss(self.decoder(other, content), images))


def among_equals(groups: Tensor) -> Tensor:
    """(N,) group of each row -> (N,) a random order of the rows in which each stands where one of its own group stood."""
    shuffled = torch.randperm(len(groups)).to(groups.device, non_blocking=True)
    order = torch.empty_like(shuffled)
    order[groups.argsort(stable=True)] = shuffled[groups[shuffled].argsort(stable=True)]
    return order


def contrast(common: Tensor, specific: Tensor, kind: Tensor, method: Tensor, margin: float) -> Tensor:
    """Contrastive regularisation: a sum over common and specific features, and over real and fake faces, a scalar.

    Each is the mean of max(0, d(face, like) - d(face, unlike) + margin). `like` is a random face of the same class (common
    features) or of the same method (specific features), `unlike` a random one of the other class.

    Args:
        common: (N, D), the first half of real faces, the second of fake ones.
        specific: (N, D), of the same faces.
        kind: (N,) class.
        method: (N,) 0 for a real face, else 1 + the index of its forgery method.
        margin: of the hinge.
    """
    total = common.new_zeros(())
    for features, groups in ((common, kind), (specific, method)):
        like = features[among_equals(groups)]
        unlike = like.roll(len(like) // 2, dims=0)
        hinge = F.pairwise_distance(features, like) - F.pairwise_distance(features, unlike) + margin
        total = total + 2 * hinge.clamp(min=0).mean()
    return total
