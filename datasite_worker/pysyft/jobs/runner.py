"""One queued job, in its own process: makes PySyft's server over the datasite's stores, runs the job, keeps the result.

It replaces PySyft's ``handle_message_multiprocessing``, without its sleeps and without its thread that checks every
five seconds whether to end the job: here the zygote ends jobs at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from importlib import import_module
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import setproctitle
from nacl.signing import SigningKey
from syft.server.credentials import SyftSigningKey
from syft.server.server import AuthServerContextRegistry, Server
from syft.service.action import action_service
from syft.service.action.action_object import TwinMode
from syft.service.code.user_code import UserCodeExecutionOutput
from syft.service.context import AuthedServiceContext
from syft.service.job.job_stash import Job, JobStatus
from syft.service.notification.email_templates import FailedJobTemplate
from syft.service.notification.notification_service import CreateNotification
from syft.service.notifier.notifier_enums import NOTIFIERS
from syft.service.policy.policy import UserPolicy
from syft.service.queue.queue_service import QueueService
from syft.service.queue.queue_stash import QueueItem, Status
from syft.service.response import SyftError
from syft.store.linked_obj import LinkedObject
from syft.types.datetime import DateTime
from syft.types.errors import SyftException
from syft.types.uid import UID

from datasite_worker import training_bounds
from datasite_worker.approvals import Record
from datasite_worker.credentials import identity
from datasite_worker.jobs.errand import Errand
from datasite_worker.means import chance, gpu, threads
from datasite_worker.pysyft import doors, durability, gate, guard, logs, wholeness
from datasite_worker.pysyft.containment import contained
from datasite_worker.pysyft.jobs import shared_database
from datasite_worker.pysyft.jobs.printing import Writer
from fleet_common import folders
from fleet_common.logs import FORMAT as LOG_FORMAT

logger = logging.getLogger(__name__)

_LOG_PATIENCE = 5.0


def prepare(errand: dict[str, Any]) -> Server:
    """What all jobs of a datasite have in common: PySyft's server, made once in the zygote. Holds no connection: SQLite
    does not survive a fork with an open one. If it fails, it is called again."""
    told = Errand(**errand)
    doors.close()
    durability.of_files()
    wholeness.install()
    _append_to(told.log)
    with contextlib.suppress(ImportError):  # an optimizer would say so
        import_module("torch._dynamo")  # as the first optimizer would, in every job; a fleet's line was born with it
    threads.openblas()
    made = _server(told)
    try:
        made.queue_stash.get_by_status(made.verify_key, Status.ERRORED).unwrap()  # compiled statements are kept
    finally:
        made.db.engine.dispose()
    return made


def run(errand: dict[str, Any], server: Server, nudge: Callable[[], None]) -> None:
    """Run that job to its end. Call ``nudge`` when it has queued another job."""
    told = Errand(**errand)
    setproctitle.setproctitle(f"fleet: {told.datasite}, job {told.title}")
    chance.draw_afresh()
    threads.use(told.threads)
    gpu.limit_memory(told.gpu_memory_bytes)
    gpu.let_repeat()
    action_service.execute_byte_code = contained(action_service.execute_byte_code)
    guard.set_up(server, Record(Path(told.state_dir)), training_bounds.kept(Path(told.state_dir)))
    _leave_mocks_alone()
    _share_no_connection(server)
    shared_database.on_arrival(server, lambda _item: nudge())
    perform(server, server.queue_stash.get_by_uid(server.verify_key, UID.from_string(told.item)).unwrap())


def _share_no_connection(server: Any) -> None:
    """A child that a function forks writes to the database where it prints or raises. It opens a connection for that,
    and keeps its parent's unused: closing one is a use of it."""
    engine, parents = server.db.engine, []

    def let_go() -> None:
        parents.append(engine.pool)
        engine.dispose(close=False)

    os.register_at_fork(after_in_child=let_go)


def _append_to(log: str) -> None:
    """The datasite turns its log over when it is full. Who writes to it beside the datasite follows that, and must not
    turn it over too."""
    ours = logging.getLogger(__name__.partition(".")[0])
    for one in [one for one in ours.handlers if isinstance(one, RotatingFileHandler | folders.FollowedLog)]:
        ours.removeHandler(one)
        one.close()
    if log:
        handler = folders.FollowedLog(log, encoding="utf-8")
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        ours.handlers.append(handler)
        ours.setLevel(min(ours.level or logging.INFO, logging.INFO))
    ours.propagate = False
    logs.follow(ours)  # PySyft's errors too: what user code raised, for the owner


_NO_MOCK = "not computed: a queued job runs on the data only, not on the mock"


def _leave_mocks_alone() -> None:
    """PySyft runs a function on the data, and then again on the mock, to have a mock of the result: a training would
    take twice its time, and fail where nothing can be learned from the mock. A policy of the user's own may look into
    that result, and gets it."""
    filtered, run_code = action_service.filter_twin_kwargs, action_service.execute_byte_code
    mocks: list[Any] = []

    def filter_twin_kwargs(kwargs: Any, twin_mode: TwinMode, **how: Any) -> Any:
        found = filtered(kwargs, twin_mode=twin_mode, **how)
        if twin_mode is TwinMode.MOCK:
            mocks.append(found.unwrap())
        return found

    def execute_byte_code(code_item: Any, kwargs: Any, context: Any) -> Any:
        if not any(kwargs is one for one in mocks) or isinstance(code_item.output_policy_type, UserPolicy):
            return run_code(code_item, kwargs, context)
        return UserCodeExecutionOutput(user_code_id=code_item.id, stdout="", stderr="", result=_NO_MOCK)

    action_service.filter_twin_kwargs, action_service.execute_byte_code = filter_twin_kwargs, execute_byte_code


def _server(told: Errand) -> Server:
    """PySyft's server as a job sees it: the same stores and identity, no queue, no migration, no HTTP."""
    who = identity(Path(told.state_dir))
    os.environ["SYFT_TEMP_ROOT"] = str(Path(told.state_dir) / "syft")
    made = Server(
        name=told.datasite,
        id=UID.from_string(who.uid),
        signing_key=SyftSigningKey(signing_key=SigningKey(bytes.fromhex(who.signing_key))),
        root_email=who.root_email,
        root_username="fleet",
        root_password=who.root_password,
        is_subprocess=True,
        migrate=False,
        dev_mode=told.dev_mode,
    )
    durability.of_database(made)
    return made


def perform(server: Any, item: QueueItem) -> None:
    """Run the job of ``item``. Afterwards both are resolved, unless the job ended this process."""
    job = _begin(server, item)
    try:
        with Writer(server, job).at_work():
            result, status, job_status = _call(server, item), Status.COMPLETED, JobStatus.COMPLETED
    except Exception as error:  # noqa: BLE001 - whatever user code raised is the job's result
        logger.info("job %s failed: %s", item.job_id, error)
        _notify(server, item)
        message = error.public_message if isinstance(error, SyftException) else str(error)
        result, status, job_status = SyftError(message=message), Status.ERRORED, JobStatus.ERRORED
    _end(server, item, result, status, job_status)


def _begin(server: Any, item: QueueItem) -> Job:
    """The mark on the job is what says that it has begun, and that it must not begin again; the item in the queue is
    touched at its end only."""
    job = server.job_stash.get_by_uid(server.verify_key, item.job_id).unwrap()
    if job.status is not JobStatus.CREATED:
        raise RuntimeError(
            f"job {job.id} is {job.status.value}: it has already started once, and a job does not run twice"
        )
    _wait_for_log(server, job.log_id)
    job.status, job.server_uid = JobStatus.PROCESSING, server.id
    job.job_pid, job.updated_at = os.getpid(), DateTime.now()
    server.job_stash.update(server.verify_key, job).unwrap()
    _keep_at_hand(job)
    return job


def _keep_at_hand(job: Job) -> None:
    """PySyft reads the job from the database again at each step; this process has only one job."""
    from_store = AuthedServiceContext.job.fget
    AuthedServiceContext.job = property(lambda context: job if context.job_id == job.id else from_store(context))


def _wait_for_log(server: Any, log_id: UID) -> None:
    """PySyft stores a job's log after the job itself, and a function that prints before that fails."""
    give_up = time.monotonic() + _LOG_PATIENCE
    while not server.services.log.stash.exists(server.verify_key, log_id) and time.monotonic() < give_up:
        time.sleep(0.01)


def _call(server: Any, item: QueueItem) -> Any:
    credentials = item.syft_client_verify_key
    role = server.get_role_for_credentials(credentials=credentials)
    if why := gate.job_refusal(type(item).__name__, item.method, role.name, gate.pysyft_roles()):
        raise SyftException(public_message=f"This datasite does not run the job: {why}")
    context = AuthedServiceContext(
        server=server,
        credentials=credentials,
        role=role,
        job_id=item.job_id,
        has_execute_permissions=item.has_execute_permissions,
    )
    AuthServerContextRegistry.set_server_context(server_uid=server.id, context=context, user_verify_key=credentials)
    service = server.get_service("userservice" if item.service == "user" else item.service)
    return getattr(service, item.method)(context, *item.args, **item.kwargs)


def _notify(server: Any, item: QueueItem) -> None:
    """Notify the user who queued it, as PySyft's own queue does."""
    context = AuthedServiceContext(server=server, credentials=server.verify_key)
    message = CreateNotification(
        subject=f"Job {item.job_id} failed!",
        from_user_verify_key=server.verify_key,
        to_user_verify_key=item.syft_client_verify_key,
        linked_obj=LinkedObject.with_context(item, context=context, service_type=QueueService),
        notifier_types=[NOTIFIERS.EMAIL],
        email_template=FailedJobTemplate,
    )
    try:
        server.services.notification.send(context=context, notification=message)
    except SyftException:
        logger.warning("cannot notify the user that job %s failed", item.job_id, exc_info=True)


def _end(server: Any, item: QueueItem, result: Any, status: Status, job_status: JobStatus) -> None:
    """Reads the job again, because its function may have counted iterations. Stores it first, because clients wait for
    it."""
    job = server.job_stash.get_by_uid(server.verify_key, item.job_id).unwrap()
    job.result, job.resolved, job.status = result, True, job_status
    server.job_stash.update(server.verify_key, job).unwrap()
    item.result, item.resolved, item.status = result, True, status
    server.queue_stash.update(server.verify_key, item).unwrap()
