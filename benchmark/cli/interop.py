"""`dfgrid import`, `store export` and `store diff`: faces from elsewhere, for elsewhere, and compared."""

from __future__ import annotations

import csv
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console, counted, errors, progress
from benchmark.cli.data import Workers, store_app

import_app = typer.Typer(help="Make a store from faces that another program cut out.", no_args_is_help=True)


@import_app.callback()
def _imports() -> None:
    # With one command only, Typer would leave its name out.
    """Make a store from faces that another program cut out."""


@import_app.command("deepfakebench")
def deepfakebench(
    json: Annotated[list[Path], typer.Option("--json", help="A dataset's JSON from rearrange.py; give it again for more.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The store to write; a store that is there half-way is continued.")],
    rgb: Annotated[Path | None, typer.Option(help="The folder with the PNG frames.")] = None,
    lmdb: Annotated[Path | None, typer.Option(help="The LMDB's folder, in place of --rgb.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the dataset, where its own name is not right.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="LABEL=METHOD for a label that its name does not explain; METHOD 'real' for real.")
    ] = None,
    compression: Annotated[
        list[str] | None, typer.Option(help="Level to take: raw, c23 or c40; default: all, on which nothing is trained or tested.")
    ] = None,
    keep_splits: Annotated[
        bool, typer.Option("--keep-splits", help="Repeat the file's own splits, with the videos that are in several of them.")
    ] = False,
    image_format: Annotated[str, typer.Option(help="webp or png, both lossless; png keeps PNG files byte by byte.")] = "webp",
    retry: Annotated[bool, typer.Option("--retry", help="Read the videos again that lack frames.")] = False,
    workers: Workers = 1,
) -> None:
    """DeepfakeBench's JSON and PNG folders or LMDB to a store, with a report of what is wrong with them."""
    from preprocessing.interop import import_deepfakebench

    with progress() as bar:
        task = bar.add_task(f"import {json[0].stem}", total=None, unit="video")
        summary = import_deepfakebench(
            json,
            out,
            rgb=rgb,
            lmdb=lmdb,
            name=name,
            labels=label or (),
            compressions=compression or (),
            keep_splits=keep_splits,
            image_format=image_format,
            workers=workers,
            retry=retry,
            on_video=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for finding in summary.findings:
        errors.print(f"[yellow]found[/] {escape(finding)}", soft_wrap=True)
    if summary.finished_before:
        console.print(f"{out}: nothing to do, the store is finished", markup=False, soft_wrap=True)
    else:
        sentence = f"{out}: {counted(summary.processed, 'video')} done now, {summary.skipped} there already"
        console.print(sentence, markup=False, soft_wrap=True)
    frames = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in summary.counts["frames"].items() if n)
    console.print(
        f"  {counted(summary.counts['videos'], 'video')} ({summary.counts['unreadable_videos']} without frames), {frames}"
    )
    console.print(
        f"  {counted(len(summary.findings), 'finding')} about the files; fingerprint {summary.fingerprint}", soft_wrap=True
    )


export_app = typer.Typer(help="Write a store's faces as another program reads them.", no_args_is_help=True)
store_app.add_typer(export_app, name="export")


@export_app.callback()
def _exports() -> None:
    """Write a store's faces as another program reads them."""


@export_app.command("deepfakebench")
def export(
    store: Annotated[Path, typer.Argument(help="The store's folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    name: Annotated[
        str | None,
        typer.Option(
            help="What to call the dataset there, without slashes. FaceForensics++ and DeepFakeDetection need a compression level."
        ),
    ] = None,
    lmdb: Annotated[
        bool, typer.Option("--lmdb", help="Write LMDBs as well; landmarks are rounded to whole pixels in them.")
    ] = False,
) -> None:
    """JSON, PNG frames and landmarks as DeepfakeBench reads them."""
    from preprocessing.interop import export_deepfakebench
    from preprocessing.store import FaceStore

    with FaceStore(store) as faces, progress() as bar:
        task = bar.add_task("export", total=faces.info["counts"]["videos"], unit="video")
        done = export_deepfakebench(
            faces, out, name=name, with_lmdb=lmdb, on_video=lambda n, total: bar.update(task, completed=n, total=total)
        )
    console.print(
        f"{out}: {counted(done.faces, 'face')} of {counted(done.videos, 'video')}, {counted(len(done.files), 'JSON file')}",
        markup=False,
        soft_wrap=True,
    )
    for note in done.notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)


@store_app.command("diff")
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A store's folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another's.")],
    deep: Annotated[bool, typer.Option("--deep", help="Decode every face; without it, recorded digests are trusted.")] = False,
    show: Annotated[int, typer.Option(min=0, help="Examples to print of each kind of difference.")] = 5,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write every difference to this CSV file.")] = None,
) -> None:
    """Are these the same faces, and which differ? Exit code 0 the same, 1 different."""
    from preprocessing.diff import KINDS, Difference, beside_faces, differences
    from preprocessing.store import FaceStore

    counts: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    examples: dict[str, list[Difference]] = {}
    with ExitStack() as stack:
        first, second = stack.enter_context(FaceStore(a)), stack.enter_context(FaceStore(b))
        bar = stack.enter_context(progress())
        task = bar.add_task("compare", total=first.info["counts"]["videos"] + second.info["counts"]["videos"], unit="video")
        file = stack.enter_context(out.open("w", newline="", encoding="utf-8")) if out is not None else None
        rows = csv.writer(file) if file is not None else None
        if rows is not None:
            rows.writerow(["kind", "key", "mean", "detail"])
        for found in differences(first, second, deep, lambda done, total: bar.update(task, completed=done, total=total)):
            counts[found.kind] += 1
            sums[found.kind] += found.mean or 0  # type: ignore[assignment]
            if counts[found.kind] <= show:
                examples.setdefault(found.kind, []).append(found)
            if rows is not None:
                rows.writerow([found.kind, found.key, "" if found.mean is None else f"{found.mean:.6g}", found.detail])
        if not counts:
            same = "agree too"
            if first.fingerprint != second.fingerprint:
                why = "; ".join(beside_faces(first, second)) or "one is wrong; look at both with dfgrid store verify"
                same = f"differ: {why}"
    if not counts:
        console.print(f"the same faces, labels and splits; the fingerprints {same}", markup=False, soft_wrap=True)
        return
    table = Table("difference", "count", "mean")
    for kind in KINDS:
        if counts[kind]:
            table.add_row(kind, str(counts[kind]), f"{sums[kind] / counts[kind]:.4g}" if sums[kind] else "")
    console.print(table)
    for some in examples.values():
        for one in some:
            mean = "" if one.mean is None else f"mean {one.mean:.4g}, "
            console.print(f"  {one.kind}: {one.key} {mean}{one.detail}", markup=False, soft_wrap=True)
    raise typer.Exit(1)
