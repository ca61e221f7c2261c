"""What the serving process and its jobs have to arrange with PySyft's stores, which they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from syft.service.queue.queue_stash import QueueItem


def on_arrival(server: Any, tell: Callable[[QueueItem], None]) -> None:
    """Call ``tell`` with every item that this process puts into the queue, after it is stored."""
    stash = server.queue_stash
    store = stash.set_placeholder

    def set_placeholder(credentials: Any, item: QueueItem, *args: Any, **kwargs: Any) -> Any:
        stored = store(credentials, item, *args, **kwargs)
        tell(item)
        return stored

    stash.set_placeholder = set_placeholder
