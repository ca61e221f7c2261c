"""The supervisor's own memory and environment hold every secret of the fleet: keeps them from what it starts."""

from __future__ import annotations

import os

from fleet_common import secrecy
from supervisor.policy.surroundings import passed_on


def keep_secrets() -> None:
    """No core file, no look into this process, and for what it starts only the variables that are needed."""
    secrecy.leave_no_core()
    secrecy.close()
    secrecy.wipe_environment(passed_on(os.environ))
