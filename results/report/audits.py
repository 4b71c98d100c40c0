"""Our own tables audited for the site: what the page shows, and which cells are in doubt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from results.audit.claim import Verdict
from results.audit.grid import audit_grid
from results.figures.kept import digest
from results.files import FORMAT, RecordError, dump, file_sum, read_model, write_atomically
from results.record import Strict
from results.report.board import ReadGrid

FILE = "audit.json"


class OurCheck(Strict):
    """A `Check`; see there. No path of this machine is in it."""

    statement: str
    found: str
    holds: bool | None


class OurFinding(Strict):
    """A `Finding`; see there. `settled` are the checks that hold: there is one a cell, and nobody reads a thousand of them."""

    id: str
    says: str
    verdict: Verdict
    score: str
    open: tuple[OurCheck, ...] = ()
    settled: tuple[OurCheck, ...] = ()


class GridAudit(Strict):
    """A grid's findings, as `dfgrid audit GRID` prints them.

    Attributes:
        grid: its name.
        audited_from: hash over its records, scores, tables and our code.
        findings: of its records and tables.
        doubts: cell -> why its numbers are in doubt.
    """

    grid: str
    audited_from: str
    findings: tuple[OurFinding, ...]
    doubts: dict[str, str]

    @property
    def contradicted(self) -> list[OurFinding]:
        """What does not hold."""
        return [f for f in self.findings if f.verdict == "contradicted"]


class Audits(Strict):
    """Content of audit.json."""

    format: Literal[1] = FORMAT
    grids: tuple[GridAudit, ...] = ()


class Auditor:
    """Audits for a site: those of an earlier report stand where nothing has changed.

    Args:
        folder: the site's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            before: Audits = read_model(Audits, folder / FILE, "audit", "it is made anew")
        except RecordError:
            before = Audits()
        self._before = {a.grid: a for a in before.grids}

    def audit(self, read: ReadGrid, tell: Callable[[str], None]) -> GridAudit:
        """A grid's records and the tables in its folder; `tell` is called with each cell before it is checked."""
        tables = sorted(p for p in (read.folder / "tables").glob("*") if p.suffix in (".csv", ".md"))
        audited_from = digest(read.index, *((p.name, file_sum(p)) for p in tables))
        name = read.index.grid.name
        kept = self._before.get(name)
        if kept is not None and kept.audited_from == audited_from:
            return kept
        findings = []
        for f in audit_grid(read.index, tell):
            checks = [OurCheck(statement=c.statement, found=_local(c.found, read), holds=c.holds) for c in f.checks]
            held, rest = (tuple(c for c in checks if (c.holds is True) == settled) for settled in (True, False))
            findings.append(
                OurFinding(id=f.claim.id, says=f.claim.claim, verdict=f.verdict, score=f.score, open=rest, settled=held)
            )
        return GridAudit(grid=name, audited_from=audited_from, findings=tuple(findings), doubts=_doubts(read, findings))

    def save(self, audits: Sequence[GridAudit]) -> None:
        """Write audit.json."""
        write_atomically(self.folder / FILE, dump(Audits(grids=tuple(audits))))


def _local(text: str, read: ReadGrid) -> str:
    return text.replace(f"{read.folder}/", "")


def _doubts(read: ReadGrid, findings: Sequence[OurFinding]) -> dict[str, str]:
    failed = [c for f in findings for c in f.open if c.holds is False]
    # The only checks of single cells begin with their ids.
    of_cells = ((cell, c) for cell in read.index.records for c in failed if c.statement.startswith(f"{cell}: "))
    return {cell: f"the audit recomputed its measures: {c.found}" for cell, c in of_cells}


class Judged(Protocol):
    """A finding of either kind."""

    @property
    def verdict(self) -> Verdict:
        """What its checks give together."""


def counted(findings: Sequence[Judged]) -> Counter[Verdict]:
    """Verdict -> number of findings."""
    return Counter(f.verdict for f in findings)


def anchor(text: str) -> str:
    """An id of an element for a claim's name, in which a part of a grid may have any letter."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
