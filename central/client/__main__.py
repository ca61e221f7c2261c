"""``python -m central.client``: the owner's view of the training requests at one datasite, from the command line.

The password comes from FLEET_PASSWORD or is asked for; it is never an argument, which others could see.
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
    made = argparse.ArgumentParser(prog="python -m central.client", description=__doc__.partition("\n")[0])
    made.add_argument("--url", required=True, help="the datasite, as http://host:port or https://host:port")
    made.add_argument("--email", required=True, help="the owner's (ADMIN) login there")
    made.add_argument("--ca", help="file with the certificates to trust")
    made.add_argument("--client-cert", help="file with our certificate and its key")
    commands = made.add_subparsers(dest="command", required=True)
    commands.add_parser("requests", help="what waits for approval, with its hash").add_argument(
        "--source", action="store_true", help="show each function's text too"
    )
    commands.add_parser("approve", help="let a request's code run").add_argument("request")
    deny = commands.add_parser("deny", help="refuse a request, or take its approval back")
    deny.add_argument("request")
    deny.add_argument("--reason", default="denied by the owner")
    add = commands.add_parser("add-scientist", help="make a user who may ask, and not decide")
    add.add_argument("scientist", metavar="email")
    add.add_argument("--name", default="")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0, or 1 with the mistake on standard error."""
    asked = parser().parse_args(arguments)
    try:
        _run(asked)
    except (ClientError, ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(asked: argparse.Namespace) -> None:
    password = os.environ.get("FLEET_PASSWORD") or getpass.getpass(f"Password of {asked.email}: ")
    session = transport.session(asked.ca, asked.client_cert, 60.0)
    owner = Owner(Connection(transport.parsed(asked.url, None), asked.email, password, session, 10.0))
    if asked.command == "requests":
        _show(owner.waiting(), with_source=asked.source)
    elif asked.command == "approve":
        owner.approve(asked.request)
        print(f"approved {asked.request}")
    elif asked.command == "deny":
        owner.deny(asked.request, asked.reason)
        print(f"denied {asked.request}")
    else:
        print(f"password of {asked.scientist}: {owner.add_scientist(asked.scientist, asked.name or asked.scientist)}")


def _show(waiting: list[Waiting], *, with_source: bool) -> None:
    if not waiting:
        print("nothing waits for approval")
    for one in waiting:
        print(f"{one.request_id}  {one.function}  {one.requester}\n  {one.code_hash}")
        if with_source:
            print(one.source)


if __name__ == "__main__":
    sys.exit(main())
