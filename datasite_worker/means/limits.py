"""Limits that a datasite enforces itself: it refuses uploads while its disk is nearly full, and limits its bandwidth.
It also reports these limits, and trainings that wait.

Changes no stored data, and refuses no login, read, training or probe. The supervisor or the kernel limits memory and
CPU; ``jobs.queue`` limits the number of trainings.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware

from datasite_worker.bounds import pieces
from fleet_common.contract import STATUS_PATH, Limits

DISK, BANDWIDTH, SESSIONS = "disk", "bandwidth", "training_sessions"
_GB = 1e9
_CLEAR = 1.05
"""Uploads are accepted again at this multiple of the threshold, so that a disk at the threshold is reported once."""
_PIECE = 64 * 1024
_BURST = 0.25
"""Seconds of traffic that may pass at once after a pause."""
_HELD = 0.1
"""Traffic that waits for this share of the time between two checks counts as limited, and is reported."""
_QUIET = 30.0
"""Seconds without waiting after which it no longer counts as limited."""


# --- the disk ---


class Disk:
    """The disk of ``folder``, on which ``keep`` bytes must stay free; 0: no limit.

    Safe to call from any thread.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self.keep = keep
        self._full = False

    def refuses(self, size: int = 0) -> str:
        """Why an upload of ``size`` bytes is refused now; empty if it is accepted."""
        free = self._look()
        if (not self._full and free - size >= self.keep) or not self.keep:
            return ""
        figures = f"{_gb(free)} GB are free, and {_gb(self.keep)} GB must stay free"
        what = "uploads are refused until then" if self._full else f"an upload of {_gb(size)} GB would leave less"
        return (
            f"the datasite's disk is nearly full: {figures}; {what}. Nothing was stored."
            " Ask the datasite's owner to free disk space"
        )

    def words(self) -> str:
        """The message to the operator while uploads are refused; empty otherwise."""
        free = self._look()
        if not self._full:
            return ""
        return f"{_gb(free)} GB of disk are free, {_gb(self.keep)} GB must stay free: uploads are refused"

    def _look(self) -> int:
        """Read the free bytes, and note whether uploads are refused."""
        if not self.keep:
            self._full = False
            return 0
        free = _free(self._folder)
        self._full = free < self.keep * (_CLEAR if self._full else 1.0)
        return free


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _gb(size: int) -> str:
    return f"{size / _GB:.3g}"


# --- the network ---


class Bucket:
    """A token bucket that may be overdrawn: whoever takes too much waits until the bucket would be full again.

    So pieces of any size pass in order, and their sum keeps the rate. Used from one event loop; ``rate`` (bytes a
    second, 0: no limit) may be set from elsewhere. aiolimiter would want pieces below its capacity, and has a fixed
    rate.
    """

    def __init__(self, rate: float = 0.0) -> None:
        self.rate = rate
        self.waited = 0.0  # seconds, by all together
        self._level = 0.0
        self._at = float("-inf")

    def take(self, size: int, now: float) -> float:
        """Seconds to wait before ``size`` bytes may pass."""
        if not self.rate:
            return 0.0
        most = max(_PIECE, _BURST * self.rate)
        filled = self._level + (now - self._at) * self.rate if self._at > float("-inf") else most
        self._level, self._at = min(most, filled) - size, now
        wait = max(0.0, -self._level / self.rate)
        self.waited += wait
        return wait


class Paced:
    """ASGI middleware: limits bodies in both directions to the rate of ``bucket``. Probes are exempt."""

    def __init__(self, app: Any, bucket: Bucket) -> None:
        self._app = app
        self._bucket = bucket

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] == STATUS_PATH or not self._bucket.rate:
            await self._app(scope, receive, send)
            return

        async def receive_paced() -> Any:
            message = await receive()
            await self._pass(len(message.get("body", b"")))
            return message

        async def send_paced(message: Any) -> None:
            for piece in pieces(message):
                await self._pass(len(piece.get("body", b"")))
                await send(piece)

        await self._app(scope, receive_paced, send_paced)

    async def _pass(self, size: int) -> None:
        if size and (wait := self._bucket.take(size, time.monotonic())):
            await asyncio.sleep(wait)


# --- trainings that wait ---


class Jobs(Protocol):
    """Counts of the job queue. ``full_at``: when a job last had to wait for a free place (monotonic)."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def full_at(self) -> float: ...


class SessionLimit:
    """The limit of ``most`` simultaneous trainings. ``jobs`` enforces it, once it exists."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.jobs: Jobs | None = None
        self._looked_at = time.monotonic()
        self._held_at = float("-inf")

    def use(self, most: int, now: float) -> None:
        """Set a new limit. Earlier waits no longer count."""
        if most != self.most:
            self.most, self._looked_at, self._held_at = most, now, float("-inf")

    def look(self, now: float) -> None:
        """Find out whether a training has had to wait since the last look."""
        if self.jobs is not None and (self._is_full(self.jobs) or self.jobs.full_at > self._looked_at):
            self._held_at = now
        self._looked_at = now

    def _is_full(self, jobs: Jobs) -> bool:
        return jobs.waiting > 0 and jobs.running >= self.most

    def words(self, now: float) -> str:
        """The message to the operator while trainings wait, and for some seconds after; empty otherwise."""
        if self.jobs is None or now - self._held_at >= _QUIET:
            return ""
        limit = f"at most {self.most} may run at the same time"
        if not self._is_full(self.jobs):
            return f"trainings had to wait: {limit}"
        run, wait = self.jobs.running, self.jobs.waiting
        return f"{run} training{' runs' if run == 1 else 's run'}, {wait} wait{'s' if wait == 1 else ''}: {limit}"


# --- CPU ---


def threads_within(threads: int, cpu_percent: float) -> int:
    """At most as many threads as the CPU limit is worth in cores. The limit itself is enforced elsewhere."""
    return min(threads, math.ceil(cpu_percent / 100)) if cpu_percent else threads


# --- all of them ---


class Limiter:
    """Enforces a datasite's own limits. ``changed`` is called when an upload is refused, because ``told`` may have
    changed."""

    def __init__(self, state_dir: Path, wanted: Limits, changed: Callable[[], None]) -> None:
        self.disk = Disk(state_dir, wanted.disk_free)
        self.bucket = Bucket(wanted.bandwidth)
        self.sessions = SessionLimit(wanted.sessions)
        self._changed = changed
        self._looked_at = time.monotonic()
        self._waited = 0.0
        self._held_at = float("-inf")

    def use(self, wanted: Limits) -> None:
        """Apply new limits at once."""
        self.disk.keep = wanted.disk_free
        self.bucket.rate = wanted.bandwidth
        self.sessions.use(wanted.sessions, time.monotonic())

    def refuses_upload(self, size: int) -> str:
        """Why an upload of ``size`` bytes is refused now; empty if it is accepted. May be asked from any thread."""
        why = self.disk.refuses(size)
        if why:
            self._changed()
        return why

    def pace(self, app: Starlette) -> None:
        """Limit the bandwidth of ``app``, which is not served yet."""
        app.user_middleware.append(
            Middleware(Paced, bucket=self.bucket)
        )  # innermost, so that its waiting counts as the application's time

    def look(self) -> None:
        """Find out whether traffic, or a training, has waited since the last look."""
        now = time.monotonic()
        self.sessions.look(now)
        if self.bucket.waited - self._waited > _HELD * max(now - self._looked_at, 1.0):
            self._held_at = now
        self._looked_at, self._waited = now, self.bucket.waited

    def told(self) -> dict[str, str]:
        """The limits in effect now, in words."""
        now = time.monotonic()
        held = bool(self.bucket.rate) and now - self._held_at < _QUIET
        mbits = self.bucket.rate * 8 / 1e6
        every = {
            DISK: self.disk.words(),
            BANDWIDTH: f"HTTP is limited to {mbits:g} Mbit/s" if held else "",
            SESSIONS: self.sessions.words(now),
        }
        return {name: words for name, words in every.items() if words}
