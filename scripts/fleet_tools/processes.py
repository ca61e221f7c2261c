"""The processes of this machine: which ones live, which belong to a folder. Only ``end_all`` ends any, and only those
that belong to the folder it is given.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import psutil


def run(command: list[str], folder: Path, timeout: float = 180.0) -> subprocess.CompletedProcess[str]:
    """Run to the end, out of reach of the terminal's Ctrl-C: this process ends what it started itself."""
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False, start_new_session=True
    )


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def describe(pid: int) -> str:
    """``4711 (fleet: alpha)``, for people."""
    try:
        process = psutil.Process(pid)
        return f"{pid} ({' '.join(process.cmdline())[:80] or process.name()})"
    except psutil.Error:
        return str(pid)


def inhabitants(folders: Iterable[Path], *, named: bool = False) -> list[int]:
    """The living processes that work in one of ``folders``; with ``named`` also those that name one on their command
    line. Never this process, nor those that started it."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    places = [str(folder) for folder in folders]
    return [one.pid for one in psutil.process_iter() if one.pid not in own and _lives_in(one, places, named)]


def _lives_in(process: psutil.Process, folders: list[str], named: bool) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        place = process.cwd().removesuffix(" (deleted)")
        if any(place == folder or place.startswith(f"{folder}/") for folder in folders):
            return True
        return named and any(folder in word for word in process.cmdline() for folder in folders)
    except (psutil.Error, OSError):
        return False


def end_all(folder: Path, patience: float = 10.0) -> list[str]:
    """SIGKILL what still lives in ``folder``, again until nothing does; what that was."""
    ended: dict[int, str] = {}
    give_up = time.monotonic() + patience
    while (left := inhabitants([folder], named=True)) and time.monotonic() < give_up:
        for pid in left:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                ended.setdefault(pid, f"process {pid} ({process.name()})")
                process.send_signal(signal.SIGKILL)
        time.sleep(0.1)
    return list(ended.values())


def listening(folder: Path) -> set[int]:
    """The TCP ports that processes in ``folder`` listen on."""
    found: set[int] = set()
    for pid in inhabitants([folder], named=True):
        with contextlib.suppress(psutil.Error):
            connections = psutil.Process(pid).net_connections("tcp")
            found |= {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
    return found
