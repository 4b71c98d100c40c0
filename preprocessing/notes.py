"""What a store's user must know of its datasets as a whole: kept in store.json, derived from the records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any


def notes(records: Iterable[dict[str, Any]]) -> list[str]:
    """Sentences about datasets without official splits and about faces that were not aligned here; the same in any order."""
    videos, unsplit, cropped = Counter[str](), Counter[str](), Counter[str]()
    for record in records:
        videos[record["dataset"]] += 1
        unsplit[record["dataset"]] += record["split"] == "none"
        cropped[record["dataset"]] += not record.get("aligned", True)
    found = []
    for name in sorted(videos):
        if unsplit[name] == videos[name]:
            found.append(f"{name} has no official split: all {videos[name]} videos have the split 'none' and are for testing")
        elif unsplit[name]:
            found.append(
                f"{unsplit[name]} of the {videos[name]} videos of {name} are in no official split and have the split 'none'"
            )
        if cropped[name]:
            found.append(
                f"{cropped[name]} videos of {name} came as cut-out faces: they were resized, not aligned, unlike the faces of other"
                " datasets"
            )
    return found
