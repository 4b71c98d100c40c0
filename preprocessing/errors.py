"""The one error of this room."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PreprocessingError(ValueError):
    """A user's mistake about videos, a layout, the predictor or a store: one sentence that says what to do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the nearest known name, and all of them.

    >>> did_you_mean("faceforensics", ["celeb-df-v2", "faceforensics++"])
    "did you mean 'faceforensics++'? Known: celeb-df-v2, faceforensics++"
    """
    names = sorted(known)
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}Known: {', '.join(names)}"
