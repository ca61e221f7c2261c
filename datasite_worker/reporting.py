"""Keeps the datasite's status document in one place, and sends it to the supervisor whenever it changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fleet_common import pulse
from fleet_common.contract import StatusDocument


class Report:
    """Safe to use from any thread. ``document`` is the current status."""

    def __init__(self, document: StatusDocument, pulse_address: str) -> None:
        self.document = document
        self._pulse_address = pulse_address
        self._lock = threading.Lock()

    def update(self, **changes: Any) -> None:
        self.renew(lambda: changes)

    def renew(self, changes: Callable[[], dict[str, Any]]) -> None:
        """Read and sent under one lock, so that of two threads the later one wins, here and at the supervisor."""
        with self._lock:
            self.document = replace(self.document, **changes())
            pulse.send(self._pulse_address, self.document)
