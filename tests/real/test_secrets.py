"""What an operator's environment holds is seen by the datasite that is given it, and by nobody else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.real.harness import Fleet, alone, eventually, living_in

ALPHA, BETA, SHELL = "alphas-own-token", "betas-own-token", "of-the-shell-only"
PASSWORDS = {"ALPHA_PASSWORD": "alphas-password", "BETA_PASSWORD": "betas-password"}
PLANTED = {"ALPHA_TOKEN": ALPHA, "BETA_TOKEN": BETA, "AWS_SECRET_ACCESS_KEY": SHELL, "CUDA_API_KEY": SHELL, **PASSWORDS}


class Plant(Fleet):
    """Each datasite is given a password and a token by the environment; so is a hook."""

    def write(self) -> None:
        head = f"version: 1\nname: test\ndashboard: {{mode: embedded, port: {self.dashboard}}}\n"
        script = "env >> told; cat /proc/$PPID/environ >> told"
        hook = f"on_event: [{{command: [sh, -c, '{script}'], environment: {{TOKEN: hooks-own}}}}]\n"
        lines = "".join(self._line(name) for name in ("alpha", "beta"))
        self.file.write_text(f"{head}{hook}datasites:\n{lines}")
        self.file.chmod(0o600)

    def _line(self, name: str) -> str:
        own = f"environment: {{TOKEN: '${{env:{name.upper()}_TOKEN}}'}}"
        admin = f"admin: {{password: '${{env:{name.upper()}_PASSWORD}}'}}"
        return f"  - {{name: {name}, port: {getattr(self, name)}, {admin}, {own}}}\n"

    def processes(self) -> dict[int, bytes]:
        """Every process of the fleet, with what the kernel tells of its environment."""
        supervisor = psutil.Process(self.status()["supervisor"]["pid"])
        pids = {supervisor.pid, *(one.pid for one in supervisor.children(recursive=True)), *living_in(self.folder)}
        return {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in pids if psutil.pid_exists(pid)}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PLANTED.items():
            patch.setenv(name, value)
        made = Plant(tmp_path_factory.mktemp("secrets"))
        try:
            made.up()
            yield made
        finally:
            made.down()


def what_a_job_sees():  # type: ignore[no-untyped-def]  # noqa: ANN201 - PySyft ships its source
    import os
    import pathlib
    import resource

    above = [pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode() for pid in (os.getpid(), os.getppid())]
    values = list(os.environ.values()) + above
    limits = list(resource.getrlimit(resource.RLIMIT_CORE)), pathlib.Path("/proc/self/coredump_filter").read_text()
    return values, os.environ.get("HOME", ""), limits


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_job_sees_its_own_datasites_values_only(plant: Plant, name: str) -> None:
    """In a job and in a blocking call: its own ``environment:``; no other's, no password, nothing of the shell. And no
    core file is left of it."""
    import syft as sy

    client = plant.login(name, getattr(plant, name))
    wrapped = sy.syft_function(share_results_with_owners=True)(what_a_job_sees)
    client.code.request_code_execution(wrapped).approve(approve_nested=True)
    queued = client.code.what_a_job_sees(blocking=False).wait(timeout=90).get()
    for values, home, limits in (queued, client.code.what_a_job_sees().get()):
        own, others = {"alpha": (ALPHA, BETA), "beta": (BETA, ALPHA)}[name]
        seen = "\n".join(values)
        assert (True, []) == (own in seen, [one for one in (others, SHELL, *PASSWORDS.values()) if one in seen])
        assert (os.environ["HOME"], [0, 0], 0) == (home, list(limits[0]), int(limits[1], 16))


def test_no_process_shows_a_secret_in_its_environment(plant: Plant) -> None:
    """Supervisor, forkserver, datasites, zygotes, dashboard: ``/proc/PID/environ`` of none."""
    shown = plant.processes()
    assert len(shown) >= 7
    told = {pid: value for pid, block in shown.items() for value in PLANTED.values() if value.encode() in block}
    assert {} == {f"{psutil.Process(pid).name()} {pid}": value for pid, value in told.items()}


def test_a_hook_sees_its_own_values_only(plant: Plant) -> None:
    """While it runs, everybody of this user can read its environment."""
    told = eventually(lambda: (file := plant.folder / "told").exists() and file.read_text(errors="replace"))
    assert (True, []) == ("TOKEN=hooks-own" in told, [one for one in PLANTED.values() if one in told])


def test_a_reload_reads_the_environment_of_the_start(plant: Plant) -> None:
    """What was taken from the processes is still there for ``${env:NAME}``."""
    plant.file.write_text(plant.file.read_text().replace("version: 1\n", "version: 1\nshutdown_grace: 7s\n"))
    with pytest.MonkeyPatch.context() as patch:
        for name in PLANTED:
            patch.delenv(name)
        done = plant.run("reload")
    assert 0 == done.returncode, done.stdout + done.stderr


def test_nobody_may_look_into_a_process_of_the_fleet(plant: Plant) -> None:
    """As root they all belong to root in /proc, whoever runs them, and have no core file."""
    for pid in plant.processes():
        limits = Path(f"/proc/{pid}/limits").read_text().split("Max core file size")[1].split()[:2]
        assert ["0", "0"] == limits
        assert 0 == int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16)


def test_a_datasite_alone_forgets_the_password_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLEET_ADMIN_PASSWORD is in no /proc/PID/environ of it, once it serves."""
    monkeypatch.setenv("FLEET_ADMIN_PASSWORD", "known-to-one")
    with alone(tmp_path) as made:
        made.start()
        assert made.process is not None
        pids = [made.process.pid, *(one.pid for one in psutil.Process(made.process.pid).children(recursive=True))]
        shown = [pid for pid in pids if b"known-to-one" in Path(f"/proc/{pid}/environ").read_bytes()]
        assert ([], "known-to-one") == (shown, json.loads((made.state / "admin.json").read_text())["password"])
