"""Conducts a run: the fleet up, clients writing, strike after strike, and what each did to the fleet.

It breaks nothing itself (``faults``) and judges nothing at the end (``checks``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fleet_tools.chaos import world
from fleet_tools.chaos.faults import FAULTS
from fleet_tools.chaos.field import Field
from fleet_tools.chaos.plan import Strike
from fleet_tools.chaos.world import Broken, Nothing
from fleet_tools.waiting import Trouble
from supervisor.snapshot import FleetSnapshot, WorkerSnapshot

_TOGETHER = 3
"""How many faults overlap at most."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a strike. ``broken`` and ``skipped`` give the reason."""

    strike: Strike
    seconds: float
    broken: str = ""
    skipped: str = ""

    def text(self) -> str:
        state = (
            f"BROKEN: {self.broken}" if self.broken else f"skipped: {self.skipped}" if self.skipped else "whole again"
        )
        where = f"datasite {self.strike.line + 1}"
        return f"{self.strike.number:3} {self.strike.kind:28} {where}  {self.seconds:5.1f} s  {state}"


class Lost(Exception):
    """The fleet did not recover, so the run cannot go on."""


@dataclass
class Siege:
    """``tell`` is called with every outcome, as it is known."""

    field: Field
    tell: Callable[[Outcome], None]
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    files: dict[int, list[int]] = dataclasses.field(
        default_factory=lambda: defaultdict(list)
    )  # open ones, by supervisor

    def run(self, strikes: Iterable[Strike]) -> None:
        """Every strike. Raises Lost when the fleet does not recover from one."""
        self._sample(self.field.plant.wait_whole())
        for group in _groups(strikes, _TOGETHER if self.field.overlap else 1):
            begun = time.monotonic()
            for strike, broken, skipped in self._carry_out(group):
                self._note(Outcome(strike, time.monotonic() - begun, broken, skipped))
            self._recover(group)

    def _note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.tell(outcome)

    def _carry_out(self, group: list[Strike]) -> Iterator[tuple[Strike, str, str]]:
        if len(group) == 1 and not self.field.overlap:
            yield (group[0], *self._one(group[0]))
        else:
            yield from self._several(group)

    def _recover(self, group: list[Strike]) -> None:
        try:
            self._sample(self.field.plant.wait_whole())
        except Trouble as broken:
            kinds = ", ".join(strike.kind for strike in group)
            raise Lost(f"after {kinds} (number {group[-1].number}): {broken}") from broken
        if not self.field.clients.running:
            raise Lost("the clients ended unexpectedly; see clients/writers.out for the reason")

    # --- one by one ---

    def _one(self, strike: Strike) -> tuple[str, str]:
        """Why it was broken, and why it was skipped."""
        time.sleep(strike.pause)
        self.field.begin()
        before = self.field.plant.wait_whole()
        try:
            for _ in FAULTS[strike.kind].body(self.field, strike):
                pass
            self._judge(before, self.field.plant.wait_whole())
        except Nothing as nothing:
            return "", str(nothing)
        except Trouble as broken:
            return str(broken), ""
        return "", ""

    def _judge(self, before: FleetSnapshot, after: FleetSnapshot) -> None:
        """Check that only what the strike touched has changed, and that restarts are counted correctly."""
        if before.supervisor_pid != after.supervisor_pid and not self.field.new_supervisor:
            raise Broken(f"the supervisor was replaced: pid {before.supervisor_pid} became {after.supervisor_pid}")
        now = {one.name: one for one in after.datasites}
        problems = [problem for old in before.datasites if (problem := self._changed(old, now[old.name]))]
        if problems:
            raise Broken("; ".join(problems))

    def _changed(self, old: WorkerSnapshot, new: WorkerSnapshot) -> str:
        if old.pid != new.pid and old.name not in self.field.renewed:
            return f"{old.name} was replaced, but no fault hit it: pid {old.pid} became {new.pid} ({new.last_exit})"
        if old.pid == new.pid and old.name in self.field.renewed:
            return f"{old.name} still has its old process, but the fault should have replaced it"
        wanted = old.restarts + self.field.restarts.get(old.name, 0)
        return "" if new.restarts == wanted else f"{old.name} counts {new.restarts} restarts, not {wanted}"

    # --- several at once ---

    def _several(self, group: list[Strike]) -> Iterator[tuple[Strike, str, str]]:
        self.field.begin()
        under_way: list[tuple[Strike, Iterator[None]]] = []
        for strike in group:
            time.sleep(strike.pause)
            body = FAULTS[strike.kind].body(self.field, strike)
            under_way.append((strike, body))
            if message := _further(body):
                under_way.pop()
                yield (strike, *message)
        for strike, body in sorted(under_way, key=_mended_when):
            yield (strike, *(_further(body) or ("", "")))

    # --- what is looked at between strikes ---

    def _sample(self, picture: FleetSnapshot) -> None:
        workers = [one.pid for one in picture.datasites if one.pid]
        if (count := world.open_files(picture.supervisor_pid, workers)) is not None:
            self.files[picture.supervisor_pid].append(count)


def _mended_when(under_way: tuple[Strike, Iterator[None]]) -> int:
    """A supervisor first: without one no operator mends anything."""
    return 0 if under_way[0].kind.startswith("supervisor") else 1


def _further(body: Iterator[None]) -> tuple[str, str] | None:
    """Let a fault go on to its next stop; why there was nothing to break. Among others it can promise nothing."""
    try:
        with contextlib.suppress(StopIteration, Trouble):
            next(body)
    except Nothing as nothing:
        return "", str(nothing)
    return None


def _groups(strikes: Iterable[Strike], size: int) -> Iterator[list[Strike]]:
    """Up to ``size`` at once; a fault that has to be alone is."""
    group: list[Strike] = []
    for strike in strikes:
        alone = FAULTS[strike.kind].alone
        if group and (alone or len(group) == size):
            yield group
            group = []
        group.append(strike)
        if alone:
            yield group
            group = []
    if group:
        yield group
