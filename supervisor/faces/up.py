"""``fleet up``: checks and messages around ``daemon.serve``, which does the work."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet_common import folders
from supervisor.faces.client import ControlClient, ControlError
from supervisor.faces.faults import Exit, Fault, unsafe
from supervisor.faces.formatting import clean, size
from supervisor.faces.screen import Screen
from supervisor.policy.placement import ImpossibleGpus, UnseenGpus
from supervisor.record import Wanted, WorkerState
from supervisor.spec import FleetConfig

if TYPE_CHECKING:
    from supervisor.daemon import ResetItem
    from supervisor.effects.known import EmptyState
    from supervisor.snapshot import FleetSnapshot

OUTPUT = "fleet.out"
_ISOLATED = (sys.executable, "-P", "-m", "supervisor")
_LAST_LINES = 15
_LOOK = 0.1
_LONGEST_POLL = 1.0


# --- before anything starts ---


def refuse_second(config: FleetConfig) -> None:
    """Raises Fault when a supervisor answers for this state folder. The lock finds a silent one later."""
    try:
        with ControlClient(config.state_dir) as client:
            pid = client.status().supervisor_pid
    except ControlError:
        return
    raise already_running(config, pid)


def refuse_empty_state(config: FleetConfig) -> None:
    """Raises Fault when the fleet has run before, and its state folder is empty."""
    from supervisor.effects.known import EmptyState, refuse_empty

    try:
        refuse_empty(config)
    except EmptyState as error:
        raise empty_state(error) from error


def already_running(config: FleetConfig, pid: int | None) -> Fault:
    whose = "pid unknown" if pid is None else f"pid {pid}"
    return Fault(
        f"a supervisor is already running for this fleet ({whose}, state folder {config.state_dir})",
        Exit.ALREADY_RUNNING,
        next_step=f"fleet status -f {config.path}, or fleet down -f {config.path} before another fleet up",
    )


def impossible_gpus(config: FleetConfig, error: ImpossibleGpus) -> Fault:
    lines = "\n".join(f"  {line}" for line in str(error).splitlines())
    return Fault(
        f"{config.path} asks for GPUs that this host cannot provide; nothing was started:\n{lines}",
        Exit.WRONG_USE,
        next_step="fleet gpus shows what this host has",
    )


def empty_state(error: EmptyState) -> Fault:
    """Its exit code makes a service manager start the fleet again: the disk may be mounted a little later."""
    return Fault(
        f"{error}; nothing was started or written",
        Exit.NOT_DONE,
        next_step=f"mount its disk or restore it from a backup; to begin with empty datasites instead, set reset: true "
        f"for each, or remove {error.file}",
    )


def unseen_gpus(error: UnseenGpus) -> Fault:
    """Its exit code makes a service manager start the fleet again."""
    return Fault(
        f"{error}; nothing was started or stopped",
        Exit.NOT_DONE,
        next_step="run nvidia-smi to see whether the driver answers, then fleet up again (systemd retries by itself)",
    )


def confirm_reset(config: FleetConfig, *, yes: bool) -> tuple[str, ...]:
    """The datasites whose state is removed, once the operator agrees. Raises Fault when he does not."""
    if not any(spec.reset for spec in config.datasites):
        return ()
    from supervisor.daemon import reset_plan

    plan = reset_plan(config)
    if plan:
        _agree(plan, yes=yes)
    return tuple(item.name for item in plan)


def _agree(plan: tuple[ResetItem, ...], *, yes: bool) -> None:
    for item in plan:
        click.echo(f"reset: {clean(item.name)} loses all its state: {item.path} ({size(item.size_bytes)})", err=True)
    if not yes and not sys.stdin.isatty():
        raise Fault(
            "reset: true removes state, and this start cannot ask for your agreement",
            Exit.WRONG_USE,
            next_step="use --yes to agree, or remove reset from fleet.yaml",
        )
    if not yes and not click.confirm("Remove this for good and start?", err=True):
        raise Fault("nothing was removed and nothing was started")


# --- in the foreground ---


def leave_current_folder() -> None:
    """Go on in an interpreter that imports nothing from the current folder, where the files may be anybody's. Nor does
    any that it starts."""
    if sys.flags.safe_path or not _is_the_program():
        return
    sys.stdout.flush()
    os.execv(sys.executable, [*_ISOLATED, *sys.argv[1:]])  # noqa: S606 - no shell: our own interpreter and module


def serve_here(config: FleetConfig, reset: tuple[str, ...], screen: Screen, *, quiet: bool) -> None:
    """Run the supervisor in this process until the fleet is stopped. Raises Fault when it cannot start."""
    from supervisor.daemon import AlreadyRunning, serve
    from supervisor.effects.known import EmptyState

    live = screen.live and not quiet
    try:
        with _display(config, screen) if live else _nothing():
            serve(config, echo=not live and not quiet, reset=reset)
    except AlreadyRunning as error:
        raise already_running(config, error.pid) from error
    except EmptyState as error:
        raise empty_state(error) from error
    except ImpossibleGpus as error:
        raise impossible_gpus(config, error) from error
    except UnseenGpus as error:
        raise unseen_gpus(error) from error
    except folders.Unsafe as error:
        raise unsafe(error) from error
    except OSError as error:
        raise Fault(f"the fleet cannot start: {error}", Exit.WRONG_USE) from error
    if live:
        screen.say(f"fleet {clean(config.name)} is down")


@contextmanager
def _display(config: FleetConfig, screen: Screen) -> Iterator[None]:
    from supervisor.faces.live import LiveView

    view, log = LiveView(config.state_dir, screen.console), logging.getLogger("fleet")
    handler = view.handler()
    log.addHandler(handler)
    view.start()
    try:
        yield
    finally:
        log.removeHandler(handler)
        view.close()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _is_the_program() -> bool:
    """Whether this process is ``fleet``, and not another that has called it."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return spec.name == "supervisor.__main__" if spec else Path(getattr(main, "__file__", "")).name == "fleet"


# --- in the background ---


def serve_detached(config: FleetConfig, timeout: float, screen: Screen) -> None:
    """Start a supervisor in its own session, and return when all are ready.

    Raises Fault when something is not ready within ``timeout`` seconds (the fleet stays up), or the supervisor ended.
    """
    child, output, begin = _spawn(config)
    start = time.monotonic()
    try:
        with screen.progress(f"fleet {clean(config.name)}:") as details:
            for snapshot in _pictures(child, config.state_dir, start + timeout):
                details(_progress(snapshot))
                if _settled(snapshot):
                    break
    except KeyboardInterrupt:
        click.echo(
            "\nthe fleet continues to start in the background; fleet status shows it, fleet down stops it", err=True
        )
        raise
    if (code := child.poll()) is not None:
        raise _ended_early(code, output, begin)
    _report(config, screen, time.monotonic() - start)


def _command(path: Path) -> list[str]:
    return [*_ISOLATED, "up", str(path), "--yes", "--quiet"]


def _spawn(config: FleetConfig) -> tuple[subprocess.Popen[bytes], Path, int]:
    """The supervisor's process, the file with its output, and where in it the output of this start begins."""
    try:
        with folders.appended(config.log_dir / OUTPUT) as output:
            begin = output.tell()
            child = subprocess.Popen(
                _command(config.path),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except folders.Unsafe as error:
        raise unsafe(error) from error
    except OSError as error:
        raise Fault(f"the fleet cannot start: {error}", Exit.WRONG_USE) from error
    return child, config.log_dir / OUTPUT, begin


def _pictures(child: subprocess.Popen[bytes], state_dir: Path, until: float) -> Iterator[FleetSnapshot]:
    """Snapshots of the child's fleet while it lives and there is time."""
    revision: int | None = None
    while child.poll() is None and time.monotonic() < until:
        try:
            with ControlClient(state_dir) as client:
                snapshot = client.status(revision, min(_LONGEST_POLL, max(0.0, until - time.monotonic())))
        except ControlError:  # it does not listen yet
            _wait_for(child, _LOOK)
            continue
        revision = snapshot.revision
        yield snapshot


def _wait_for(child: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _settled(snapshot: FleetSnapshot) -> bool:
    """Whether more waiting changes nothing: each is ready, or stays as it is until somebody acts."""
    from supervisor.faces.table import workers

    final = (WorkerState.READY, WorkerState.QUARANTINED)
    return all(worker.state in final or worker.wanted == Wanted.DOWN for worker in workers(snapshot))


def _progress(snapshot: FleetSnapshot) -> str:
    from supervisor.faces.table import workers

    everyone = workers(snapshot)
    missing = [clean(worker.name) for worker in everyone if not worker.ready]
    return f"{len(everyone) - len(missing)} of {len(everyone)} ready, waiting for {', '.join(missing)}"


def _ended_early(code: int, output: Path, begin: int) -> Fault:
    with output.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", "replace").strip().splitlines()[-_LAST_LINES:]
    last_output = "\n".join(f"  {line}" for line in lines) or f"  (no output; see {output})"
    known = Exit(code) if code in set(Exit) and code != Exit.OK else Exit.NOT_DONE
    return Fault(f"the supervisor ended while starting (exit code {code}); last output:\n{last_output}", known)


def _report(config: FleetConfig, screen: Screen, took: float) -> None:
    """Print what is ready. Raises Fault for what is not."""
    from supervisor.faces.table import why, workers

    try:
        with ControlClient(config.state_dir) as client:
            snapshot = client.status()
    except ControlError as error:
        raise Fault(f"{error}; it was not ready after {took:.1f} s", next_step="fleet logs fleet") from error
    everyone = workers(snapshot)
    for worker in everyone:
        if worker.ready:
            screen.say(f"{clean(worker.name)} ready (pid {worker.pid}) {clean(worker.url)}")
    missing = [worker for worker in everyone if not worker.ready and worker.wanted == Wanted.UP]
    for worker in everyone:
        if worker.wanted == Wanted.DOWN:
            screen.say(f"{clean(worker.name)} down: {clean(worker.reason)}; fleet start {clean(worker.name)}")
    if missing:
        reasons = "\n".join(f"  {line}" for line in why(snapshot)[: len(missing)])
        raise Fault(
            f"{len(missing)} of {len(everyone)} not ready after {took:.1f} s; the fleet stays up:\n{reasons}",
            next_step="fleet status, or fleet down",
        )
    screen.say(f"fleet {clean(snapshot.fleet)} is up in {took:.1f} s (supervisor pid {snapshot.supervisor_pid})")
