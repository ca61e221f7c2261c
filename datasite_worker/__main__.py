"""One datasite by hand: ``python -m datasite_worker --factory_name line --port 8080``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from fleet_common import secrecy
from fleet_common.contract import Access, ExitCode
from fleet_common.layout import WorkerFolder
from fleet_common.process import keep_descendants, own_folders


def main() -> None:
    """Run until SIGINT or SIGTERM. Exit codes: 0 stopped, 2 wrong usage, 70 failed, 78 configuration (port taken …)."""
    asked = parser().parse_args()
    from datasite_worker.pysyft import imports

    imports.load()
    from datasite_worker.datasite import FactoryDatasite
    from datasite_worker.entry import leave, run_guarded

    try:
        datasite = FactoryDatasite(
            **vars(asked),
            access=_access(),
            admin_email=os.environ.get("FLEET_ADMIN_EMAIL", "admin@pdm-factory.com"),
            admin_password=os.environ.pop("FLEET_ADMIN_PASSWORD", None) or None,
            pid=os.getpid(),
        )
        secrecy.wipe_environment(but=set(os.environ))  # takes the password out of /proc too
        settle_in(datasite.state_dir)
    except OSError as error:
        print(f"{asked.factory_name}: cannot start: {error}", file=sys.stderr)
        raise SystemExit(ExitCode.CONFIGURATION) from None
    print(f"{datasite.factory_name}: log {datasite.log_dir}/{datasite.factory_name}.log", file=sys.stderr)
    print(f"{datasite.factory_name}: admin login {WorkerFolder(datasite.state_dir).admin}", file=sys.stderr)
    signal.signal(signal.SIGHUP, lambda *_: datasite.stop())
    code = run_guarded(datasite)
    if code:
        print(
            f"{datasite.factory_name}: stopped with exit code {int(code)}; see the log for the reason", file=sys.stderr
        )
    leave(code)


def settle_in(state_dir: Path) -> None:
    """User code writes files into the working directory. They belong to the datasite; only its owner can read them."""
    os.umask(0o077)
    secrecy.leave_no_core()
    secrecy.close_to_strangers()
    own_folders(state_dir, WorkerFolder(state_dir).work)
    keep_descendants(state_dir)
    os.chdir(WorkerFolder(state_dir).work)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("factory-datasite", description="Run one PySyft datasite for a production line.")
    made.add_argument("--factory_name", type=_name, default="pdm_factory_datasite")
    made.add_argument("--hostname", default="localhost", help="address to listen on")
    made.add_argument("--port", type=_port, default=8080)
    made.add_argument("--dashboard_url", default="http://localhost:5000")
    for flag, what in (
        ("dev_mode", "PySyft's developer mode"),
        ("reset", "delete all state before the start"),
        ("verbose", "log to the console"),
    ):
        made.add_argument(f"--{flag}", type=_truth, nargs="?", const=True, default=False, help=what)
    return made


def _access() -> Access:
    """From the environment, because the specification fixes the options. Everything is closed by default."""
    opened = [os.environ.get(name, "") == "true" for name in ("FLEET_ALLOW_GUESTS", "FLEET_ALLOW_REGISTRATION")]
    return Access(*opened)


def _name(word: str) -> str:
    if not word or "/" in word or word.startswith("."):
        raise argparse.ArgumentTypeError(
            f"{word!r} is not a valid name: it must not be empty, contain / or start with a dot"
        )
    return word


def _port(word: str) -> int:
    if not (word.isascii() and word.isdigit() and 1 <= int(word) <= 65535):
        raise argparse.ArgumentTypeError(f"{word!r} is not a port (1 to 65535)")
    return int(word)


def _truth(word: str) -> bool:
    truths = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if word.lower() not in truths:
        raise argparse.ArgumentTypeError(f"{word!r} is not true or false")
    return truths[word.lower()]


if __name__ == "__main__":
    main()
