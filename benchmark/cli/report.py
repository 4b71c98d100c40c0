"""`dfgrid report`: records to a static site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.cli.console import console, counted, progress, warn


def report(
    runs: Annotated[Path, typer.Argument(help="A folder of runs, or one grid's folder in it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the site.")],
    data: Annotated[
        Path, typer.Option("--data", envvar="DFGRID_DATA", help="Folder that the stores are relative to; for faces and counts.")
    ] = Path("data"),
    faces: Annotated[bool, typer.Option(help="Show faces of the videos that are judged worst and best.")] = True,
    figures: Annotated[bool, typer.Option(help="Draw each grid's figures; those that have not changed are kept.")] = True,
    dataset: Annotated[
        list[Path] | None, typer.Option("--dataset", help="Folder of a raw dataset to show the data doctor; may be given often.")
    ] = None,
    layout: Annotated[str, typer.Option(help="Layout of --dataset; auto: find out.")] = "auto",
    compression: Annotated[str, typer.Option(help="Compression of --dataset, where it has several.")] = "c23",
) -> None:
    """A site that opens from disk: leaderboard, a page a cell, figures, our tables and the papers' claims audited, the data."""
    from benchmark.report import Faces, dataset_checks, stores_shown
    from results.report import read_grids, write_report

    grids = read_grids(runs, warn)
    checks = dataset_checks(dataset or [], layout, compression)
    source = Faces(data) if data.is_dir() else None
    why = f"the data folder {data.name} is not there; give it with --data" if source is None else "left out by --no-faces"
    with progress() as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, unit=stage.split()[1].removesuffix("s"))
            bar.update(tasks[stage], completed=done, total=total)

        written = write_report(
            grids,
            out,
            source if faces else None,
            why,
            stores_shown(grids, source),
            checks,
            tell,
            figures,
        )
    for (grid, cell), problem in written.problems.items():
        warn(f"{grid}/{cell}: {problem}")
    for read in grids:
        for cell, reason in read.index.reasons.items():
            if "record.json" in reason:
                warn(f"{read.index.grid.name}/{cell}: {reason}")
    if written.faces:
        console.print(f"{written.faces} pictures of faces are in it: mind the licences of their datasets before you publish it")
    said = f"{counted(written.cells, 'cell')} of {counted(len(grids), 'grid')}, {counted(written.figures, 'figure')}"
    said += f" ({written.unchanged} of them unchanged)" if written.unchanged else ""
    console.print(f"wrote {written.index}: {said}", soft_wrap=True, markup=False)
