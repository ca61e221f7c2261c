"""``fleet jobs`` at the centre's end: which jobs are listed, what of them, and which is cancelled."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from syft.service.job.job_stash import JobStatus
from syft.service.policy.policy import Matches
from syft.types.datetime import DateTime
from syft.types.uid import UID

from central.client import jobs
from central.client.errors import ClientError, Unreachable

pytestmark = pytest.mark.process

WHO, CODE, ASSET = UID(), UID(), UID()
OWNER = {"name": "alpha", "url": "http://127.0.0.1", "port": 1, "email": "a@example.com", "password": "secret"}


@dataclass
class Kept:
    """A job as PySyft keeps it."""

    status: JobStatus
    resolved: bool = False
    id: UID = field(default_factory=UID)
    creation_time: str = "2026-11-28 06:00:00.123456+00:00"
    updated_at: DateTime | None = None
    requested_by: UID = WHO
    user_code_id: UID | None = CODE
    current_iter: int | None = None
    n_iters: int | None = 0
    kills: int = 0

    def kill(self) -> None:
        self.kills += 1


class Site:
    """A connection to a datasite with these jobs."""

    def __init__(self, *kept: Kept) -> None:
        self.kept = list(kept)

    def ask(self, request: Any) -> Any:
        return request()

    def call(self, path: str, **_: Any) -> Any:
        rule = Matches.model_construct(val=ASSET)
        code = SimpleNamespace(service_func_name="train_wear", input_policy_init_kwargs={"alpha": {"data": rule}})
        asset = SimpleNamespace(action_id=ASSET)
        return {
            "job.get_all": self.kept,
            "user.get_all": [SimpleNamespace(id=WHO, email="s@centre.example.com")],
            "dataset.get_all": [SimpleNamespace(name="vibration", asset_list=[asset])],
            "code.get_by_id": code,
        }[path]


RUNNING = Kept(JobStatus.PROCESSING, updated_at=DateTime(utc_timestamp=1795845600.0), current_iter=3, n_iters=10)
QUEUED = Kept(JobStatus.CREATED, user_code_id=None)
DONE = Kept(JobStatus.COMPLETED, resolved=True)


def test_what_waits_and_what_runs_is_listed() -> None:
    """Since when, who asked, the function, the dataset it reads, and how far it is; what has ended is not."""
    running, queued = jobs.living(Site(QUEUED, DONE, RUNNING), "alpha")  # type: ignore[arg-type]
    assert (
        jobs.Job(
            RUNNING.id.no_dash,
            "alpha",
            "running",
            "2026-11-28T06:00:00+00:00",
            "s@centre.example.com",
            "train_wear",
            "vibration",
            "3/10",
        )
        == running
    )
    assert ("queued", "2026-11-28T06:00:00+00:00", "", "", "") == (
        queued.state,
        queued.since,
        queued.function,
        queued.dataset,
        queued.progress,
    )
    head, first, _ = jobs.table([running, queued]).splitlines()
    assert list(jobs._COLUMNS) == head.split()
    assert ["alpha", "running"] == first.split()[1:3]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the program over these sites: its exit code, standard output and standard error."""

    def run(sites: dict[str, Any], cancel: str = "", as_json: bool = False) -> tuple[int, str, str]:
        def connecting(where: Any) -> Any:
            if isinstance(sites[where["name"]], ClientError):
                raise sites[where["name"]]
            return sites[where["name"]]

        plan = {"lines": [{**OWNER, "name": name} for name in sites], "cancel": cancel, "as_json": as_json}
        monkeypatch.setattr(jobs, "_connection", connecting)
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(json.dumps(plan).encode())))
        code = jobs.main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_datasite_that_is_down_does_not_hide_the_others(told: Any) -> None:
    """It is named on standard error, and the exit code is 1."""
    code, out, err = told({"alpha": Unreachable("away"), "beta": Site(QUEUED)}, as_json=True)
    assert (1, "Error: alpha: away\n") == (code, err)
    assert [(QUEUED.id.no_dash, "beta")] == [(job["id"], job["datasite"]) for job in json.loads(out)["jobs"]]
    assert (0, "no job waits or runs\n", "") == told({"alpha": Site(DONE)})


def test_a_job_is_cancelled_wherever_it_is(told: Any) -> None:
    """By its id; one that nobody has, and a word that is no id, are told."""
    other, meant = Kept(JobStatus.CREATED), Kept(JobStatus.PROCESSING)
    alpha, beta, wanted = Site(other), Site(meant), meant.id.no_dash
    assert (0, f"beta: cancelled {wanted}\n", "") == told({"alpha": alpha, "beta": beta}, wanted)
    assert (0, 1) == (other.kills, meant.kills)
    code, _, err = told({"alpha": alpha}, wanted)
    assert (1, f"Error: no datasite has a job {wanted}; `fleet jobs` lists those that wait or run\n") == (code, err)
    code, _, err = told({"alpha": alpha}, "train")
    assert (2, "Error: 'train' is not the id of a job; `fleet jobs` lists them\n") == (code, err)
