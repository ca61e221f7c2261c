"""Queued jobs in processes of their own: how many at once, in which order, and that the death of one harms nobody."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import psutil
import pytest
from syft.service.job.job_stash import JobStatus

from tests.real.harness import Alone, alone, answers, eventually, login

ROUNDS = 200
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def solo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """A datasite by hand, with the three sessions of the default."""
    with alone(tmp_path_factory.mktemp("jobs")) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def client(solo: Alone) -> Any:
    return login(solo.state, solo.port)


@pytest.fixture(scope="module")
def run(client: Any) -> Callable[..., Any]:
    """Submits a function once, and queues it: the job."""
    import syft as sy

    submitted: dict[str, Any] = {}

    def queue(function: FunctionType, **arguments: Any) -> Any:
        name = function.__name__
        if name not in submitted:
            wrapped = sy.syft_function(share_results_with_owners=True)(function)
            client.code.request_code_execution(wrapped).approve(approve_nested=True)
            submitted[name] = getattr(client.code, name)
        return submitted[name](blocking=False, **arguments)

    return queue


def value(job: Any, seconds: int = 90) -> Any:
    told = job.wait(timeout=seconds)
    return told.get() if hasattr(told, "get") and not isinstance(told, dict) else told


def say_pid():  # type: ignore[no-untyped-def]  # noqa: ANN201 - PySyft ships its source
    import os

    return os.getpid()


def wait_for_file(place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    import pathlib
    import select

    while not pathlib.Path(place).exists():
        select.select([], [], [], 0.05)
    return "seen"


def leave():  # type: ignore[no-untyped-def]  # noqa: ANN201 - PySyft ships its source
    import os

    os._exit(7)


def fork_and_wait(place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    import pathlib
    import select
    import subprocess

    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    pathlib.Path(place).write_text(str(child.pid))
    select.select([], [], [], 600)


def family(solo: Alone) -> list[psutil.Process]:
    assert solo.process is not None
    return psutil.Process(solo.process.pid).children(recursive=True)


def jobs_of(solo: Alone) -> list[psutil.Process]:
    return [one for one in family(solo) if "job " in _title(one)]


def zygote_of(solo: Alone) -> psutil.Process:
    return next(one for one in family(solo) if "forked from here" in _title(one) or "zygote" in _title(one))


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_job_is_a_process_below_the_datasite(solo: Alone, run: Callable[..., Any]) -> None:
    """Not the serving process, and gone when its job is done."""
    assert solo.process is not None
    pid = value(run(say_pid))
    assert pid not in (solo.process.pid, zygote_of(solo).pid)
    eventually(lambda: not psutil.pid_exists(pid), 10)


def test_no_more_than_the_sessions_and_the_rest_in_order(solo: Alone, run: Callable[..., Any], tmp_path: Path) -> None:
    """Three of five run, the fourth and the fifth wait; each that ends lets in the next."""
    names = [f"{tmp_path}/{number}" for number in range(5)]
    queued = [run(wait_for_file, place=name) for name in names]
    eventually(lambda: len(jobs_of(solo)) == 3)

    def processing() -> list[int]:
        return [place for place, job in enumerate(queued) if job.fetched_status is JobStatus.PROCESSING]

    eventually(lambda: processing() == [0, 1, 2])
    Path(names[1]).touch()
    eventually(lambda: processing() == [0, 2, 3])
    assert JobStatus.CREATED is queued[4].fetched_status
    for name in names:
        Path(name).touch()
    assert ["seen"] * 5 == [value(job) for job in queued]


def test_a_killed_job_is_marked_with_its_cause(solo: Alone, run: Callable[..., Any], tmp_path: Path) -> None:
    """SIGKILL, ``os._exit``, and the owner's ``job.kill()``: the datasite serves on as the same process."""
    assert solo.process is not None
    killed = run(wait_for_file, place=f"{tmp_path}/never")
    (process,) = eventually(lambda: jobs_of(solo))
    os.kill(process.pid, signal.SIGKILL)
    assert "interrupted: its process was ended by SIGKILL" == killed.wait(timeout=30).message
    assert JobStatus.INTERRUPTED is killed.fetched_status

    assert "interrupted: its process ended with exit status 7" == run(leave).wait(timeout=30).message

    asked = run(wait_for_file, place=f"{tmp_path}/never")
    eventually(lambda: asked.fetched_status is JobStatus.PROCESSING)
    asked.kill()
    assert (JobStatus.INTERRUPTED, "interrupted: killed on request") == (asked.fetched_status, asked.result.message)
    assert [] == jobs_of(solo)

    told = answers(solo.port) or {}
    assert (solo.process.pid, 3) == (told["pid"], told["jobs_cut_off"])
    assert f"wait_for_file ({asked.id}): killed on request" == told["last_job_cut_off"]
    assert isinstance(value(run(say_pid)), int)


def test_what_a_job_started_goes_with_it(solo: Alone, run: Callable[..., Any], tmp_path: Path) -> None:
    """Even from a session of its own: nothing of a killed job is left below the datasite."""
    job = run(fork_and_wait, place=f"{tmp_path}/pid")
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    child = int((tmp_path / "pid").read_text())
    eventually(lambda: job.fetched_status is JobStatus.PROCESSING)
    job.kill()
    eventually(lambda: not psutil.pid_exists(child), 10)


def test_jobs_go_on_after_the_death_of_what_forks_them(solo: Alone, run: Callable[..., Any], tmp_path: Path) -> None:
    """The running job dies with it and is marked; a new one takes its place at the next job."""
    cut_off = run(wait_for_file, place=f"{tmp_path}/never")
    (process,) = eventually(lambda: jobs_of(solo))
    zygote_of(solo).kill()
    assert "the process that jobs are forked from ended" in cut_off.wait(timeout=30).message
    assert not psutil.pid_exists(process.pid)
    assert isinstance(value(run(say_pid)), int)


def test_two_hundred_jobs_leave_nothing_behind(solo: Alone, run: Callable[..., Any]) -> None:
    """Three at a time, one after the other: all complete, and neither files nor processes nor memory grow."""
    assert solo.process is not None
    process = psutil.Process(solo.process.pid)
    for job in [run(say_pid) for _ in range(10)]:
        value(job)
    files, threads, memory = process.num_fds(), process.num_threads(), process.memory_full_info().uss
    zygote = zygote_of(solo)
    zygote_files = zygote.num_fds()
    queued = [run(say_pid) for _ in range(ROUNDS)]
    pids = [value(job, 300) for job in queued]
    assert ROUNDS == len(set(pids))
    eventually(lambda: jobs_of(solo) == [], 10)
    assert [zygote.pid] == [one.pid for one in family(solo)]
    assert zygote_files == zygote.num_fds()
    assert process.num_fds() <= files + 10  # PySyft's pool of database connections may have grown
    assert process.num_threads() <= threads + 10
    assert process.memory_full_info().uss < memory + 64 * MEGABYTE


def test_a_datasite_that_ends_takes_its_jobs_along(tmp_path: Path) -> None:
    """By SIGKILL: neither what forks the jobs nor a job outlives it by more than a moment."""
    with alone(tmp_path) as lone:
        lone.start()
        import syft as sy

        client = login(lone.state, lone.port)
        wrapped = sy.syft_function()(wait_for_file)
        client.code.request_code_execution(wrapped).approve(approve_nested=True)
        client.code.wait_for_file(place=f"{tmp_path}/never", blocking=False)
        eventually(lambda: jobs_of(lone))
        below = [one.pid for one in family(lone)]
        assert lone.end(signal.SIGKILL) == -signal.SIGKILL
        eventually(lambda: not [pid for pid in below if _lives(pid)], 10)


def _lives(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
