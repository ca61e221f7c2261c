"""Decodes PySyft's messages instead of PySyft's own decoder: by rules, within limits, and without calling names.

A message is a tree of capnp structures: a type's name, and either its bytes or its fields, each a message again. PySyft
0.9.5 follows every pointer without limit and builds whatever is named. Here:

- the current rules must accept a type (``catalogue``), and it is filled only with its own fields;
- a message is no deeper than ``DEEPEST``, and all that is nested in it is no longer than itself, so that one piece of
  data that many pointers share does not grow into many;
- decoders that looked up names, or let a small message grow, are replaced (``values``).

``install`` once in each process; PySyft looks its decoder up at each call. It does not look at what a message requests.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import Enum
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from syft.serde import json_serde, recursive, recursive_primitives
from syft.server.server import CODE_RELOADER
from syft.types.dicttuple import DictTuple
from syft.types.syft_object_registry import SyftObjectRegistry

from datasite_worker.pysyft import frames, values
from datasite_worker.pysyft.catalogue import ATTRIBUTES, MACHINERY
from datasite_worker.pysyft.frames import Undecodable

__all__ = ["DEEPEST", "STORED", "WIRE", "TypeRules", "Undecodable", "decode", "install", "only", "under"]

DEEPEST = 64
"""Levels of a message. Real ones have a dozen."""
_REGISTRY = SyftObjectRegistry.__object_serialization_registry__


@dataclass(frozen=True, slots=True)
class TypeRules:
    """``accepts``: whether a type of that name may be built. ``reloads``: whether a name that is not known makes PySyft
    load the policies that its owner has approved."""

    accepts: Callable[[str], bool]
    reloads: bool = False


@lru_cache(maxsize=1024)
def _crosses(name: str) -> bool:
    """Whether a message from outside may contain that type."""
    if name in MACHINERY:
        return False
    return name in ATTRIBUTES or not _is_plain(name)


WIRE = TypeRules(_crosses, reloads=True)
"""For everything from outside: calls, answers and uploads. The default."""
STORED = TypeRules(lambda _name: True, reloads=True)
"""For rows of PySyft's own database, which contain its internal types."""


def only(names: frozenset[str]) -> TypeRules:
    """For a message that may contain only these types."""
    return TypeRules(names.__contains__)


class _State(threading.local):
    rules: TypeRules = WIRE
    depth: int = 0


_state = _State()


@contextmanager
def under(rules: TypeRules) -> Iterator[None]:
    """Decode by ``rules`` inside, in this thread."""
    before, _state.rules = _state.rules, rules
    try:
        yield
    finally:
        _state.rules = before


def decode(blob: Any) -> Any:
    """The object that ``blob`` holds. Raises Undecodable, or what the type's own constructor raises."""
    if not isinstance(blob, bytes):
        raise TypeError("Wrong deserialization format.")
    if _state.depth >= DEEPEST:
        raise Undecodable(f"the message is nested deeper than {DEEPEST} levels")
    _state.depth += 1
    try:
        return _built(frames.read_object(blob))
    finally:
        _state.depth -= 1


def _built(message: frames.Object) -> Any:
    decoder, cls, fields, overrides = _found(message.name, message.version)
    if decoder is not None:
        return decoder(message.blob)
    if strange := [field for field, _ in message.fields if field and fields is not None and field not in fields]:
        raise Undecodable(f"{message.name} has no field {_shown(strange[0])}")
    return _filled(cls, {field: _overridden(overrides, field, decode(one)) for field, one in message.fields if field})


def _overridden(overrides: Mapping[str, Any], field: str, value: Any) -> Any:
    return overrides[field][1](value) if field in overrides else value


def _found(name: str, version: int) -> tuple[Callable[[bytes], Any] | None, type, Any, Mapping[str, Any]]:
    """The type's own decoder, or None where it is made of its fields; the type; its fields; their translations."""
    if not _state.rules.accepts(name):
        raise Undecodable(f"a message of this kind must not contain {_shown(name)}")
    if version not in _REGISTRY.get(name, ()):
        if _state.rules.reloads:
            _load_policies()
        if version not in _REGISTRY.get(name, ()):
            raise Undecodable(f"{_shown(name)}, version {version}, is not a PySyft type")
    own, _, decoder, fields, _, overrides, _, cls, _, _ = _REGISTRY[name][version]
    if own:
        return decoder, cls, None, overrides
    return None, cls, ATTRIBUTES.get(name, fields), overrides


def _load_policies() -> None:
    """As PySyft does: an approved user policy is a type that is made when first needed."""
    with under(STORED):
        for load in list(CODE_RELOADER.values()):
            load()


def _filled(cls: Any, given: dict[str, Any]) -> Any:
    if hasattr(cls, "serde_constructor"):
        return cls.serde_constructor(given)
    if issubclass(cls, Enum):
        return cls(given["value"])
    if issubclass(cls, BaseModel):
        return cls(**given)
    made = cls.__new__(cls)
    for field, value in given.items():
        setattr(made, field, value)
    return made


def _shown(name: str) -> str:
    """A name from the sender, made safe for a log."""
    return repr(name[:60])


# --- what is nested ---


class _Reader:
    message = staticmethod(decode)

    @staticmethod
    def items(blob: bytes) -> list[Any]:
        return [decode(one) for one in frames.read_items(blob)]

    @staticmethod
    def pairs(blob: bytes) -> list[tuple[Any, Any]]:
        return [(decode(key), decode(value)) for key, value in frames.read_pairs(blob)]


_reader = _Reader()


def _collection(kind: Any, blob: bytes) -> Any:
    return kind(_reader.items(blob))


def _mapping(kind: Any, blob: bytes) -> Any:
    return kind(_reader.pairs(blob))


def _proxy(blob: bytes) -> Any:
    return MappingProxyType(dict(_reader.pairs(blob)))


def _valued(decoder: Callable[[bytes, values.Reader], Any], blob: bytes) -> Any:
    return decoder(blob, _reader)


_CONTAINERS: dict[str, Callable[[bytes], Any]] = {
    **{kind.__name__: partial(_collection, kind) for kind in (list, tuple, set, frozenset)},
    **{kind.__name__: partial(_mapping, kind) for kind in (dict, OrderedDict)},
    "dicttuple": partial(_mapping, DictTuple),
    "MappingProxyType": _proxy,
}
_VALUES: dict[str, Callable[[bytes, values.Reader], Any]] = {
    "_GenericAlias": values.type_alias,
    "_UnionGenericAlias": values.type_alias,
    "UnionType": values.union,
    "TypeVar": values.type_variable,
    "inspect_Signature": values.signature,
    "int": values.integer,
    "float": values.real,
    "range": values.steps(range),
    "slice": values.steps(slice),
    "complex": values.complex_number,
    "datetime_datetime": values.moment(datetime),
    "datetime_date": values.moment(date),
    "datetime_time": values.moment(time),
    "numpy_ndarray": values.array,
    "pandas_dataframe": values.table,
    "pandas_series": values.series,
}
_REPLACED = _CONTAINERS | {name: partial(_valued, decoder) for name, decoder in _VALUES.items()}


def _is_plain(name: str) -> bool:
    """Whether PySyft makes objects of that type without a constructor, and sets what it is told to set."""
    return all(_made_plainly(entry) for entry in _REGISTRY.get(name, {}).values()) and name in _REGISTRY


def _made_plainly(entry: tuple[Any, ...]) -> bool:
    own, cls = entry[0], entry[7]
    if own or not isinstance(cls, type) or hasattr(cls, "serde_constructor"):
        return not own
    return not issubclass(cls, Enum | BaseModel)


# --- into PySyft ---


def install() -> None:
    """Once in a process, before any message is decoded; again is no harm."""
    if recursive.rs_bytes2object is decode:
        return
    for name, decoder in _REPLACED.items():
        for version, entry in _REGISTRY[name].items():
            _REGISTRY[name][version] = (*entry[:2], decoder, *entry[3:])
    recursive.rs_bytes2object = decode
    recursive.rs_proto2object = _from_proto
    json_serde._deserialize_from_json_bytes = _stored(json_serde._deserialize_from_json_bytes)
    recursive_primitives.get_deserialized_kv_pairs = _reader.pairs
    recursive_primitives.deserialize_iterable = _collection
    recursive_primitives.deserialize_kv = _mapping


def _from_proto(proto: Any) -> Any:
    return decode(proto.as_builder().to_bytes() if hasattr(proto, "as_builder") else proto.to_bytes())


def _stored(original: Callable[[str], Any]) -> Callable[[str], Any]:
    """Decode rows of the database, which PySyft itself wrote."""

    def decoded(text: str) -> Any:
        with under(STORED):
            return original(text)

    return decoded
