"""What the queue of jobs decides by itself; that it runs them is for tests/real/test_jobs.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasite_worker.jobs.rules import how_it_ended, threads_of


def test_one_training_has_all_threads_and_several_share_them() -> None:
    """Of a line's eight threads; those that already run keep theirs."""
    assert [8, 4, 2, 2, 1] == [threads_of(8, running, fixed=False) for running in range(5)]


@given(st.integers(1, 256), st.integers(0, 64))
def test_a_training_always_has_a_thread_and_never_more_than_the_line(line: int, running: int) -> None:
    """However many run; a number that the operator fixed is each one's."""
    assert 1 <= threads_of(line, running, fixed=False) <= line
    assert line == threads_of(line, running, fixed=True)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (9, "its process was killed by SIGKILL"),
        (0x0700, "its process ended with exit status 7"),
        (0, "its process ended with exit status 0"),
        (0x8B, "its process was killed by SIGSEGV"),
        (35, "its process was killed by signal 35"),
        (None, "the process that forks jobs ended"),
    ],
)
def test_how_a_job_ended_in_words(status: int | None, words: str) -> None:
    """waitpid's status: a signal by name where it has one, an exit status, or that nobody knows."""
    assert words == how_it_ended(status)
