"""The jobs at datasites, as their owner sees them: ``python -m central.client.jobs``, which ``fleet jobs`` becomes.

Reads what to do from standard input, as JSON, because it holds logins. Lists and cancels; asks for no training.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from syft.service.job.job_stash import JobStatus
from syft.types.uid import UID

from central.client import transport
from central.client.connection import Connection
from central.client.datasite_client import assets_of
from central.client.errors import ClientError

OK, NOT_DONE, WRONG_USE = 0, 1, 2
_LIVING = {JobStatus.CREATED: "queued", JobStatus.PROCESSING: "running", JobStatus.TERMINATING: "ending"}
_COLUMNS = ("id", "datasite", "state", "since", "who", "function", "dataset", "progress")


@dataclass(frozen=True, slots=True)
class Job:
    """A job that waits or runs. ``since``: when it was queued, or when it began."""

    id: str
    datasite: str
    state: str
    since: str
    who: str = ""
    function: str = ""
    dataset: str = ""
    progress: str = ""


def living(connection: Connection, datasite: str) -> list[Job]:
    """The jobs that wait or run there, the oldest first. Raises ClientError."""
    found = [one for one in connection.call("job.get_all") if one.status in _LIVING and not one.resolved]
    people = {one.id: one.email for one in connection.call("user.get_all")} if found else {}
    names = {one.action_id: each.name for each in connection.call("dataset.get_all") for one in each.asset_list}
    jobs = [_job(connection, one, datasite, people, names) for one in found]
    return sorted(jobs, key=lambda one: (one.state != "running", one.since))


def _job(connection: Connection, one: Any, datasite: str, people: Mapping[Any, str], names: Mapping[Any, str]) -> Job:
    code = connection.call("code.get_by_id", uid=one.user_code_id) if one.user_code_id else None
    read = () if code is None else dict.fromkeys(names[asset] for asset in assets_of(code) if asset in names)
    return Job(
        one.id.no_dash,
        datasite,
        _LIVING[one.status],
        _moment(one),
        people.get(one.requested_by, ""),
        "" if code is None else code.service_func_name,
        ", ".join(read),
        f"{one.current_iter or 0}/{one.n_iters}" if one.n_iters else "",
    )


def _moment(one: Any) -> str:
    if one.status is not JobStatus.CREATED and one.updated_at is not None:
        return datetime.fromtimestamp(one.updated_at.utc_timestamp, UTC).isoformat(timespec="seconds")
    return datetime.fromisoformat(one.creation_time).isoformat(timespec="seconds")


def cancel(connection: Connection, job_id: str) -> bool:
    """End this job; False if there is none of that id. Raises ClientError, also when it has ended."""
    known = {one.id.no_dash: one for one in connection.call("job.get_all")}
    if job_id not in known:
        return False
    connection.ask(known[job_id].kill)
    return True


def table(jobs: Iterable[Job]) -> str:
    rows = [_COLUMNS, *(tuple(asdict(job)[column] for column in _COLUMNS) for job in jobs)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def main() -> int:
    """Exit codes: 0; 1 if a datasite does not answer, or there is no such job; 2 for an id that is none."""
    logging.getLogger("syft").setLevel(logging.CRITICAL)
    plan = json.loads(sys.stdin.buffer.read())
    if plan["cancel"]:
        return _cancelled(plan)
    jobs, code = [], OK
    for where in plan["lines"]:
        try:
            jobs += living(_connection(where), where["name"])
        except ClientError as error:
            code = _complain(f"{where['name']}: {error}")
    if plan["as_json"]:
        print(json.dumps({"jobs": [asdict(job) for job in jobs]}))
    else:
        print(_clean(table(jobs)) if jobs else "no job waits or runs")
    return code


def _cancelled(plan: Mapping[str, Any]) -> int:
    wanted = plan["cancel"]
    try:
        job_id = UID.from_string(wanted).no_dash
    except ValueError:
        return _complain(f"{wanted!r} is not the id of a job; `fleet jobs` lists them", WRONG_USE)
    code = OK
    for where in plan["lines"]:
        try:
            if cancel(_connection(where), job_id):
                print(f"{where['name']}: cancelled {job_id}")
                return OK
        except ClientError as error:
            code = _complain(f"{where['name']}: {error}")
    return code or _complain(f"no datasite has a job {job_id}; `fleet jobs` lists those that wait or run")


def _connection(where: Mapping[str, Any]) -> Connection:
    session = transport.session(None, None, 30.0)
    url = transport.parsed(where["url"], where["port"])
    return Connection(url, where["email"], where["password"], session, 2.0)


def _complain(text: str, code: int = NOT_DONE) -> int:
    print(_clean(f"Error: {text}"), file=sys.stderr)
    return code


def _clean(text: str) -> str:
    """Names at a datasite are foreign text, and a terminal obeys control characters."""
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)


if __name__ == "__main__":
    sys.exit(main())
