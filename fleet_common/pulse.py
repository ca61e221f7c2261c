"""The pulse: one datagram to the supervisor whenever something changed. It is normal that no supervisor listens."""

from __future__ import annotations

import socket
from pathlib import Path

from fleet_common.contract import StatusDocument
from fleet_common.unix_path import short_path


def send(address: str, status: StatusDocument) -> None:
    """Send ``status`` to the unix datagram socket at ``address``; empty: nowhere. Never blocks, never raises."""
    if not address:
        return
    try:
        _send(Path(address), status.to_json())
    except OSError:
        return  # no supervisor runs; the next one asks over HTTP


def _send(path: Path, raw: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender, short_path(path) as address:
        sender.sendto(raw, address)
