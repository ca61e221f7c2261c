"""A control group for a test, as a service manager delegates one, on a kernel whose cgroup v2 controls memory and CPU.

Any host that systemd booted in the last years has such a kernel; ``scripts/kernel-test`` boots one where it has not. The
groups are a test's own; nobody else is moved or limited.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.real.harness import eventually

ROOT = Path("/sys/fs/cgroup")
SERVICE = "fleet-test.service"


def obstacle() -> str:
    """Why no such group can be made here; empty when one can: tried, as a container may show controllers and hold them
    back."""
    if os.geteuid() != 0:
        return "making control groups needs root"
    try:
        if not {"memory", "cpu"} <= set((ROOT / "cgroup.controllers").read_text().split()):
            return f"{ROOT} does not control memory and CPU"
        with a_unit():
            return ""
    except OSError as error:
        return f"no control group can be made in {ROOT}: {error}"


@contextmanager
def a_unit() -> Iterator[Path]:
    """A group as systemd delegates one; what is left in it afterwards is killed."""
    above = Path(tempfile.mkdtemp(prefix="fleet-test-", dir=ROOT))
    group = above / SERVICE
    try:
        for folder in (ROOT, above):
            (folder / "cgroup.subtree_control").write_text("+memory +cpu")
        group.mkdir()
        os.setxattr(group, "trusted.delegate", b"1")
        yield group
    finally:
        with suppress(OSError):  # where it is no control group, it has nobody
            (above / "cgroup.kill").write_text("1")
            eventually(lambda: "populated 0" in (above / "cgroup.events").read_text(), 30.0)
        for folder in sorted(above.rglob("*/"), reverse=True):
            folder.rmdir()
        above.rmdir()
