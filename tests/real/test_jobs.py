"""Queued jobs in processes of their own: how many at once, in which order, and that the death of one harms nobody."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import psutil
import pytest
from syft.service.job.job_stash import JobStatus
from syft.types.errors import SyftException

from tests.real.harness import Alone, alone, answers, eventually, login

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


def draw():  # type: ignore[no-untyped-def]  # noqa: ANN201 - PySyft ships its source
    import numpy
    import torch

    return [numpy.random.random(), torch.rand(1, dtype=torch.float64).item()]


def leave():  # type: ignore[no-untyped-def]  # noqa: ANN201 - PySyft ships its source
    import os

    os._exit(7)


def fork_and_wait(place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    import os
    import pathlib
    import select
    import signal
    import subprocess

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    child = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, env={})
    pathlib.Path(place).write_text(str(child.pid))
    select.select([], [], [], 600)


def misbehave(how):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, C901 - shipped by PySyft; one of many ways
    import os
    import signal
    import sys
    import threading

    if how == "exit":
        sys.exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "base":
        raise BaseException("no error")  # noqa: TRY002 - what nobody expects
    if how == "unserialisable":
        return threading.Lock()
    if how == "fork and print":
        children = []
        for _ in range(3):
            children.append(os.fork())
            if children[-1] == 0:
                for number in range(5):
                    print("child", number)  # noqa: T201 - that is the point
                return "the child's"
        print("parent")  # noqa: T201 - that is the point
        return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    if how in ("fork and return", "fork and raise"):
        child = os.fork()
        if child == 0 and how == "fork and raise":
            raise ValueError("in the child")
        if child == 0:
            return "the child's"
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if how == "close":
        for number in (0, 1, 2):
            os.close(number)
    if how == "threads":
        threading.Thread(target=threading.Event().wait, args=(600,)).start()
    if how == "process":
        os.chdir("/")
        os.umask(0)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if how == "print":
        print("x" * 100_000_000)  # noqa: T201 - that is the point
    return how


def print_and_wait(lines):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    import os
    import select

    for number in range(lines):
        print("line", number)  # noqa: T201 - that is the point
    if lines:
        select.select([], [], [], 600)
    child = os.fork()
    if child == 0:
        print("the child's")  # noqa: T201 - that is the point
        os._exit(0)
    os.waitpid(child, 0)
    print("the end")  # noqa: T201 - that is the point
    return "done"


def add_one(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    return x + 1


def launch_two(datasite, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    import select

    datasite.launch_job(add_one, x=1)
    datasite.launch_job(wait_for_file, place=place)
    select.select([], [], [], 600)


def threads_here(place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    import os
    import pathlib
    import select

    import torch

    while not pathlib.Path(place).exists():
        select.select([], [], [], 0.05)
    return [torch.get_num_threads(), int(os.environ["OMP_NUM_THREADS"]), int(os.environ["MKL_NUM_THREADS"])]


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


def test_no_two_jobs_draw_the_same_random_numbers(run: Callable[..., Any], client: Any) -> None:
    """Though they are forked from one process; nor does the datasite draw them."""
    drawn = [value(job) for job in [run(draw) for _ in range(3)]] + [client.code.draw().get() for _ in range(2)]
    assert 10 == len({number for numbers in drawn for number in numbers})


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
    assert "interrupted: its process was killed by SIGKILL" == killed.wait(timeout=30).message
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


def test_a_job_is_killed_once_and_may_wait_for_that(solo: Alone, run: Callable[..., Any], tmp_path: Path) -> None:
    """What waits is taken back with its cause and never runs; what has ended is said not to run."""
    ahead = [run(wait_for_file, place=f"{tmp_path}/go") for _ in range(3)]
    eventually(lambda: len(jobs_of(solo)) == 3)
    waiting = run(wait_for_file, place=f"{tmp_path}/never")
    assert JobStatus.CREATED is waiting.fetched_status
    waiting.kill()
    assert (JobStatus.INTERRUPTED, "interrupted: killed on request") == (waiting.status, waiting.result.message)
    assert "Job is not running" in waiting.kill().message
    (tmp_path / "go").touch()
    assert ["seen"] * 3 == [value(job) for job in ahead]
    eventually(lambda: jobs_of(solo) == [], 10)


def test_a_job_waits_for_anothers_result(solo: Alone, run: Callable[..., Any], tmp_path: Path) -> None:
    """It runs when the value is there; is told when it will never be; and holds up no other meanwhile."""
    first = run(wait_for_file, place=f"{tmp_path}/go")
    eventually(lambda: first.fetched_status is JobStatus.PROCESSING)
    second = run(wait_for_file, place=first.result)
    assert isinstance(value(run(say_pid)), int)
    assert JobStatus.CREATED is second.fetched_status
    Path(solo.state / "work" / "seen").touch()
    (tmp_path / "go").touch()
    assert "seen" == value(second)

    doomed = run(wait_for_file, place=f"{tmp_path}/never")
    after = run(wait_for_file, place=doomed.result)
    last = run(wait_for_file, place=after.result)
    eventually(lambda: doomed.fetched_status is JobStatus.PROCESSING)
    doomed.kill()
    said = "interrupted: it needs the result of a job that ended without one"
    assert [said, said] == [job.wait(timeout=30).message for job in (after, last)]


@pytest.mark.parametrize("how", ["exit", "interrupt", "base"])
def test_a_function_that_ends_like_a_program_has_failed(
    solo: Alone, client: Any, run: Callable[..., Any], how: str
) -> None:
    """``sys.exit`` and its like: an error as any other for the caller, queued or not, and the datasite serves on."""
    assert solo.process is not None
    job = run(misbehave, how=how)
    assert "Exception encountered while running misbehave" in job.wait(timeout=60).message
    assert JobStatus.ERRORED is job.fetched_status
    with pytest.raises(SyftException, match="Exception encountered while running misbehave"):
        client.code.misbehave(how=how)
    assert (solo.process.pid, []) == ((now := answers(solo.port) or {})["pid"], now["active_experiments"])


@pytest.mark.parametrize(
    ("how", "result"),
    [
        ("fork and return", 0),
        ("fork and raise", 1),
        ("fork and print", 0),
        ("close", "close"),
        ("threads", "threads"),
        ("process", "process"),
    ],
)
def test_what_a_job_does_to_its_process_is_its_own_affair(
    solo: Alone, run: Callable[..., Any], how: str, result: object
) -> None:
    """Its standard files, folder, signals, threads, and children that come back into what runs the function."""
    job = run(misbehave, how=how)
    assert result == value(job)
    assert JobStatus.COMPLETED is job.fetched_status
    eventually(lambda: jobs_of(solo) == [], 10)


def test_a_result_that_cannot_be_stored_is_an_error(run: Callable[..., Any]) -> None:
    """Its caller is told of what type it was."""
    job = run(misbehave, how="unserialisable")
    assert "Failed to serialize data of type '_thread.lock'" in job.wait(timeout=60).message
    assert JobStatus.ERRORED is job.fetched_status


@pytest.mark.alone
def test_a_job_that_prints_a_hundred_megabytes(solo: Alone, run: Callable[..., Any]) -> None:
    """It completes, and the datasite answers within two seconds meanwhile."""
    import time

    job, longest = run(misbehave, how="print"), 0.0
    eventually(lambda: jobs_of(solo))
    while jobs_of(solo):
        began = time.monotonic()
        assert answers(solo.port) is not None
        longest = max(longest, time.monotonic() - began)
    assert "print" == value(job)
    assert longest < 2.0


def test_what_a_job_prints_is_all_in_its_log_whatever_ends_it(solo: Alone, run: Callable[..., Any]) -> None:
    """Two thousand lines cost a moment, not a minute; they are seen while the job runs, and stay when it is killed."""
    job = run(print_and_wait, lines=2000)
    eventually(lambda: job.logs(_print=False).count("\n") >= 2000, 20)
    jobs_of(solo)[0].send_signal(signal.SIGKILL)
    eventually(lambda: job.fetched_status is JobStatus.INTERRUPTED)
    assert [f"line {number}" for number in range(2000)] == job.logs(_print=False).split("\n")[:2000]
    last = run(print_and_wait, lines=0)
    assert "done" == value(last)
    assert "the child's\nthe end\n" in last.logs(_print=False)


def test_a_job_launches_jobs_and_takes_them_along(
    solo: Alone, client: Any, run: Callable[..., Any], tmp_path: Path
) -> None:
    """PySyft's ``datasite.launch_job``: they run beside it, and a kill of the one is a kill of all."""
    run(add_one, x=1).wait(timeout=60)
    (tmp_path / "go").touch()
    run(wait_for_file, place=f"{tmp_path}/go").wait(timeout=60)
    job = run(launch_two, place=f"{tmp_path}/never")
    eventually(lambda: len(jobs_of(solo)) == 2 and len(job.subjobs) == 2)
    quick, slow = sorted(job.subjobs, key=lambda one: one.fetched_status is not JobStatus.COMPLETED)
    assert 2 == value(quick)
    eventually(lambda: slow.fetched_status is JobStatus.PROCESSING)
    job.kill()
    assert [JobStatus.INTERRUPTED] * 2 == [one.fetched_status for one in (job, slow)]
    assert [] == jobs_of(solo)


def test_a_job_that_is_deleted_while_it_runs_is_gone(
    solo: Alone, client: Any, run: Callable[..., Any], tmp_path: Path
) -> None:
    """It is not run again, and the queue goes on."""
    job = run(wait_for_file, place=f"{tmp_path}/go")
    eventually(lambda: job.fetched_status is JobStatus.PROCESSING)
    client.api.services.job.delete(job.id)
    (tmp_path / "go").touch()
    eventually(lambda: jobs_of(solo) == [], 30)
    assert isinstance(value(run(say_pid)), int)
    assert f"job {job.id} was deleted" in solo.log()
    assert "stumbled" not in solo.log()


def test_a_job_is_not_restarted(run: Callable[..., Any]) -> None:
    """PySyft's own attempt would leave the finished job as one that is yet to begin."""
    job = run(say_pid)
    value(job)
    assert "This datasite does not restart jobs: call the function again." == job.restart().message
    assert JobStatus.COMPLETED is job.fetched_status


def test_jobs_share_the_threads_of_their_line(solo: Alone, run: Callable[..., Any], tmp_path: Path) -> None:
    """The first has all of them, the second half, the third a third; PyTorch, OpenMP and MKL are told the same."""
    import torch

    queued = []
    for number in range(3):
        queued.append(run(threads_here, place=f"{tmp_path}/go"))
        eventually(lambda: len(jobs_of(solo)) == number + 1)  # noqa: B023 - called at once
    (tmp_path / "go").touch()
    line = torch.get_num_threads()
    assert [[max(1, line // part)] * 3 for part in (1, 2, 3)] == [list(value(job)) for job in queued]


def test_nothing_listens_but_the_datasite_itself(solo: Alone, run: Callable[..., Any], tmp_path: Path) -> None:
    """While jobs run too: no port of a queue, and none on other interfaces than the one it was given."""
    assert solo.process is not None
    job = run(wait_for_file, place=f"{tmp_path}/go")
    eventually(lambda: jobs_of(solo))
    every = [psutil.Process(solo.process.pid), *family(solo)]
    listening = {
        one.laddr for process in every for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN
    }
    assert {("127.0.0.1", solo.port)} == listening
    (tmp_path / "go").touch()
    assert "seen" == value(job)


def test_what_a_job_started_goes_with_it(solo: Alone, run: Callable[..., Any], tmp_path: Path) -> None:
    """Even from a session of its own, and whatever signals they ignore: nothing of a killed job is left."""
    job = run(fork_and_wait, place=f"{tmp_path}/pid")
    child = started_by_job(tmp_path / "pid")
    eventually(lambda: job.fetched_status is JobStatus.PROCESSING)
    job.kill()
    eventually(lambda: not psutil.pid_exists(child), 10)


def started_by_job(told: Path) -> int:
    """The pid that ``fork_and_wait`` writes there."""
    return int(eventually(lambda: told.exists() and told.read_text()))


def test_jobs_go_on_after_the_death_of_what_forks_them(solo: Alone, run: Callable[..., Any], tmp_path: Path) -> None:
    """The running job dies with it and is marked, and what that had started is ended too; a new one takes its place at
    the next job."""
    cut_off = run(fork_and_wait, place=f"{tmp_path}/pid")
    child = started_by_job(tmp_path / "pid")
    (process,) = eventually(lambda: jobs_of(solo))
    zygote_of(solo).kill()
    assert "the process that forks jobs ended" in cut_off.wait(timeout=30).message
    assert [False, False] == [psutil.pid_exists(pid) for pid in (process.pid, child)]
    assert isinstance(value(run(say_pid)), int)


@pytest.mark.slow
def test_jobs_go_on_after_the_death_of_an_idle_zygote(solo: Alone, run: Callable[..., Any]) -> None:
    """Nothing runs when it dies, so that nothing but itself holds its channels open. Twice: the second is a fresh
    interpreter."""
    for _ in range(2):
        assert isinstance(value(run(say_pid)), int)
        eventually(lambda: jobs_of(solo) == [], 10)
        zygote = zygote_of(solo)
        zygote.kill()
        eventually(lambda: not psutil.pid_exists(zygote.pid), 10)  # noqa: B023 - called at once
    assert isinstance(value(run(say_pid)), int)


@pytest.mark.alone  # it looks at all shared memory of the machine
@pytest.mark.parametrize("rounds", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_many_jobs_leave_nothing_behind(solo: Alone, run: Callable[..., Any], rounds: int) -> None:
    """Three at a time, one after the other: all complete within five minutes, and of datasite and zygote neither files,
    threads, processes nor memory grow, nor what lies in the folders."""
    assert solo.process is not None
    for job in [run(say_pid) for _ in range(10)]:
        value(job)
    eventually(lambda: jobs_of(solo) == [], 10)
    site, zygote = psutil.Process(solo.process.pid), zygote_of(solo)
    before, files = (Held.by(site), Held.by(zygote)), leftovers(solo)
    queued = [run(say_pid) for _ in range(rounds)]
    pids = [value(job, 300) for job in queued]
    assert rounds == len(set(pids))
    eventually(lambda: jobs_of(solo) == [], 10)
    assert [zygote.pid] == [one.pid for one in family(solo)]
    after = (Held.by(site), Held.by(zygote))
    # A fresh one, which an earlier test made, has threads of libraries' own; one that was forked has none.
    assert (before[1].files, before[1].threads) == (after[1].files, after[1].threads)
    assert after[1].memory < before[1].memory + 16 * MEGABYTE
    assert after[0].files <= before[0].files + 10  # PySyft's pool of database connections may have grown
    assert after[0].threads <= before[0].threads + 10
    assert after[0].memory < before[0].memory + 64 * MEGABYTE
    assert files == leftovers(solo)


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    files: int
    threads: int
    memory: int

    @classmethod
    def by(cls, process: psutil.Process) -> Held:
        return cls(process.num_fds(), process.num_threads(), process.memory_full_info().uss)


def leftovers(solo: Alone) -> list[str]:
    """What jobs could leave on disk or in memory: all files of the datasite, and what any process here shares."""
    inside = [str(path) for path in sorted(solo.folder.rglob("*"))]
    return inside + sorted(str(path) for path in Path("/dev/shm").iterdir())


def test_what_waits_and_what_runs_when_the_datasite_dies(tmp_path: Path) -> None:
    """By SIGKILL: the three that ran are marked and not run again; the five that waited run, in their order."""
    with alone(tmp_path) as lone:
        lone.start()
        client = login(lone.state, lone.port)
        import syft as sy

        wrapped = sy.syft_function()(note_and_wait)
        client.code.request_code_execution(wrapped).approve(approve_nested=True)
        queued = [client.code.note_and_wait(name=f"{one}", place=str(tmp_path), blocking=False) for one in range(8)]
        notes = tmp_path / "notes"
        eventually(lambda: notes.exists() and len(notes.read_text().split()) == 3)
        eventually(lambda: [job.fetched_status for job in queued[:3]] == [JobStatus.PROCESSING] * 3)
        assert lone.end(signal.SIGKILL) == -signal.SIGKILL
        (tmp_path / "go").touch()
        lone.start()
        assert [3, 0] == [
            len((answers(lone.port) or {})["interrupted_jobs"]),
            (answers(lone.port) or {})["jobs_cut_off"],
        ]
        assert ["3", "4", "5", "6", "7"] == [value(job) for job in queued[3:]]
        said = "interrupted: the datasite restarted while this job ran; submit it again"
        assert [said] * 3 == [job.wait(timeout=5).message for job in queued[:3]]
        noted = notes.read_text().split()
        assert ({"0", "1", "2"}, 8) == (set(noted[:3]), len(noted))
        begun = [line.rpartition("job ")[2].split()[0] for line in lone.log().splitlines() if " runs as pid " in line]
        assert [str(job.id) for job in queued[3:]] == begun[3:]


def note_and_wait(name, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    import pathlib
    import select

    with open(f"{place}/notes", "a") as notes:
        notes.write(f"{name}\n")
    while not pathlib.Path(f"{place}/go").exists():
        select.select([], [], [], 0.05)
    return name


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_datasite_that_ends_takes_all_of_its_jobs_along(tmp_path: Path, number: signal.Signals) -> None:
    """Stopped or killed: neither what forks the jobs, nor a job that ignores every signal it may, nor what that started
    in a session of its own outlives it by more than a moment."""
    with alone(tmp_path) as lone:
        lone.start()
        import syft as sy

        client = login(lone.state, lone.port)
        wrapped = sy.syft_function()(fork_and_wait)
        client.code.request_code_execution(wrapped).approve(approve_nested=True)
        client.code.fork_and_wait(place=f"{tmp_path}/pid", blocking=False)
        child = started_by_job(tmp_path / "pid")
        below = [one.pid for one in family(lone)]
        assert child in below
        assert lone.end(number) == (0 if number is signal.SIGTERM else -number)
        eventually(lambda: not [pid for pid in below if _lives(pid)], 10)


def _lives(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
