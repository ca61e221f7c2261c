"""A zygote in an interpreter of its own: ``python -m`` this, with the two channels and the worker's pid.

For a worker that has threads already and cannot fork one. PySyft is loaded for the first job, not before.
"""

from __future__ import annotations

import socket
import sys

from datasite_worker.jobs.zygote_life import Work, live
from fleet_common import secrecy


def main() -> None:
    control, nudge, worker = (int(word) for word in sys.argv[1:4])
    secrecy.close_to_strangers()
    live(socket.socket(fileno=control), nudge, worker, _work)


def _work() -> Work:
    from datasite_worker.pysyft.jobs import runner

    return runner


if __name__ == "__main__":
    main()
