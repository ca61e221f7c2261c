"""How a server takes its port, and by which address it is reached."""

from __future__ import annotations

import errno
import socket

import psutil

from fleet_common.failures import ConfigurationFailure

_BACKLOG = 2048


class PortTaken(ConfigurationFailure):
    """The port cannot be had; the message names its holder where that can be seen."""


def own_address(hostname: str) -> str:
    """Where this process reaches what it serves on ``hostname``."""
    return {"localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(hostname, hostname)  # noqa: S104 - looked up, not bound


def reachable_name(hostname: str) -> str:
    """What others call a site that listens on ``hostname``: "every interface" is no address for them."""
    return socket.gethostname() if hostname in ("0.0.0.0", "::", "") else hostname  # noqa: S104 - compared, not bound


def bind(hostname: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises PortTaken, or ConfigurationFailure for an address that cannot be bound."""
    host = "127.0.0.1" if hostname == "localhost" else hostname
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        raise _explained(error, hostname, port) from error
    return listening


def _explained(error: OSError | OverflowError, hostname: str, port: int) -> ConfigurationFailure:
    if isinstance(error, PermissionError):
        return ConfigurationFailure(
            f"port {port} needs privileges that this user does not have; choose a port above 1023"
        )
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return PortTaken(f"port {port} is taken by {_holder(port)}; stop that process or choose another port")
    return ConfigurationFailure(f"cannot listen on {hostname}:{port}: {getattr(error, 'strerror', None) or error}")


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr[1] == port
                and connection.pid
            ):
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        return "another process"
    return "another process"
