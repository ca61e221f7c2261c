"""What probe answers mean: consecutive counts against thresholds, with the kubelet's words. Pure.

One HTTP answer serves readiness and liveness alike; each keeps its own period, threshold and count.
"""

from __future__ import annotations

import math
from dataclasses import replace

from supervisor.facts import DeadlineReached, Fact, ProbeAnswered, PulseReceived
from supervisor.record import Check, WorkerRecord, WorkerState
from supervisor.spec import ProbePolicy, ProbeTiming

_PARTS = 4


def scheduled(probe: ProbeTiming, now: float) -> Check:
    """No answers yet; first due one period from now."""
    return Check(due=now + probe.period)


def no_later(check: Check, probe: ProbeTiming, now: float) -> Check:
    """``check`` due at most one period of ``probe`` from now."""
    return replace(check, due=min(check.due, now + probe.period))


def answered(check: Check, probe: ProbeTiming, ok: bool, now: float) -> Check:
    """``check`` after an answer. An answer that was not due yet counts too."""
    if ok:
        return Check(due=next_time(now, probe.period), failures=0, successes=check.successes + 1)
    return Check(due=next_time(now, probe.period), failures=check.failures + 1, successes=0)


def next_time(now: float, period: float) -> float:
    """When the next probe is due: a period later, or up to a quarter of one less.

    Only multiples of that quarter are used. So all workers with the same period are probed together, and the supervisor
    wakes once for all of them.
    """
    quarter = period / _PARTS
    return min(now + period, math.floor((now + period) / quarter) * quarter)  # a product is rounded, upwards too


def has_failed(check: Check, probe: ProbeTiming) -> bool:
    return check.failures >= probe.failure_threshold


def has_succeeded(check: Check, probe: ProbeTiming) -> bool:
    return check.successes >= probe.success_threshold


def is_routine(fact: Fact, after: WorkerRecord) -> bool:
    """Whether it is a routine fact of a healthy worker: a due probe, an answer, a pulse."""
    return isinstance(fact, DeadlineReached | ProbeAnswered | PulseReceived) and after.state is WorkerState.READY


def probe_timeout(readiness: Check, liveness: Check, probes: ProbePolicy, now: float) -> float | None:
    """Seconds that the probe due now may take; None when none is due."""
    due = [
        probe.timeout
        for check, probe in ((readiness, probes.readiness), (liveness, probes.liveness))
        if check.due <= now
    ]
    return max(due) if due else None
