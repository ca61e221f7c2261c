"""``fleet events``: what happened, from the files that the supervisor writes. It needs no supervisor."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from fleet_common.layout import StateFolder
from fleet_common.untrusted import Unfit, decoded
from supervisor.faces import logfiles
from supervisor.faces.formatting import clean

_ROTATED = 4
_LONGEST_LINE = 1024 * 1024

EventDocument = dict[str, Any]


def last(state_dir: Path, name: str | None, count: int) -> list[EventDocument]:
    """The last ``count`` events, oldest first; of every worker when ``name`` is None."""
    return last_and_end(state_dir, name, count)[0]


def last_and_end(state_dir: Path, name: str | None, count: int) -> tuple[list[EventDocument], int]:
    """The same, and where in the newest file they end, so that ``follow`` can start there."""
    found: list[EventDocument] = []
    end = 0
    for path in _files(state_dir):
        raw = path.read_bytes()
        if path == _newest(state_dir):
            end = raw.rfind(b"\n") + 1  # what is behind it is still being written
        found = [event for event in _parsed(_text(raw).split("\n")) if _is_about(event, name)] + found
        if len(found) >= count:
            break
    return (found[-count:] if count else []), end


def follow(
    state_dir: Path, name: str | None, pause: logfiles.Rest = logfiles.rest, begin: int | None = None
) -> Iterator[EventDocument]:
    """Events as they happen, from ``begin`` (default: now) on. Endless."""
    path = _newest(state_dir)
    rest = ""
    for text in logfiles.follow(path, pause, begin):
        *lines, rest = (rest + text).split("\n")
        yield from (event for event in _parsed(lines) if _is_about(event, name))


def in_words(event: EventDocument) -> str:
    """``2026-03-01 12:00:00  detroit_line_beta  exited       ended: SIGKILL``, in this machine's time."""
    name, kind, text = (clean(str(event.get(key, ""))) for key in ("name", "event", "text"))
    return f"{_moment(str(event.get('at', '')))}  {name:<20}  {kind:<18}  {text}"


def _moment(at: str) -> str:
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return clean(at)[:19]


def _newest(state_dir: Path) -> Path:
    return StateFolder(state_dir).history.events


def _files(state_dir: Path) -> Iterator[Path]:
    """The newest first."""
    newest = _newest(state_dir)
    for path in (newest, *(newest.with_name(f"{newest.name}.{number}") for number in range(1, _ROTATED + 1))):
        if path.is_file():
            yield path


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _parsed(lines: list[str]) -> Iterator[EventDocument]:
    """Skips lines that a crash or a full disk has torn."""
    for line in lines:
        event = decoded(line.encode("utf-8", "replace"), dict[str, Any], _LONGEST_LINE)
        if not isinstance(event, Unfit):
            yield event


def _is_about(event: EventDocument, name: str | None) -> bool:
    return name is None or event.get("name") == name
