"""The frames of PySyft's messages (Cap'n Proto), taken apart into plain values, with an end to what is read.

Python alone, and not by the library that PySyft uses: pycapnp 2.0 ends the process (SIGSEGV) at some damaged messages,
and where an exception leaves the block of an open one. PySyft needs little of the format: structures of a few pointers,
lists of pointers, and bytes. Follows https://capnproto.org/encoding.html; every step is within its segment, each piece
of a message is read once, and what shares its bytes with another is refused.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

_WORD = 8
_STRUCT, _LIST, _FAR = 0, 1, 2  # the kind of a pointer: its lowest two bits
_BYTES, _POINTERS = 2, 6  # the kind of a list's elements
_LONG = Struct("<Q").unpack_from
_SHORT = Struct("<I").unpack_from
_VERSION = Struct("<i").unpack_from
_MOST_SEGMENTS = 512  # as Cap'n Proto's own readers


class Undecodable(ValueError):
    """The bytes are no message that this process accepts."""


class Object(NamedTuple):
    """A type's name and version, and either its bytes or its fields, in the message's order."""

    name: str
    version: int
    blob: bytes
    fields: list[tuple[str, bytes]]


class _Place(NamedTuple):
    """Where a pointer leads: segment, byte, and the word that says what is there."""

    segment: int
    at: int
    word: int


def read_object(blob: bytes) -> Object:
    """The object in ``blob``. Raises Undecodable."""
    message = _Message(blob, len(blob))
    root = message.root()
    name, version = message.text(root, 3), message.number(root)
    if message.leads(root, 2):  # PySyft writes the one or the other: a value's own bytes, or fields
        return Object(name, version, message.joined(root, 2), [])
    names = message.texts(root, 0)
    data = message.nested(root, 1)
    if len(names) != len(data):
        raise _damaged()
    return Object(name, version, b"", list(zip(names, data, strict=True)))


def read_items(blob: bytes) -> list[bytes]:
    """The messages of a list's items. Raises Undecodable."""
    message = _Message(blob, len(blob))
    return message.nested(message.root(), 0)


def read_pairs(blob: bytes) -> list[tuple[bytes, bytes]]:
    """The messages of a mapping's keys and values. Raises Undecodable."""
    message = _Message(blob, len(blob))
    root = message.root()
    keys, data = message.pieces(root, 0), message.nested(root, 1)
    if len(keys) != len(data):
        raise _damaged()
    return list(zip(keys, data, strict=True))


def read_field(head: bytes, size: int, kind: tuple[str, int], field: str) -> bytes:
    """One field of an object of that ``kind`` (name and version) and of ``size`` bytes, found in its first ones,
    ``head``. Raises Undecodable."""
    message = _Message(head, size)
    root = message.root()
    if (message.text(root, 3), message.number(root)) != kind:
        raise Undecodable("the body is not a signed call")
    names = message.texts(root, 0)
    if field not in names:
        raise Undecodable("the body does not name its sender")
    return message.nested(root, 1, names.index(field))[0]


def _damaged() -> Undecodable:
    return Undecodable("the message is damaged or does not come from PySyft")


class _Message:
    """``blob`` is the message of ``size`` bytes, or its first ones. Every method raises Undecodable."""

    __slots__ = ("_blob", "_ends", "_left", "_pointers", "_starts")

    def __init__(self, blob: bytes, size: int) -> None:
        self._blob = blob
        self._left = len(blob)  # bytes that may still be read
        self._pointers = len(blob) // _WORD  # elements of lists that may still be followed: each has a word of its own
        if len(blob) < _WORD:
            raise _damaged()
        segments = _SHORT(blob)[0] + 1
        start = (4 + 4 * segments + _WORD - 1) // _WORD * _WORD
        if segments > _MOST_SEGMENTS or start > len(blob):
            raise _damaged()
        self._starts: list[int] = []
        self._ends: list[int] = []
        for at in range(segments):
            end = start + _SHORT(blob, 4 + 4 * at)[0] * _WORD
            self._starts.append(start)
            self._ends.append(end)
            start = end
        if start > size:
            raise _damaged()

    # --- pointers ---

    def root(self) -> _Place:
        found = self._follow(0, self._starts[0])
        if found is None or found.word & 3 != _STRUCT:
            raise _damaged()
        return found

    def _word(self, segment: int, at: int) -> int:
        if segment >= len(self._starts) or not self._starts[segment] <= at <= self._ends[segment] - _WORD:
            raise _damaged()
        if at + _WORD > len(self._blob):
            raise _damaged()
        word: int = _LONG(self._blob, at)[0]
        return word

    def _follow(self, segment: int, at: int) -> _Place | None:
        """Where the pointer there leads; None for a null pointer."""
        word = self._word(segment, at)
        if not word:
            return None
        if word & 3 == _FAR:
            segment, at = word >> 32, self._far(word)
            if word & 4:  # the pad holds where the content is, and then what it is
                first = self._word(segment, at)
                if first & 7 != _FAR:
                    raise _damaged()
                return _Place(first >> 32, self._far(first), self._word(segment, at + _WORD))
            word = self._word(segment, at)
            if word & 3 == _FAR:
                raise _damaged()
        offset = (word & 0xFFFFFFFF) >> 2
        offset -= (offset >> 29) << 30  # signed, of 30 bits
        return _Place(segment, at + _WORD + offset * _WORD, word)

    def _far(self, word: int) -> int:
        segment = word >> 32
        if segment >= len(self._starts):
            raise _damaged()
        start: int = self._starts[segment]
        return start + ((word >> 3) & 0x1FFFFFFF) * _WORD

    def _field(self, place: _Place, number: int) -> _Place | None:
        """Where that pointer of a structure leads; a structure that is too short for it has none."""
        if number >= place.word >> 48:
            return None
        return self._follow(place.segment, place.at + ((place.word >> 32 & 0xFFFF) + number) * _WORD)

    # --- values ---

    def number(self, place: _Place) -> int:
        """The first number of a structure, of 32 bits."""
        if not place.word >> 32 & 0xFFFF:
            return 0
        self._word(place.segment, place.at)
        number: int = _VERSION(self._blob, place.at)[0]
        return number

    def leads(self, place: _Place, number: int) -> bool:
        """Whether that pointer leads to a list that is not empty."""
        found = self._field(place, number)
        return found is not None and found.word >> 35 > 0

    def text(self, place: _Place, number: int) -> str:
        found = self._field(place, number)
        return _as_text(self._piece(found)) if found is not None else ""

    def texts(self, place: _Place, number: int) -> list[str]:
        return [_as_text(piece) for piece in self.pieces(place, number)]

    def pieces(self, place: _Place, number: int) -> list[bytes]:
        """A list of byte strings."""
        return [self._piece(found) if found else b"" for found in self._elements(self._field(place, number))]

    def joined(self, place: _Place, number: int) -> bytes:
        """The same, in one piece: PySyft cuts what is longer than 512 MB."""
        return _whole(self.pieces(place, number))

    def nested(self, place: _Place, number: int, only: int = -1) -> list[bytes]:
        """A list of such lists, each in one piece; with ``only`` that one alone."""
        lists = list(self._elements(self._field(place, number)))
        if only >= len(lists):
            raise _damaged()
        chosen = lists if only < 0 else lists[only : only + 1]
        return [_whole([self._piece(one) if one else b"" for one in self._elements(found)]) for found in chosen]

    def _elements(self, place: _Place | None) -> list[_Place | None]:
        if place is None or not place.word >> 35:
            return []
        count = place.word >> 35
        self._pointers -= count
        if place.word & 3 != _LIST or place.word >> 32 & 7 != _POINTERS or self._pointers < 0:
            raise _damaged()
        return [self._follow(place.segment, place.at + at * _WORD) for at in range(count)]

    def _piece(self, place: _Place) -> bytes:
        count = place.word >> 35
        if place.word & 3 != _LIST or (count and place.word >> 32 & 7 != _BYTES):
            raise _damaged()
        self._left -= count
        end = place.at + count
        if self._left < 0 or place.at < self._starts[place.segment] or end > self._ends[place.segment]:
            raise _damaged()
        if end > len(self._blob):
            raise _damaged()
        return self._blob[place.at : end]


def _as_text(piece: bytes) -> str:
    """Without the zero at its end."""
    if piece and piece[-1]:
        raise _damaged()
    try:
        return piece[:-1].decode()
    except UnicodeDecodeError:
        raise _damaged() from None


def _whole(pieces: list[bytes]) -> bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
