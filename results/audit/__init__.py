"""The papers audited: what they say in prose, recomputed from the cells that they print."""

from __future__ import annotations

from results.audit import pim, roga
from results.audit.claim import Check, Claim, Evidence, Finding, Verdict
from results.files import RecordError

CLAIMS: dict[str, Claim] = {claim.id: claim for claim in (*roga.CLAIMS, *pim.CLAIMS)}
PAPERS = ("roga", "pim")

__all__ = ["CLAIMS", "PAPERS", "Check", "Claim", "Finding", "Verdict", "audit", "decide"]


def decide(claim: Claim) -> Finding:
    """Recompute one claim from the published tables."""
    evidence = Evidence()
    claim.decide(evidence)
    return Finding(claim, tuple(evidence.checks))


def audit(names: tuple[str, ...] = PAPERS) -> list[Finding]:
    """Recompute claims.

    Args:
        names: papers ("roga", "pim") or single claims ("roga-7").

    Raises:
        RecordError: no such paper or claim.
    """
    wanted = []
    for name in names:
        found = [claim for claim in CLAIMS.values() if name in (claim.paper, claim.id)]
        if not found:
            raise RecordError(
                f"nothing to audit is called '{name}'; say {' or '.join(PAPERS)}, or a claim from {', '.join(CLAIMS)}; "
                "or the name of a grid below --runs"
            )
        wanted += [claim for claim in found if claim not in wanted]
    return [decide(claim) for claim in wanted]
