"""A grid of ours audited: its records, its own tables, and the papers' tables that it fills."""

from __future__ import annotations

from collections.abc import Callable

from results.audit.claim import Finding
from results.audit.ours import audit_records, audit_tables
from results.audit.ours_papers import audit_papers
from results.files import RecordError
from results.index import GridIndex


def audit_grid(index: GridIndex, tell: Callable[[str], None] = lambda what: None) -> list[Finding]:
    """Check a grid's records and the tables that lie in its folder.

    Args:
        index: read from a folder.
        tell: called with the id of each cell that has a record, before it is checked.

    Raises:
        RecordError: the index has no folder.
    """
    if index.folder is None:
        raise RecordError(f"grid '{index.grid.name}' was not read from a folder; there is nothing to audit")
    papers = audit_papers(index)
    # Who prints a paper's table need not print the grid's own as well; without any, it says what to run.
    own = audit_tables(index) if not papers or any((index.folder / "tables").glob("table*.csv")) else []
    return [*audit_records(index, tell), *own, *papers]
