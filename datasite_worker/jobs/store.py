"""The store that the job queue needs: one protocol, and its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from datasite_worker.jobs.state import QueuedJob


class Unobtainable(Exception):
    """A job can never run; the message says why."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the store recorded a job's end. ``status`` is empty if the job was deleted. ``interrupted``: it had no result
    and is now marked as interrupted."""

    status: str = ""
    completed: bool = False
    interrupted: bool = False


class JobStore(Protocol):
    """The jobs of one datasite. Any other error, such as a locked database, may be temporary."""

    def attach(self, arrived: Callable[[str], None], kill: Callable[[list[str], str], bool]) -> None:
        """Call ``arrived`` with the place of each newly queued job, and ``kill`` with the jobs that a client wants to
        end and the reason. Both may be called from any thread."""

    def waiting(self) -> list[QueuedJob]:
        """All jobs that have not begun, first come first."""

    def find(self, place: str) -> QueuedJob | None:
        """The job at that place; None when it has begun."""

    def has_inputs(self, job: QueuedJob) -> bool:
        """Whether all its inputs exist. Raises Unobtainable when they never will."""

    def title(self, job: QueuedJob) -> str:
        """What runs, for people. Raises nothing."""

    def end(self, job: QueuedJob, why: str) -> Ending:
        """Mark it interrupted, unless it has a result or was deleted."""

    def close(self, job: QueuedJob) -> None:
        """Take it off the queue for good. Its results stay stored."""
