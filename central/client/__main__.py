"""Show, approve and deny the training requests at one datasite, as its owner (``python -m central.client``).

The password comes from FLEET_PASSWORD or from a prompt. It is never an argument, which other users could see.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys

from central.client import transport
from central.client.connection import Connection
from central.client.errors import ClientError
from central.client.owner import Owner, Waiting


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    commands_of = argparse.ArgumentParser(
        prog="python -m central.client",
        description="Show, approve and deny the training requests at one datasite, as its owner.",
        epilog="The password comes from the environment variable FLEET_PASSWORD, or from a prompt.",
    )
    commands_of.add_argument("--url", required=True, help="the datasite: http://host:port or https://host:port")
    commands_of.add_argument("--email", required=True, help="the e-mail address of the owner (ADMIN)")
    commands_of.add_argument("--ca", help="file with the certificates to trust")
    commands_of.add_argument("--client-cert", help="file with the client certificate and its key")
    commands = commands_of.add_subparsers(dest="command", required=True)
    commands.add_parser("requests", help="list the requests that wait for approval").add_argument(
        "--source", action="store_true", help="also show the source of each function"
    )
    commands.add_parser("approve", help="approve a request: its code may run").add_argument("request")
    deny = commands.add_parser("deny", help="deny a request, or withdraw its approval")
    deny.add_argument("request")
    deny.add_argument("--reason", default="denied by the owner")
    add = commands.add_parser("add-scientist", help="create a user who may send requests, but not approve them")
    add.add_argument("scientist", metavar="email")
    add.add_argument("--name", default="")
    return commands_of


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns 0, or 1 with the error on standard error."""
    options = parser().parse_args(arguments)
    try:
        _run(options)
    except (ClientError, ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    password = os.environ.get("FLEET_PASSWORD") or getpass.getpass(f"Password of {options.email}: ")
    session = transport.session(options.ca, options.client_cert, 60.0)
    owner = Owner(Connection(transport.parsed(options.url, None), options.email, password, session, 10.0))
    if options.command == "requests":
        _show(owner.waiting(), with_source=options.source)
    elif options.command == "approve":
        owner.approve(options.request)
        print(f"approved {options.request}")
    elif options.command == "deny":
        owner.deny(options.request, options.reason)
        print(f"denied {options.request}")
    else:
        new_password = owner.add_scientist(options.scientist, options.name or options.scientist)
        print(f"password of {options.scientist}: {new_password}")


def _show(waiting: list[Waiting], *, with_source: bool) -> None:
    if not waiting:
        print("No request waits for approval.")
    for one in waiting:
        print(f"{one.request_id}  {one.function}  {one.requester}\n  {one.code_hash}")
        print(f"  reads {', '.join(one.reads) or 'no dataset'}")
        if not one.training:
            print("  is not in the form of a training: training_bounds do not hold for it")
        if with_source:
            print(one.source)


if __name__ == "__main__":
    sys.exit(main())
