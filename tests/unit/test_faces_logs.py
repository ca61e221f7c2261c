"""Following a log loses nothing: not across rotation, not in the middle of a letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from supervisor.faces.logfiles import follow, last_lines


class _EndOfScript(Exception):
    """Nothing more happens to the file."""


def script(*steps: Callable[[], object]) -> Callable[[], None]:
    """A pause in which the next step happens: the reader has then read all there was before it."""
    left: Iterator[Callable[[], object]] = iter(steps)

    def pause() -> None:
        step = next(left, None)
        if step is None:
            raise _EndOfScript
        step()

    return pause


def heard(path: Path, *steps: Callable[[], object], begin: int | None = None) -> str:
    """All that a follower of ``path`` reads while ``steps`` happen."""
    text = ""
    try:
        for piece in follow(path, script(*steps), begin):
            text += piece
    except _EndOfScript:
        return text
    raise AssertionError("a follower never ends by itself")


def appending(path: Path, text: str | bytes) -> Callable[[], object]:
    raw = text.encode() if isinstance(text, str) else text

    def append() -> None:
        with path.open("ab") as file:
            file.write(raw)

    return append


def test_follows_what_is_appended(tmp_path: Path) -> None:
    """From the end on, or from a given place."""
    log = tmp_path / "a.log"
    log.write_text("old\n")
    assert "one\ntwo\n" == heard(log, appending(log, "one\n"), appending(log, "two\n"))
    assert "old\none\ntwo\n" == heard(log, begin=0)


def test_survives_rotation(tmp_path: Path) -> None:
    """Lines written just before the rotation, and all of the new file, are read once and in order."""
    log = tmp_path / "a.log"
    log.write_text("")

    def rotate() -> None:
        appending(log, "last of the old\n")()
        log.rename(tmp_path / "a.log.1")
        log.write_text("first of the new\n")

    expected = "before\nlast of the old\nfirst of the new\nafter\n"
    assert expected == heard(log, appending(log, "before\n"), rotate, appending(log, "after\n"))


def test_survives_a_moment_without_a_file(tmp_path: Path) -> None:
    """Between the renaming and the new file there is none; and a datasite that never ran has none yet."""
    log = tmp_path / "a.log"
    steps = (
        appending(log, "one\n"),
        lambda: log.rename(tmp_path / "a.log.1"),
        lambda: None,
        appending(log, "two\n"),
    )
    assert "one\ntwo\n" == heard(log, *steps)


def test_survives_a_file_that_is_cut_off(tmp_path: Path) -> None:
    """copytruncate, as logrotate does it for raw output."""
    log = tmp_path / "a.out"
    log.write_text("a long first line\n")
    assert "new\n" == heard(log, lambda: log.write_text("new\n"))


def test_letters_arrive_whole(tmp_path: Path) -> None:
    """A letter of two bytes that is written in two goes is one letter; a broken one is no traceback."""
    log = tmp_path / "a.log"
    log.write_text("")
    assert "é�!" == heard(log, appending(log, b"\xc3"), appending(log, b"\xa9"), appending(log, b"\xff!"))


def test_last_lines_of_a_large_file(tmp_path: Path) -> None:
    """Read from the end: across block boundaries, and with a last line that has no end yet."""
    log = tmp_path / "a.log"
    log.write_text("".join(f"{at:0100d}\n" for at in range(5000)) + "unfinished")
    text, end = last_lines(log, 1001)
    assert [f"{at:0100d}" for at in range(4000, 5000)] + ["unfinished"] == text.splitlines()
    assert log.stat().st_size == end


def test_last_lines_reach_behind_a_rotation(tmp_path: Path) -> None:
    """Just after a rotation the lines before it are still the last ones."""
    log = tmp_path / "a.log"
    (tmp_path / "a.log.1").write_text("one\ntwo\nthree\n")
    log.write_text("four\n")
    assert ("three\nfour\n", 5) == last_lines(log, 2)
    assert ("four\n", 5) == last_lines(log, 1)
    assert ("", 5) == last_lines(log, 0)
    assert "one\ntwo\nthree\nfour\n" == last_lines(log, 99)[0]
