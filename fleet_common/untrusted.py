"""Decodes bytes that we did not write, or that may have been damaged since: files, pulses, answers, requests.

There is one way in, ``decoded``. It has a size limit, and it never raises: whatever is wrong with the bytes comes back
as an ``Unfit``. The schema is a type: a frozen dataclass, or any of the types below. Every value in it is checked, also
inside lists and mappings. Unknown keys are ignored, because another version may have written them; a missing key has
the default of its field.

Standard library only, and no file is opened here: ``state_files`` does that.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, NoReturn, TypeVar, Union, cast

T = TypeVar("T")

_DEEPEST = 20
"""How deep a value without a type of its own may be nested."""
_WHOLE = 2**63
_Reader = Callable[[Any, str], Any]


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why these bytes are not what they should be, in words for people and without any of their content."""

    why: str


@dataclass(frozen=True, slots=True)
class Between:
    """The bounds of a number, both allowed."""

    least: float
    most: float


Pid = Annotated[int, Between(2, 2**22)]
"""A process that can be a worker. The kernel has no larger pid; to kill(2), 1, 0 and -1 are other things altogether."""
Natural = Annotated[int, Between(0, 2**53)]
Port = Annotated[int, Between(0, 65535)]


def decoded(raw: bytes, form: Any, limit: int) -> Any:
    """What is in ``raw``, a value of the type ``form``; or Unfit. ``limit``: the most bytes."""
    if len(raw) > limit:
        return Unfit(f"it has more than {limit} bytes")
    try:
        return _reader(form)(_JSON.decode(raw.decode()), "")
    except _Wrong as wrong:
        return Unfit(str(wrong))
    except (ValueError, RecursionError, MemoryError):
        return Unfit("it is not JSON" if raw else "it is empty")


def fitted(values: Any, form: type[T]) -> T | Unfit:
    """The same of values that are decoded already."""
    try:
        return cast("T", _reader(cast("Any", form))(values, ""))
    except _Wrong as wrong:
        return Unfit(str(wrong))
    except RecursionError:
        return Unfit("it is nested too deeply")


class _Wrong(Exception):
    """A value does not fit its type."""


def _refused(_constant: str) -> NoReturn:
    raise ValueError("not a number of JSON")


_JSON = json.JSONDecoder(parse_constant=_refused)


@lru_cache(maxsize=256)
def _reader(form: Any) -> _Reader:
    """A function that takes a value of the type ``form``, and the key it stands at, and returns it. It raises
    _Wrong."""
    if (origin := typing.get_origin(form)) is not None:
        return _OF_OTHERS[origin](typing.get_args(form))
    if is_dataclass(form):
        return _made(form)
    return _named(form) if isinstance(form, type) and issubclass(form, Enum) else _PLAIN[form]


def _wrong(at: str, what: str) -> NoReturn:
    raise _Wrong(f"{at or 'it'} is not {what}")


def _whole(value: Any, at: str) -> int:
    if type(value) is not int or not -_WHOLE <= value < _WHOLE:
        _wrong(at, "a whole number")
    return value


def _number(value: Any, at: str) -> float:
    if type(value) not in (int, float) or not -1e300 < value < 1e300:
        _wrong(at, "a number")
    return float(value)


def _text(value: Any, at: str) -> str:
    """JSON can name halves of characters. They become question marks: they could be neither logged nor stored."""
    if type(value) is not str:
        _wrong(at, "text")
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _truth(value: Any, at: str) -> bool:
    if type(value) is not bool:
        _wrong(at, "true or false")
    return value


def _nothing(value: Any, at: str) -> None:
    if value is not None:
        _wrong(at, "null")


def _anything(value: Any, at: str) -> Any:
    """A value of JSON, whatever it is, that code can walk through and write again."""
    return _walked(value, at, _DEEPEST)


def _walked(value: Any, at: str, depth: int) -> Any:
    if depth == 0:
        raise _Wrong(f"{at or 'it'} is nested too deeply")
    if isinstance(value, dict):
        return {_text(key, at): _walked(one, at, depth - 1) for key, one in value.items()}
    if isinstance(value, list):
        return [_walked(one, at, depth - 1) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        _wrong(at, "a number")
    return _text(value, at) if isinstance(value, str) else value


_PLAIN: dict[Any, _Reader] = {
    int: _whole,
    float: _number,
    str: _text,
    bool: _truth,
    type(None): _nothing,
    Any: _anything,
}


def _bounded(read: _Reader, bounds: Between) -> _Reader:
    def reader(value: Any, at: str) -> Any:
        number = read(value, at)
        if not bounds.least <= number <= bounds.most:
            _wrong(at, f"between {bounds.least:g} and {bounds.most:g}")
        return number

    return reader


def _one_of(readers: list[_Reader]) -> _Reader:
    def reader(value: Any, at: str) -> Any:
        for read in readers[:-1]:
            try:
                return read(value, at)
            except _Wrong:
                continue
        return readers[-1](value, at)

    # ``X | None`` tells what is wrong with an X.
    readers.sort(key=lambda read: read is not _nothing)
    return reader


def _listed(read: _Reader) -> _Reader:
    def reader(value: Any, at: str) -> list[Any]:
        if type(value) is not list:
            _wrong(at, "a list")
        return [read(one, at) for one in value]

    return reader


def _tupled(inner: tuple[Any, ...]) -> _Reader:
    if inner[1:] == (Ellipsis,):
        every = _listed(_reader(inner[0]))
        return lambda value, at: tuple(every(value, at))
    readers = [_reader(one) for one in inner]

    def reader(value: Any, at: str) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(readers):
            _wrong(at, f"a list of {len(readers)}")
        return tuple(read(one, at) for read, one in zip(readers, value, strict=True))

    return reader


def _mapped(read: _Reader) -> _Reader:
    def reader(value: Any, at: str) -> dict[str, Any]:
        if type(value) is not dict:
            _wrong(at, "a mapping")
        return {_text(key, at): read(one, f"{at}.{key}" if at else key) for key, one in value.items()}

    return reader


def _named(form: type[Enum]) -> _Reader:
    known = {one.value: one for one in form}

    def reader(value: Any, at: str) -> Enum:
        if type(value) is not str or value not in known:
            _wrong(at, f"one of {', '.join(map(str, known))}")
        return known[value]

    return reader


def _made(form: Any) -> _Reader:
    hints = typing.get_type_hints(form, include_extras=True)
    readers = {field.name: _reader(hints[field.name]) for field in fields(form)}
    needed = {field.name for field in fields(form) if field.default is MISSING and field.default_factory is MISSING}

    def reader(value: Any, at: str) -> Any:
        if type(value) is not dict:
            _wrong(at, "a mapping")
        if missing := needed - value.keys():
            raise _Wrong(f"{at + ': ' if at else ''}{min(missing)} is missing")
        return form(**{name: read(value[name], name) for name, read in readers.items() if name in value})

    return reader


_OF_OTHERS: dict[Any, Callable[[tuple[Any, ...]], _Reader]] = {
    Annotated: lambda inner: _bounded(_reader(inner[0]), inner[1]),
    types.UnionType: lambda inner: _one_of([_reader(one) for one in inner]),
    Union: lambda inner: _one_of([_reader(one) for one in inner]),
    list: lambda inner: _listed(_reader(inner[0])),
    tuple: _tupled,
    dict: lambda inner: _mapped(_reader(inner[1])),
}
"""Types that are made of others."""
