"""What a detector's class says about itself, for `dfgrid list detectors` and docs/detectors.md. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """What cannot be read off a detector's class or measured on it.

    Attributes:
        title: the name that the field knows it by, e.g. "ResNet-34".
        paper: its paper: authors, title, venue, and arXiv number where there is one.
        year: of that paper.
        backbone: the network and whose implementation, e.g. "ResNet-34, torchvision".
        pooling: what turns the last feature map into the feature vector.
        insertion: where PIM pushes, and who says so: the PIM paper, or we.
        notes: how it differs from the paper, or for whom it is there; empty if there is nothing to say.
    """

    title: str
    paper: str
    year: int
    backbone: str
    pooling: str = "global average"
    insertion: str = "the first stage (our choice)"
    notes: str = ""
