"""What a datasite says of itself, in one place: the status document, told to the supervisor whenever it changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fleet_common import pulse
from fleet_common.contract import StatusDocument


class Report:
    """May be used from any thread. ``document`` is the status of this moment."""

    def __init__(self, document: StatusDocument, pulse_address: str) -> None:
        self.document = document
        self._pulse_address = pulse_address
        self._lock = threading.Lock()

    def update(self, **changes: Any) -> None:
        self.renew(lambda: changes)

    def renew(self, changes: Callable[[], dict[str, Any]]) -> None:
        """Asked and told under one lock: of two threads the later has the last word, here and at the supervisor."""
        with self._lock:
            self.document = replace(self.document, **changes())
            pulse.send(self._pulse_address, self.document)
