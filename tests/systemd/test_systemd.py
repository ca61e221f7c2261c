"""The unit that ``fleet install systemd`` writes, in a real systemd with real PySyft lines: start to stop.

The tests are one life of one fleet, in the order in which they stand.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_tools.ports import free_ports
from tests.systemd.host import Host, eventually, obstacle

_OBSTACLE = obstacle()
pytestmark = [
    pytest.mark.skipif(bool(_OBSTACLE), reason=_OBSTACLE or "systemd can be booted here"),
    pytest.mark.timeout(400),
]

UNIT = "fleet-test.service"
FILE = "/srv/fleet/fleet.yaml"
SCRATCH = "/var/cache/fleet-test/scratch"
START_TIMEOUT = 40
DROP_IN = "[Service]\nWatchdogSec=4\n"
"""The one thing that the tests change: nobody wants to wait for half a minute."""


class Service:
    """The fleet of a host, through ``systemctl`` and ``fleet``."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.alpha, self.beta, self.board = free_ports(3)
        self.folder = host.path("/srv/fleet")
        self.folder.mkdir()
        (self.folder / "secret").write_text("correct-horse-battery\n")
        self.write_file()

    def write_file(self, start_timeout: int = 120) -> None:
        (self.folder / "fleet.yaml").write_text(
            f"version: 1\nname: test\nshutdown_grace: 5s\ndashboard: {{mode: embedded, port: {self.board}}}\n"
            f"defaults: {{heartbeat_interval: 1s, probes: {{startup: {{failure_threshold: {start_timeout}}}}},\n"
            "  admin: {email: admin@plant.org, password: '${credential:admin_password}'}}\n"
            "datasites:\n"
            f"  - {{name: alpha, port: {self.alpha}}}\n"
            f"  - {{name: beta, port: {self.beta}}}\n"
        )

    def fleet(self, *words: str) -> str:
        return self.host.run(sys.executable, "-P", "-m", "supervisor", *words, check=words[0] != "status")

    def drop_in(self, name: str, text: str) -> None:
        folder = self.host.path(f"/etc/systemd/system/{UNIT}.d")
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.conf").write_text(text)
        self.systemctl("daemon-reload")

    def systemctl(self, *words: str, timeout: float = 250.0) -> str:
        try:
            return self.host.run("systemctl", *words, timeout=timeout)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            raise AssertionError(f"{error}\n{self.journal()}") from error

    def journal(self) -> str:
        return self.host.run("journalctl", "--no-pager", "--unit", UNIT, "--lines", "200", "--output", "cat")

    def show(self, name: str) -> str:
        return self.systemctl("show", "--value", "--property", name, UNIT).strip()

    def lines(self) -> dict[str, dict[str, Any]]:
        told = json.loads(self.fleet("status", "--json", FILE) or '{"datasites": []}')
        return {line["name"]: line for line in told["datasites"]}

    def pids(self) -> dict[str, int]:
        return {name: line["pid"] for name, line in self.lines().items()}

    def can_write(self, line: str, folder: str) -> bool:
        """Whether there is a place for a new file at ``folder``, as ``line`` sees it."""
        enter = ("nsenter", "--target", str(self.pids()[line]), "--mount", "--")
        return self.host.attempt(*enter, "sh", "-c", f": >{folder}/trial && rm {folder}/trial").returncode == 0

    def is_free(self, port: int) -> bool:
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", port)) != 0

    def end(self) -> tuple[str, str]:
        return self.show("ActiveState"), self.show("Result")

    def leftovers(self) -> list[Any]:
        """What a stop has to take away: processes, and the ports they held."""
        found: list[Any] = self.host.unit_processes(UNIT)
        return found + [port for port in (self.alpha, self.beta, self.board) if not self.is_free(port)]

    def sockets(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_socket()]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Host() as host:
        made = Service(host)
        made.drop_in("test", f"{DROP_IN}Environment=PYTHONPATH={Path(__file__).parents[2]}\n")
        told = made.fleet("install", "systemd", FILE, "--credential", "admin_password:/srv/fleet/secret")
        assert f"wrote /etc/systemd/system/{UNIT}" in told
        made.systemctl("daemon-reload")
        yield made


def killed_and_back(service: Service, restarts: int) -> None:
    """Wait until systemd has put a new supervisor in the place of the killed one, and it is ready."""

    def is_back() -> bool:
        return (str(restarts), "active") == (service.show("NRestarts"), service.show("ActiveState"))

    try:
        eventually(is_back, 120.0)
    except AssertionError as error:
        raise AssertionError(f"{service.show('StatusText')}\n{service.journal()}") from error


def test_start_returns_when_every_line_is_ready(service: Service) -> None:
    """`systemctl start` waits for the lines; the status text counts them, and a credential is the ADMIN's password."""
    service.systemctl("start", UNIT)
    assert ("active", "2 ready") == (service.show("ActiveState"), service.show("StatusText"))
    assert {"alpha": True, "beta": True} == {name: line["ready"] for name, line in service.lines().items()}
    told = json.loads(service.fleet("credentials", "alpha", "--file", FILE, "--json"))
    assert ("admin@plant.org", "correct-horse-battery") == (told["email"], told["password"])


def test_the_status_text_is_live(service: Service) -> None:
    """`systemctl status` shows what the lines do now."""
    service.fleet("stop", "beta", "--file", FILE)
    eventually(lambda: service.show("StatusText") == "1 ready, 1 down", 10.0)
    service.fleet("start", "beta", "--file", FILE)
    eventually(lambda: service.show("StatusText") == "2 ready", 10.0)
    assert "2 ready" in service.systemctl("status", UNIT)


def test_a_fed_watchdog_stays_quiet(service: Service) -> None:
    """A fleet at rest, where nothing wakes the loop, is not taken for a frozen one."""
    begin = service.host.run("date", "+%s")
    eventually(lambda: int(service.host.run("date", "+%s")) >= int(begin) + 9, 30.0)
    assert ("0", "active") == (service.show("NRestarts"), service.show("ActiveState"))


def test_a_frozen_supervisor_is_replaced_and_the_lines_notice_nothing(service: Service) -> None:
    """The watchdog aborts it; its successor adopts the very same processes, with no restart."""
    before, supervisor = service.pids(), service.show("MainPID")
    service.systemctl("kill", "--kill-whom=main", "--signal=STOP", UNIT)
    killed_and_back(service, 1)
    after = service.lines()
    assert before == {name: line["pid"] for name, line in after.items()}
    assert {"alpha": 0, "beta": 0} == {name: line["restarts"] for name, line in after.items()}
    assert supervisor != service.show("MainPID")
    assert "Watchdog timeout" in service.journal()


def test_a_killed_supervisor_is_replaced_and_the_lines_notice_nothing(service: Service) -> None:
    """SIGKILL, as the kernel's OOM killer sends it: adopted again."""
    before = service.pids()
    service.systemctl("kill", "--kill-whom=main", "--signal=KILL", UNIT)
    killed_and_back(service, 2)
    assert before == service.pids()


def test_an_adopted_line_still_has_a_place_for_temporary_files(service: Service) -> None:
    """PrivateTmp's folder went with the crashed supervisor. The lines use another, which stays as long as they do."""
    assert f"TMPDIR={SCRATCH}" in service.show("Environment")
    assert [False, True] == [service.can_write("alpha", folder) for folder in ("/tmp", SCRATCH)]


def test_the_lines_can_write_where_the_fleet_lives_and_nowhere_else(service: Service) -> None:
    """As the hardening has it: no line can change the host's files, or gain privileges."""
    folders = ("/srv/fleet/.fleet", "/srv/fleet/logs", "/srv/fleet", "/usr", "/var/lib")
    assert [True, True, False, False, False] == [service.can_write("alpha", folder) for folder in folders]
    status = service.host.path(f"/proc/{service.pids()['alpha']}/status").read_text().splitlines()
    told = {key: value.strip() for key, _, value in (line.partition(":") for line in status)}
    assert ("1", "2", "0000000000000000") == (told["NoNewPrivs"], told["Seccomp"], told["CapBnd"])


def test_reload_reaches_the_supervisor_and_changes_no_process(service: Service) -> None:
    """`systemctl reload` with an unchanged fleet.yaml leaves every process as it is."""
    before, supervisor = service.pids(), service.show("MainPID")
    service.systemctl("reload", UNIT)
    eventually(lambda: ("active", "2 ready") == (service.show("ActiveState"), service.show("StatusText")), 30.0)
    assert (before, supervisor, "2") == (service.pids(), service.show("MainPID"), service.show("NRestarts"))


def test_a_stop_leaves_nothing(service: Service) -> None:
    """No process, no port, no socket; and systemd calls it a clean stop."""
    assert [] != service.leftovers()
    service.systemctl("stop", UNIT)
    assert ("inactive", "success") == service.end()
    eventually(lambda: service.leftovers() == [], 5.0)  # the kernel takes a moment to end what is killed
    assert [] == service.sockets()
    assert "Error" not in service.journal()


def test_a_stop_over_which_the_supervisor_dies_leaves_nothing_either(service: Service) -> None:
    """ExecStopPost ends the lines that the supervisor no longer could, in order, without their secrets."""
    service.drop_in("deadly", "[Service]\nKillSignal=SIGKILL\n")
    service.systemctl("start", UNIT)
    service.systemctl("stop", UNIT)
    service.drop_in("deadly", "")
    assert ("failed", "signal") == service.end()
    eventually(lambda: service.leftovers() == [], 5.0)  # the kernel takes a moment to end what is killed
    assert "Error" not in service.journal()


def test_a_line_that_cannot_start_holds_the_start_up_no_longer_than_the_limit(service: Service) -> None:
    """The unit becomes active all the same, and says which line is not ready, and why."""
    service.write_file(START_TIMEOUT)
    with socket.create_server(("127.0.0.1", service.beta)):
        service.systemctl("start", UNIT)
        assert ("active", False) == (service.show("ActiveState"), service.show("StatusText") == "2 ready")
        expected = f"1 ready, 1 quarantined: beta (port {service.beta} is taken"
        eventually(lambda: service.show("StatusText").startswith(expected), 120.0)  # alpha's time is the machine's
    service.fleet("start", "beta", "--file", FILE)
    eventually(lambda: service.show("StatusText") == "2 ready", 30.0)


def test_fleet_down_by_hand_is_not_undone(service: Service) -> None:
    """Who asks the supervisor down gets it: systemd does not start it again."""
    service.fleet("down", FILE)
    eventually(lambda: service.show("ActiveState") == "inactive", 30.0)
    assert ("inactive", "success") == service.end()
    eventually(lambda: service.leftovers() == [], 5.0)


def test_an_error_in_the_file_is_tried_once(service: Service) -> None:
    """Exit code 2 will be the same a second later; the journal names the error."""
    service.host.path(FILE).write_text("version: 1\nname: test\ndatasites: nonsense\n")
    assert 1 == service.host.attempt("systemctl", "start", UNIT).returncode
    eventually(lambda: service.show("ActiveState") == "failed", 10.0)
    assert "0" == service.show("NRestarts")
    assert "datasites: expected a list of datasites" in service.journal()
