"""`dfgrid predict`: score videos and images with a trained checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console, errors, progress, warn
from benchmark.cli.options import Device, check_device
from benchmark.cli.reference import Plugins, load

SHOWN = 50
"""So many rows are printed; videos.csv has all."""


def predict(
    inputs: Annotated[list[Path], typer.Argument(help="Videos, images, and folders of them.")],
    checkpoint: Annotated[Path, typer.Option("--checkpoint", "-c", help="A checkpoint.pt of dfgrid.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for frames.csv, videos.csv and strips/.")] = Path("predictions"),
    frames: Annotated[
        int | None,
        typer.Option(min=1, help="Frames sampled from each video, evenly spread; default: sampled as for the training store."),
    ] = None,
    device: Device = "cpu",
    plugin: Plugins = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="strict or dfb, as in preprocess; default: the training faces' mode. To be given where those were imported from"
            " DeepfakeBench's files, which do not say how they were made. A checkpoint too old to keep it counts as strict."
        ),
    ] = None,
    switch: Annotated[
        list[str] | None, typer.Option(help="Change one switch of the mode, as in preprocess, e.g. frame_count=header; repeatable.")
    ] = None,
    predictor: Annotated[
        Path | None,
        typer.Option(help="A dlib landmark model; to be given where the training faces were made with another than the installed."),
    ] = None,
) -> None:
    """Score videos and images: P(fake) for each frame, and their mean for each video.

    Faces are made as the checkpoint says that its training faces were: mode, switches, size, landmark model (by its hash).

    Options that make them otherwise are followed, with a warning.
    """
    from benchmark.face_settings import settings_like
    from benchmark.predict import Results, find_inputs
    from benchmark.predict import predict as predict_inputs
    from benchmark.restore import restore
    from preprocessing.faces import try_detector
    from preprocessing.modes import parse_switches

    load(plugin)
    check_device(device)
    found = find_inputs(inputs, leave_out=out)
    restored = restore(checkpoint, device)
    changes = parse_switches(switch or [])
    making = settings_like(restored.faces, str(checkpoint), mode=mode, switches=changes, predictor=predictor, frames=frames)
    try_detector(making.work.detector)
    for sentence in making.warnings:
        warn(sentence)
    for sentence in restored.notes:
        errors.print(f"[yellow]note[/] of the training faces: {escape(sentence)}", soft_wrap=True)
    shown, unreadable = 0, []
    table = Table(
        "input", "faces", "P(fake)", "", title=f"{checkpoint}: {restored.name} at step {restored.step}", title_justify="left"
    )
    with Results(out, f"{restored.name} at step {restored.step}") as results, progress() as bar:
        task = bar.add_task("predict", total=len(found), unit="input")
        for scored in predict_inputs(found, restored.detector, making.work):
            results.add(scored)
            bar.advance(task)
            if scored.unreadable:
                unreadable.append(f"{scored.input.name} ({scored.reason})")
            if (shown := shown + 1) <= SHOWN:
                faces = f"{len(scored.scores)} of {scored.sampled}"
                if scored.score is None:
                    table.add_row(escape(scored.input.name), faces, "", escape(scored.reason))
                else:
                    table.add_row(escape(scored.input.name), faces, f"{scored.score:.4f}", "█" * round(20 * scored.score))
    console.print(table)
    if shown > SHOWN:
        console.print(f"and {shown - SHOWN} more, see videos.csv")
    console.print(f"faces: {making.said}", markup=False, soft_wrap=True)
    console.print(f"wrote {out}: frames.csv, videos.csv, strips", markup=False, soft_wrap=True)
    if unreadable:
        named = escape("; ".join(unreadable[:5]))
        rest = "; the others are in the results" if len(unreadable) < shown else ""
        errors.print(f"[bold red]Error:[/] {len(unreadable)} of {shown} inputs could not be read: {named}{rest}", soft_wrap=True)
        raise typer.Exit(2)
