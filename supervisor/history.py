"""Events, as frozen values: one ``Event`` for each change that somebody may ask about later.

``policy.chronicle`` makes them; ``effects.recorder`` keeps them; ``fleet events`` and hooks show them. Their JSON shape
is a promise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

FLEET = "fleet"
"""The name of events about the supervisor, or about the fleet as a whole."""


class EventKind(StrEnum):
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    STOPPING = "stopping"
    EXITED = "exited"
    DOWN = "down"
    BACKOFF = "backoff"
    QUARANTINED = "quarantined"
    ADOPTED = "adopted"
    REGISTERED = "registered"
    UNREGISTERED = "unregistered"
    JOBS_INTERRUPTED = "jobs_interrupted"
    DATASET_PUBLISHED = "dataset_published"
    DATASET_FAILED = "dataset_failed"
    GPU_LOST = "gpu_lost"
    GPU_FOUND = "gpu_found"
    LIMIT_NEAR = "limit_near"
    LIMIT_REACHED = "limit_reached"
    LIMIT_CLEARED = "limit_cleared"
    LOGIN_FAILED = "login_failed"
    CALL_REFUSED = "call_refused"
    CONFIGURED = "configured"
    RELOADED = "reloaded"
    RELOAD_REFUSED = "reload_refused"
    SUPERVISOR_STARTED = "supervisor_started"
    SUPERVISOR_STOPPED = "supervisor_stopped"


@dataclass(frozen=True, slots=True)
class Event:
    """``cause``: an ``ExitKind``, a ``By``, ``probe``, a limit's name or empty. ``text``: one sentence for people.

    ``pid`` and ``generation`` are those of the process the event speaks of; ``exit_code`` is negative for a signal.
    """

    name: str
    event: EventKind
    text: str
    state: str = ""
    cause: str = ""
    generation: int = 0
    pid: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    restarts: int = 0
    warning: bool = False  # somebody should look at it

    def to_dict(self, at: str) -> dict[str, Any]:
        """The event as it is stored and sent to hooks; ``at``: the wall clock's ISO 8601 text."""
        return {"at": at, **asdict(self)}
