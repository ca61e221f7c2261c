"""Keeps the secrets in the supervisor's memory and environment from the processes that it starts."""

from __future__ import annotations

import os

from fleet_common import secrecy
from supervisor.policy.surroundings import passed_on


def keep_secrets() -> None:
    """No core file, no access to this process, and only the necessary variables for the processes it starts."""
    secrecy.leave_no_core()
    secrecy.close()
    secrecy.wipe_environment(passed_on(os.environ))
