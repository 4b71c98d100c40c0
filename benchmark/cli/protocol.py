"""`dfgrid protocol`: the presets, their switches, and how far each switch of the evaluation moves a run's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console, counted

protocol_app = typer.Typer(help="What strict and dfb-compat are, and what each difference does to a number.", no_args_is_help=True)


def _known(name: str) -> str:
    from benchmark.protocol import PRESETS
    from benchmark.reading import ConfigError
    from optimizers.registry import did_you_mean

    if name not in PRESETS:
        raise ConfigError(f"unknown protocol '{name}', {did_you_mean(name, PRESETS)}")
    return name


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


@protocol_app.command("list")
def protocol_list() -> None:
    """The presets, and how many switches they set otherwise than strict does."""
    from benchmark.protocol import PRESETS, SWITCHES, preset_value

    table = Table("protocol", "switches other than strict", "epochs", "batch_size")
    for name, preset in PRESETS.items():
        other = [switch for switch in SWITCHES if preset_value(name, switch) != preset_value("strict", switch)]
        said = (_text(preset.get(key, "the grid says it")) for key in ("epochs", "batch_size"))
        table.add_row(name, f"{len(other)} of {len(SWITCHES)}", *said)
    console.print(table)
    console.print("A grid says `protocol: {name: dfb-compat, video_key: full}`: a preset, and switches of its own.")


@protocol_app.command("show")
def protocol_show(name: Annotated[str, typer.Argument(help="strict or dfb-compat.")]) -> None:
    """Every switch of a preset: its value, what it does, what DeepfakeBench does; and what is not reproduced."""
    from benchmark.not_reproduced import NOT_REPRODUCED
    from benchmark.protocol import SWITCHES, preset_value, values_of

    _known(name)
    table = Table("switch", "value", "what it does; what DeepfakeBench does, and the survey's row (source)", show_lines=True)
    for key, switch in SWITCHES.items():
        others = [value for value in values_of(key) if value != preset_value(name, key)]
        value = _text(preset_value(name, key)) + f"\n[dim]or {', '.join(others) or 'another number'}[/]"
        table.add_row(key, value, escape(f"{switch.does}\nDeepfakeBench: {switch.peer} {switch.row}"))
    console.print(table)
    rest = Table("not reproduced", "why", "survey row", title="What no preset reproduces", title_justify="left")
    for key, (row, why) in NOT_REPRODUCED.items():
        rest.add_row(escape(key), escape(why), row)
    console.print(rest)


@protocol_app.command("diff")
def protocol_diff(
    one: Annotated[str, typer.Argument(help="A preset.")] = "strict",
    other: Annotated[str, typer.Argument(help="Another one.")] = "dfb-compat",
) -> None:
    """The switches in which two presets differ, and which are alike."""
    from benchmark.protocol import SWITCHES, preset_value

    table = Table("switch", _known(one), _known(other), "what it does", "survey row (source)", show_lines=True)
    alike = []
    for key, switch in SWITCHES.items():
        left, right = preset_value(one, key), preset_value(other, key)
        if left != right:
            table.add_row(key, _text(left), _text(right), escape(switch.does), escape(switch.row))
        else:
            alike.append(f"{key} {_text(left)}")
    console.print(table)
    if not table.row_count:
        console.print(f"{one} and {other} do not differ")
    elif alike:
        console.print(f"Alike in both: {', '.join(alike)}", soft_wrap=True)


@protocol_app.command("effect")
def protocol_effect(
    runs: Annotated[list[Path], typer.Argument(help="Records, folders of cells, or folders of runs.")],
    each: Annotated[bool, typer.Option("--each", help="Of several runs, show a table for each, not only their mean.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV file for every number.")] = None,
) -> None:
    """Recompute finished runs under each switch of the evaluation and selection: how far does it move AUC and EER?

    Only record.json and scores.parquet are read. Every line is the run's own protocol with one switch turned; the last one turns
    all of them to the other preset. Of several runs the mean is shown, and how far the least and the most moved one goes.
    """
    import dataclasses

    import pandas as pd

    from benchmark.effect import effects, find_runs, read_run
    from benchmark.reading import ConfigError

    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise ConfigError(f"--out {out}: name a file in a folder that exists")
    rows = []
    folders = find_runs(runs)
    for folder in folders:
        record, scores = read_run(folder)
        found = effects(record, scores)
        rows += [{"grid": record.grid, "cell": record.cell, **dataclasses.asdict(effect)} for effect in found]
        if len(folders) > 1 and not each:
            continue
        table = Table("change", "test", "level", "AUC", "by", "EER", "by", "", title=record.cell, title_justify="left")
        for column in table.columns[3:7]:
            column.justify = "right"
        before = ""
        for effect in found:
            if before and effect.change != before:
                table.add_section()
            note = "; ".join(filter(None, ("ORACLE" if effect.oracle else "", effect.note)))
            shown = (_percent(effect.auc), _by(effect.auc_points), _percent(effect.eer), _by(effect.eer_points))
            label = escape(effect.change) if effect.change != before else ""
            table.add_row(label, escape(effect.test), effect.level, *shown, escape(note))
            before = effect.change
        console.print(table)
    if len(folders) > 1:
        console.print(_over_runs(pd.DataFrame(rows), len(folders)))
    console.print("AUC and EER in percent; 'by' in percentage points against the run as recorded. An ORACLE looked at test data.")
    if out is not None:
        pd.DataFrame(rows).to_csv(out, index=False, lineterminator="\n")
        console.print(f"wrote {out}", soft_wrap=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _by(points: float | None) -> str:
    return "" if points is None else f"{points:+.2f}"


def _over_runs(rows: Any, runs: int) -> Table:
    """How far each change moves AUC and EER over several runs: mean, least, most; runs for which it cannot be told do not count."""
    from benchmark.effect import ANOTHER_CHECKPOINT

    columns = ("runs", *(f"{name} by: mean\nleast, most" for name in ("AUC", "EER")))
    table = Table("change", "test", "level", *columns, "", title=f"{runs} runs", title_justify="left")
    for column in table.columns[3:6]:
        column.justify = "right"
    for (change, test, level), of in rows[rows["change"] != "recorded"].groupby(["change", "test", "level"], sort=False):
        known = of[of["auc_points"].notna()]
        moved = int((known["note"] == ANOTHER_CHECKPOINT).sum())
        notes = ["ORACLE"] * bool(of["oracle"].any()) + ([] if len(known) else sorted(set(of["note"])))
        notes += [ANOTHER_CHECKPOINT + (f" in {counted(moved, 'run')}" if moved < len(known) else "")] * bool(moved)
        shown = (_spread(of[points].dropna().astype(float)) for points in ("auc_points", "eer_points"))
        table.add_row(escape(change), escape(test), level, str(len(known)), *shown, escape("; ".join(notes)))
    return table


def _spread(points: Any) -> str:
    return f"{points.mean():+.2f}\n{points.min():+.2f}, {points.max():+.2f}" if len(points) else ""
