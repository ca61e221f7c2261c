"""What to do, as frozen values. The engine hands them to effects; nothing else acts on a process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Launch:
    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """SIGTERM to the worker's process group."""

    name: str
    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to the worker's process group."""

    name: str
    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Request the worker's status over its own HTTP, within ``timeout`` seconds."""

    name: str
    generation: int
    timeout: float


@dataclass(frozen=True, slots=True)
class AbandonLaunch:
    """The launch has made no process for too long: replace the forkserver."""

    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class Configure:
    """Give the running worker the settings that it applies without a restart."""

    name: str
    generation: int
    pid: int


Order = Launch | Terminate | Kill | Probe | Configure | AbandonLaunch
