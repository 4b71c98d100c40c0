"""`dfgrid synth`, `preprocess` and `store`: from nothing, or from videos, to a store of aligned faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import filesize
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console, counted, errors, progress

store_app = typer.Typer(help="What is in a store of faces; verify it; look at it.", no_args_is_help=True)

COMPRESSION = "c23"
"""The level that is taken where a dataset has several and none is named."""

Workers = Annotated[int, typer.Option(min=1, help="Worker processes.")]


def run_synth(
    out: Path, style: str, identities: int, frames: int, seed: int, workers: int, compression: Sequence[str] = ("c23",)
) -> None:
    """Draw the mini dataset, with a progress bar."""
    from preprocessing.synthetic import draw_dataset, plan

    with progress() as bar:
        task = bar.add_task(f"draw {style}", total=len(plan(style, identities, compression, out)), unit="video")
        summary = draw_dataset(
            out,
            style=style,
            identities=identities,
            frames=frames,
            seed=seed,
            workers=workers,
            compression=compression,
            on_video=lambda _: bar.advance(task),
        )
    console.print(str(summary), markup=False, soft_wrap=True)


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to draw into.")],
    style: Annotated[
        str, typer.Option(help="mini-a: FaceForensics++'s layout, four forgeries. mini-b: Celeb-DF's layout, one.")
    ] = "mini-a",
    identities: Annotated[int, typer.Option(min=6, help="Drawn people: an even number, since they are forged in pairs.")] = 112,
    frames: Annotated[int, typer.Option(min=1, help="Frames per video.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same videos.")] = 0,
    compression: Annotated[list[str] | None, typer.Option(help="c23 or c40 for mini-a; give it twice for both.")] = None,
    workers: Workers = 2,
) -> None:
    """Draw the built-in mini dataset: people that do not exist, and forgeries of them, as real H.264 files."""
    run_synth(out, style, identities, frames, seed, workers, compression or ["c23"])


def run_preprocess(
    source: Path,
    layout: str,
    out: Path,
    name: str | None,
    compression: str | None,
    settings: Any,
    workers: int,
    retry: bool = False,
) -> Any:
    """Videos to a store, with a progress bar; videos that fail are named and the rest goes on."""
    from preprocessing.errors import PreprocessingError
    from preprocessing.layouts import NO_COMPRESSION, read_layout
    from preprocessing.pipeline import preprocess as preprocess_videos

    def note(sentence: str) -> None:
        console.print(sentence, markup=False, soft_wrap=True)

    videos = read_layout(source, layout=layout, name=name, compression=compression or COMPRESSION, note=note)
    if compression is not None and all(video.compression == NO_COMPRESSION for video in videos):
        raise PreprocessingError(f"--compression {compression}: the videos of this layout have no levels; leave it out")
    with progress() as bar:
        task = bar.add_task(f"faces of {escape(name or source.resolve().name)}", total=len(videos), unit="video")

        def on_video(report: Any) -> None:
            bar.advance(task)
            if report.error:
                errors.print(f"[yellow]skipped[/] {escape(str(report.video.path))}: {escape(report.error)}", soft_wrap=True)

        summary = preprocess_videos(videos, out, settings, workers=workers, on_video=on_video, retry=retry)
        bar.update(task, completed=len(videos))
    show_summary(summary)
    return summary


def show_summary(summary: Any) -> None:
    """What a preprocessing run did, and what became of every sampled frame."""
    for sentence in summary.notes:
        errors.print(f"[yellow]note[/] {escape(sentence)}", soft_wrap=True)
    for key, sentence in summary.warnings:
        errors.print(f"[yellow]warning[/] {escape(key)}: {escape(sentence)}", soft_wrap=True)
    counts = summary.counts
    if summary.finished_before:
        console.print(f"{summary.out}: nothing to do, the store is finished", markup=False, soft_wrap=True)
    else:
        now = f"{counted(summary.processed, 'video')} done now, {summary.skipped} there already"
        console.print(f"{summary.out}: {now}", markup=False, soft_wrap=True)
    frames = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts["frames"].items())
    total = sum(counts["frames"].values())
    console.print(
        f"  {counted(counts['videos'], 'video')} ({counts['unreadable_videos']} unreadable), {total} sampled frames: {frames}"
    )
    console.print(f"  fingerprint {summary.fingerprint}", soft_wrap=True)


def preprocess(
    source: Annotated[Path, typer.Argument(help="A dataset's folder, or any folder of videos.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The store to write; a store that is there half-way is continued.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only look for what is missing, doubled, leaking or unreadable; exit code 1 if anything is."),
    ] = False,
    layout: Annotated[
        str, typer.Option(help="The dataset's folder layout (see: dfgrid list datasets); auto looks at the folder.")
    ] = "auto",
    name: Annotated[str | None, typer.Option(help="What to call the dataset, where the layout's own name is not right.")] = None,
    compression: Annotated[
        str | None, typer.Option(help=f"FaceForensics++'s compression: raw, c23 or c40; default: {COMPRESSION}.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames sampled from each video, evenly spread; default: 32.")] = None,
    predictor: Annotated[
        Path | None, typer.Option(help="A dlib landmark model; default: the 68-point model that comes with dfgrid.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="strict; or dfb: the same faces as DeepfakeBench, frame by frame (give its 81-point predictor).")
    ] = "strict",
    switch: Annotated[
        list[str] | None, typer.Option(help="Change one difference between the modes, e.g. frame_count=header; repeatable.")
    ] = None,
    face: Annotated[
        str, typer.Option(help="Of several faces: the largest, or with mask-overlap the one that the forgery's mask covers.")
    ] = "largest",
    sampling: Annotated[
        str, typer.Option(help="fixed-number (--frames), fixed-stride (every --stride-th frame) or every.")
    ] = "fixed-number",
    stride: Annotated[int, typer.Option(min=1, help="For --sampling fixed-stride.")] = 1,
    top_up: Annotated[
        bool, typer.Option("--top-up", help="Take a neighbouring frame where a sampled one has no face; the ledger keeps both.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Read the videos again that are unreadable, lack frames or were replaced by others.")
    ] = False,
    workers: Workers = 1,
) -> None:
    """Sample frames, find and align faces, and write them to a store; or only --check the dataset's folder."""
    from preprocessing.errors import PreprocessingError
    from preprocessing.modes import parse_switches
    from preprocessing.pipeline import Settings

    settings = Settings(
        frames=frames or Settings.frames,
        mode=mode,
        predictor=predictor,
        switches=parse_switches(switch or []),
        face=face,
        sampling=sampling,
        stride=stride,
        top_up=top_up,
    )
    if frames is not None and sampling != Settings.sampling:
        raise PreprocessingError(
            f"--frames {frames} is for --sampling {Settings.sampling}; with --sampling {sampling} leave it out"
        )
    if check:
        from benchmark.cli.doctor import run_check

        run_check(source, layout, compression or COMPRESSION, name, out, settings)
        return
    if out is None:
        raise PreprocessingError("name the store to write with --out (or only look at the folder with --check)")
    summary = run_preprocess(source, layout, out, name, compression, settings, workers, retry)
    if summary.errors:
        named = escape("; ".join(f"{key} ({reason})" for key, reason in summary.errors[:5]))
        rest = "the others are in the store; " if len(summary.errors) < summary.counts["videos"] else ""
        errors.print(
            f"[bold red]Error:[/] {len(summary.errors)} of {summary.counts['videos']} videos could not be read: {named}; "
            f"{rest}repair these and run again with --retry",
            soft_wrap=True,
        )
        raise typer.Exit(2)


def _flat(value: Any) -> str:
    return " ".join(f"{key}={part}" for key, part in value.items()) if isinstance(value, dict) else str(value)


@store_app.command("info")
def info(store: Annotated[Path, typer.Argument(help="The store's folder.")]) -> None:
    """What is in a store: counts by dataset, method and split, faces per video, failures by reason, settings, sizes on disk."""
    from preprocessing.overview import overview
    from preprocessing.unfinished import UnfinishedStore, open_store

    with open_store(store) as faces:
        found, content = overview(faces), faces.info
        if isinstance(faces, UnfinishedStore):
            console.print("[bold yellow]unfinished[/]: this is what is there so far; run preprocess again to complete it")
        console.print(f"[bold]{escape(str(store))}[/]  fingerprint {faces.fingerprint}", soft_wrap=True)
    for what in (what for what in ("settings", "libraries") if what in content):
        said = ", ".join(f"{key} {_flat(value)}" for key, value in content[what].items())
        console.print(f"  {what}: {said}", markup=False, soft_wrap=True)
    disk = ", ".join(f"{name} {filesize.decimal(size)}" for name, size in found.sizes.items() if size)
    console.print(f"  on disk: {filesize.decimal(sum(found.sizes.values()))} ({disk})", markup=False, soft_wrap=True)
    frames = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in content["counts"]["frames"].items())
    console.print(f"  sampled frames: {frames}", markup=False, soft_wrap=True)
    table = Table()
    for column in found.groups.columns:
        table.add_column(column, justify="left" if column in ("dataset", "compression", "method", "split") else "right")
    for row in found.groups.itertuples(index=False, name=None):
        table.add_row(*(escape(str(value)) for value in row))
    console.print(table)
    most = max(1, *(b.videos for b in found.faces_per_video))
    bars = Table("faces per video", "videos", "", box=None)
    for b in found.faces_per_video:
        bars.add_row(str(b.low) if b.low == b.high else f"{b.low}-{b.high}", str(b.videos), "█" * -(-40 * b.videos // most))
    console.print(bars)
    if len(found.failures):
        lost = Table("frames without a face", "reason", "videos", "frames")
        for status, reason, videos, count in found.failures.itertuples(index=False, name=None):
            lost.add_row(str(status).replace("_", " "), escape(str(reason)), str(videos), str(count))
        console.print(lost)


@store_app.command("verify")
def verify(store: Annotated[Path, typer.Argument(help="The store's folder.")]) -> None:
    """Read every face and compare the store with its fingerprint, and the decoded faces in its cache/ with the store's; exit code 1
    where they differ."""
    from benchmark.decoded import cache_problems
    from preprocessing.unfinished import open_store

    with open_store(store) as faces, progress() as bar:
        task = bar.add_task("verify", total=None, unit="face")
        problems = faces.verify(on_progress=lambda done, total: bar.update(task, completed=done, total=total))
        cached: list[str] = []
        if not problems:
            bar.update(task, description="verify decoded faces", completed=0)
            cached = list(cache_problems(faces, lambda done, total: bar.update(task, completed=done, total=total)))
    for problem in problems:
        errors.print(f"[red]{escape(problem)}[/]", soft_wrap=True)
    if problems:
        errors.print(f"{len(problems)} problems; copy the store again from where it is sound, or preprocess anew")
        raise typer.Exit(1)
    for problem in cached:
        errors.print(f"[red]{escape(problem)}[/]", soft_wrap=True)
    if cached:
        raise typer.Exit(1)
    console.print(f"{store}: every face reads back, and the content has the fingerprint {faces.fingerprint}", soft_wrap=True)


@store_app.command("sheet")
def sheet(
    store: Annotated[Path, typer.Argument(help="The store's folder.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The PNG to write; default: STORE/sheet.png.")] = None,
    landmarks: Annotated[bool, typer.Option("--landmarks", help="Draw the landmarks.")] = False,
    masks: Annotated[bool, typer.Option("--masks", help="Draw the outline of the forged region.")] = False,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="Only this method ('real' is one); may be given often.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option("--split", help="Only this split; may be given often.")] = None,
    videos: Annotated[int, typer.Option(min=1, help="At most so many rows, evenly spread over the videos.")] = 24,
    frames: Annotated[int, typer.Option(min=1, help="At most so many columns, evenly spread over a video's frames.")] = 16,
    seed: Annotated[int | None, typer.Option(min=0, help="Take videos at random; the same seed takes the same.")] = None,
) -> None:
    """A contact sheet: a row a video, a picture a sampled frame, gaps where there was no face."""
    from preprocessing.sheet import contact_sheet
    from preprocessing.unfinished import open_store

    path = out or store / "sheet.png"
    with open_store(store) as faces:
        said = contact_sheet(faces, path, videos, frames, landmarks=landmarks, masks=masks, methods=method, splits=split, seed=seed)
    console.print(f"wrote {path}: {said}", markup=False, soft_wrap=True)
