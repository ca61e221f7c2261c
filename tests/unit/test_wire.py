"""PySyft's messages, decoded by our own decoder: what an honest sender means, and nothing else."""

from __future__ import annotations

import datetime as dt
import inspect
import re
import typing
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import syft as sy
import torch
from syft import deserialize, serialize
from syft.client.api import SyftAPICall
from syft.serde.recursive import chunk_bytes, recursive_scheme
from syft.server.credentials import SyftSigningKey
from syft.service.user.user import UserCreate
from syft.service.user.user_roles import ServiceRole
from syft.types.syft_object_registry import SyftObjectRegistry

from datasite_worker.pysyft import catalogue, decoding, envelope, values
from datasite_worker.pysyft.decoding import DEEPEST, Undecodable

pytestmark = pytest.mark.process

decoding.install()

REGISTRY = SyftObjectRegistry.__object_serialization_registry__
DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
SCIENTIST = ServiceRole.DATA_SCIENTIST


def again(value: Any) -> Any:
    return deserialize(serialize(value, to_bytes=True), from_bytes=True)


def raw(name: str, blob: bytes, version: int = 1) -> bytes:
    """The message of a value whose bytes are ``blob``."""
    message = recursive_scheme.new_message()
    message.canonicalName, message.version = name, version
    chunk_bytes(blob, lambda one: one, "nonrecursiveBlob", message)
    return bytes(message.to_bytes())


def filled(name: str, fields: dict[str, bytes], version: int = 1) -> bytes:
    """The message of an object with these fields, each a message."""
    message = recursive_scheme.new_message()
    message.canonicalName, message.version = name, version
    message.init("fieldsName", len(fields))
    message.init("fieldsData", len(fields))
    for at, (field, blob) in enumerate(fields.items()):
        message.fieldsName[at] = field
        chunk_bytes(blob, lambda one: one, at, message.fieldsData)
    return bytes(message.to_bytes())


FRAME = pd.DataFrame(
    {"a": [1, 2], "b": ["x", None], "c": pd.to_datetime(["2020-01-01", "2021-01-01"])}, index=["p", "q"]
)

HONEST = [
    *(1, -5, 2**80, 1.5, float("inf"), "x", b"y", None, True, 1j, range(3), slice(1, None, 2)),
    *([1, [2]], (1,), {"a": 1}, {1, 2}, frozenset([1]), OrderedDict(a=1), defaultdict(list, {"a": [1]})),
    *(np.arange(6).reshape(2, 3), np.array(["ab", "c", ""]), np.zeros((0, 3)), np.zeros(2, "float16")),
    *(np.array([True, False]), np.float32(3), np.bool_(True)),
    *(torch.arange(6.0).reshape(2, 3), FRAME, pd.Series([1, 2], name=0), pd.DataFrame({"n": []})),
    *(dt.datetime(2020, 1, 1, 2, 3, tzinfo=dt.UTC), dt.date(2020, 1, 1), dt.time(3, 4), Path("/x")),
    *(typing.Optional[int], typing.Union[int, str], typing.List[int], typing.Any, int | str, int),  # noqa: UP006, UP007, UP045 - as users write them
    typing.Dict[str, typing.Optional[int]],  # noqa: UP006, UP045 - the same
    inspect.signature(lambda a, b=1, *c, d: 1),
]


@pytest.mark.parametrize("value", HONEST, ids=lambda one: re.sub(r"\W+", " ", repr(one))[:40])
def test_what_a_client_sends_arrives_as_it_was(value: Any) -> None:
    """Every kind of value that PySyft carries."""
    assert repr(value) == repr(again(value)) or repr(value).removeprefix("typing.") in repr(again(value))


def test_a_read_only_mapping_arrives_too() -> None:
    """PySyft's own decoder fails at it."""
    assert MappingProxyType({"a": 1}) == again(MappingProxyType({"a": 1}))


# --- aliases of types ---


@pytest.mark.parametrize(
    "path", ["io.open", "os.mkdir", "builtins.eval", "typing.NamedTuple", "typing.sys", "typing", ""]
)
def test_an_alias_is_a_name_of_typing_and_nothing_is_called(tmp_path: Path, path: str) -> None:
    """Whatever module and function it names."""
    told = {"path": path, "file": str(tmp_path / "made"), "mode": "w", "__args__": (int,)}
    for kind in ("_GenericAlias", "_UnionGenericAlias"):
        with pytest.raises(Undecodable):
            decoding.decode(raw(kind, serialize(told, to_bytes=True)))
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [(), ("int",), (1,), None, ([int],), (int,) * 1000])
def test_the_arguments_of_an_alias_are_types(arguments: Any) -> None:
    """Texts would be evaluated where somebody asks for the hints of a function."""
    with pytest.raises((Undecodable, TypeError)):
        decoding.decode(raw("_GenericAlias", serialize({"path": "typing.List", "__args__": arguments}, to_bytes=True)))


@pytest.mark.parametrize("blob", [serialize((1, 2), to_bytes=True), serialize((), to_bytes=True), b"x"])
def test_a_union_is_made_of_types(blob: bytes) -> None:
    """``|`` of anything else is an operation on it."""
    with pytest.raises(Undecodable):
        decoding.decode(raw("UnionType", blob))


@pytest.mark.parametrize(
    "told",
    [
        {"parameters": [1], "return_annotation": int},
        {"parameters": []},
        {"parameters": [], "return_annotation": int, "x": 1},
    ],
)
def test_a_signature_is_made_of_parameters(told: dict[str, Any]) -> None:
    """And of nothing else."""
    with pytest.raises(Undecodable):
        decoding.decode(raw("inspect_Signature", serialize(told, to_bytes=True)))


# --- what may be built ---


@pytest.mark.parametrize(
    "name", ["Datasite", "OnDiskBlobStorageClient", "UserService", "HTTPConnection", "WeakSet", "WorkerSettings"]
)
def test_machinery_is_not_built(name: str) -> None:
    """Not from outside; the rows of PySyft's own database may hold it."""
    with pytest.raises(Undecodable, match="must not contain"):
        decoding.decode(filled(name, {}, max(REGISTRY[name])))
    assert decoding.STORED.accepts(name)


def test_a_plain_class_takes_its_own_fields_only() -> None:
    """PySyft sets whatever attribute the message names."""
    with pytest.raises(Undecodable, match="has no field"):
        decoding.decode(filled("UID", {"__class__": serialize(int, to_bytes=True)}))


def test_a_model_takes_its_own_fields_only() -> None:
    """The same for classes with a constructor."""
    with pytest.raises(Undecodable, match="has no field"):
        decoding.decode(filled("SyftError", {"other": serialize(1, to_bytes=True)}))


def test_an_unknown_type_is_named() -> None:
    """In words that are fit for a log."""
    with pytest.raises(Undecodable, match=r"'Nobody\\n.*is not a PySyft type"):
        decoding.decode(raw("Nobody\n" + "x" * 500, b""))


def test_a_narrow_rule_holds_inside_too() -> None:
    """What is nested is held to the same rule, and the rule ends with its block."""
    uid = serialize([sy.UID()], to_bytes=True)
    with decoding.under(decoding.only(frozenset({"list"}))), pytest.raises(Undecodable, match="must not contain 'UID'"):
        decoding.decode(uid)
    assert 1 == len(decoding.decode(uid))


# --- size ---


def test_a_message_has_no_bottomless_depth() -> None:
    """Deeper than ``DEEPEST`` it is refused, long before Python's own stack ends; below, it is not."""
    value: Any = 1
    for _ in range(DEEPEST - 1):
        value = [value]
    message = serialize(value, to_bytes=True)
    assert value == decoding.decode(message)
    with pytest.raises(Undecodable, match="deeper"):
        decoding.decode(serialize([value], to_bytes=True))
    assert value == decoding.decode(message)


def shared(copies: int, size: int) -> bytes:
    """A list of ``copies`` items that are all the same piece of data: pointers of one message to one place."""
    item = serialize(b"z" * size, to_bytes=True)
    from syft.serde.recursive_primitives import iterable_schema

    made = iterable_schema.new_message()
    made.init("values", copies)
    for at in range(copies):
        chunk_bytes(item if at == 0 else b"", lambda one: one, at, made.values)
    words = [int(one) for one in np.frombuffer(made.to_bytes(), "<u8")]
    lists = next(at for at, word in enumerate(words) if word & 7 == 1 and word >> 35 == copies)
    first = lists + 1 + (words[lists] % 2**32 >> 2)
    target = first + 1 + (words[first] % 2**32 >> 2)
    for at in range(1, copies):  # a list's pointer: how far from the word after it, and what is there
        words[first + at] = words[first] >> 32 << 32 | ((target - first - at - 1) % 2**30) << 2 | 1
    return raw("list", np.array(words, "<u8").tobytes())


def test_one_piece_of_data_is_not_many() -> None:
    """A thousand pointers to it, in a message of a few kilobytes, are not followed."""
    assert [b"z" * 1000] == decoding.decode(shared(1, 1000))
    with pytest.raises(Undecodable):
        decoding.decode(shared(1000, 1000))


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 40])
def test_half_a_message_is_none(cut: int) -> None:
    """Of whatever length."""
    with pytest.raises(Undecodable):
        decoding.decode(serialize({"a": [1, 2.5]}, to_bytes=True)[:cut])


def packed(*numbers: int) -> bytes:
    """An array of texts, as PySyft packs it, made by hand."""
    return raw("numpy_ndarray", serialize(np.array(numbers, "uint64"), to_bytes=True))


@pytest.mark.parametrize(
    "numbers",
    [
        (97, 98, 1, 2, 1, 3, 1, 3),  # more in the shape than there is
        (97, 98, 2, 1, 2, 2, 1),  # ends that go back
        (97, 9, 1, 1, 1),  # an end beyond the text
        (5,),
        (2**63,),
    ],
)
def test_an_array_of_texts_is_what_it_says(numbers: tuple[int, ...]) -> None:
    """Neither overlapping texts, nor lengths that are not there."""
    with pytest.raises((Undecodable, ValueError)):
        decoding.decode(packed(*numbers))


def test_an_array_of_texts_does_not_grow_without_end() -> None:
    """NumPy gives every text the room of the longest: one long among many short ones would take gigabytes."""
    with pytest.raises(Undecodable, match="become too large"):
        decoding.decode(packed(*[120] * 20_000, *[20_000] * 20_000, 20_000, 20_000, 1))


@pytest.mark.parametrize(
    ("size", "kind"), [(2**40, "float64"), (-1, "float64"), (10, "object"), (10, "O"), (10, "x" * 500)]
)
def test_an_array_names_a_size_and_a_type_that_can_be(size: int, kind: str) -> None:
    """Memory is not set aside for what the sender claims, and no array of objects is made of bytes."""
    with pytest.raises((Undecodable, TypeError)):
        decoding.decode(raw("numpy_ndarray", serialize((b"x", size, kind), to_bytes=True)))


def parquet(table: Any, **how: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **how)
    return raw("pandas_dataframe", sink.getvalue().to_pybytes())


def test_a_table_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """One long text, ten thousand times, is a small file and a large table."""
    sink, rows = pa.BufferOutputStream(), pa.table({"a": ["x" * 10_000] * 1000})
    with pq.ParquetWriter(sink, rows.schema) as writer:
        for _ in range(10):
            writer.write_table(rows)
    message = raw("pandas_dataframe", sink.getvalue().to_pybytes())
    assert 10_000 == len(decoding.decode(message))
    monkeypatch.setattr(values, "LARGEST", 50_000_000)
    assert 200_000 > len(message)
    with pytest.raises(Undecodable, match="too large"):
        decoding.decode(message)


def test_a_tables_lists_do_not_grow_without_end() -> None:
    """A row that is a list of millions of the same number is a file of a few kilobytes."""
    rows = pa.table({"a": pa.array([np.zeros(3_000_000, "int64")])})
    assert [1, 2] == list(decoding.decode(parquet(pa.table({"a": pa.array([[1, 2]])})))["a"][0])
    with pytest.raises(Undecodable, match="too large"):
        decoding.decode(parquet(rows))


def test_a_table_is_compressed_as_pysyft_does_it() -> None:
    """Other ways hold a thousand times their size."""
    with pytest.raises(Undecodable, match="compressed"):
        decoding.decode(parquet(pa.table({"a": [1]}), compression="gzip"))


@pytest.mark.parametrize("text", ["1" * 5000, "", "now", "2020-13-01"])
def test_a_time_is_one(text: str) -> None:
    """ISO 8601, and no longer than that takes."""
    with pytest.raises(ValueError):  # noqa: PT011 - Undecodable is one, and so is the library's
        decoding.decode(raw("datetime_datetime", serialize(text, to_bytes=True)))


# --- the envelope ---


def sealed(key: SyftSigningKey, **arguments: Any) -> bytes:
    call = SyftAPICall(server_uid=sy.UID(), path="a.b", args=[], kwargs=arguments)
    return bytes(serialize(call.sign(key), to_bytes=True))


def test_an_envelope_says_who_sent_it_before_it_is_opened() -> None:
    """Key and signature over the raw bytes; a byte of them changed, the signature is not good any more."""
    key = SyftSigningKey.generate()
    found = envelope.read(sealed(key, x=1))
    assert (key.verify_key, True) == (found.key, found.is_signed())
    assert {"x": 1} == found.opened(decoding.WIRE, SCIENTIST).message.kwargs
    other = envelope.Envelope(found.key, found.signature, found.message.replace(b"a.b", b"a.c"))
    assert not other.is_signed()


def test_the_senders_role_is_never_read_from_a_message() -> None:
    """It is looked up by the key, once, and goes with the call; who writes one into the envelope is refused."""
    key = SyftSigningKey.generate()
    opened = envelope.read(sealed(key)).opened(decoding.WIRE, SCIENTIST)
    assert (SCIENTIST, True) == (opened.role, opened.is_valid)
    parts = {
        "credentials": serialize(key.verify_key, to_bytes=True),
        "serialized_message": serialize(b"m", to_bytes=True),
        "signature": serialize(bytes(64), to_bytes=True),
        "role": serialize(ServiceRole.ADMIN, to_bytes=True),
    }
    with pytest.raises(Undecodable):
        envelope.read(filled("SignedSyftAPICall", parts))
    for name in ("SignedSyftAPICall", "CheckedCall"):
        with pytest.raises(Undecodable):
            decoding.decode(filled(name, parts))


def test_an_envelope_holds_nothing_else() -> None:
    """Least of all a call that is already decoded, which PySyft would take for the signed one."""
    key = SyftSigningKey.generate()
    call = SyftAPICall(server_uid=sy.UID(), path="a.b", args=[], kwargs={})
    parts = {
        "credentials": serialize(key.verify_key, to_bytes=True),
        "serialized_message": serialize(b"m", to_bytes=True),
        "signature": serialize(bytes(64), to_bytes=True),
    }
    assert b"m" == envelope.read(filled("SignedSyftAPICall", parts)).message
    for more in (
        {**parts, "cached_deseralized_message": serialize(call, to_bytes=True)},
        {**parts, "credentials": serialize("key", to_bytes=True)},
        {**parts, "signature": serialize(b"short", to_bytes=True)},
        {**parts, "credentials": filled("SyftVerifyKey", {})},
        {**parts, "credentials": filled("SyftVerifyKey", {"verify_key": raw("nacl_verify_key", b"short")})},
        {**parts, "serialized_message": serialize([1], to_bytes=True)},
        {"credentials": parts["credentials"]},
    ):
        with pytest.raises(Undecodable):
            envelope.read(filled("SignedSyftAPICall", more))
    with pytest.raises(Undecodable):
        envelope.read(serialize(call, to_bytes=True))


def test_what_was_signed_is_a_call() -> None:
    """An answer of the datasite's own, which it signs too, is none."""
    from syft.client.api import SyftAPIData

    key = SyftSigningKey.generate()
    answer = SyftAPIData(data=1).sign(key)
    with pytest.raises(Undecodable, match="is not a call"):
        envelope.read(serialize(answer, to_bytes=True)).opened(decoding.WIRE, SCIENTIST)


@pytest.mark.parametrize("size", [10, 200_000, 3_000_000])
def test_the_sender_stands_in_the_first_bytes(size: int) -> None:
    """So that a long body can be refused before it is read."""
    key = SyftSigningKey.generate()
    body = sealed(key, x=b"y" * size)
    assert key.verify_key == envelope.claimed_key(body[: envelope.HEAD], len(body))


def test_first_bytes_are_taken_for_no_more_than_they_are() -> None:
    """However long the body is said to be: names that share their bytes are not read again and again."""
    body = filled("SignedSyftAPICall", {str(number): b"" for number in range(2000)})
    words = [int(one) for one in np.frombuffer(body + bytes(-len(body) % 8), "<u8")]
    names = next(at for at, word in enumerate(words) if word & 7 == 1 and word >> 35 == 2000 and word >> 32 & 7 == 6)
    first = names + 1 + (words[names] % 2**32 >> 2)
    for at in range(2000):  # all of them the whole rest of the message, as a text of so many bytes
        words[first + at] = (len(body) // 2) << 35 | 2 << 32 | ((2000 - at) % 2**30) << 2 | 1
    with pytest.raises(Undecodable):
        envelope.claimed_key(np.array(words, "<u8").tobytes(), 2 * 1024**3)


def test_a_name_that_is_no_text_is_refused() -> None:
    """Not an error of the datasite's."""
    with pytest.raises(Undecodable):
        decoding.decode(raw("list", b"").replace(b"list", b"l\xffst"))


@pytest.mark.parametrize("head", [b"", b"x" * 100, bytes(1000), serialize([1], to_bytes=True)])
def test_first_bytes_that_say_nothing_are_refused(head: bytes) -> None:
    """Whatever they are."""
    with pytest.raises(Undecodable):
        envelope.claimed_key(head, 1_000_000)


# --- the review ---


def test_every_type_of_pysyft_is_looked_at() -> None:
    """The tables name types that exist, all 447 of them are either data or machinery, and those with a decoder of
    their own are reviewed in docs/security.md. A patched PySyft fails here."""
    own = {name for name, versions in REGISTRY.items() for entry in versions.values() if entry[0]}
    known = {name for name in REGISTRY if not name.startswith("syft.user")}
    reviewed = set(re.findall(r"`(\w[\w.]*)`", DOCUMENT.read_text()))
    assert set() == (catalogue.MACHINERY | catalogue.ATTRIBUTES.keys()) - known
    assert set() == (catalogue.LOGIN_ANSWER | catalogue.REGISTRATION | catalogue.GUEST_CALL) - known
    assert set() == own - reviewed
    assert 447 == sum(len(REGISTRY[name]) for name in known)
    assert 76 == len(own)


def test_what_is_replaced_is_there() -> None:
    """Each decoder that is replaced stands under the name that PySyft calls."""
    from syft.serde import recursive

    assert decoding.decode is recursive.rs_bytes2object
    assert all(REGISTRY[name][1][2] is decoder for name, decoder in decoding._REPLACED.items())


def test_an_account_is_asked_for_with_plain_values() -> None:
    """A registration holds what ``UserCreate`` needs, and no more."""
    asked = UserCreate(email="a@b.example", name="n", password="p", created_by=SyftSigningKey.generate())
    with decoding.under(decoding.only(catalogue.REGISTRATION)):
        assert asked.email == decoding.decode(serialize(asked, to_bytes=True)).email
