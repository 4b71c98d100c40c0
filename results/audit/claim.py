"""What a paper says, and what its own tables say to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from results.audit.published import Cell, Published

Verdict = Literal["holds", "contradicted", "undecidable"]


@dataclass(frozen=True)
class Check:
    """One thing that follows from a claim, beside what the cells give.

    Attributes:
        statement: what should be true.
        found: what was recomputed from the printed cells.
        holds: None where the published cells cannot decide it.
        cells: the cells that decide it.
    """

    statement: str
    found: str
    holds: bool | None
    cells: tuple[Cell, ...]

    @property
    def where(self) -> str:
        """The cells: each with its text where there are few, else tables and columns with how many."""
        if len(self.cells) <= 5:
            return "; ".join(map(str, self.cells))
        columns: dict[str, dict[str, None]] = {}
        for cell in self.cells:
            columns.setdefault(cell.table, {})[cell.column] = None
        return f"{len(self.cells)} cells: " + "; ".join(f"{table} [{', '.join(names)}]" for table, names in columns.items())


@dataclass
class Evidence:
    """The checks of one claim, collected while its tables are read."""

    checks: list[Check] = field(default_factory=list)
    _tables: dict[str, Published] = field(default_factory=dict)

    def table(self, name: str) -> Published:
        """A table of `results/reported/`; what is read of it belongs to the next check."""
        return self._tables.setdefault(name, Published(name))

    def check(self, statement: str, found: str, holds: bool | None) -> None:
        """Note what was found; the cells read since the last check are its cells."""
        cells = tuple(cell for table in self._tables.values() for cell in table.read)
        for table in self._tables.values():
            table.read.clear()
        self.checks.append(Check(statement, found, holds, cells))

    def same(self, statement: str, numbers: Iterable[Decimal]) -> None:
        """Check that numbers which should be one are one."""
        values = list(numbers)
        self.check(statement, " / ".join(str(v) for v in values), len(set(values)) == 1)

    def difference(self, statement: str, claimed: str, above: Decimal, below: Decimal) -> None:
        """Check a claimed difference, digit by digit."""
        found = above - below
        self.check(f"{statement}: {claimed}", f"{above} - {below} = {found:+}", found == Decimal(claimed))


@dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Attributes:
        id: such as "roga-7".
        paper: "roga" or "pim".
        claim: what the paper says, paraphrased.
        decide: reads the tables and collects the checks.
        remark: what a reader should know beside the verdict.
    """

    id: str
    paper: str
    claim: str
    decide: Callable[[Evidence], None]
    remark: str = ""


@dataclass(frozen=True)
class Finding:
    """A claim with its checks."""

    claim: Claim
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """Contradicted by a single check that fails; it holds when every check does; undecidable otherwise."""
        answers = [check.holds for check in self.checks]
        if False in answers:
            return "contradicted"
        return "undecidable" if None in answers else "holds"

    @property
    def score(self) -> str:
        """How many of the checks that the cells can decide hold."""
        decided = [check.holds for check in self.checks if check.holds is not None]
        return f"{sum(decided)} of {len(decided)}"
