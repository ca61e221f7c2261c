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
    """A clean slate, first due one period from now."""
    return Check(due=now + probe.period)


def no_later(check: Check, probe: ProbeTiming, now: float) -> Check:
    """``check`` due at most one period of ``probe`` from now."""
    return replace(check, due=min(check.due, now + probe.period))


def answered(check: Check, probe: ProbeTiming, ok: bool, now: float) -> Check:
    """``check`` after an answer; one that was not due yet still counts, as the answer is just as true."""
    if ok:
        return Check(due=next_time(now, probe.period), failures=0, successes=check.successes + 1)
    return Check(due=next_time(now, probe.period), failures=check.failures + 1, successes=0)


def next_time(now: float, period: float) -> float:
    """When a probe asked about ``now`` is asked again: a period later, or up to a quarter of one less.

    Only multiples of that quarter are used, so that all workers of the same period are probed in a few moments, for
    which the supervisor wakes once, and not each in its own.
    """
    quarter = period / _PARTS
    return min(now + period, math.floor((now + period) / quarter) * quarter)  # a product is rounded, upwards too


def has_failed(check: Check, probe: ProbeTiming) -> bool:
    return check.failures >= probe.failure_threshold


def has_succeeded(check: Check, probe: ProbeTiming) -> bool:
    return check.successes >= probe.success_threshold


def is_routine(fact: Fact, after: WorkerRecord) -> bool:
    """Whether it is a healthy worker's every-day fact: a probe that was due, an answer, a pulse."""
    return isinstance(fact, DeadlineReached | ProbeAnswered | PulseReceived) and after.state is WorkerState.READY


def probe_timeout(readiness: Check, liveness: Check, probes: ProbePolicy, now: float) -> float | None:
    """Seconds that the probe due now may take; None when none is due."""
    due = [
        probe.timeout
        for check, probe in ((readiness, probes.readiness), (liveness, probes.liveness))
        if check.due <= now
    ]
    return max(due) if due else None
