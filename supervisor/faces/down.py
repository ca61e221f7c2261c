"""``fleet down``: tells the supervisor to stop everything, or stops what a killed supervisor left behind."""

from __future__ import annotations

import os
import select
import time

from fleet_common import folders
from supervisor.faces.client import ControlClient
from supervisor.faces.faults import Fault, unsafe
from supervisor.faces.formatting import clean
from supervisor.faces.screen import Screen
from supervisor.spec import FleetConfig


def bring_down(client: ControlClient, timeout: float | None, screen: Screen) -> None:
    """Stop the fleet and wait until its supervisor has ended; None: do not wait.

    Raises Fault after ``timeout`` seconds.
    """
    snapshot, start = client.status(), time.monotonic()
    if timeout is None:
        client.down()
        screen.say(f"fleet {clean(snapshot.fleet)}: stop requested")
        return
    supervisor = _pidfd(snapshot.supervisor_pid)
    try:
        client.down()
        with screen.progress(f"stopping fleet {clean(snapshot.fleet)}"):
            gone = supervisor is None or _ends(supervisor, timeout)
    finally:
        if supervisor is not None:
            os.close(supervisor)
    if not gone:
        raise Fault(f"fleet {clean(snapshot.fleet)} is still stopping after {timeout:g} s", next_step="fleet status")
    screen.say(f"fleet {clean(snapshot.fleet)} is down ({time.monotonic() - start:.1f} s)")


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _ends(pidfd: int, timeout: float) -> bool:
    """Whether the process ends within ``timeout`` seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def stop_leftovers(config: FleetConfig, screen: Screen) -> bool:
    """Stop datasites whose supervisor is gone; whether there were any. Raises Fault when a supervisor holds the
    lock."""
    if not config.state_dir.is_dir():
        return False
    from supervisor.daemon import AlreadyRunning, stop_orphans

    try:
        stopped = stop_orphans(config)
    except AlreadyRunning as error:
        whose, hung = (f" (pid {error.pid})", f"kill {error.pid}") if error.pid else ("", "kill the process `fleet up`")
        raise Fault(
            f"a supervisor{whose} holds the state folder but does not listen on its control socket",
            next_step=f"wait a moment and try again; if it hangs: {hung}",
        ) from error
    except folders.Unsafe as error:
        raise unsafe(error) from error
    except OSError as error:
        raise Fault(f"cannot stop what may be left in {clean(str(config.state_dir))}: {error}") from error
    for name in stopped:
        screen.say(f"{clean(name)} stopped (its supervisor had ended)")
    return bool(stopped)
