"""The table of changes to PySyft: what is replaced, overridden or borrowed, why, and what guards it. Data only.

A test checks that each target exists in the installed PySyft with the signature that stands here, and that nothing of
PySyft's is assigned to, in this package, that is not listed. ``python -m datasite_worker.pysyft.changes`` prints
docs/pysyft.md. Imports nothing of PySyft.
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
    BORROWED = "borrowed"  # called or read, though PySyft does not offer it to others


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
_TRAINING = "tests/real/test_training.py"
_PRELOAD = "tests/unit/test_preload.py"
_R, _W, _O, _B = Kind.REPLACED, Kind.WRAPPED, Kind.OVERRIDDEN, Kind.BORROWED
_SERIAL = "syft.serde.recursive_primitives"
_SERVER = "syft.server.server"
_ACTION = "syft.service.action.action_service"
_JOB = "syft.service.job.job_service.JobService"
_DATASITE = "syft.server.datasite.Datasite"

CHANGES = (
    # --- messages ---
    Change(
        _R, "syft.serde.recursive.rs_bytes2object", "(blob)", "decoding.install",
        "PySyft's decoder follows pointers without end and builds any type that a message names.", _WIRE,
    ),
    Change(
        _R, "syft.serde.recursive.rs_proto2object", "(proto)", "decoding.install",
        "The same decoder, for a message inside of a message.", _WIRE,
    ),
    Change(
        _R, "syft.serde.json_serde._deserialize_from_json_bytes", "(obj)", "decoding.install",
        "Rows of the database may hold PySyft's own machinery, which no message from outside may hold.", _WIRE,
    ),
    Change(
        _R, f"{_SERIAL}.get_deserialized_kv_pairs", "(blob)", "decoding.install",
        "Mappings are decoded under the same rules as all else.", _WIRE,
    ),
    Change(
        _R, f"{_SERIAL}.deserialize_iterable", "(iterable_type, blob)", "decoding.install",
        "Lists are decoded under the same rules as all else.", _WIRE,
    ),
    Change(
        _R, f"{_SERIAL}.deserialize_kv", "(mapping_type, blob)", "decoding.install",
        "Mappings are decoded under the same rules as all else.", _WIRE,
    ),
    Change(
        _R, "syft.types.syft_object_registry.SyftObjectRegistry.__object_serialization_registry__", "data",
        "decoding.install",
        "Decoders that look up names, or let a small message grow, are replaced by those of values.py.", _WIRE,
    ),
    Change(
        _O, "syft.client.api.SignedSyftAPICall.is_valid", "property", "envelope.CheckedCall",
        "The signature is checked before anything is decoded, and need not be checked again.", _WIRE,
    ),
    # --- who may call what ---
    Change(
        _O, f"{_DATASITE}.handle_api_call_with_unsigned_result",
        "(self, api_call, job_id=None, check_call_location=True)", "server.SettledDatasite",
        "PySyft looks at the caller's role for blocking calls alone, forwards calls, and hands out rows with keys.",
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
        "The caller's role, by the table of users.", _DOORS,
    ),
    Change(
        _B, "syft.service.service.ServiceConfigRegistry.get_registered_configs", "(cls)", "gate.pysyft_roles",
        "PySyft's own table of roles decides about users; ours adds those who have no account.", _DOORS,
    ),
    Change(
        _R, f"{_ACTION}.ActionService.execute", "(self, context, action)", "doors.close",
        "Anybody may run any method on private data with PySyft; some write files.", f"{_DATASETS}, {_DOORS}",
    ),
    Change(
        _R, "syft.service.blob_storage.service.BlobStorageService.allocate", "(self, context, obj)", "doors.close",
        "The sender chooses the ending of a file's name, and with it where the file lies.",
        "tests/unit/test_datasets_orders.py",
    ),
    Change(
        _R, "syft.types.blob_storage.BlobFile._upload_to_blobstorage_from_api", "(self, api)", "doors.close",
        "A file object that a client sends makes the datasite read the file of that name on its own disk.", _DOORS,
    ),
    Change(
        _R, "syft.service.api.api_service.APIService._call_in_jobs", "(self, context, method, path, *args, **kwargs)",
        "server.offer_status",
        "factory.status is answered at once instead of behind all trainings; guests may call nothing else.",
        "tests/real/test_endpoint.py",
    ),
    Change(
        _W, "syft.service.request.request_service.RequestService.submit",
        "(self, context, request, send_message=True, reason='')", "approvals.Approvals",
        "Code that fleet.yaml lists is approved while it is asked for.", "tests/unit/test_approvals.py",
    ),
    Change(
        _B, "syft.service.code.user_code.parse_user_code",
        "(raw_code, func_name, original_func_name, function_input_kwargs)", "approvals",
        "Whether PySyft would run the very text whose hash is listed.", "tests/unit/test_approvals.py",
    ),
    # --- execution ---
    Change(
        _R, "syft.service.code.user_code.execute_byte_code", "(code_item, kwargs, context)", "containment.watch",
        "What runs is noted; sys.exit() and fork() in user code stay inside of its call.",
        f"tests/unit/test_containment.py, {_TRAINING}",
    ),
    Change(
        _R, f"{_ACTION}.execute_byte_code", "(code_item, kwargs, context)", "containment.watch, jobs.runner",
        "This module has imported the function by name. In a job it leaves the mocks alone.", f"{_TRAINING}, {_JOBS}",
    ),
    Change(
        _R, f"{_ACTION}.filter_twin_kwargs", "(kwargs, twin_mode, allow_python_types=False)", "jobs.runner",
        "PySyft runs a function on the mocks too: a training would take twice its time.", _JOBS,
    ),
    Change(
        _R, "syft.service.context.AuthedServiceContext.job", "property", "jobs.runner",
        "PySyft reads the job from the database at every turn of running it.", _JOBS,
    ),
    # --- jobs ---
    Change(
        _O, f"{_DATASITE}.init_queue_manager", "(self, queue_config)", "server.SettledDatasite",
        "PySyft's queue listens on every interface, without authentication, and writes the database each second.",
        f"tests/real/test_alone.py, {_JOBS}",
    ),
    Change(
        _O, f"{_DATASITE}.add_consumer_for_service",
        "(self, service_name, syft_worker_id, address, message_handler=APICallMessageHandler)",
        "server.SettledDatasite", "PySyft's pools of workers stay for clients to see; nothing consumes for them.",
        _JOBS,
    ),
    Change(
        _O, f"{_DATASITE}.add_api_call_to_queue", "(self, api_call, parent_job_id=None)", "server.SettledDatasite",
        "A client whose first call after a restart is queued is unknown to PySyft.", _JOBS,
    ),
    Change(
        _W, "syft.service.queue.queue_stash.QueueStash.set_placeholder",
        "(self, credentials, item, add_permissions=None)", "jobs.shared_database.on_arrival",
        "The queue of jobs is told of arrivals, instead of asking the database each second.",
        f"tests/unit/test_job_queue.py, {_JOBS}",
    ),
    Change(
        _R, f"{_JOB}._kill", "(self, context, job)", "jobs.requests.reach",
        "PySyft marks the job, and waits for a thread of the job to look at the mark.", _JOBS,
    ),
    Change(
        _R, f"{_JOB}.kill", "(self, context, id)", "jobs.requests.reach",
        "PySyft has no way to take back a job that waits.", _JOBS,
    ),
    Change(
        _R, f"{_JOB}.restart", "(self, context, uid)", "jobs.requests.reach",
        "PySyft fails half-way through it, and leaves a finished job as one that has yet to begin.", _JOBS,
    ),
    Change(
        _B, "syft.service.queue.zmq_producer.ZMQProducer.contains_unresolved_action_objects",
        "(self, arg, recursion=0)", "jobs.inputs", "PySyft's own rule of which jobs can run.",
        "tests/unit/test_job_inputs.py",
    ),
    Change(
        _B, "syft.service.queue.queue.handle_message_multiprocessing", "(worker_settings, queue_item, credentials)",
        "jobs.runner", "Not called: jobs.runner does what it does, without its sleeps and its thread.", _JOBS,
    ),
    Change(
        _B, f"{_SERVER}.create_default_worker_pool", "(server)", "server.SettledDatasite",
        "Clients look for the pool before they queue a job.", _JOBS,
    ),
    Change(
        _B, f"{_SERVER}.AuthServerContextRegistry.set_server_context", "(cls, server_uid, context, user_verify_key)",
        "server, jobs.runner", "PySyft finds the caller of a job there.", _JOBS,
    ),
    # --- datasets ---
    Change(
        _B, f"{_ACTION}.ActionService._set",
        "(self, context, action_object, has_result_read_permission=False, add_storage_permission=True, "
        "ignore_detached_objs=False)",
        "datasets", "An asset's data is replaced under the id that it has.", _DATASETS,
    ),
    Change(
        _B, "syft.types.twin_object.TwinObject._save_to_blob_storage", "(self, allow_empty=False)", "datasets",
        "Large data goes into files, as a client's upload does.", _DATASETS,
    ),
    # --- the process ---
    Change(
        _O, f"{_DATASITE}.set_log_level", "(self, log_level)", "server.SettledDatasite",
        "A change of level walks through all loggers: pages that workers would share are written to.", _PRELOAD,
    ),
    Change(
        _O, f"{_DATASITE}.get_temp_dir", "(self, dir_name='')", "rehearsal",
        "The rehearsal keeps its database in memory, and touches no disk.", _PRELOAD,
    ),
    Change(
        _B, "syft.protocol.data_protocol.get_data_protocol", "(raise_exception=False)", "rehearsal.prepare",
        "The protocol's history is read once for all workers.", _PRELOAD,
    ),
    Change(
        _B, f"{_SERVER}.AuthServerContextRegistry.__server_context_registry__", "data", "server.withdraw",
        "Nothing of a rehearsed server stays.", _PRELOAD,
    ),
    Change(
        _B, f"{_SERVER}.CODE_RELOADER", "data", "server.withdraw, decoding",
        "Nothing of a rehearsed server stays; and a policy that was approved is loaded when a message names it.",
        f"{_PRELOAD}, {_WIRE}",
    ),
)  # fmt: skip
"""By what they are about, in the order of the page."""

_PAGE = """\
# Changes to PySyft

PySyft 0.9.5 is the last of its line. What is wrong with it for this use is mended in one package,
`datasite_worker/pysyft/`. Nothing else of a datasite imports PySyft, and an import contract holds that. The rest asks
for the operations that `datasite_worker/engine.py` names: open a datasite, create its admin, approve code, serve, keep
jobs and datasets, run a job. Another engine would implement the same operations.

This page is made from `datasite_worker/pysyft/changes.py`; to renew it, run
`python -m datasite_worker.pysyft.changes > docs/pysyft.md`. `tests/unit/test_pysyft_changes.py` checks that each target
still exists with the signature given here, that nothing else of PySyft's is assigned to, and that this page is current.
docs/security.md says what the changes to who may call what are for.

- *replaced*: in PySyft's own module or class, for the whole process
- *wrapped*: on one object, the server that the process hosts or what belongs to it
- *overridden*: in a subclass
- *borrowed*: called or read, although PySyft does not offer it to others

| PySyft's | how | by | why | guarded by |
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
