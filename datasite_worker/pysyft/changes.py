"""The table of changes to PySyft: what is replaced, overridden or borrowed, why, and which tests check it. Data only.

A test checks that each target exists in the installed PySyft with the signature given here, and that this package
assigns to nothing else in PySyft. ``python -m datasite_worker.pysyft.changes`` prints docs/pysyft.md.
Imports nothing of PySyft.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a change is made."""

    REPLACED = "replaced"  # in PySyft's own module or class: for all of this process
    WRAPPED = "wrapped"  # on one object: the one server that this process hosts, and what belongs to it
    OVERRIDDEN = "overridden"  # in a subclass of ours
    BORROWED = "borrowed"  # called or read, although it is not part of PySyft's public API


@dataclass(frozen=True, slots=True)
class Change:
    """``target``: PySyft's dotted name. ``signature``: its parameters without types, or ``data``, or ``property``.
    ``by``: the module and function of this package. ``guard``: the tests that fail when the change does not hold."""

    kind: Kind
    target: str
    signature: str
    by: str
    why: str
    guard: str


_WIRE = "tests/unit/test_wire.py"
_DOORS = "tests/real/test_open_doors.py"
_JOBS = "tests/real/test_jobs.py"
_DATASETS = "tests/real/test_datasets.py"
_WHOLE = "tests/unit/test_datasets_store.py"
_TRAINING = "tests/real/test_training.py"
_CLIENT = "tests/real/test_client.py"
_PRELOAD = "tests/unit/test_preload.py"
_DURABILITY = "tests/unit/test_durability.py, tests/real/test_fleet.py"
_R, _W, _O, _B = Kind.REPLACED, Kind.WRAPPED, Kind.OVERRIDDEN, Kind.BORROWED
_SERIAL = "syft.serde.recursive_primitives"
_SERVER = "syft.server.server"
_ACTION = "syft.service.action.action_service"
_POLICY = "syft.service.policy.policy"
_JOB = "syft.service.job.job_service.JobService"
_DATASITE = "syft.server.datasite.Datasite"

CHANGES = (
    # --- messages ---
    Change(
        _R, "syft.serde.recursive.rs_bytes2object", "(blob)", "decoding.install",
        "PySyft's decoder follows pointers without a limit and builds any type that a message names.", _WIRE,
    ),
    Change(
        _R, "syft.serde.recursive.rs_proto2object", "(proto)", "decoding.install",
        "The same decoder, for a message inside a message.", _WIRE,
    ),
    Change(
        _R, "syft.serde.json_serde._deserialize_from_json_bytes", "(obj)", "decoding.install",
        "Rows of the database may contain PySyft's internal types. A message from outside may not.", _WIRE,
    ),
    Change(
        _R, f"{_SERIAL}.get_deserialized_kv_pairs", "(blob)", "decoding.install",
        "Mappings are decoded under the same rules as everything else.", _WIRE,
    ),
    Change(
        _R, f"{_SERIAL}.deserialize_iterable", "(iterable_type, blob)", "decoding.install",
        "Lists are decoded under the same rules as everything else.", _WIRE,
    ),
    Change(
        _R, f"{_SERIAL}.deserialize_kv", "(mapping_type, blob)", "decoding.install",
        "Mappings are decoded under the same rules as everything else.", _WIRE,
    ),
    Change(
        _R, "syft.types.syft_object_registry.SyftObjectRegistry.__object_serialization_registry__", "data",
        "decoding.install",
        "PySyft's decoders look up names, or let a small message grow large; those of values.py do not.", _WIRE,
    ),
    Change(
        _O, "syft.client.api.SignedSyftAPICall.is_valid", "property", "envelope.CheckedCall",
        "The signature is checked before anything is decoded, so PySyft does not check it again.", _WIRE,
    ),
    Change(
        _R, "syft.client.api.SyftAPICall.__repr__", "(self)", "bulk.install",
        "PySyft makes a text of each call for its log, which took half of the time of an upload.",
        "tests/unit/test_bulk.py",
    ),
    # --- who may call what ---
    Change(
        _O, f"{_DATASITE}.handle_api_call_with_unsigned_result",
        "(self, api_call, job_id=None, check_call_location=True)", "server.SettledDatasite",
        "PySyft checks the caller's role only for blocking calls, forwards calls, and returns rows with keys.",
        _DOORS,
    ),
    Change(
        _W, f"{_DATASITE}.handle_api_call_with_unsigned_result",
        "(self, api_call, job_id=None, check_call_location=True)", "uploads.guard",
        "Uploads are refused while the disk is nearly full, before PySyft touches its database.",
        "tests/unit/test_worker_limits.py, tests/real/test_limits.py",
    ),
    Change(
        _B, f"{_DATASITE}.get_role_for_credentials", "(self, credentials)", "routes, server, approvals, jobs.runner",
        "Gives the caller's role from the table of users.", _DOORS,
    ),
    Change(
        _B, "syft.service.service.ServiceConfigRegistry.get_registered_configs", "(cls)", "gate.pysyft_roles",
        "PySyft's table of roles decides what users may call; ours adds callers without an account.", _DOORS,
    ),
    Change(
        _R, f"{_ACTION}.ActionService.execute", "(self, context, action)", "doors.close",
        "PySyft lets everybody run any method on private data; some methods write files.", f"{_DATASETS}, {_DOORS}",
    ),
    Change(
        _R, "syft.service.blob_storage.service.BlobStorageService.allocate", "(self, context, obj)", "doors.close",
        "The sender chooses the extension of a file's name, and so can choose where the file is written.",
        "tests/unit/test_datasets_orders.py",
    ),
    Change(
        _R, "syft.types.blob_storage.BlobFile._upload_to_blobstorage_from_api", "(self, api)", "doors.close",
        "A file object from a client makes the datasite read the file of that name from its own disk.", _DOORS,
    ),
    Change(
        _R, "syft.service.api.api_service.APIService._call_in_jobs", "(self, context, method, path, *args, **kwargs)",
        "server.offer_status",
        "factory.status is answered at once, not after all waiting trainings; guests may call nothing else.",
        "tests/real/test_endpoint.py",
    ),
    Change(
        _W, "syft.service.request.request_service.RequestService.submit",
        "(self, context, request, send_message=True, reason='')", "approvals.Approvals",
        "Code that fleet.yaml lists for a dataset is approved when it is requested.", "tests/unit/test_approvals.py",
    ),
    Change(
        _B, "syft.service.code.user_code.parse_user_code",
        "(raw_code, func_name, original_func_name, function_input_kwargs)", "approvals",
        "Shows whether PySyft would run exactly the text whose hash is listed.", "tests/unit/test_approvals.py",
    ),
    # --- what is stored ---
    Change(
        _R, "syft.service.blob_storage.service.BlobStorageService.write_to_disk", "(self, context, uid, data)",
        "durability.of_files", "PySyft answers before the file is on the disk.", _DURABILITY,
    ),
    # --- execution ---
    Change(
        _R, "syft.service.code.user_code.execute_byte_code", "(code_item, kwargs, context)", "containment.watch",
        "Running functions are recorded; sys.exit() and fork() in user code do not end or copy the datasite.",
        f"tests/unit/test_containment.py, {_TRAINING}",
    ),
    Change(
        _R, f"{_ACTION}.execute_byte_code", "(code_item, kwargs, context)",
        "containment.watch, guard.set_up, jobs.runner",
        "This module imports the function by name. The limits of an approval are checked before it runs. In a job it "
        "does not run on the mocks.",
        f"{_TRAINING}, {_JOBS}, tests/unit/test_approvals.py",
    ),
    Change(
        _R, "syft.service.code.user_code.traceback_from_error", "(e, code)", "containment.contained",
        "The caller is told the kind of an error, and none of its text.", f"tests/unit/test_mishaps.py, {_CLIENT}",
    ),
    Change(
        _R, f"{_ACTION}.filter_twin_kwargs", "(kwargs, twin_mode, allow_python_types=False)",
        "guard.set_up, jobs.runner",
        "PySyft also runs a function on the mocks: a training would take twice as long, and count as two runs.", _JOBS,
    ),
    Change(
        _R, "syft.service.context.AuthedServiceContext.job", "property", "jobs.runner",
        "PySyft reads the job from the database again at each step.", _JOBS,
    ),
    # --- jobs ---
    Change(
        _W, "syft.service.log.log_service.LogService.append", "(self, context, uid, new_str='', new_err='')",
        "jobs.printing.Writer",
        "PySyft reads and writes the whole log of a job at each print, so 2,000 lines took a minute.",
        f"tests/unit/test_job_printing.py, {_JOBS}",
    ),
    Change(
        _O, f"{_DATASITE}.init_queue_manager", "(self, queue_config)", "server.SettledDatasite",
        "PySyft's queue listens on every interface without authentication, and writes to the database every second.",
        f"tests/real/test_alone.py, {_JOBS}",
    ),
    Change(
        _O, f"{_DATASITE}.add_consumer_for_service",
        "(self, service_name, syft_worker_id, address, message_handler=APICallMessageHandler)",
        "server.SettledDatasite", "PySyft's worker pools stay visible to clients, but start no consumers.",
        _JOBS,
    ),
    Change(
        _O, f"{_DATASITE}.add_api_call_to_queue", "(self, api_call, parent_job_id=None)", "server.SettledDatasite",
        "PySyft does not know a client whose first call after a restart is queued.", _JOBS,
    ),
    Change(
        _W, "syft.service.queue.queue_stash.QueueStash.set_placeholder",
        "(self, credentials, item, add_permissions=None)", "jobs.shared_database.on_arrival",
        "The job queue is told when a job arrives, so it does not poll the database.",
        f"tests/unit/test_job_queue.py, {_JOBS}",
    ),
    Change(
        _R, f"{_JOB}._kill", "(self, context, job)", "jobs.requests.reach",
        "PySyft only marks the job, and waits until a thread of the job reads the mark.", _JOBS,
    ),
    Change(
        _R, f"{_JOB}.kill", "(self, context, id)", "jobs.requests.reach",
        "PySyft cannot cancel a job that waits.", _JOBS,
    ),
    Change(
        _R, f"{_JOB}.restart", "(self, context, uid)", "jobs.requests.reach",
        "PySyft fails half-way, and then shows a finished job as not started.", _JOBS,
    ),
    Change(
        _B, "syft.service.queue.zmq_producer.ZMQProducer.contains_unresolved_action_objects",
        "(self, arg, recursion=0)", "jobs.inputs", "PySyft's rule for which jobs can run.",
        "tests/unit/test_job_inputs.py",
    ),
    Change(
        _B, "syft.service.queue.queue.handle_message_multiprocessing", "(worker_settings, queue_item, credentials)",
        "jobs.runner", "Not called. jobs.runner does the same without sleeps and an extra thread.", _JOBS,
    ),
    Change(
        _B, f"{_SERVER}.create_default_worker_pool", "(server)", "server.SettledDatasite",
        "Clients look up the pool before they queue a job.", _JOBS,
    ),
    Change(
        _B, f"{_SERVER}.AuthServerContextRegistry.set_server_context", "(cls, server_uid, context, user_verify_key)",
        "server, jobs.runner", "PySyft looks up the caller of a job there.", _JOBS,
    ),
    # --- datasets ---
    Change(
        _B, "syft.store.db.stash.ObjectStash.set",
        "(self, credentials, obj, add_permissions=None, add_storage_permission=True, ignore_duplicates=False, "
        "session=None, skip_check_type=False)",
        "datasets", "The assets of a dataset are written under their ids in one transaction.", f"{_WHOLE}, {_DATASETS}",
    ),
    Change(
        _B, "syft.store.db.stash.ObjectStash.update", "(self, credentials, obj, has_permission=False, session=None)",
        "datasets", "An asset's data is replaced under its existing id, with all others of its dataset.",
        f"{_WHOLE}, {_DATASETS}",
    ),
    Change(
        _R, f"{_POLICY}.retrieve_from_db", "(allowed_inputs, context)", "wholeness.install",
        "PySyft reads the inputs of a function one by one; a dataset may be replaced in between.", _WHOLE,
    ),
    Change(
        _R, f"{_ACTION}.retrieve_from_db", "(allowed_inputs, context)", "wholeness.install",
        "This module imports the function by name.", _WHOLE,
    ),
    Change(
        _R, f"{_POLICY}.MixedInputPolicy.filter_kwargs", "(self, kwargs, context)", "wholeness.install",
        "This policy reads the inputs itself.", _WHOLE,
    ),
    Change(
        _B, "syft.types.twin_object.TwinObject._save_to_blob_storage", "(self, allow_empty=False)", "datasets",
        "Large data is stored in files, like a client's upload.", _DATASETS,
    ),
    # --- the process ---
    Change(
        _O, f"{_DATASITE}.set_log_level", "(self, log_level)", "server.SettledDatasite",
        "A change of level visits all loggers, and so copies memory that workers would share.", _PRELOAD,
    ),
    Change(
        _O, f"{_DATASITE}.get_temp_dir", "(self, dir_name='')", "rehearsal",
        "The rehearsal keeps its database in memory and does not use the disk.", _PRELOAD,
    ),
    Change(
        _R, "sqlalchemy.exc.StatementError.__str__", "(self)", "plain_errors.install",
        "PySyft's database layer puts SQL, with its parameters, into its errors, and so into logs and answers.",
        "tests/unit/test_plain_errors.py",
    ),
    Change(
        _B, "syft.protocol.data_protocol.get_data_protocol", "(raise_exception=False)", "rehearsal.prepare",
        "The protocol's history is read once for all workers.", _PRELOAD,
    ),
    Change(
        _B, f"{_SERVER}.AuthServerContextRegistry.__server_context_registry__", "data", "server.withdraw",
        "Nothing of the rehearsal's server remains.", _PRELOAD,
    ),
    Change(
        _B, f"{_SERVER}.CODE_RELOADER", "data", "server.withdraw, decoding",
        "Nothing of the rehearsal's server remains; an approved policy is loaded when a message names it.",
        f"{_PRELOAD}, {_WIRE}",
    ),
)  # fmt: skip
"""Grouped by subject, in the order of the page."""

_PAGE = """\
# Changes to PySyft

PySyft 0.9.5 is the last release of PySyft. One package, `datasite_worker/pysyft/`, corrects what does not fit this use.
No other module of a datasite imports PySyft; an import contract checks this. The others use only the operations of
`datasite_worker/engine.py`: open a datasite, create its admin, approve code, serve, keep jobs and datasets, run a job.
Another engine would implement the same operations.

`datasite_worker/pysyft/imports.py` loads PySyft with stand-ins for the packages that it uses in notebooks, clouds and
Kubernetes only (IPython, ipywidgets, itables, azure, boto3, botocore, docker, kr8s). That saves a third of PySyft's
import time and 70 MB. User code that imports one of them gets the real package. `tests/unit/test_preload.py` tests it.

This page is generated from `datasite_worker/pysyft/changes.py`. To update it, run
`python -m datasite_worker.pysyft.changes > docs/pysyft.md`. `tests/unit/test_pysyft_changes.py` checks that each target
still exists with the signature given here, that the package assigns to nothing else in PySyft, and that this page is
current. docs/security.md explains the changes to who may call what.

- *replaced*: in PySyft's own module or class, for the whole process
- *wrapped*: on one object, the server that the process hosts or what belongs to it
- *overridden*: in a subclass
- *borrowed*: called or read, although it is not part of PySyft's public API

| in PySyft | how | by | why | tested by |
|---|---|---|---|---|
"""


def page() -> str:
    """docs/pysyft.md."""
    return _PAGE + "".join(_row(change) for change in CHANGES)


def _row(change: Change) -> str:
    parameters = change.signature if change.signature.startswith("(") else ""
    cells = (f"`{change.target}{parameters}`", change.kind, f"`{change.by}`", change.why, change.guard)
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
