"""Our own tables audited for the site: what the page shows, and which cells are in doubt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from results.audit import Finding
from results.audit.claim import Check, Verdict
from results.audit.ours import audit_grid
from results.report.board import ReadGrid

VERDICTS: tuple[Verdict, ...] = ("holds", "contradicted", "undecidable")


@dataclass(frozen=True)
class GridAudit:
    """A grid's findings.

    Attributes:
        grid: its name.
        findings: as `dfgrid audit GRID` prints them, without paths of this machine.
        doubts: cell -> why its numbers are in doubt.
    """

    grid: str
    findings: tuple[Finding, ...]
    doubts: dict[str, str]

    @property
    def contradicted(self) -> list[Finding]:
        """What does not hold."""
        return [f for f in self.findings if f.verdict == "contradicted"]


def audited(read: ReadGrid) -> GridAudit:
    """Audit a grid's records and the tables in its folder."""
    findings = []
    for f in audit_grid(read.index):
        checks = (replace(c, found=c.found.replace(f"{read.folder}/", "")) for c in f.checks)
        findings.append(replace(f, checks=tuple(checks)))
    failed = [c for f in findings for c in f.checks if c.holds is False]
    doubts = {}
    for cell in read.index.records:
        # The only checks of single cells begin with their ids.
        for check in failed:
            if check.statement.startswith(f"{cell}: "):
                doubts[cell] = f"the audit recomputed its measures: {check.found}"
    return GridAudit(read.index.grid.name, tuple(findings), doubts)


def counted(findings: Sequence[Finding]) -> dict[Verdict, int]:
    """Verdict -> number of findings."""
    return {v: sum(f.verdict == v for f in findings) for v in VERDICTS}


def unsettled(finding: Finding) -> tuple[list[Check], list[Check]]:
    """Checks that fail or cannot be decided, and those that hold: a grid has one a cell, and nobody reads a thousand that hold."""
    return [c for c in finding.checks if c.holds is not True], [c for c in finding.checks if c.holds is True]


def anchor(text: str) -> str:
    """An id of an element for a claim's name, in which a part of a grid may have any letter."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
