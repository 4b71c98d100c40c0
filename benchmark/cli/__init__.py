"""The command line. Commands are grouped as a newcomer meets them; heavy imports wait until a command needs them."""

from __future__ import annotations

import errno
import os
import sys

import typer

from benchmark.cli import (
    audit,
    believe,
    check,
    compare,
    data,
    experiments,
    figures,
    interop,
    papers,
    plan,
    predict,
    probe,
    protocol,
    reference,
    report,
    results,
    share,
    single,
    status,
)
from benchmark.cli.console import errors

app = typer.Typer(
    name="dfgrid",
    help="Deepfake detection benchmark: from raw videos to the optimizer x backbone table, with numbers that can be recomputed.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

START, DATA, RUN, RESULTS, REFERENCE = "Start here", "Data", "Experiments", "Results", "What there is"

app.command(rich_help_panel=START)(experiments.demo)
app.command(rich_help_panel=DATA)(data.synth)
app.command(rich_help_panel=DATA)(data.preprocess)
app.add_typer(interop.import_app, name="import", rich_help_panel=DATA)
app.add_typer(data.store_app, name="store", rich_help_panel=DATA)
app.add_typer(status.grid_app, name="grid", rich_help_panel=RUN)  # with `run` of `experiments`
status.grid_app.command("plan")(plan.grid_plan)
app.command(rich_help_panel=RUN)(single.train)
app.command(rich_help_panel=RUN)(single.evaluate)
app.command(rich_help_panel=RUN)(predict.predict)
app.command(rich_help_panel=RESULTS)(results.table)
app.command(rich_help_panel=RESULTS)(compare.compare)
app.command(rich_help_panel=RESULTS)(figures.figures)
app.command(rich_help_panel=RESULTS)(audit.audit)
app.command(rich_help_panel=RESULTS)(believe.reproduce)
app.command(rich_help_panel=RESULTS)(believe.verify)
app.command(rich_help_panel=RESULTS)(report.report)
app.command(rich_help_panel=RESULTS)(share.export)
app.command("import-results", rich_help_panel=RESULTS)(share.import_results)
app.add_typer(probe.probe_app, name="probe", rich_help_panel=RESULTS)
app.add_typer(protocol.protocol_app, name="protocol", rich_help_panel=RESULTS)
reference.list_app.command("tables")(papers.tables)
app.add_typer(reference.list_app, name="list", rich_help_panel=REFERENCE)
app.add_typer(check.check_app, name="check", rich_help_panel=REFERENCE)


def main() -> None:
    """Run `dfgrid`. A user's mistake is one sentence and exit code 2; DFGRID_TRACEBACK=1 shows where it was noticed."""
    try:
        app()
    except KeyboardInterrupt:
        errors.print("Stopped. What is done is kept; run the same command to go on.")
        sys.exit(130)
    except ValueError as error:
        from benchmark.launch import MISTAKES

        if not isinstance(error, MISTAKES) or os.environ.get("DFGRID_TRACEBACK"):
            raise
        errors.print(f"[bold red]Error:[/] {_plain(error)}", soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        # The disk or its rights, not our code: a file that cannot be read or written.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if (error.filename is None and not full) or os.environ.get("DFGRID_TRACEBACK"):
            raise
        where = f"{_plain(error.filename)}: " if error.filename else ""
        remedy = "; what is done is kept: make room and run the same command" if full else ""
        errors.print(f"[bold red]Error:[/] {where}{error.strerror}{remedy}", soft_wrap=True)
        sys.exit(2)


def _plain(text: object) -> str:
    from rich.markup import escape

    return escape(str(text))
