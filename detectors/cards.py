"""What is known of each built-in detector without building it. Needs no torch, so that listing is quick.

`cards.json` is written by `python -m benchmark.docs`; a test measures every detector again and compares.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("cards.json")


@dataclass(frozen=True)
class Card:
    """A detector with its default settings.

    Attributes:
        title: the name that the field knows it by.
        paper: its paper.
        year: of the paper, if there is one.
        backbone: the network and whose implementation.
        notes: how it differs from the paper; may be empty.
        size: side of the faces, px.
        mean: per channel of RGB images in [0, 1], subtracted.
        std: by which they are then divided.
        pooling: what makes the feature vector.
        features: its length.
        insertion: where PIM pushes, in words.
        shallow: and which submodules these are.
        needs: what training must give beyond labelled faces.
        weights: where its first weights may come from, beside a file of its own: "none", "imagenet", "dfb".
        imagenet: address of the file behind "imagenet"; empty where there is none.
        parameters: trainable numbers.
        gflops: 10^9 floating point operations of one face's forward pass in evaluation mode, a multiply-add being two; those of
            convolutions, matrix products and attention, as torch counts them.
        settings: name -> default.
    """

    title: str
    paper: str
    year: int | None
    backbone: str
    notes: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pooling: str
    features: int
    insertion: str
    shallow: tuple[str, ...]
    needs: tuple[str, ...]
    weights: tuple[str, ...]
    imagenet: str
    parameters: int
    gflops: float
    settings: dict[str, str | float | int | bool | None]

    @property
    def citation(self) -> str:
        """Authors, venue and year, e.g. "He et al., CVPR 2016"; empty where the paper is not given in this form."""
        authors, _, rest = self.paper.partition(", ")
        venue = re.search(r", ([A-Z][A-Za-z]+ \d{4})(?:,|$)", f", {rest}")
        return f"{authors}, {venue.group(1)}" if venue else ""


def read_cards() -> dict[str, Card]:
    """Name -> card of every built-in detector."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    cards = {}
    for name, fields in found.items():
        known: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        cards[name] = Card(**known)
    return cards
