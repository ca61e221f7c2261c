"""A fleet of an ordinary user, below the sticky /tmp: what is closed to strangers stays open to the fleet's own needs."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.real.harness import Fleet, answers, eventually

NOBODY = 65534
PYTHON = Path(sys.base_prefix)
ROOTS_HOME = Path("~root").expanduser()
AS_NOBODY = f"""
mount --make-rprivate / && mount --bind "{PYTHON}" "$1" && shift || exit 111
case "{PYTHON}" in "{ROOTS_HOME}"/*)
    mount -t tmpfs -o mode=0755 tmpfs "{ROOTS_HOME}" && mkdir -p "{PYTHON}" && mount --bind "$OLDPWD" "{PYTHON}" || exit 111
esac
exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --inh-caps=-all --bounding-set=-all "$@"
"""
"""A mount namespace in which Python can be reached by everybody, be it installed in root's home."""


class NobodysFleet(Fleet):
    def __init__(self, folder: Path, python: Path) -> None:
        script = AS_NOBODY.replace("$OLDPWD", str(python))
        self.through = ("unshare", "-m", "sh", "-c", script, "sh", str(python), "env", f"HOME={folder}")
        super().__init__(folder)
        os.chown(self.file, NOBODY, NOBODY)


@pytest.fixture(scope="module")
def fleet() -> Iterator[NobodysFleet]:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    folder, python = (Path(tempfile.mkdtemp(prefix="fleet-nobody-")) for _ in range(2))
    try:
        os.chown(folder, NOBODY, NOBODY)
        made = NobodysFleet(folder, python)
        tried = subprocess.run([*made.through, sys.executable, "-c", "import supervisor"], check=False, cwd=folder)
        if tried.returncode != 0:
            pytest.skip("this Python cannot be run by another user here")
        try:
            made.up()
            yield made
        finally:
            made.down()
    finally:
        shutil.rmtree(folder)
        python.rmdir()


def owner_in_proc(pid: int) -> int:
    return Path(f"/proc/{pid}/environ").stat().st_uid


def test_its_supervisor_is_closed_and_its_datasites_are_not(fleet: NobodysFleet) -> None:
    """The supervisor has the secrets of all; the others have to be weighed and found by it. See docs/decisions."""
    told = fleet.status()
    supervisor, alpha = told["supervisor"]["pid"], fleet.line("alpha")["pid"]
    assert (0, NOBODY) == (owner_in_proc(supervisor), owner_in_proc(alpha))
    assert [NOBODY] * 2 == [psutil.Process(pid).uids().real for pid in (supervisor, alpha)]
    reading = [*fleet.through, "cat", f"/proc/{supervisor}/environ"]
    assert 0 != subprocess.run(reading, capture_output=True, check=False).returncode


def test_it_tells_memory_and_cpu(fleet: NobodysFleet) -> None:
    """As it does for root."""
    assert eventually(lambda: fleet.line("alpha")["memory_mb"])
    weighing = [*fleet.through, "cat", f"/proc/{fleet.line('alpha')['pid']}/smaps_rollup"]
    assert 0 == subprocess.run(weighing, capture_output=True, check=False).returncode


def test_what_user_code_started_dies_with_its_datasite(fleet: NobodysFleet) -> None:
    """A child in a session of its own, and one that was only forked, are found by the leash."""
    import syft as sy

    client = fleet.login("beta", fleet.beta)
    wrapped = sy.syft_function(share_results_with_owners=True)(begin_daemons)
    client.code.request_code_execution(wrapped).approve(approve_nested=True)
    born = list(client.code.begin_daemons().get())
    before = fleet.line("beta")["pid"]
    assert all(psutil.pid_exists(pid) for pid in born)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: (told := answers(fleet.beta)) and told["pid"] != before)
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in born), 30.0)


def begin_daemons():  # type: ignore[no-untyped-def]  # noqa: ANN201 - PySyft ships its source
    import os
    import subprocess
    import time

    executed = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, close_fds=True)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writing, str(os.getpid()).encode())
            time.sleep(600)
        os._exit(0)
    return [executed.pid, int(os.read(reading, 32))]


def test_a_killed_supervisors_datasites_are_adopted(fleet: NobodysFleet) -> None:
    """And `fleet down` afterwards ends them all."""
    before = {line["name"]: line["pid"] for line in fleet.status()["datasites"]}
    os.kill(fleet.status()["supervisor"]["pid"], signal.SIGKILL)
    eventually(lambda: fleet.run("status").returncode == 3)
    fleet.up()
    assert before == {line["name"]: line["pid"] for line in fleet.status()["datasites"]}


def test_down_without_a_supervisor_leaves_nothing(fleet: NobodysFleet) -> None:
    """Not even a process that has no run file."""
    alpha = fleet.line("alpha")["pid"]
    os.kill(fleet.status()["supervisor"]["pid"], signal.SIGKILL)
    eventually(lambda: fleet.run("status").returncode == 3)
    (fleet.folder / ".fleet" / "run" / "alpha.json").unlink()
    fleet.down()
    eventually(lambda: not psutil.pid_exists(alpha))  # init collects it when it gets to it


def test_its_files_are_its_own(fleet: NobodysFleet) -> None:
    """Logs are private, whatever the umask."""
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (fleet.folder / "logs").iterdir()}
    assert {0o600} == set(modes.values()), modes
