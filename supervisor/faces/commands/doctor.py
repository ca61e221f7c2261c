"""``fleet doctor``: checks what this host promises to a fleet. The checks are ``fleet_tools``'; this is their door.

Every ``fleet`` command loads this module, so it imports the checks only when they run.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import click
import typer

from supervisor.faces.faults import Fault

doctor = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Check what this host promises to a fleet.")

_NEEDED = ("fleet_tools", "pynvml", "torch", "syft")

List = Annotated[bool, typer.Option("--list", help="Say what each check looks at, and end.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
TimeLimit = Annotated[int, typer.Option("--limit", min=1, metavar="SECONDS", help="Give up after this time.")]

_GPU_CODES = """\b
Exit codes:
  0    every promise holds
  1    a promise does not hold, or could not be checked
  2    wrong usage
  3    there is no GPU here that PyTorch can use; the answer says why
  130  interrupted (Ctrl-C); everything that was started has been ended"""


@doctor.command(epilog=_GPU_CODES)
def gpu(list_checks: List = False, as_json: AsJson = False, limit: TimeLimit = 540) -> None:
    """Check the GPUs of this host with real datasites.

    It checks every promise of docs/gpus.md, which takes minutes: it brings up datasites in a temporary folder and
    trains on them. Run it after you install a driver or PyTorch. It leaves nothing behind, and does not touch a
    fleet that runs here.

    \b
    Examples:
      fleet doctor gpu
      fleet doctor gpu --json > seen.json
      fleet doctor gpu --list
    """
    _require(_NEEDED)
    from fleet_tools.gpu_check import cli

    if list_checks:
        click.echo(cli.listing())
        return
    raise typer.Exit(int(cli.run(limit, as_json=as_json)))


def _require(modules: tuple[str, ...]) -> None:
    """Raises Fault that names what is missing."""
    if missing := [name for name in modules if find_spec(name) is None]:
        raise Fault(
            f"fleet doctor gpu needs Python packages that are not installed: {', '.join(missing)}",
            next_step="install fleet with all of its dependencies into this environment: pip install datasite-fleet",
        )
