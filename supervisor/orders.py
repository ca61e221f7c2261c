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
    """Ask the worker's own HTTP how it is, within ``timeout`` seconds."""

    name: str
    generation: int
    timeout: float


@dataclass(frozen=True, slots=True)
class AbandonLaunch:
    """No process has come of the launch for too long: whatever makes processes hangs, and is to be replaced."""

    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class Configure:
    """Hand the running worker the settings that it takes up without a restart."""

    name: str
    generation: int
    pid: int


Order = Launch | Terminate | Kill | Probe | Configure | AbandonLaunch
