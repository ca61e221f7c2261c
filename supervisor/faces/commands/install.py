"""``fleet install systemd``: writes the unit of ``faces.systemd`` where systemd looks for it. It starts nothing.

Every ``fleet`` command loads this module, so functions import what only they need.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from supervisor.faces.commands.arguments import FleetFileArgument, FleetFileOption
from supervisor.faces.context import fleet_file, place_of
from supervisor.faces.faults import Exit, Fault
from supervisor.faces.formatting import clean

if TYPE_CHECKING:
    from supervisor.faces.systemd import UnitPlan
    from supervisor.spec import FleetConfig

install = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Install the fleet as a service.")

_SYSTEM_UNITS = Path("/etc/systemd/system")
_OLDEST = 247
"""The version of Debian 11, the first with LoadCredential=. Used when systemctl does not tell its version."""
_GIVEN_BY_SYSTEMD = ("HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG")

User = Annotated[bool, typer.Option("--user", help="Install a user unit (~/.config/systemd/user).")]
PrintOnly = Annotated[bool, typer.Option("--dry-run", help="Print the unit; write nothing.")]
Overwrite = Annotated[bool, typer.Option("--force", help="Replace an existing unit that differs.")]
UnitFolder = Annotated[
    Path | None, typer.Option("--output", metavar="DIR", help="Write the unit into this folder.", show_default=False)
]
RunAs = Annotated[
    str | None,
    typer.Option("--run-as", metavar="NAME", help="The user that runs the fleet (you).", show_default=False),
]
CredentialOption = Annotated[
    list[str] | None,
    typer.Option("--credential", metavar="NAME:FILE", help="A secret for ${credential:NAME}.", show_default=False),
]


@install.command()
def systemd(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFileOption = None,
    user: User = False,
    dry_run: PrintOnly = False,
    output: UnitFolder = None,
    force: Overwrite = False,
    run_as: RunAs = None,
    credential: CredentialOption = None,
) -> None:
    """Write a systemd unit for the fleet.

    It checks the fleet.yaml first, with the variables and credentials that the unit will have. It starts nothing.

    \b
    Examples:
      sudo fleet install systemd /srv/fleet/fleet.yaml --run-as fleet
      fleet install systemd --user
      fleet install systemd --dry-run
    """
    if user and run_as:
        raise Fault("--user cannot be combined with --run-as", Exit.WRONG_USE)
    from supervisor.faces.systemd import unit_name, unit_text

    name = place_of(context, path, file).fleet
    secrets = tuple(_credential(each) for each in credential or ())
    config = _checked(fleet_file(context, path, file), secrets, _variables_file(name, user=user))
    plan = _plan(config, None if user else _owner(run_as), secrets)
    if dry_run:
        click.echo(unit_text(plan), nl=False)
        return
    target = (output or _units(user=user)).absolute() / unit_name(config.name)
    written = _write(target, unit_text(plan), force=force)
    _make_folders(plan)
    click.echo(f"{'wrote' if written else 'nothing to change in'} {target}\n{_next_steps(plan, target, output)}")


# --- what the unit is made from ---


def _plan(config: FleetConfig, owner: str | None, secrets: tuple[tuple[str, Path], ...]) -> UnitPlan:
    from importlib import metadata

    import supervisor
    from supervisor.faces.systemd import UnitPlan

    package = Path(supervisor.__file__ or "").resolve().parent
    python = Path(os.path.realpath(sys.executable))
    needs = (Path(sys.prefix), Path(sys.base_prefix).resolve(), python.parent, package)
    version = metadata.version("datasite-fleet")
    return UnitPlan(config, _program(), needs, owner, _systemd_version(), version, secrets)


def _program() -> tuple[str, ...]:
    """``fleet`` beside this interpreter; without it the module, kept from importing what lies in the fleet's folder."""
    beside = Path(sys.executable).absolute().with_name("fleet")
    return (str(beside),) if os.access(beside, os.X_OK) else (str(beside.with_name("python")), "-P", "-m", "supervisor")


def _systemd_version() -> int:
    import subprocess

    try:
        output = subprocess.run(
            ["systemctl", "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        output = ""
    if found := re.match(r"systemd (\d+)", output):
        return int(found[1])
    click.echo(f"Warning: cannot find the version of systemd; the unit is written for systemd {_OLDEST}", err=True)
    return _OLDEST


def _owner(run_as: str | None) -> str:
    """Who the fleet runs as: who was named, or who is behind sudo, or who asks. Raises Fault."""
    import getpass

    name = run_as or os.environ.get("SUDO_USER") or getpass.getuser()
    try:
        pwd.getpwnam(name)
    except KeyError as error:
        raise Fault(
            f"there is no user {clean(name)!r}",
            Exit.WRONG_USE,
            next_step=f"useradd --system --shell /usr/sbin/nologin {clean(name)}, or --run-as another",
        ) from error
    if name == "root":
        click.echo("Warning: the fleet will run as root; use --run-as to name an unprivileged user", err=True)
    return name


def _credential(text: str) -> tuple[str, Path]:
    name, _, path = text.partition(":")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not path:
        raise Fault(f"--credential {clean(text)!r}: expected NAME:FILE", Exit.WRONG_USE)
    return name, Path(path).absolute()


# --- fleet.yaml, as the service will see it ---


def _checked(path: Path, secrets: tuple[tuple[str, Path], ...], variables: Path) -> FleetConfig:
    """The valid fleet. Raises Fault with every problem, and where the service's variables come from."""
    from supervisor.config import ConfigError, check

    with _credentials_folder(secrets) as folder:
        environ = _service_environment(variables) | {"CREDENTIALS_DIRECTORY": folder}
        try:
            config, warnings = check(path, environ)
        except ConfigError as error:
            raise Fault(
                str(error).replace(folder, "LoadCredential"), Exit.WRONG_USE, next_step=_advice(error, variables)
            ) from error
    for warning in warnings:
        click.echo(f"Warning: {clean(str(warning))}", err=True)
    for each in (config.path, config.state_dir, config.log_dir):
        if "\n" in str(each):
            raise Fault(f"{clean(str(each))!r}: a unit cannot name a path with a line break", Exit.WRONG_USE)
    return config


def _advice(error: Exception, variables: Path) -> str:
    if "environment variable" not in str(error):
        return ""
    return f"the service does not see your shell's variables; write NAME=value into {variables} (mode 0600)"


@contextmanager
def _credentials_folder(secrets: tuple[tuple[str, Path], ...]) -> Iterator[str]:
    """A stand-in for what systemd will make of LoadCredential=."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name, path in secrets:
            (Path(folder) / name).symlink_to(path)
        yield folder


def _variables_file(name: str, *, user: bool) -> Path:
    from supervisor.faces.systemd import environment_file

    return Path(environment_file(name, user_unit=user).replace("%h", str(Path.home()), 1))


def _service_environment(variables: Path) -> dict[str, str]:
    given = {name: value for name in _GIVEN_BY_SYSTEMD if (value := os.environ.get(name)) is not None}
    return given | _read_variables(variables)


def _read_variables(path: Path) -> dict[str, str]:
    """What EnvironmentFile= will read from ``path``. Raises Fault when we may not read it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise Fault(
            f"{path} cannot be read: {reason}", next_step="run it as root: sudo fleet install systemd"
        ) from error
    pairs = (line.strip().partition("=") for line in lines if line.strip()[:1] not in ("", "#", ";"))
    return {name.strip(): _unquoted(value.strip()) for name, _, value in pairs}


def _unquoted(value: str) -> str:
    import shlex

    try:
        return "".join(shlex.split(value)) if value[:1] in ("'", '"') else value
    except ValueError:
        return value


# --- writing ---


def _units(*, user: bool) -> Path:
    if not user:
        return _SYSTEM_UNITS
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _write(target: Path, text: str, *, force: bool) -> bool:
    """Whether anything had to be written. Raises Fault."""
    try:
        there = target.read_text(encoding="utf-8") if target.exists() else None
        if there == text:
            return False
        if there is not None and not force:
            raise Fault(
                f"{target} exists and differs; it was not changed",
                next_step="use --dry-run to see the new unit, or --force to replace the old one",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, text)
    except (OSError, ValueError) as error:
        raise _unwritable(target, error) from error
    return True


def _replace(target: Path, text: str) -> None:
    """At once: systemd never reads half a unit."""
    from fleet_common import folders

    with folders.durable(target) as file:
        file.write(text.encode())
        os.fchmod(file.fileno(), 0o644)  # whatever the umask


def _unwritable(target: Path, error: OSError | ValueError) -> Fault:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    denied = isinstance(error, PermissionError)
    step = "sudo fleet install systemd, or --user for a user unit" if denied else ""
    return Fault(f"{target} cannot be written: {reason}", next_step=step)


def _make_folders(plan: UnitPlan) -> None:
    """The unit may write into these two only, so they have to be there, and be the service's own. Raises Fault."""
    for folder in (plan.config.state_dir, plan.config.log_dir):
        try:
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True)
                _hand_over(folder, plan.user)
        except OSError as error:
            raise Fault(
                f"cannot create {folder}: {error.strerror}", next_step=f"create it, then chown it to {plan.user}"
            ) from error


def _hand_over(folder: Path, owner: str | None) -> None:
    if owner is not None and os.geteuid() == 0:
        account = pwd.getpwnam(owner)
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # no link in its place
        try:
            os.fchown(opened, account.pw_uid, account.pw_gid)
        finally:
            os.close(opened)


def _next_steps(plan: UnitPlan, target: Path, output: Path | None) -> str:
    manager = "systemctl" if plan.user is not None else "systemctl --user"
    steps = [f"{manager} daemon-reload", f"{manager} enable --now {target.name}", f"{manager} status {target.name}"]
    if output is not None:
        steps.insert(0, f"{manager} link {target}")
    if plan.user is None:
        import getpass

        steps.append(f"loginctl enable-linger {getpass.getuser()}    so that it runs while you are not logged in")
    return "next steps:\n" + "\n".join(f"  {step}" for step in steps)
