"""Decoders of single values. They replace PySyft's, which look up names or let a small message grow without limit.

Each takes the bytes of one value, already cut to size by ``decoding``. Raises Undecodable, or what the library raises.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable
from datetime import date, datetime, time
from functools import reduce
from operator import or_
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from syft.util.experimental_flags import ApacheArrowCompression, flags

from datasite_worker.pysyft.frames import Undecodable


class Reader(Protocol):
    """Decodes what is nested in a value, under the same rules and one level deeper."""

    def message(self, blob: bytes) -> Any: ...
    def items(self, blob: bytes) -> list[Any]: ...


LARGEST = 2 * 1024**3
"""Bytes that one array or table may take in memory, whatever it took on the wire."""
_GROWTH = 64
"""How many times larger than its bytes a text array may become: NumPy gives each text the room of the longest."""
_SMALL = 1024**2
_LONGEST_NUMBER, _LONGEST_WORD = 64 * 1024, 100
_CODECS = frozenset({"SNAPPY", "UNCOMPRESSED"})
"""Compressions that PySyft writes; others can hold a thousand times their size."""


# --- types ---

_FORMS = {
    name: getattr(typing, name)
    for name in (
        *("Annotated", "Callable", "ClassVar", "Collection", "DefaultDict", "Deque", "Dict", "Final", "FrozenSet"),
        *("Generator", "Iterable", "Iterator", "List", "Literal", "Mapping", "MutableMapping", "Optional"),
        *("OrderedDict", "Sequence", "Set", "Tuple", "Type", "Union"),
    )
}


def type_alias(blob: bytes, read: Reader) -> Any:
    """``typing.Optional[int]`` and the like. PySyft imports and calls whatever the message names; here a name of
    ``typing`` is indexed, and nothing is called."""
    told = read.message(blob)
    if not isinstance(told, dict) or not isinstance(told.get("path"), str):
        raise Undecodable("a type alias has no name")
    module, _, name = told["path"].rpartition(".")
    form = _FORMS.get(name) if module == "typing" else None
    if form is None:
        raise Undecodable("a type alias does not name a member of typing")
    arguments = _arguments(told.get("__args__"), name)
    if form is typing.Optional:
        return typing.Union[(*arguments, None)]
    return form[arguments if len(arguments) > 1 else arguments[0]]


def _arguments(given: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(given, tuple | list) or not 0 < len(given) <= _LONGEST_WORD:
        raise Undecodable("a type alias has no arguments")
    if name == "Literal":
        return tuple(_each(given, lambda one: isinstance(one, str | int | bytes | bool | None)))
    if name == "Callable":
        *inputs, output = _each(given, _is_type)
        return (inputs, output)
    return tuple(_each(given, _is_type))


def _each(given: Iterable[Any], fits: Callable[[Any], bool]) -> list[Any]:
    kept = list(given)
    if not all(map(fits, kept)):
        raise Undecodable("a type alias has an argument that is not a type")
    return kept


def _is_type(one: Any) -> bool:
    special = typing.Any, typing.Union, None, Ellipsis
    return (
        isinstance(one, type | types.GenericAlias | types.UnionType | typing.TypeVar)
        or typing.get_origin(one) is not None
        or any(one is other for other in special)
    )


def union(blob: bytes, read: Reader) -> Any:
    """``int | str``."""
    members = read.message(blob)
    if not isinstance(members, tuple) or not 0 < len(members) <= _LONGEST_WORD:
        raise Undecodable("a union has no members")
    return reduce(or_, _each(members, _is_type))


def type_variable(blob: bytes, _read: Reader) -> Any:
    name = _word(blob.decode())
    if not name.isidentifier():
        raise Undecodable("a type variable has no name")
    return typing.TypeVar(name)


def signature(blob: bytes, read: Reader) -> inspect.Signature:
    """A function's parameters, which are ``inspect.Parameter``s."""
    told = read.message(blob)
    if not isinstance(told, dict) or set(told) != {"parameters", "return_annotation"}:
        raise Undecodable("a signature must consist of parameters and a return annotation")
    parameters = told["parameters"]
    if not isinstance(parameters, list) or not all(isinstance(one, inspect.Parameter) for one in parameters):
        raise Undecodable("a signature has an invalid parameter")
    return inspect.Signature(parameters, return_annotation=told["return_annotation"])


# --- numbers and times ---


def integer(blob: bytes, _read: Reader) -> int:
    if len(blob) > _LONGEST_NUMBER:
        raise Undecodable("a number is too long")
    return int.from_bytes(blob, "big", signed=True)


def real(blob: bytes, _read: Reader) -> float:
    return float.fromhex(_word(blob.decode()))


def steps(kind: type) -> Callable[[bytes, Reader], Any]:
    """``range`` and ``slice``: three numbers."""

    def decoded(blob: bytes, read: Reader) -> Any:
        parts = read.items(blob)
        if len(parts) != len(("start", "stop", "step")) or not all(isinstance(one, int | None) for one in parts):
            raise Undecodable("a range must consist of the numbers start, stop and step")
        return kind(*parts)

    return decoded


def complex_number(blob: bytes, read: Reader) -> complex:
    parts = read.items(blob)
    if [type(one) for one in parts] != [float, float]:
        raise Undecodable("a complex number must consist of two numbers")
    return complex(*parts)


def moment(kind: type[datetime | date | time]) -> Callable[[bytes, Reader], Any]:
    """A ``datetime``, ``date`` or ``time`` from its ISO 8601 text."""

    def decoded(blob: bytes, read: Reader) -> datetime | date | time:
        return kind.fromisoformat(_word(read.message(blob)))

    return decoded


def _word(text: Any) -> str:
    if not isinstance(text, str) or len(text) > _LONGEST_WORD:
        raise Undecodable("a text is too long or not a text")
    return text


# --- arrays and tables ---


def array(blob: bytes, read: Reader) -> np.ndarray[Any, Any]:
    """A NumPy array: Arrow's bytes with their size and type, or texts packed into an array of numbers."""
    told = read.message(blob)
    if isinstance(told, np.ndarray):
        return _texts(told)
    if not isinstance(told, tuple) or [type(one) for one in told] != [bytes, int, str]:
        raise Undecodable("an array must contain numbers or text")
    packed, size, kind = told
    return _numbers(packed, size, np.dtype(_word(kind)))


def _numbers(packed: bytes, size: int, kind: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if kind.hasobject or kind.fields is not None:
        raise Undecodable("an array must contain numbers, booleans, times or text")
    if not 0 <= size <= LARGEST:
        raise Undecodable("an array is too large")
    codec = flags.APACHE_ARROW_COMPRESSION
    if codec is not ApacheArrowCompression.NONE:
        packed = pa.decompress(packed, decompressed_size=size, codec=codec.value)
    made = pa.ipc.read_tensor(pa.BufferReader(packed).read_buffer()).to_numpy()
    if made.size * kind.itemsize > LARGEST:
        raise Undecodable("an array is too large")
    made.setflags(write=True)
    typed: np.ndarray[Any, Any] = made.astype(kind)
    return typed


def _texts(packed: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """As ``arraytonumpyutf8`` of PySyft packs them: bytes, where each text ends, how many, the shape, its length."""
    if packed.ndim != 1 or packed.dtype != np.uint64 or not len(packed):
        raise Undecodable("an array of text is not packed as PySyft packs one")
    rest, shape = _last_group(packed)
    raw, ends = _last_group(rest)
    text = raw.astype(np.uint8).tobytes()
    if len(ends) and (np.any(np.diff(ends.astype(object)) < 0) or int(ends[-1]) > len(text)):
        raise Undecodable("the texts in an array overlap")
    starts = [0, *map(int, ends[:-1])]
    parts = [text[start : int(end)].decode() for start, end in zip(starts, ends, strict=False)]
    if len(parts) * max(map(len, parts), default=0) * 4 > max(_SMALL, _GROWTH * packed.nbytes):
        raise Undecodable("an array of text would become too large")
    return np.array(parts).reshape(tuple(map(int, shape)))


def _last_group(packed: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What stands before the last group, and the group, whose length is the last number."""
    length = int(packed[-1]) if len(packed) else -1
    if not 0 <= length < len(packed):
        raise Undecodable("an array of text is incomplete")
    return packed[: len(packed) - 1 - length], packed[len(packed) - 1 - length : -1]


def table(blob: bytes, _read: Reader) -> pd.DataFrame:
    """A Parquet file. Texts are read as numbers into a dictionary, so that a page that repeats one a million times does
    not make a million of it before its size is looked at."""
    file = pq.ParquetFile(pa.BufferReader(blob))
    told, values = file.metadata, 0
    for group in range(told.num_row_groups):
        for number in range(told.num_columns):
            column = told.row_group(group).column(number)
            if column.compression not in _CODECS:
                raise Undecodable("a table is compressed in a way that PySyft does not write")
            nested = told.schema.column(number).max_repetition_level > 0
            if nested and column.num_values * 8 > max(_SMALL, _GROWTH * len(blob)):
                raise Undecodable("the lists in a table would become too large")
            values += column.num_values
    if max(values, told.num_rows * max(1, told.num_columns)) * 8 > LARGEST:
        raise Undecodable("a table is too large")
    names = [field.name for field in file.schema_arrow if _is_text(field.type)]
    found = pq.read_table(pa.BufferReader(blob), read_dictionary=names) if names else file.read()
    return _plain(found, set(names)).to_pandas()


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _plain(found: Any, names: set[str]) -> Any:
    """``found`` with its dictionaries taken apart, unless that would be too large."""
    size = found.nbytes
    for at, field in enumerate(found.schema):
        if field.name in names and pa.types.is_dictionary(field.type):
            column = found.column(at)
            size += sum(len(chunk) * _longest(chunk.dictionary) for chunk in column.chunks)
            if size > LARGEST:
                raise Undecodable("a table is too large")
            plain = field.type.value_type
            found = found.set_column(at, pa.field(field.name, plain, metadata=field.metadata), column.cast(plain))
    if size > LARGEST:
        raise Undecodable("a table is too large")
    return found


def _longest(dictionary: Any) -> int:
    lengths = pa.compute.binary_length(dictionary)
    return int(pa.compute.max(lengths).as_py() or 0)


def series(blob: bytes, read: Reader) -> pd.Series:
    """PySyft carries a series as a table's dictionary."""
    told = read.message(blob)
    if not isinstance(told, dict):
        raise Undecodable("a series must be a table with one column")
    frame = pd.DataFrame.from_dict(told)
    return pd.Series(frame[frame.columns[0]])
