"""A host of its own for a test: a real systemd, booted in namespaces on this machine's files. Nothing of it stays.

It needs root, ``unshare``, ``nsenter`` and a cgroup v2 to make a group in; ``obstacle`` says what is missing. The network
is the machine's own. When the process that booted it ends, however it ends, the kernel ends everything inside.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BOOT = Path(__file__).with_name("boot.sh")
NAMESPACES = ["--cgroup", "--pid", "--ipc", "--uts", "--mount", "--mount-proc", "--fork", "--kill-child=KILL"]
BOOT_CEILING = 60.0
OTHER_ROOT = os.environ.get("FLEET_SYSTEMD_ROOT", "")
"""A folder with another distribution's files, to boot its systemd; empty: this machine's."""
_SYSTEMDS = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
_TOOLS = ("unshare", "nsenter", "setpriv", "mountpoint", "systemctl")


class Host:
    """``run`` runs inside. ``unit_processes`` and ``path`` look in from outside."""

    def __init__(self) -> None:
        self._group = _cgroup_root() / f"fleet-test-{os.getpid()}"
        self._group.mkdir()
        join = f'echo $$ > "{self._group}/cgroup.procs" && exec "$@"'
        kept = dict.fromkeys(map(str, (ROOT, sys.prefix, Path(sys.base_prefix).resolve())))
        unshare = ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "bash", str(BOOT), *kept]
        self._outer = subprocess.Popen(
            ["sh", "-c", join, "sh", *unshare],
            env={**os.environ, "SYSTEMD": _systemd(), "SYSTEMD_ROOT": OTHER_ROOT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._inner = 0

    def __enter__(self) -> Host:
        try:
            eventually(self._is_up, BOOT_CEILING)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the first process of the pid namespace, and with it the kernel kills the rest."""
        with contextlib.suppress(OSError):
            os.kill(self._first_inside(), 9)
        self._outer.kill()
        self._outer.communicate(timeout=30)
        eventually(self._remove_group, 30.0)

    def run(self, *command: str, timeout: float = 60.0, check: bool = True) -> str:
        """The output of ``command`` inside; when it fails, an AssertionError that shows it."""
        done = self.attempt(*command, timeout=timeout)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def attempt(self, *command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/root", "USER": "root"}
        enter = ["nsenter", "--target", str(self._inner), "--all", "--", *command]
        return subprocess.run(enter, env=environ, capture_output=True, text=True, timeout=timeout, check=False)

    def path(self, inside: str) -> Path:
        """A file inside, as this process can reach it."""
        return Path(f"/proc/{self._inner}/root{inside}")

    def unit_processes(self, unit: str) -> list[str]:
        """The command lines of all living processes of the unit, wherever below it they are."""
        groups = self._group.rglob(f"{unit}/**/cgroup.procs")
        return [_command_line(pid) for group in groups for pid in group.read_text().split()]

    def control(self, controllers: tuple[str, ...]) -> None:
        """Let the units inside have these controllers of cgroup v2. What booted the host, and still sits in its first
        group, moves aside for that: an inner group has no processes."""
        for pid in (self._group / "cgroup.procs").read_text().split():
            (self._group.parent / "cgroup.procs").write_text(pid)
        for folder in (self._group, self._group / "system.slice"):
            for controller in controllers:
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")

    # --- coming up, going away ---

    def _is_up(self) -> bool:
        if self._outer.poll() is not None:
            raise AssertionError(f"systemd did not boot:\n{(self._outer.stdout or sys.stdin).read()!r}")
        self._inner = self._first_inside()
        return bool(self._inner) and self.attempt("systemctl", "is-active", "fleet-test.target").returncode == 0

    def _first_inside(self) -> int:
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(children.read_text().split()[0])
        return self._inner

    def _remove_group(self) -> bool:
        """Control groups empty themselves a moment after their last process is gone."""
        for folder in sorted(self._group.rglob("*/"), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
        with contextlib.suppress(OSError):
            self._group.rmdir()
        return not self._group.exists()


def controllers() -> tuple[str, ...]:
    """What a group of ours can be controlled by here: memory and CPU, or whatever there is besides; maybe nothing. A
    machine that gives its controllers to cgroup v1 has none of the usual here."""
    given = (_cgroup_root() / "cgroup.subtree_control").read_text().split()
    return ("memory", "cpu") if {"memory", "cpu"} <= set(given) else tuple(given[:1])


def obstacle() -> str:
    """Why no systemd can be booted here; empty when one can."""
    if os.geteuid() != 0:
        return "booting a systemd in namespaces needs root"
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"not installed: {', '.join(missing)}"
    if not _systemd():
        return "systemd is not installed"
    return _forbidden()


def _forbidden() -> str:
    try:
        trial = _cgroup_root() / f"fleet-trial-{os.getpid()}"
        trial.mkdir()
        trial.rmdir()
    except (OSError, LookupError) as error:
        return f"no control group can be made here: {error}"
    mounting = "mount --make-rprivate / && mount -t tmpfs none /srv && mount -t cgroup2 none /srv"
    tried = subprocess.run(["unshare", *NAMESPACES, "sh", "-c", mounting], capture_output=True, text=True, check=False)
    return f"namespaces are not permitted here: {tried.stderr.strip()}" if tried.returncode else ""


def eventually(what: Callable[[], Any], ceiling: float) -> Any:
    """The first true answer of ``what``; fails after ``ceiling`` seconds."""
    give_up = time.monotonic() + ceiling
    while not (answer := what()):
        assert time.monotonic() < give_up, "did not come about in time"
        select.select([], [], [], 0.05)
    return answer


def _systemd() -> str:
    """The program, as its own root names it; empty when there is none."""
    return next((path for path in _SYSTEMDS if os.access(f"{OTHER_ROOT}{path}", os.X_OK)), "")


def _cgroup_root() -> Path:
    """Where this machine has cgroup v2. Raises LookupError when nowhere."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return Path(mount.split()[4])
    raise LookupError("cgroup v2 is not mounted")


def _command_line(pid: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""
