"""The capnp structures that PySyft's messages are made of, taken apart into plain values, with an end to what is read.

pycapnp frees a message when its block ends, and crashes the process where an exception leaves that block, or something
of the message outlives it. So nothing is decoded inside of it: what is needed is copied out, and faults are told by
value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import capnp
from syft.serde import recursive, recursive_primitives

T = TypeVar("T")

_WORD = 8
_SLACK = 1024
"""Words that may be read over and above twice a message's length: once for each list in it."""


class Undecodable(ValueError):
    """The bytes are no message that this process accepts."""


class Object(NamedTuple):
    """A type's name and version, and either its bytes or its fields, in the message's order."""

    name: str
    version: int
    blob: bytes
    fields: list[tuple[str, bytes]]


def read_object(blob: bytes) -> Object:
    """The object in ``blob``. Raises Undecodable."""
    return _read(recursive.recursive_scheme, blob, len(blob), _object)


def read_field(blob: Any, size: int, kind: tuple[str, int], field: str) -> bytes:
    """One field of an object of that ``kind`` (name and version), without a look at the others: of ``blob`` only the
    first bytes may be there. Raises Undecodable."""

    def take(message: Any, _size: int) -> bytes | None:
        if (message.canonicalName, message.version) != kind:
            return None
        for name, chunks in zip(message.fieldsName, message.fieldsData, strict=True):
            if name == field:
                return _whole(list(chunks))
        return None

    return _read(recursive.recursive_scheme, blob, size, take)


def read_items(blob: bytes) -> list[bytes]:
    """The messages of a list's items. Raises Undecodable."""
    return _read(recursive_primitives.iterable_schema, blob, len(blob), _items)


def read_pairs(blob: bytes) -> list[tuple[bytes, bytes]]:
    """The messages of a mapping's keys and values. Raises Undecodable."""
    return _read(recursive_primitives.kv_iterable_schema, blob, len(blob), _pairs)


def _read(scheme: Any, blob: Any, size: int, take: Callable[[Any, int], T | None]) -> T:
    found: T | None = None
    try:
        with scheme.from_bytes(blob, traversal_limit_in_words=2 * (size // _WORD) + _SLACK) as message:
            found = _taken(take, message, size)
            del message
    except (capnp.KjException, ValueError):
        pass
    if found is None:
        raise Undecodable("the message is damaged, or is none of PySyft's")
    return found


def _taken(take: Callable[[Any, int], T | None], message: Any, size: int) -> T | None:
    """Where the exception ends, so does all of the message that it holds."""
    try:
        return take(message, size)
    except (capnp.KjException, ValueError):
        return None


def _object(message: Any, size: int) -> Object | None:
    """PySyft writes the one or the other: a value's own bytes, or fields."""
    blob = list(message.nonrecursiveBlob)
    if blob:
        return None if _longer(blob, size) else Object(message.canonicalName, message.version, _whole(blob), [])
    data = _nested(message.fieldsData, size)
    if data is None:
        return None
    return Object(message.canonicalName, message.version, b"", list(zip(message.fieldsName, data, strict=True)))


def _items(message: Any, size: int) -> list[bytes] | None:
    return _nested(message.values, size)


def _pairs(message: Any, size: int) -> list[tuple[bytes, bytes]] | None:
    keys, data = list(message.keys), _nested(message.values, size)
    return None if data is None or _longer([*keys, *data], size) else list(zip(keys, data, strict=True))


def _nested(data: Any, size: int) -> list[bytes] | None:
    """Looked at as it is read: what shares its bytes must not be put together first."""
    whole, left = [], size
    for chunks in data:
        pieces = list(chunks)
        left -= sum(map(len, pieces))
        if left < 0:
            return None
        whole.append(_whole(pieces))
    return whole


def _longer(pieces: list[bytes], size: int) -> bool:
    """Whether what is nested is longer than the message itself: then many pointers share one piece of it."""
    return sum(map(len, pieces)) > size


def _whole(chunks: list[bytes]) -> bytes:
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
