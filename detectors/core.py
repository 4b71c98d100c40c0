"""CORE: two augmentations of a face must have the same features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from detectors.about import About
from detectors.base import Batch
from detectors.weights import KeyMap
from detectors.xception import Xception
from detectors.xception_parts import DFB_DROP, DFB_HEAD, positive


class _Consistent(Xception):
    """Xception with a consistency loss (see `CORE`)."""

    def __init__(self, size: int, weights: str | Path, normalization: str, consistency: float) -> None:
        self.consistency = positive(type(self).__name__, "consistency", consistency)
        super().__init__(size, weights, normalization)


class CORE(_Consistent):
    """CORE (Ni et al., "CORE: COnsistent REpresentation Learning for Face Forgery Detection", CVPRW 2022, arXiv 2206.02749).

    An Xception sees each face under two augmentations. Loss: cross entropy over both views + `consistency` x the mean of
    (1 - cos(f1, f2))^2 over the faces, f1 and f2 being the pooled features of the views: the cosine loss of the authors' code
    (github.com/niyunsheng/CORE), which takes 1 within a dataset and 100 across datasets. Both views go through the network in one
    pass, so BatchNorm normalises them together. That code weights real faces by 4, as FaceForensics++ has four fakes to each; here
    batches hold as many real as fake faces.

    Faces of 256 px by default (299 px in the paper); any size from 32 px. Global average pooling; features: 2048. Normalised with
    mean and std 0.5. Parameters: 20,811,050.

    PIM's insertion point is the first block (`block1`); the PIM paper says "shallow layers" only, so the choice is ours.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: as for `detectors.xception.Xception`.
        normalization: "half" (mean and std 0.5) or "imagenet".
        consistency: weight of the consistency loss, at least 0.
    """

    about = About(
        title="CORE",
        paper="Ni et al., CORE: COnsistent REpresentation Learning for Face Forgery Detection, CVPRW 2022, arXiv 2206.02749",
        year=2022,
        backbone="Xception, pretrainedmodels",
        insertion="the first block (our choice)",
    )
    needs = ("views",)
    dfb = KeyMap(DFB_HEAD, DFB_DROP)

    def __init__(
        self, size: int = 256, weights: str | Path = "none", normalization: str = "half", consistency: float = 1.0
    ) -> None:
        super().__init__(size, weights, normalization, consistency)

    def objective(self, batch: Batch) -> Tensor:
        """Cross entropy over both views and their consistency."""
        if batch.views is None:
            raise ValueError("core needs a second view of each face: Batch.views")
        prediction = self(torch.cat([batch.images, batch.views]))
        first, second = prediction.features.chunk(2)
        error = F.cross_entropy(prediction.logits, torch.cat([batch.labels, batch.labels]))
        return error + self.consistency * disagreement(first, second)


class DfbCORE(_Consistent):
    """CORE as in DeepfakeBench: one view of each face, and the faces of one half of a batch are made consistent with those of
    the other half, whatever they show.

    The halves are drawn anew in each pass, as DeepfakeBench's shuffled batches are. A batch of one has no second half.

    Faces of 256 px by default; any size from 32 px. Everything else as in `CORE`. Parameters: 20,811,050.

    Args:
        size: side of the faces in px. The network does not depend on it.
        weights: as for `detectors.xception.Xception`.
        normalization: "half" (mean and std 0.5) or "imagenet".
        consistency: weight of the consistency loss, at least 0.
    """

    about = replace(CORE.about, title="CORE (DeepfakeBench)", notes="makes unrelated faces consistent, from one view of each")
    dfb = CORE.dfb
    least_micro_batch = 2

    def __init__(
        self, size: int = 256, weights: str | Path = "none", normalization: str = "half", consistency: float = 1.0
    ) -> None:
        super().__init__(size, weights, normalization, consistency)

    def objective(self, batch: Batch) -> Tensor:
        """Cross entropy, and the consistency of unrelated faces."""
        prediction = self(batch.images)
        error = self.loss(prediction, batch)
        half = len(batch) // 2
        if not half:
            return error
        order = torch.randperm(len(batch)).to(prediction.features.device, non_blocking=True)
        first, second = prediction.features[order[:half]], prediction.features[order[half : 2 * half]]
        return error + self.consistency * disagreement(first, second)


def disagreement(first: Tensor, second: Tensor) -> Tensor:
    """The mean of (1 - cos)^2 over rows of two (N, D), a scalar."""
    return (1 - F.cosine_similarity(first, second)).square().mean()
