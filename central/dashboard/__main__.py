"""``python -m central.dashboard --host --port --db``: runs the dashboard without a supervisor.

Only reads the command line and reports errors. The work is in ``app`` and ``server``.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

from central.dashboard.liveness import Thresholds
from fleet_common.contract import DashboardOrder, ExitCode, Phase


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0, 2 for bad arguments, 78 for a wrong configuration."""
    options = _options(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # until the server handles them: loading takes a second
        signal.signal(number, _leave)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(levelname)s - %(message)s")
    from central.dashboard.store import StoreUnusable
    from fleet_common.failures import ConfigurationFailure

    try:
        _serve(options)
    except StoreUnusable as failure:
        return _refuse(f"{failure} (--db)")
    except ConfigurationFailure as failure:
        return _refuse(f"{failure} (--host, --port)")
    return ExitCode.CLEAN


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Exit at once. SystemExit is not enough: an import that catches every exception swallows it."""
    os._exit(ExitCode.CLEAN)


def _refuse(reason: str) -> int:
    print(f"dashboard: {reason}", file=sys.stderr)
    return ExitCode.CONFIGURATION


def _serve(options: argparse.Namespace) -> None:
    from central.dashboard import app, entry, server
    from fleet_common import listening

    listener = listening.bind(options.host, options.port)
    order = _order(options, listener)
    server.serve(
        app.create_app(options.db, thresholds=options.thresholds, new_per_hour=options.new_per_hour),
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
        raise argparse.ArgumentTypeError(f"expected a port, 0 (any free port) to 65535, not {text!r}")
    return int(text)


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:10]) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a number of factories, 1 to 1000000, not {text!r}")
    return int(text)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.thresholds = Thresholds(options.late_after, options.offline_after)
    except ValueError as error:
        parser.error(f"{error} (--late-after, --offline-after)")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m central.dashboard", description="Run the dashboard.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=5000, help="port to listen on; 0: any free port (default: %(default)s)"
    )
    parser.add_argument("--db", type=Path, default=Path("dashboard.db"), help="SQLite file (default: ./%(default)s)")
    parser.add_argument(
        "--late-after",
        type=float,
        default=45.0,
        metavar="SECONDS",
        help="a factory without a heartbeat for this long is late (default: %(default)g)",
    )
    parser.add_argument(
        "--offline-after",
        type=float,
        default=90.0,
        metavar="SECONDS",
        help="a factory without a heartbeat for this long is offline (default: %(default)g)",
    )
    parser.add_argument(
        "--new-per-hour",
        type=_number,
        default=1000,
        metavar="N",
        help="new factories that one address may register in an hour (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
