"""ViT, the vision transformer."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from torch import nn
from torchvision.models import vision_transformer

from detectors.about import About
from detectors.backbone import BackboneDetector, face_size
from detectors.weights import ImageNet, State

PATCH = 16


def _resized(state: State, backbone: nn.Module) -> State:
    """The position embeddings of torchvision's file, interpolated to the backbone's image size."""
    if "encoder.pos_embedding" not in state:  # no file of this network: its keys are named by the one who asked
        return state
    assert isinstance(backbone, vision_transformer.VisionTransformer)
    return dict(vision_transformer.interpolate_embeddings(backbone.image_size, PATCH, OrderedDict(state)))


class ViTB16(BackboneDetector):
    """ViT-B/16 (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv 2010.11929), torchvision's.

    Faces of 224 px by default, as on ImageNet; any multiple of 16 from 32 px, the position embeddings of "imagenet" and of
    torchvision's files being interpolated (bicubic, torchvision's own function). No pooling: the class token behind the last
    LayerNorm; features: 768. Normalised with mean and std 0.5 (half), or as on ImageNet. Parameters at 224 px: 85,800,194.

    PIM's insertion point is the patch embedding. The blocks behind it give tokens, (N, L, D), among them one that stands for no
    place, so they have no channel statistics over positions; the patch embedding is a convolution whose output is
    (N, 768, size / 16, size / 16), and pushing its statistics pushes those of the tokens that the first block sees. The PIM paper
    has no transformer: the choice is ours.

    Args:
        size: side of the faces in px, a multiple of 16. The number of position embeddings follows from it.
        weights: "none", "imagenet" (torchvision's IMAGENET1K_V1), or the path of a state_dict file.
        normalization: "half" (mean and std 0.5) or "imagenet".

    Raises:
        RegistryError: a setting that cannot be, or a file that does not fit.
    """

    about = About(
        title="ViT-B/16",
        paper="Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, arXiv 2010.11929",
        year=2021,
        backbone="vit_b_16, torchvision",
        pooling="class token",
        insertion="the patch embedding (our choice: its blocks have no channel statistics)",
    )
    shallow = ("backbone.conv_proj",)
    imagenet = ImageNet(
        vision_transformer.ViT_B_16_Weights.IMAGENET1K_V1.url, ("heads.head.weight", "heads.head.bias"), convert=_resized
    )

    def __init__(self, size: int = 224, weights: str | Path = "none", normalization: str = "half") -> None:
        size = face_size(type(self).__name__, size, multiple=PATCH)
        backbone = vision_transformer.vit_b_16(image_size=size)
        features = backbone.hidden_dim
        backbone.heads = nn.Identity()
        super().__init__(backbone, features, self.imagenet, size, weights, normalization)
