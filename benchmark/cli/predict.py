"""`dfgrid predict`: score videos and images with a trained checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console, errors, progress
from benchmark.cli.experiments import Device, check_device
from benchmark.cli.reference import Plugins, load

SHOWN = 50
"""So many rows are printed; videos.csv has all."""


def predict(
    inputs: Annotated[list[Path], typer.Argument(help="Videos, images, and folders of them.")],
    checkpoint: Annotated[Path, typer.Option("--checkpoint", "-c", help="A checkpoint.pt of dfgrid.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for frames.csv, videos.csv and strips/.")] = Path("predictions"),
    frames: Annotated[int, typer.Option(min=1, help="Frames sampled from each video, evenly spread.")] = 32,
    device: Device = "cpu",
    plugin: Plugins = None,
    predictor: Annotated[
        Path | None, typer.Option(help="A dlib landmark model; take the one that the training faces were made with.")
    ] = None,
) -> None:
    """Score videos and images: the faces that `preprocess` makes, P(fake) for each frame, and their mean for each video."""
    from benchmark.predict import Results, find_inputs
    from benchmark.predict import predict as predict_inputs
    from benchmark.restore import restore
    from preprocessing.faces import Dlib, try_detector
    from preprocessing.predictor import find_predictor
    from preprocessing.settings import Settings
    from preprocessing.work import Work

    load(plugin)
    check_device(device)
    settings = Settings(frames=frames, predictor=predictor)
    work = Work(settings, Dlib(find_predictor(settings.predictor)))
    found = find_inputs(inputs, leave_out=out)
    restored = restore(checkpoint, device)
    try_detector(work.detector)
    shown, unreadable = 0, []
    table = Table(
        "input", "faces", "P(fake)", "", title=f"{checkpoint}: {restored.name} at step {restored.step}", title_justify="left"
    )
    with Results(out, f"{restored.name} at step {restored.step}") as results, progress() as bar:
        task = bar.add_task("predict", total=len(found), unit="input")
        for scored in predict_inputs(found, restored.detector, work):
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
    console.print(f"wrote {out}: frames.csv, videos.csv, strips", markup=False, soft_wrap=True)
    if unreadable:
        named = escape("; ".join(unreadable[:5]))
        errors.print(
            f"[bold red]Error:[/] {len(unreadable)} of {shown} inputs could not be read: {named}; the others are scored",
            soft_wrap=True,
        )
        raise typer.Exit(2)
