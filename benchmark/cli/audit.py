"""`dfgrid audit`: the papers' claims against the papers' tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.console import console
from benchmark.cli.options import Runs

STYLE = {"holds": "green", "contradicted": "red", "undecidable": "yellow"}
SIGN = {True: "[green]+[/]", False: "[red]-[/]", None: "[yellow]?[/]"}


def audit(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Papers (roga, pim), single claims (roga-7), or names of grids that were run; default: both papers."),
    ] = None,
    runs: Runs = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Also write a page (.md) or one row a check (.csv).")] = None,
    brief: Annotated[bool, typer.Option(help="One line a claim.")] = False,
) -> None:
    """What the papers say, recomputed from the cells that they print: holds, contradicted or undecidable.

    Of a grid: whether its records follow from the kept scores, its printed tables from both, and what is bold is best.
    """
    from difflib import get_close_matches

    from rich.markup import escape

    from results.audit import CLAIMS, PAPERS
    from results.audit import audit as recompute
    from results.audit.grid import audit_grid
    from results.audit.pages import PAPERS_TITLE, frame, markdown
    from results.files import RecordError, write_atomically
    from results.index import GridIndex, grids_in

    if out is not None and out.suffix not in (".md", ".csv"):
        raise RecordError(f"--out {out}: the audit is written as .md or .csv")
    # A grid may be called as a paper is: then both are audited.
    grids = [name for name in names or () if (runs / name / "grid.json").is_file()]
    papers = [name for name in names or PAPERS if name in (*PAPERS, *CLAIMS) or name not in grids]
    for name in papers:
        if name not in (*PAPERS, *CLAIMS):
            known = [*PAPERS, *CLAIMS, *grids_in(runs)]
            near = get_close_matches(name, known, 3, 0.5)
            raise RecordError(
                f"nothing to audit is called '{name}'{'; the nearest are ' + ', '.join(near) if near else ''}; say a paper "
                f"({', '.join(PAPERS)}), a claim (such as {next(iter(CLAIMS))}) or a grid that was run "
                f"({', '.join(grids_in(runs)) or f'there is none in {runs}'})"
            )
    findings = [*recompute(tuple(papers)), *(f for name in grids for f in audit_grid(GridIndex.read(runs / name)))]
    for f in findings:
        console.print(f"[bold]{f.claim.id}[/]  [{STYLE[f.verdict]}]{f.verdict}[/] ({f.score} checks hold)  {escape(f.claim.claim)}")
        if brief:
            continue
        if f.claim.remark:
            console.print(f"    {escape(f.claim.remark)}", style="italic")
        for c in f.checks:
            console.print(f"  {SIGN[c.holds]} {escape(c.statement)}: [bold]{escape(c.found)}[/]")
            if c.cells:
                console.print(f"      {escape(c.where)}", style="dim")
        console.print()
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in STYLE}
    console.print(", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    if out is not None:
        title = PAPERS_TITLE if not grids else f"{', '.join(dict.fromkeys([*papers, *grids]))}, recomputed"
        text = markdown(findings, title) if out.suffix == ".md" else frame(findings).to_csv(index=False, lineterminator="\n")
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, text.encode())
        console.print(f"wrote {escape(str(out))}", soft_wrap=True)
