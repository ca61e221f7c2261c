"""``python -m central.dashboard --host --port --db``: the dashboard by hand, without a supervisor.

Only reads the command line and reports; the work is in ``app`` and ``server``.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from pathlib import Path

from central.dashboard.liveness import Thresholds
from datasite_worker.contract import DashboardOrder, ExitCode, Phase


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code: 0, 2 for bad arguments, 78 for what only you can mend."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(levelname)s - %(message)s")
    from central.dashboard.store import StoreUnusable

    try:
        _serve(options, _thresholds(options), _listen(options))
    except (_Refused, StoreUnusable) as error:
        print(f"dashboard: {error}", file=sys.stderr)
        return ExitCode.CONFIGURATION
    return ExitCode.CLEAN


class _Refused(Exception):
    """The command line asks for what cannot be had; the message says what to change."""


def _thresholds(options: argparse.Namespace) -> Thresholds:
    try:
        return Thresholds(options.late_after, options.offline_after)
    except ValueError as error:
        raise _Refused(f"{error}; see --late-after and --offline-after") from error


def _listen(options: argparse.Namespace) -> socket.socket:
    from datasite_worker.process import ConfigurationFailure, bind

    try:
        return bind(options.host, options.port)
    except ConfigurationFailure as error:
        raise _Refused(f"{error}; see --host and --port") from error


def _serve(options: argparse.Namespace, thresholds: Thresholds, listener: socket.socket) -> None:
    from central.dashboard import app, entry, server

    order = _order(options, listener)
    server.serve(
        app.create_app(options.db, thresholds=thresholds),
        listener,
        status=lambda: entry.status_of(order, Phase.SERVING),
        on_serving=lambda: _announce(order),
        on_stopping=lambda: None,
    )


def _order(options: argparse.Namespace, listener: socket.socket) -> DashboardOrder:
    port = listener.getsockname()[1]
    return DashboardOrder("dashboard", 0, options.host, port, str(options.db.absolute()), log_dir="", state_dir="")


def _announce(order: DashboardOrder) -> None:
    print(f"dashboard: http://{order.hostname}:{order.port} (database {order.database})", flush=True)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: expected 0 (any free one) to 65535")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m central.dashboard", description="Serve the central dashboard.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=5000, help="0 takes any free one (default: %(default)s)")
    parser.add_argument("--db", type=Path, default=Path("dashboard.db"), help="SQLite file (default: ./%(default)s)")
    parser.add_argument("--late-after", type=float, default=45.0, metavar="SECONDS", help="default: %(default)g")
    parser.add_argument("--offline-after", type=float, default=90.0, metavar="SECONDS", help="default: %(default)g")
    return parser


if __name__ == "__main__":
    sys.exit(main())
