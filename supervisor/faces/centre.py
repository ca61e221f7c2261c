"""Hands a plan with logins to a program of the centre, which takes this process's place. Loads no PySyft itself.

The plan goes through a file in memory to standard input: others can read arguments and environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from supervisor.spec import DatasiteSpec, FleetConfig


def address(config: FleetConfig, spec: DatasiteSpec) -> dict[str, Any]:
    """Where the datasite is, and its owner's login. Raises Fault."""
    from supervisor.faces import logins
    from supervisor.spec import http_url

    login = logins.read(config.state_dir, spec.name)
    url = http_url(spec.hostname, spec.port).rpartition(":")[0]
    return {"name": spec.name, "url": url, "port": spec.port, "email": login.email, "password": login.password}


def program(module: str) -> tuple[str, ...]:
    """The interpreter's arguments. -P: nothing in the working directory takes the modules' place."""
    return ("-P", "-m", module)


def become(arguments: Sequence[str], plan: bytes) -> NoReturn:
    """Replace this process by the program: signals reach it, and its exit code is the command's."""
    memory = os.memfd_create("plan")
    os.write(memory, plan)
    os.lseek(memory, 0, os.SEEK_SET)
    os.dup2(memory, 0)
    os.close(memory)
    click.get_text_stream("stdout").flush()
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - no shell: our own interpreter and module
