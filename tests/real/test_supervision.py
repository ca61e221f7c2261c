"""What the supervisor promises when things go badly: hung lines, killed helpers, strays, reloads; all of it real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet_tools.ports import free_ports
from fleet_tools.temporary_fleet import brought_up
from supervisor.effects.leash import bearers
from tests.real.harness import Fleet, a_fleet, answers, eventually, living_in

QUICK_PROBES = ", probes: {readiness: {period: 1, timeout: 2}, liveness: {period: 1, timeout: 2, failure_threshold: 4}}"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with a_fleet(tmp_path_factory.mktemp("fleet"), extra=QUICK_PROBES) as made:
        yield made


def events(fleet: Fleet, name: str) -> list[dict[str, Any]]:
    told = fleet.run("events", name, "--json", "-n", "1000").stdout
    return [json.loads(line) for line in told.splitlines()]


def supervisor_pid(fleet: Fleet) -> int:
    return int(fleet.status()["supervisor"]["pid"])


def ready_again(fleet: Fleet, name: str, before: dict[str, Any]) -> dict[str, Any]:
    """The line's status once another process than ``before``'s is ready."""
    found: dict[str, Any] = eventually(
        lambda: (line := fleet.line(name))["ready"] and line["pid"] != before["pid"] and line
    )
    return found


def run_inside(fleet: Fleet, name: str, port: int, code: Callable[[], Any]) -> None:
    """Submit ``code`` as the admin's and call it from a thread; that the call may never return is its purpose."""
    import syft as sy

    client = fleet.login(name, port)
    client.code.submit(sy.syft_function()(code))

    def call() -> None:
        with suppress(Exception):  # the connection breaks when the line is killed
            getattr(client.code, code.__name__)()

    threading.Thread(target=call, daemon=True).start()


def was_replaced_by_a_probe(fleet: Fleet, name: str, before: dict[str, Any]) -> None:
    after = ready_again(fleet, name, before)
    assert before["restarts"] + 1 == after["restarts"]
    assert before["restarts_by_cause"].get("hung", 0) + 1 == after["restarts_by_cause"]["hung"]
    killed = [event for event in events(fleet, name) if event["event"] == "stopping" and event["cause"] == "probe"]
    assert before["pid"] == killed[-1]["pid"]
    assert "did not answer 4 probes in a row" in killed[-1]["text"]


def test_a_stopped_line_is_noticed_and_replaced(fleet: Fleet) -> None:
    """SIGSTOP: the port still accepts, nobody answers. This shows at the first failed probe. Its neighbour keeps its
    process."""
    before, neighbour = fleet.line("alpha"), fleet.line("beta")
    os.kill(before["pid"], signal.SIGSTOP)
    shown = eventually(lambda: (line := fleet.line("alpha"))["not_answering_s"] is not None and line)
    assert (before["pid"], before["restarts"]) == (shown["pid"], shown["restarts"])
    was_replaced_by_a_probe(fleet, "alpha", before)
    assert neighbour["pid"] == fleet.line("beta")["pid"]


def hold_the_gil() -> int:
    import ctypes

    ctypes.PyDLL(None).sleep(600)
    return 0


def block_the_loop() -> int:
    import asyncio
    import gc
    import time

    for found in gc.get_objects():
        if isinstance(found, asyncio.AbstractEventLoop) and found.is_running():
            found.call_soon_threadsafe(time.sleep, 600)
    return 0


@pytest.mark.parametrize("code", [hold_the_gil, pytest.param(block_the_loop, marks=pytest.mark.slow)])
def test_a_line_that_hangs_in_itself_is_replaced(fleet: Fleet, code: Callable[[], int]) -> None:
    """User code that never gives the interpreter back, or blocks the event loop, costs its line one restart."""
    before = fleet.line("alpha")
    run_inside(fleet, "alpha", fleet.alpha, code)
    was_replaced_by_a_probe(fleet, "alpha", before)


def train_for_ten_seconds() -> float:
    import time

    import torch

    end, seen = time.monotonic() + 10.0, 0.0
    while time.monotonic() < end:
        seen += float((torch.rand(400, 400) @ torch.rand(400, 400)).sum())
    return seen


def test_a_line_that_is_busy_training_is_left_alone(fleet: Fleet) -> None:
    """Ten seconds of torch in the serving process, twice the time in which a hung line is replaced."""
    before = fleet.line("beta")
    run_inside(fleet, "beta", fleet.beta, train_for_ten_seconds)
    assert ["train_for_ten_seconds"] == eventually(lambda: fleet.line("beta")["active_experiments"])
    eventually(lambda: not fleet.line("beta")["active_experiments"])
    after = fleet.line("beta")
    assert (before["pid"], before["restarts"], True) == (after["pid"], after["restarts"], after["ready"])


def leave_strays() -> int:
    import os
    import subprocess

    subprocess.Popen(["sleep", "600"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            import time

            while True:
                time.sleep(600)
        os._exit(0)
    return 0


def test_what_user_code_left_dies_with_its_line(fleet: Fleet) -> None:
    """Children in sessions of their own, one forked twice and one executed: gone when the line is, port and all."""
    before = fleet.line("alpha")
    leash = fleet.state("alpha") / "leash"
    run_inside(fleet, "alpha", fleet.alpha, leave_strays)
    strays = eventually(lambda: len(found := [pid for pid in bearers(leash) if pid != before["pid"]]) >= 2 and found)
    os.kill(before["pid"], signal.SIGKILL)
    after = ready_again(fleet, "alpha", before)
    assert "SIGKILL" == after["last_exit"]
    assert [] == [pid for pid in strays if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


@contextmanager
def little_memory(megabytes: int) -> Iterator[Path]:
    """A control group with that limit, to put a process into. Skips where none can be made."""
    first = Path("/sys/fs/cgroup/memory")
    group = (first if first.is_dir() else Path("/sys/fs/cgroup")) / f"fleet-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if first.is_dir() else "memory.max"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        if not (group / limit).exists():
            pytest.skip("control groups have no memory controller here")
        (group / limit).write_text(f"{megabytes}M")
        yield group
    finally:
        eventually(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def eat_memory() -> int:
    return len(bytearray(1024 * 1024 * 1024))


def test_out_of_memory_is_told_as_such(fleet: Fleet) -> None:
    """The kernel's own word says why the line was killed, in status and in events."""
    if not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("the kernel's log cannot be read here")
    before = fleet.line("beta")
    with little_memory(400) as group:
        (group / "cgroup.procs").write_text(str(before["pid"]))
        run_inside(fleet, "beta", fleet.beta, eat_memory)
        after = ready_again(fleet, "beta", before)
    assert "SIGKILL: out of memory (kernel log)" == after["last_exit"]
    assert 1 == after["restarts_by_cause"]["oom"]
    ended = [event for event in events(fleet, "beta") if event["event"] == "exited"][-1]
    assert ("oom", before["pid"], "SIGKILL") == (ended["cause"], ended["pid"], ended["signal"])


def test_a_killed_forkserver_costs_no_line(fleet: Fleet) -> None:
    """The lines serve on; the next crash is answered by a new forkserver."""
    before = {line["name"]: line["pid"] for line in fleet.status()["datasites"]}
    forkserver = next(
        child.pid
        for child in psutil.Process(supervisor_pid(fleet)).children()
        if "forkserver" in " ".join(child.cmdline())
    )
    os.kill(forkserver, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(forkserver))
    assert before == {line["name"]: line["pid"] for line in fleet.status()["datasites"]}
    os.kill(before["beta"], signal.SIGKILL)
    assert "SIGKILL" == ready_again(fleet, "beta", {"pid": before["beta"]})["last_exit"]


def test_hooks_get_events_as_json(fleet: Fleet, tmp_path: Path) -> None:
    """A hook that a reload brings is told of the next crash; one that hangs holds up nothing."""
    heard = tmp_path / "heard"
    original = fleet.file.read_text()
    hooks = f'on_event: [{{command: [sh, -c, "cat >> {heard}"], events: [exited]}}, {{command: [sleep, "60"]}}]\n'
    fleet.file.write_text(original + hooks)
    assert 0 == fleet.run("reload").returncode
    before = fleet.line("alpha")
    os.kill(before["pid"], signal.SIGKILL)
    ready_again(fleet, "alpha", before)
    told = json.loads(eventually(lambda: heard.exists() and heard.read_text()))
    assert ("alpha", "exited", "signal", "SIGKILL") == (told["name"], told["event"], told["cause"], told["signal"])
    fleet.file.write_text(original)
    assert 0 == fleet.run("reload").returncode


def test_reload_touches_only_what_differs(fleet: Fleet) -> None:
    """A new line comes, a moved one restarts because of its port, a live key needs no restart; and back again."""
    original, before = fleet.file.read_text(), {line["name"]: line for line in fleet.status()["datasites"]}
    moved, gamma = free_ports(2)
    changed = original.replace(f"port: {fleet.beta}", f"port: {moved}") + f"  - {{name: gamma, port: {gamma}}}\n"
    fleet.file.write_text(changed.replace("heartbeat_interval: 1,", "heartbeat_interval: 2,"))
    plan = json.loads(fleet.run("reload", "--dry-run", "--json").stdout)
    assert (["gamma"], [], {"beta": ["port"]}, {"alpha": ["heartbeat_interval"]}) == (
        plan["add"],
        plan["remove"],
        plan["restart"],
        plan["live"],
    )
    assert before["beta"]["pid"] == fleet.line("beta")["pid"]  # --dry-run changed nothing
    done = fleet.run("reload")
    assert 0 == done.returncode, done.stdout + done.stderr
    after = {line["name"]: line for line in fleet.status()["datasites"]}
    assert before["alpha"]["pid"] == after["alpha"]["pid"]
    assert (moved, True, True) == (after["beta"]["port"], after["beta"]["ready"], after["gamma"]["ready"])
    eventually(lambda: "heartbeat_interval" in fleet.log("alpha") or "settings" in fleet.log("alpha"))
    fleet.file.write_text(original)
    assert 0 == fleet.run("reload").returncode
    assert ["alpha", "beta"] == [line["name"] for line in fleet.status()["datasites"]]
    assert answers(gamma) is None


def test_a_broken_file_changes_nothing(fleet: Fleet) -> None:
    """By command and by SIGHUP: it says where it is broken, and every process stays."""
    original, before = fleet.file.read_text(), {line["name"]: line["pid"] for line in fleet.status()["datasites"]}
    fleet.file.write_text(original.replace("port:", "prot:", 2))
    refused = fleet.run("reload")
    assert 2 == refused.returncode
    assert "unknown key; did you mean port?" in refused.stderr
    assert "nothing was changed" in refused.stderr
    os.kill(supervisor_pid(fleet), signal.SIGHUP)
    eventually(lambda: any(event["event"] == "reload_refused" for event in events(fleet, "fleet")))
    fleet.file.write_text(original)
    assert before == {line["name"]: line["pid"] for line in fleet.status()["datasites"]}


def test_a_rolling_restart_takes_one_line_after_another(fleet: Fleet) -> None:
    """The second line is stopped only when the first is ready again."""
    before = {line["name"]: line["pid"] for line in fleet.status()["datasites"]}
    done = fleet.run("restart", "--all", "--rolling")
    assert 0 == done.returncode, done.stdout + done.stderr
    after = {line["name"]: line["pid"] for line in fleet.status()["datasites"]}
    assert not set(before.values()) & set(after.values())
    first_ready = [e["at"] for e in events(fleet, "alpha") if e["event"] == "ready"][-1]
    second_stopping = [e["at"] for e in events(fleet, "beta") if e["event"] == "stopping"][-1]
    assert first_ready < second_stopping


def test_a_supervisor_that_was_killed_is_followed_by_one_that_knows(fleet: Fleet) -> None:
    """Adopted with the same processes, counts and wishes; a line whose spec changed meanwhile is restarted and said so."""
    assert 0 == fleet.run("stop", "beta").returncode
    before = fleet.line("alpha")
    os.kill(pid := supervisor_pid(fleet), signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")
    fleet.up()
    after, stopped = fleet.line("alpha"), fleet.line("beta")
    assert (before["pid"], before["restarts"]) == (after["pid"], after["restarts"])
    assert ("down", "down", "stopped by the operator") == (stopped["state"], stopped["wanted"], stopped["reason"])
    os.kill(pid := supervisor_pid(fleet), signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")
    original = fleet.file.read_text()
    fleet.file.write_text(original.replace(f"port: {fleet.alpha}", f"port: {fleet.alpha}, environment: {{X: y}}"))
    fleet.up()
    changed = ready_again(fleet, "alpha", before)
    assert before["restarts"] == changed["restarts"]
    assert "restarted after adoption: its configuration changed" in events(fleet, "alpha")[-4]["text"] + str(
        [event["text"] for event in events(fleet, "alpha")[-6:]]
    )
    fleet.file.write_text(original)
    assert 0 == fleet.run("start", "beta").returncode


def test_down_after_any_history_leaves_nothing(tmp_path: Path) -> None:
    """Supervisor and forkserver killed, run files lost: ``fleet down`` still finds every process of ours."""
    made = Fleet(tmp_path)
    with brought_up(made):
        family = [psutil.Process(supervisor_pid(made)), *psutil.Process(supervisor_pid(made)).children()]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        eventually(lambda: not any(one.is_running() and one.status() != "zombie" for one in family))
        assert answers(made.alpha) is not None
        shutil.rmtree(tmp_path / ".fleet" / "run")
        down = made.run("down")
        assert 0 == down.returncode, down.stdout + down.stderr
        eventually(lambda: not living_in(tmp_path), 15.0)
        assert answers(made.alpha) is None
        assert [] == list((tmp_path / ".fleet").glob("*.sock"))
