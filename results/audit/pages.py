"""The audit as tidy rows and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from results.audit.claim import Finding

MARK = {True: "yes", False: "no", None: "?"}
COLUMNS = ("claim", "paper", "says", "verdict", "should be", "recomputed", "holds", "cells")


def frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row a check; columns `COLUMNS`. "cells" lists every deciding cell with its printed text."""
    rows = [
        (f.claim.id, f.claim.paper, f.claim.claim, f.verdict, c.statement, c.found, MARK[c.holds], "; ".join(map(str, c.cells)))
        for f in findings
        for c in f.checks
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


PAPERS_TITLE = "what the papers say, recomputed from the tables that they print"


def markdown(findings: Sequence[Finding], title: str = PAPERS_TITLE) -> str:
    """A page: one section a claim, its checks as a table."""
    lines = [f"# Audit: {title}", ""]
    for f in findings:
        lines += [f"## {f.claim.id}: {f.verdict}", "", f"{_cell(f.claim.claim)}. {f.score} checks hold.", ""]
        lines += [f"{f.claim.remark}", ""] * bool(f.claim.remark)
        lines += ["| holds | should be | recomputed | cells |", "|---|---|---|---|"]
        lines += [f"| {MARK[c.holds]} | {_cell(c.statement)} | {_cell(c.found)} | {_cell(c.where)} |" for c in f.checks]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
