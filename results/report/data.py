"""What the page about the data shows; whoever can open stores and datasets fills it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StoreShown:
    """A face store that the shown cells read.

    Attributes:
        name: as grids name it.
        fingerprints: that the records claim, with the number of cells; more than one where the store changed between cells.
        reason: why nothing else is known, such as that it is not there; else empty.
        fingerprint: of the store that was found.
        groups: videos, identities, unreadable videos, frames, faces by dataset, compression, method and split.
        failures: status, reason, videos and frames of what gave no face.
        settings: in words.
    """

    name: str
    fingerprints: dict[str, int]
    reason: str = ""
    fingerprint: str = ""
    groups: tuple[dict[str, Any], ...] = ()
    failures: tuple[dict[str, Any], ...] = ()
    settings: str = ""

    @property
    def same(self) -> bool:
        """Whether every record was made from the store that was found."""
        return set(self.fingerprints) == {self.fingerprint}


@dataclass(frozen=True)
class DatasetCheck:
    """What the data doctor finds in a dataset's folder: (severity, sentence, examples) each."""

    name: str
    findings: tuple[tuple[str, str, tuple[str, ...]], ...]
