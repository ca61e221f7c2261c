"""The pulse: one datagram to the supervisor whenever something changed. Nobody listening is a normal case."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from datasite_worker.contract import StatusDocument

_LONGEST_ADDRESS = 107


def send(address: str, status: StatusDocument) -> None:
    """Send ``status`` to the unix datagram socket at ``address``; empty: nowhere. Never blocks, never raises."""
    if not address:
        return
    try:
        _send(Path(address), status.to_json())
    except OSError:
        return  # between two supervisors; the next one asks over HTTP


def _send(path: Path, raw: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
            sender.sendto(raw, str(path))
            return
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            sender.sendto(raw, f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
