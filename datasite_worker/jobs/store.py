"""What the queue of jobs needs from whatever keeps the jobs: one protocol, and what its answers are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from datasite_worker.jobs.state import QueuedJob


class Unobtainable(Exception):
    """A job can never run; the message says why."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the store has a job that has ended. ``status`` is empty where it was deleted. ``interrupted``: it had no
    result, and was marked so just now."""

    status: str = ""
    completed: bool = False
    interrupted: bool = False


class JobStore(Protocol):
    """The jobs of one datasite. An error that is not named here, such as of a locked database, may pass."""

    def attach(self, arrived: Callable[[str], None], kill: Callable[[list[str], str], bool]) -> None:
        """From now on call ``arrived`` with the place of each job that is queued, and ``kill`` with the jobs that a
        client wants ended and the reason; from any thread."""

    def waiting(self) -> list[QueuedJob]:
        """All jobs that have not begun, first come first."""

    def find(self, place: str) -> QueuedJob | None:
        """The job at that place; None when it has begun."""

    def has_inputs(self, job: QueuedJob) -> bool:
        """Whether all that it works on is there. Raises Unobtainable when it will never be."""

    def title(self, job: QueuedJob) -> str:
        """What runs, for people. Raises nothing."""

    def end(self, job: QueuedJob, why: str) -> Ending:
        """Mark it interrupted, unless it has a result or was deleted."""

    def close(self, job: QueuedJob) -> None:
        """Nobody takes it from the queue any more. What it has stored there is kept."""
