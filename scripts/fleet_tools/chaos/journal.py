"""A recorded journal made fit to be kept as a test: one line's facts, no more than asked, no folder of this machine.

Pure, but for reading and writing the two files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from supervisor.effects.recorder import read_lines

Line = dict[str, Any]
_NAMES = {"add", "remove", "unchanged", "told", "moved", "unseen", "waiting"}
_BY_NAME = {"members", "restart", "live", "assignments", "problems", "reasons", "asked", "lost", "had"}
MOST = 60 * 1024


def trimmed(lines: Iterable[Line], name: str) -> Iterator[Line]:
    """Only what concerns the worker ``name``, from the first chapter on."""
    begun = False
    for line in lines:
        chapter = next((key for key in ("rules", "added") if key in line), None)
        if chapter and name in line[chapter]:
            begun = True
            yield {**line, chapter: {name: line[chapter][name]}}
        elif begun and line.get("name") == name:
            yield line
        elif begun and "message" in line:
            yield _of(name, line)


def _of(name: str, message: Line) -> Line:
    """Of a message about the fleet what concerns one worker."""
    return {key: _part(name, key, value) for key, value in message.items()}


def _part(name: str, key: str, value: Any) -> Any:
    if key in _NAMES:
        return [one for one in value if one == name]
    if not isinstance(value, dict):
        return value
    if key in _BY_NAME:
        return {one: part for one, part in value.items() if one == name}
    return _of(name, value)


def cleaned(text: str, places: Mapping[str, str]) -> str:
    for place, instead in places.items():
        text = text.replace(place, instead)
    return text


def keep(source: Path, target: Path, name: str | None, places: Mapping[str, str]) -> int:
    """Write the history to ``target``, up to ``MOST`` bytes; how many lines it has."""
    older = source.with_name(f"{source.name}.1")
    lines = [line for path in (older, source) if path.exists() for line in read_lines(path)]
    kept, size = [], 0
    for line in trimmed(lines, name) if name else lines:
        text = cleaned(json.dumps(line, separators=(",", ":")), places)
        size += len(text) + 1
        if size > MOST:
            break
        kept.append(text)
    target.write_text("".join(f"{text}\n" for text in kept))
    return len(kept)
