"""Real PySyft lines of the unit that ``fleet install systemd`` writes are held by the kernel, as the operator asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.harness import PATIENCE
from tests.systemd.host import Host, controllers, obstacle
from tests.systemd.test_systemd import FILE, UNIT, Service

_OBSTACLE = obstacle() or ("" if "memory" in controllers() else "cgroup v2 does not control memory and CPU here")
pytestmark = [
    pytest.mark.skipif(bool(_OBSTACLE), reason=_OBSTACLE or "systemd can be booted here"),
    pytest.mark.timeout(400 * PATIENCE),
]
MEMORY = 10**9


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Host() as host:
        host.control(controllers())
        made = Service(host)
        made.drop_in("test", f"[Service]\nWatchdogSec=0\nEnvironment=PYTHONPATH={Path(__file__).parents[2]}\n")
        made.fleet("install", "systemd", FILE, "--credential", "admin_password:/srv/fleet/secret")
        made.systemctl("daemon-reload")
        yield made


@pytest.mark.slow
def test_the_lines_of_the_unit_are_held(service: Service) -> None:
    """By groups below the unit's own, in which each line really is, with the figures of ``fleet.yaml``; a stop of the
    unit takes all of it away."""
    text = (service.folder / "fleet.yaml").read_text()
    limits = f"resources: {{max_memory_usage_gb: {MEMORY / 1e9:g}, max_cpu_usage_percent: 80}}"
    (service.folder / "fleet.yaml").write_text(text.replace("name: alpha,", f"name: alpha, {limits},"))
    service.systemctl("start", UNIT, timeout=350 * PATIENCE)
    alpha, beta = service.lines()["alpha"], service.lines()["beta"]
    assert ("cgroup", "no") == (alpha["enforced"], beta["enforced"])
    group = service.host.path(f"/sys/fs/cgroup/system.slice/{UNIT}/lines/line-alpha")
    assert MEMORY - 4096 <= int((group / "memory.max").read_text()) <= MEMORY
    assert "80000 100000" == (group / "cpu.max").read_text().strip()
    sits = service.host.run("cat", f"/proc/{alpha['pid']}/cgroup").strip()
    assert f"0::/system.slice/{UNIT}/lines/line-alpha" == sits
    service.systemctl("stop", UNIT, timeout=120 * PATIENCE)
    assert [] == service.leftovers()
