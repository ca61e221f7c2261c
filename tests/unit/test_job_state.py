"""What the queue of jobs knows: what waits, what runs, whose turn comes next, and what ended without being stored."""

from __future__ import annotations

import pytest

from datasite_worker.jobs.state import EndedJob, QueuedJob, QueueState


def job(name: str) -> QueuedJob:
    return QueuedJob(name, f"job-{name}")


def jobs(names: str) -> list[QueuedJob]:
    return [job(name) for name in names]


def waiting(state: QueueState) -> str:
    return "".join(one.id for one in state.waiting)


def running(state: QueueState) -> str:
    return "".join(one.job.id for one in state.running)


def ended(state: QueueState) -> list[tuple[str, str]]:
    return [(one.job.id, one.why) for one in state.ended]


def begun(names: str, *, more: str = "") -> QueueState:
    """``names`` run with the tags 1, 2, …; ``more`` wait."""
    state = QueueState().arrived(jobs(names + more))
    for name in names:
        state = state.begun(job(name), f"title {name}")
    return state


def test_first_come_first_served() -> None:
    """What arrives waits behind what waits; what is heard of twice waits once, at its first place."""
    state = QueueState().arrived(jobs("ab")).arrived(jobs("ca"))
    assert "abc" == waiting(state)


@pytest.mark.parametrize("state", [begun("a"), begun("a").over(1, "killed")])
def test_what_the_store_still_has_does_not_begin_twice(state: QueueState) -> None:
    """A job stays in the store's queue until its end is stored."""
    assert "b" == waiting(state.arrived(jobs("ab")))


def test_so_many_run_and_none_before_its_time() -> None:
    """Sessions and the pause after a failed start both hold back the next."""
    state = begun("ab", more="c")
    assert [False, True] == [state.may_begin(sessions, 0.0) for sessions in (2, 3)]
    later = state.put_back(2, not_before=10.0)
    assert [False, True] == [later.may_begin(3, now) for now in (9.9, 10.0)]
    assert not later.is_full(2)


def test_each_job_runs_under_a_tag_of_its_own() -> None:
    """A tag is never used again, and is known by the job's id while it runs."""
    state = begun("ab", more="c").over(1, "gone").begun(job("c"), "title c")
    assert [None, 2, 3] == [state.tag_of(f"job-{name}") for name in "abc"]
    assert ("title c", 0) == (state.with_tag(3).title, state.with_tag(3).pid)
    assert 4711 == state.born(3, 4711).with_tag(3).pid
    with pytest.raises(KeyError):
        state.with_tag(1)


def test_what_did_not_begin_waits_at_its_old_place() -> None:
    """Before all that never had a turn, and in the order of the turns, however often and in whatever order."""
    state = begun("abc", more="d")
    for tag in (3, 1, 2):
        state = state.put_back(tag, 0.0)
    assert ("abcd", "") == (waiting(state), running(state))
    state = state.begun(job("a"), "").begun(job("b"), "").put_back(5, 0.0).put_back(4, 0.0)
    assert "abcd" == waiting(state)


def test_what_ended_has_no_turn_any_more() -> None:
    """The next job of the same place would be another one."""
    assert {} == begun("a").over(1, "gone").turns


def test_what_waits_and_is_recalled_never_begins() -> None:
    """It has ended, for the reason that was given."""
    state = begun("a", more="bc").recalled("job-b", "killed on request")
    assert ("c", [("b", "killed on request")]) == (waiting(state), ended(state))


def test_what_runs_and_is_recalled_ends_for_that_reason() -> None:
    """Whatever its process says: it was killed because somebody wanted it."""
    state = begun("ab").recalled("job-b", "killed on request")
    assert "ab" == running(state)
    assert [("b", "killed on request")] == ended(state.over(2, "its process was killed by SIGKILL"))


def test_what_is_recalled_before_it_began_is_not_put_back() -> None:
    """It ends instead of waiting for another try."""
    state = begun("a").recalled("job-a", "killed on request").put_back(1, 10.0)
    assert ("", [("a", "killed on request")]) == (waiting(state), ended(state))


def test_what_has_ended_keeps_its_reason() -> None:
    """A recall that comes too late changes nothing."""
    state = begun("a").over(1, "its own end")
    assert [("a", "its own end")] == ended(state.recalled("job-a", "killed on request"))


def test_a_crash_cuts_off_what_runs_and_nothing_else() -> None:
    """What waits goes on waiting; what had ended is still to be stored."""
    state = begun("abc", more="d").over(1, "done")
    for one in state.running:
        state = state.over(one.tag, "cut off")
    assert ("d", "", [("a", "done"), ("b", "cut off"), ("c", "cut off")]) == (
        waiting(state),
        running(state),
        ended(state),
    )


def test_a_job_is_known_until_its_end_is_stored() -> None:
    """While it waits, while it runs, and until its end is settled."""
    state = begun("ab", more="c").over(1, "gone")
    assert [True, True, True, False] == [state.knows(f"job-{name}") for name in "abcd"]
    settled = state.settled(state.ended[0])
    assert [False, True, True] == [settled.knows(f"job-{name}") for name in "abc"]


def test_two_equal_ends_are_settled_one_by_one() -> None:
    """An end is known by itself, not by its looks."""
    first, second = EndedJob(job("a"), "why"), EndedJob(job("a"), "why")
    state = QueueState(ended=(first, second)).settled(second)
    assert first is state.ended[0]
    assert 1 == len(state.ended)


def test_what_can_never_run_is_given_up() -> None:
    """It has ended without a tag; the others keep their places."""
    state = QueueState().arrived(jobs("abc")).given_up(job("b"), "its input was deleted")
    assert ("ac", [("b", "its input was deleted")]) == (waiting(state), ended(state))
    assert 0 == state.ended[0].tag
