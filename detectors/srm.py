"""SRM: high-frequency residuals beside the image, in two Xceptions that attend to each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from detectors import xception_parts as xception
from detectors.about import About
from detectors.base import Batch, Prediction
from detectors.srm_parts import CosineHead, CrossModality, FeatureResidual, Fusion, ImageResidual, ResidualAttention
from detectors.weights import KeyMap, State, load_weights


def _twice(state: State, backbone: nn.Module) -> State:
    return {f"{stream}.{key}": value for stream in ("rgb", "noise") for key, value in state.items()}


class SRM(xception.XceptionDetector):
    """The two-stream network of Luo et al., "Generalizing Face Forgery Detection with High-frequency Features", CVPR 2021, arXiv
    2103.12376.

    One Xception sees the image, another the residuals of three SRM filters, to which the residuals of the first one's low-level
    features are added (multi-scale high-frequency features). The residuals say where the first stream looks,
    the streams attend to each other behind blocks 3 and 7, and a channel attention fuses them.
    Loss: AM-Softmax (Wang et al. 2018), cross entropy of s (cos - m) for the true class and s cos for the other, with m = 0.45 and
    s = 30 as in DeepfakeBench, whose file says that the authors gave them. P(fake) is the softmax of s cos.

    The first author's code (github.com/crywang/face-forgery-detection) is the network without its training. There AM-Softmax's own
    default is m = 0.5, the last layer is a plain linear one behind dropout of 0.5, and the filters over features are laid out as in
    `FeatureResidual(each=False)`. Here every filter sees every channel, and the last layer gives the cosines that the loss is of.

    Faces of 256 px by default; any size divisible by 16, from 32 px; a state_dict belongs to one size, because the attention has
    linear layers over positions. Global average pooling; features: 2048. Normalised with mean and std 0.5.
    Parameters: 53,238,378.

    PIM's insertion points are the first blocks of both streams; the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px.
        weights: "none", "imagenet" (Xception's, for both streams), the path of such a file, or of a state_dict of this detector.
        normalization: "half" (mean and std 0.5) or "imagenet".
        margin: m of AM-Softmax.
        scale: s of AM-Softmax.
    """

    about = About(
        title="SRM",
        paper="Luo et al., Generalizing Face Forgery Detection with High-frequency Features, CVPR 2021, arXiv 2103.12376",
        year=2021,
        backbone="two Xceptions, pretrainedmodels",
        insertion="the first block of both streams (our choice)",
        notes="every filter sees every channel of the features, which the first author's code does not do",
    )
    shallow = ("backbone.rgb.block1", "backbone.noise.block1")
    imagenet = xception.imagenet(_twice)
    dfb: ClassVar[KeyMap | str | None] = "dfb-srm"
    as_paper: ClassVar[bool] = True

    def __init__(
        self,
        size: int = 256,
        weights: str | Path = "none",
        normalization: str = "half",
        margin: float = 0.45,
        scale: float = 30.0,
    ) -> None:
        super().__init__(size, normalization, multiple=16)
        self.margin = xception.positive(type(self).__name__, "margin", margin)
        self.scale = xception.positive(type(self).__name__, "scale", scale, zero=False)
        self.backbone = nn.ModuleDict({"rgb": xception.body(), "noise": xception.body()})
        self.srm_conv0 = ImageResidual()
        self.srm_conv1 = FeatureResidual(32, each=self.as_paper)
        self.srm_conv2 = FeatureResidual(64, each=self.as_paper)
        self.srm_sa = ResidualAttention()
        self.srm_sa_post = nn.Sequential(nn.BatchNorm2d(64), nn.ReLU())
        self.dual_cma0 = CrossModality(728, (size // 16) ** 2)
        self.dual_cma1 = CrossModality(728, (size // 16) ** 2)
        self.fusion = Fusion(residual=self.as_paper)
        self.head: nn.Module = CosineHead(xception.FEATURES, self.scale) if self.as_paper else nn.Linear(xception.FEATURES, 2)
        load_weights(self, weights, self.imagenet)

    def forward(self, images: Tensor) -> Prediction:
        """(N, 3, H, W) float RGB in [0, 1] -> Prediction."""
        rgb, noise = self.backbone["rgb"], self.backbone["noise"]
        x = self.normalize(images)
        residuals = self.srm_conv0(x)
        x = xception.through(rgb, x, "conv1", "bn1", "relu")
        y = F.relu(xception.through(noise, residuals, "conv1", "bn1", "relu") + self.srm_conv1(x))
        x = xception.through(rgb, x, "conv2", "bn2", "relu")
        y = F.relu(xception.through(noise, y, "conv2", "bn2", "relu") + self.srm_conv2(x))
        x = self.srm_sa_post(x * self.srm_sa(residuals) + x)
        x, y = self.dual_cma0(xception.blocks(rgb, x, 1, 3), xception.blocks(noise, y, 1, 3))
        x, y = self.dual_cma1(xception.blocks(rgb, x, 4, 7), xception.blocks(noise, y, 4, 7))
        x, y = (xception.end(stream, xception.blocks(stream, z, 8, 12)) for stream, z in ((rgb, x), (noise, y)))
        features = xception.pool(self.fusion(x, y))
        return Prediction(self.head(features), features)

    def loss(self, prediction: Prediction, batch: Batch) -> Tensor:
        """AM-Softmax; the logits are s cos."""
        true = F.one_hot(batch.labels, 2).to(prediction.logits.dtype)
        return F.cross_entropy(prediction.logits - self.scale * self.margin * true, batch.labels)


class DfbSRM(SRM):
    """SRM as in DeepfakeBench.

    It trains with the formula of AM-Softmax on the logits of a plain linear layer, not on cosines, and predicts by the softmax of
    these logits without the scale; lays the filters over the features out as the authors' code does (see `FeatureResidual`); and
    does not add the fused map to its weighted self.

    Faces of 256 px by default, as its checkpoints need. Everything else as in `SRM`. Parameters: 53,238,380.

    Args:
        size: side of the faces in px.
        weights: as for `SRM`, or DeepfakeBench's checkpoint.
        normalization: "half" (mean and std 0.5) or "imagenet".
        margin: m of AM-Softmax.
        scale: s of AM-Softmax.
    """

    about = replace(SRM.about, title="SRM (DeepfakeBench)", notes="AM-Softmax of plain logits instead of cosines")
    as_paper = False
    dfb = KeyMap(
        {"backbone_rgb.last_linear.": "head.", "backbone_rgb.": "backbone.rgb.", "backbone_srm.": "backbone.noise."},
        drop=(
            "backbone_rgb.adjust_channel.",
            "backbone_srm.adjust_channel.",
            "backbone_srm.last_linear.",
            "blur.weight",  # built, never called
            "srm_conv0.kernel",  # the filters are constants
            "srm_conv1.kernel",
            "srm_conv2.kernel",
            "srm_sa.srm.kernel",
        ),
    )

    def loss(self, prediction: Prediction, batch: Batch) -> Tensor:
        """AM-Softmax's formula, with the logits in the place of the cosines."""
        true = F.one_hot(batch.labels, 2).to(prediction.logits.dtype)
        return F.cross_entropy(self.scale * (prediction.logits - self.margin * true), batch.labels)
