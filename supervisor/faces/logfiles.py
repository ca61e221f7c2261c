"""Reads log files: their last lines, and new lines, also across rotation."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_BLOCK = 64 * 1024
_PAUSE = 0.2
Rest = Callable[[], None]


def last_lines(path: Path, count: int) -> tuple[str, int]:
    """The last ``count`` lines and where they end, in bytes. Includes lines of the file rotated away before.

    Raises OSError when there is none.
    """
    with path.open("rb") as file:
        lines = _tail(file, count)
        end = file.tell()
    older = path.with_name(path.name + ".1")
    if len(lines) < count and older.exists():
        with older.open("rb") as file:
            lines = _tail(file, count - len(lines)) + lines
    return b"".join(lines).decode("utf-8", "replace"), end


def _tail(file: BinaryIO, count: int) -> list[bytes]:
    """The last ``count`` lines of an open file, read from its end."""
    end = position = file.seek(0, os.SEEK_END)
    text = b""
    while position > 0 and text.count(b"\n") <= count:
        step = min(_BLOCK, position)
        position -= step
        file.seek(position)
        text = file.read(step) + text
    file.seek(end)
    return text.splitlines(keepends=True)[-count:] if count else []


def rest() -> None:
    """Seconds between two looks at a file without new lines."""
    time.sleep(_PAUSE)


def follow(path: Path, pause: Rest = rest, begin: int | None = None) -> Iterator[str]:
    """New text from ``begin`` (default: the end) on. Endless; calls ``pause`` when there is nothing new. Waits for a
    file that does not exist yet; reads one that is rotated away to its end, then the next one.

    A file that is not there yet is waited for; one that is rotated away is read to its end, then its successor.
    """
    while True:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            begin = 0
            pause()
            continue
        with file:
            file.seek(0, os.SEEK_END) if begin is None else file.seek(begin)
            yield from _until_rotated(path, file, pause)
        begin = 0


def _until_rotated(path: Path, file: BinaryIO, pause: Rest) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        # Check before reading: what is written in between is then read, never lost.
        rotated = _is_rotated(path, file)
        if text := decoder.decode(file.read(_BLOCK)):
            yield text
        elif rotated:
            return
        else:
            pause()


def _is_rotated(path: Path, file: BinaryIO) -> bool:
    """Whether ``path`` is another file by now, or this one was truncated."""
    try:
        there, ours = path.stat(), os.fstat(file.fileno())
    except FileNotFoundError:
        return True
    return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) or there.st_size < file.tell()
