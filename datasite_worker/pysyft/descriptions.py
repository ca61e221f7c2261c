"""Keeps the packed description of what a user may call: PySyft sends 3.6 MB of it at each login, and takes almost half
a second of a processor to pack them. It is the same for all users of a role with the same code, but for the random ids
of the endpoints, which nobody reads. Decides nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from syft import serialize
from syft.client.api import SyftAPI

from datasite_worker.data import files

MOST = 4
"""How many are kept; each takes 3.6 MB."""
KEPT = 60.0
"""Seconds without a login until all are forgotten: memory counts more than the next login."""


@dataclass(slots=True)
class Descriptions:
    """Safe to use from any thread. Who waits for one that another thread packs gets that one."""

    kept: float = KEPT
    _packed: OrderedDict[Hashable, bytes] = field(default_factory=OrderedDict)
    _timer: threading.Timer | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def packed(self, api: SyftAPI, role: str) -> bytes:
        """``api``, as it goes over the wire to a user of that ``role``."""
        key = _key(api, role)
        with self._lock:
            if key not in self._packed:
                self._packed[key] = serialize(api, to_bytes=True)
            self._packed.move_to_end(key)
            while len(self._packed) > MOST:
                self._packed.popitem(last=False)
            self._forget_later()
            return self._packed[key]

    def _forget_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self.kept, self.forget)
        self._timer.daemon = True
        self._timer.start()

    def forget(self) -> None:
        with self._lock:
            self._packed.clear()
        files.give_back()


def _key(api: SyftAPI, role: str) -> Hashable:
    """All that differs between two descriptions. PySyft's own methods are the same for a role and a protocol; what was
    made here, by users or the owner, has arguments of its own."""
    own = tuple((path, _told(one)) for path, one in api.endpoints.items() if one.pre_kwargs or one.warning)
    known = tuple(api.endpoints), tuple(api.lib_endpoints or ())
    return role, str(api.communication_protocol), str(api.server_uid), api.server_name, known, own


def _told(one: Any) -> tuple[str, ...]:
    """Every field of an endpoint that a user's code or an owner's setting can change."""
    warning = one.warning.model_dump() if one.warning is not None else None
    return one.name, one.service_path, str(one.pre_kwargs), str(one.signature), one.doc_string or "", str(warning)
