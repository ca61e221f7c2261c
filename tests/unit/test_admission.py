"""Whose turn it is to start: the limit, the order, slots that time out, and ports that two never share."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.policy.admission import SLOT, QueuedLaunch, Turn, limit, turn
from supervisor.spec import StartupPolicy

FREE: frozenset[int] = frozenset()


def held(*names: str, port: int = 8000) -> list[QueuedLaunch]:
    return [QueuedLaunch(name, 1, port + at) for at, name in enumerate(names)]


def names(made: Turn) -> list[str]:
    return [one.name for one in made.go]


@pytest.mark.parametrize(("parallel", "cores", "expected"), [(0, 1, 4), (0, 2, 4), (0, 16, 32), (3, 16, 3), (1, 1, 1)])
def test_the_limit_comes_from_the_file_or_from_the_cores(parallel: int, cores: int, expected: int) -> None:
    """What fleet.yaml says holds; else twice the cores, and never less than four."""
    assert expected == limit(StartupPolicy(parallel), cores)


def test_no_more_than_the_limit_start_at_once() -> None:
    """The first ones go in the order of asking, and the rest is asked again when the oldest slot is lost."""
    made = turn(held("a", "b", "c", "d"), [98.0], FREE, StartupPolicy(3), 1, 100.0)
    assert (["a", "b"], 98.0 + SLOT) == (names(made), made.again)


def test_priority_comes_first_and_the_order_of_asking_is_kept() -> None:
    """Higher ones start first; equal ones in the order of fleet.yaml."""
    a, b, c, d = held("a", "b", "c", "d")
    made = turn([a, replace(b, priority=5), c, replace(d, priority=5)], [], FREE, StartupPolicy(4), 1, 0.0)
    assert ["b", "d", "a", "c"] == names(made)
    made = turn([a, replace(b, priority=-5), c], [], FREE, StartupPolicy(2), 1, 0.0)
    assert ["a", "c"] == names(made)


def test_a_slow_line_holds_up_no_other() -> None:
    """A start that is not ready after ``SLOT`` seconds loses its slot, though it still is starting."""
    waiting = held("b")
    policy = StartupPolicy(1)
    assert ([], SLOT) == (names(early := turn(waiting, [0.0], FREE, policy, 1, SLOT - 0.001)), early.again)
    assert ["b"] == names(turn(waiting, [0.0], FREE, policy, 1, SLOT))


def test_stagger_is_the_least_time_from_one_start_to_the_next() -> None:
    """One goes, the next is due after ``stagger`` seconds, however free the slots are."""
    policy = StartupPolicy(8, stagger=2.0)
    made = turn(held("a", "b"), [], FREE, policy, 1, 100.0)
    assert (["a"], 102.0) == (names(made), made.again)
    assert ([], 102.0) == (names(made := turn(held("b"), [100.0], FREE, policy, 1, 101.9, 100.0)), made.again)
    assert ["b"] == names(turn(held("b"), [100.0], FREE, policy, 1, 102.0, 100.0))


def test_a_port_that_is_in_use_is_waited_for() -> None:
    """Its holder's end is a fact that asks again; until then others pass it by."""
    made = turn(held("a", "b"), [], {8000}, StartupPolicy(1), 1, 0.0)
    assert (["b"], None) == (names(made), made.again)
    assert Turn() == turn(held("a"), [], {8000}, StartupPolicy(1), 1, 0.0)


def test_two_launches_never_go_to_one_port() -> None:
    """Of two that are held for the same port, after a port was handed over say, the first goes alone."""
    made = turn([QueuedLaunch("a", 1, 8000), QueuedLaunch("b", 1, 8000)], [], FREE, StartupPolicy(8), 1, 0.0)
    assert (["a"], None) == (names(made), made.again)


def test_nobody_waits_means_nothing_is_due() -> None:
    """An idle fleet is not woken."""
    assert Turn() == turn([], [0.0, 1.0], {8000}, StartupPolicy(1), 1, 2.0)


WAITING = st.lists(
    st.builds(
        QueuedLaunch,
        name=st.text("abcdef", min_size=1, max_size=3),
        generation=st.just(1),
        port=st.integers(8000, 8006),
        priority=st.integers(-1, 1),
    ),
    max_size=12,
    unique_by=lambda one: one.name,
)
POLICIES = st.builds(StartupPolicy, st.integers(0, 5), st.sampled_from([0.0, 0.5, 3.0, 20.0]))


@settings(max_examples=60, deadline=None)
@given(WAITING, st.lists(st.floats(0, 100), max_size=8), st.sets(st.integers(8000, 8006)), POLICIES, st.integers(1, 8))
def test_never_more_fresh_starts_than_the_limit_and_no_port_twice(
    waiting: list[QueuedLaunch], sent: list[float], ports: set[int], policy: StartupPolicy, cores: int
) -> None:
    """Whatever is held, sent and in use."""
    now = 100.0
    made = turn(waiting, sent, ports, policy, cores, now)
    fresh = sum(now - at < SLOT for at in sent)
    assert len(made.go) <= max(0, limit(policy, cores) - fresh)
    used = [one.port for one in made.go]
    assert (len(used), set()) == (len(set(used)), set(used) & ports)
    assert made.again is None or made.again > now


@settings(max_examples=60, deadline=None)
@given(WAITING, POLICIES, st.integers(1, 2))
def test_everyone_is_admitted_in_the_end(waiting: list[QueuedLaunch], policy: StartupPolicy, cores: int) -> None:
    """Even when no start ever becomes ready and a port is freed only when nobody else can go."""
    left, sent, ports, now, last = list(waiting), list[float](), set[int](), 0.0, None
    for _ in range(10 * len(waiting) + 1):
        made = turn(left, sent, ports, policy, cores, now, last)
        for one in made.go:
            left.remove(one)
            sent.append(now)
            ports.add(one.port)
            last = now
        if made.again is None:
            ports.clear()  # the ends of those that had them
        now = now if made.again is None else made.again
    assert [] == left
