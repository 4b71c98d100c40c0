"""Every table of both papers, and DeepfakeBench's, in its own layout: as reported, as measured here, or both."""

from __future__ import annotations

import difflib

from results.files import RecordError
from results.papers import deepfakebench, pim, roga
from results.papers.layout import PaperTable

PAPER_TABLES: dict[str, PaperTable] = {t.name: t for t in (*roga.TABLES, *pim.TABLES, *deepfakebench.TABLES)}


def looks_like_a_paper_table(name: str) -> bool:
    """Whether a user who types this means a paper's table: the paper is one of ours, or the whole resembles a name."""
    papers = {key.partition("/")[0] for key in PAPER_TABLES}
    return "/" in name and (name.partition("/")[0] in papers or bool(difflib.get_close_matches(name, PAPER_TABLES, 1, 0.6)))


def nearest_paper_tables(word: str) -> list[str]:
    """At most three names that a user may have meant; none where it resembles no name."""
    plain = word.lower().replace("-", "/").replace("table", "").strip()
    return difflib.get_close_matches(plain, PAPER_TABLES, 3, 0.6)


def paper_table_named(name: str) -> PaperTable:
    """The table of that name.

    Raises:
        RecordError: there is none; the sentence names the nearest.
    """
    if name not in PAPER_TABLES:
        near = difflib.get_close_matches(name, PAPER_TABLES, 3, 0.5)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        raise RecordError(f"no paper table '{name}'{hint}; known are {', '.join(PAPER_TABLES)}")
    return PAPER_TABLES[name]
