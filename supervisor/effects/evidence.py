"""Finds out more about an exit than its signal: that memory ran out, or that there is a core file. Reads only.

The kernel's log names the victim by pid, if this user may read it. If not, the count of OOM kills shows that one
happened between two looks; then it is only probable.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from pathlib import Path

from supervisor.record import ExitCause, ExitKind

_VMSTAT = Path("/proc/vmstat")
_KMSG = Path("/dev/kmsg")
_RECORD = 8192
_MOST_RECORDS = 5000
_FRESH = 60.0
"""Seconds; an older core file belongs to an earlier crash."""


class Evidence:
    """Create this before the processes end that it explains."""

    def __init__(self, kmsg: Path = _KMSG, vmstat: Path = _VMSTAT) -> None:
        self._vmstat = vmstat
        self._kills = _oom_kills(vmstat)
        self._victims: set[int] = set()
        self._log = _open_at_end(kmsg)

    def explain(self, cause: ExitCause, pid: int, work_dir: Path, limit: str = "") -> ExitCause:
        """``cause`` with what else is known: out of memory, or a core file in ``work_dir``.

        ``limit``: the limit for which the kernel has just killed a process of its control group, in words.
        """
        if cause.signal == "SIGKILL" and limit:
            self._memory(cause, pid)  # the log and the count contain this one too: consume it
            return replace(cause, kind=ExitKind.OOM, detail=f"SIGKILL: out of memory: {limit}")
        if cause.signal == "SIGKILL":
            return self._memory(cause, pid)
        if cause.kind is ExitKind.SIGNAL and (core := _core_file(work_dir, pid)):
            return replace(cause, detail=f"{cause.detail}, core dumped: {core}")
        return cause

    def _memory(self, cause: ExitCause, pid: int) -> ExitCause:
        before, self._kills = self._kills, _oom_kills(self._vmstat)
        self._victims |= self._read_victims()
        if pid in self._victims:
            self._victims.discard(pid)
            return replace(cause, kind=ExitKind.OOM, detail="SIGKILL: out of memory (kernel log)")
        if self._log is None and self._kills > before:
            return replace(cause, kind=ExitKind.OOM, detail="SIGKILL: probably out of memory (kernel counter)")
        return cause

    def _read_victims(self) -> set[int]:
        text = b"".join(_records(self._log)) if self._log is not None else b""
        return {int(pid) for pid in re.findall(rb"Killed process (\d+)", text)}


def _records(log: int) -> list[bytes]:
    """What the kernel has logged since the last look."""
    found: list[bytes] = []
    while len(found) < _MOST_RECORDS:
        try:
            found.append(os.read(log, _RECORD))
        except BrokenPipeError:
            continue  # some were overwritten before we came; the next read goes on behind them
        except OSError:
            break  # nothing more
    return found


_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # linux/proc_ns.h; elsewhere the log's pids are not ours


def _open_at_end(kmsg: Path) -> int | None:
    try:
        if str(Path("/proc/self/ns/pid").readlink()) != _FIRST_PID_NAMESPACE:
            return None
        log = os.open(kmsg, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(log, 0, os.SEEK_END)
    except OSError:
        return None
    return log


def _oom_kills(vmstat: Path) -> int:
    try:
        return int(re.search(r"^oom_kill (\d+)$", vmstat.read_text(), re.MULTILINE)[1])  # type: ignore[index]
    except (OSError, TypeError):
        return 0


def _core_file(work_dir: Path, pid: int) -> str:
    """The core file of that process, if the kernel writes it into the working directory (core_pattern ``core``)."""
    for path in (work_dir / f"core.{pid}", work_dir / "core"):
        try:
            if time.time() - path.stat().st_mtime < _FRESH:
                return str(path)
        except OSError:
            continue
    return ""
