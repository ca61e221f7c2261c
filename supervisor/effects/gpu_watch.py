"""Tells the engine when GPUs of datasites are missing, fail, or are visible again. Decides nothing.

It looks once a minute, in its own thread, and only while a datasite has a GPU or waits for a driver to answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from supervisor.cards import Card
from supervisor.effects.assigner import Assigner
from supervisor.messages import CardsLost

PERIOD = 60.0
"""Seconds. A look opens the driver, which wakes a GPU that nobody uses."""
_CLOSING = 1.0


def whats_lost(uuids: Collection[str], cards: Sequence[Card]) -> dict[str, str]:
    """Those of these GPUs that are no longer usable, and why."""
    usable = {card.uuid for card in cards if card.usable}
    trouble = {card.uuid: card.trouble or "it is in MIG mode now" for card in cards}
    return {uuid: f"{uuid}: {trouble.get(uuid, 'it is missing')}" for uuid in uuids if uuid not in usable}


class GpuWatch:
    def __init__(self, assigner: Assigner, post: Callable[[CardsLost], None], period: float = PERIOD) -> None:
        self._assigner = assigner
        self._post = post
        self._period = period
        self._told: frozenset[str] = frozenset()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._period):
            self.look()

    def look(self) -> None:
        """Reports each loss once, and waiting datasites until there are none. If the driver hangs, nothing is known of
        losses, so it reports none."""
        had, waiting = self._assigner.assignments, self._assigner.waiting
        seen = self._assigner.look_at(had)
        if seen.trouble:
            return
        bad = whats_lost({uuid for uuids in had.values() for uuid in uuids}, seen.cards)
        why = {name: "; ".join(bad[uuid] for uuid in uuids if uuid in bad) for name, uuids in had.items()}
        lost = {name: text for name, text in why.items() if text} if bad.keys() - self._told else {}
        if lost or waiting:
            self._post(CardsLost(lost, had, seen.cards, waiting))
        self._told = frozenset(bad)

    def close(self) -> None:
        self._over.set()
        self._thread.join(_CLOSING)  # it may hang in the driver; then leave it
