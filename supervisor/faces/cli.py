"""The command line ``fleet``: which commands there are, and how the process ends. It does no command's work.

It must load quickly: it never imports PySyft, PyTorch or FastAPI, and only commands that need rich import it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated

import click
import typer

from supervisor.faces.commands import (
    check,
    credentials,
    dashboard,
    doctor,
    down,
    events,
    fleet_file,
    gpus,
    install,
    jobs,
    logs,
    reload,
    start_stop,
    status,
    train,
    up,
)
from supervisor.faces.commands.arguments import FleetFileOption, NoColor
from supervisor.faces.context import Options
from supervisor.faces.faults import EXIT_CODES, Exit
from supervisor.faces.formatting import clean_log
from supervisor.faces.screen import tolerate_narrow_encodings

app = typer.Typer(
    name="fleet",
    rich_markup_mode=None,  # help and errors stay plain text: the same on a terminal, in a pipe and in a manual
    pretty_exceptions_enable=False,
    add_completion=True,
    no_args_is_help=True,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        fleet_file.version()
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the versions and exit.")
]


@app.callback()
def fleet(
    context: typer.Context,
    file: FleetFileOption = None,
    no_color: NoColor = False,
    show_version: VersionOption = False,  # noqa: ARG001 - its callback has done the work before this is called
) -> None:
    """Keep a fleet of PySyft datasites running.

    \b
    Examples:
      fleet init                       write a fleet.yaml to start from
      fleet up                         start the fleet of ./fleet.yaml
      fleet -f plant.yaml status       -f goes before or after the command
      fleet restart detroit_line_beta
    """
    context.obj = Options(file, no_color)


_COMMANDS: tuple[Callable[..., None], ...] = (
    up.up,
    down.down,
    reload.reload,
    status.status,
    start_stop.start,
    start_stop.stop,
    start_stop.restart,
    logs.logs,
    events.events,
    credentials.credentials,
    check.check,
    gpus.gpus,
    train.train,
    jobs.jobs,
    dashboard.dashboard,
    fleet_file.validate,
    fleet_file.init,
    fleet_file.schema,
    fleet_file.version,
)
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(install.install, name="install")
app.add_typer(doctor.doctor, name="doctor")


def run() -> None:
    """The process ``fleet``. A closed pipe or Ctrl-C prints no traceback; the exit code is one of ``Exit``."""
    tolerate_narrow_encodings()
    try:
        app(prog_name="fleet")
    except KeyboardInterrupt:
        _leave(Exit.INTERRUPTED)
    except BrokenPipeError:
        _leave(Exit.NOT_DONE)
    except OSError as error:  # a full or read-only disk: no error of the program
        click.echo(f"Error: {clean_log(str(error))}", err=True)
        _leave(Exit.NOT_DONE)
    finally:
        _flush()


def _leave(code: Exit) -> None:
    raise SystemExit(int(code))


def _flush() -> None:
    """Flush here: at its very end, Python would complain about a closed pipe."""
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
