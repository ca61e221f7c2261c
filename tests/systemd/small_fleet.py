"""A supervisor as small as can be: finds its control group, has one line in it, says how it sits. Run by test_leaf.py as
the main process of a unit; its line outlives it, and its successor finds that."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from supervisor.effects import cgroups

FOLDER = Path(sys.argv[1])
cgroups._CONTROLLERS = tuple(sys.argv[2:])  # type: ignore[assignment]  # whatever this machine's cgroup v2 has
groups = cgroups.Cgroups.find(os.environ)
line = FOLDER / "line"
if not line.exists():
    group = groups.make("alpha")
    if (pid := os.fork()) == 0:
        os.setsid()
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
        signal.pause()
    line.write_text(str(pid))
told = {"sits": Path("/proc/self/cgroup").read_text().split("0::")[1].splitlines()[0], "words": groups.words}
with (FOLDER / "told").open("a") as file:
    file.write(json.dumps(told) + "\n")
signal.pause()
