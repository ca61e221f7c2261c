"""The outer message of a call: who sent it, the signature, and the signed bytes, which stay bytes until both are looked
at. Builds nothing else of PySyft's, and decides nothing.

A signature says that the sender has the key, and no more: anybody may draw one. Whether the key is a user's is asked
before the signed bytes are decoded, too.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import capnp
from nacl.exceptions import BadSignatureError
from syft.client.api import SignedSyftAPICall, SyftAPICall
from syft.serde import recursive
from syft.server.credentials import SyftVerifyKey

from datasite_worker.pysyft import decoding
from datasite_worker.pysyft.decoding import Undecodable

_NAME, _VERSION = "SignedSyftAPICall", 1
_PARTS = ("credentials", "serialized_message", "signature")
_KEY = decoding.only(frozenset({"SyftVerifyKey", "nacl_verify_key"}))
_BYTES = decoding.only(frozenset({"bytes"}))
_SIGNATURE = 64
"""Bytes of an Ed25519 signature (RFC 8032)."""
HEAD = 64 * 1024
"""The first bytes of a body, which hold the sender's key: PySyft writes it first."""


class _Checked(SignedSyftAPICall):  # type: ignore[misc]  # PySyft has no types
    """A call whose signature was found good, already decoded."""

    __canonical_name__ = _NAME
    __version__ = _VERSION

    @property
    def is_valid(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Envelope:
    """``message`` is what ``key`` signed, if the signature is good."""

    key: SyftVerifyKey
    signature: bytes
    message: bytes

    def is_signed(self) -> bool:
        """Whether who has ``key`` signed these very bytes."""
        try:
            self.key.verify_key.verify(self.message, self.signature)
        except BadSignatureError:
            return False
        return True

    def opened(self, rules: decoding.Rules) -> Any:
        """PySyft's signed call, for its server to answer. Only after ``is_signed``.

        Raises Undecodable, or what a type's constructor raises.
        """
        with decoding.under(rules):
            call = decoding.decode(self.message)
        if type(call) is not SyftAPICall:
            raise Undecodable("what was signed is no call")
        made = _Checked(credentials=self.key, signature=self.signature, serialized_message=b"")
        made.cached_deseralized_message = call
        return made


def read(body: bytes) -> Envelope:
    """The envelope in ``body``. Raises Undecodable."""
    try:
        with recursive.recursive_scheme.from_bytes(body, traversal_limit_in_words=len(body) // 4 + 1024) as message:
            parts = _parts(message, len(body))
    except capnp.KjException as error:
        raise Undecodable("the body is no message of PySyft's") from error
    signature = _under(_BYTES, parts["signature"])
    if len(signature) != _SIGNATURE:
        raise Undecodable("the signature has the wrong length")
    return Envelope(_under(_KEY, parts["credentials"]), signature, _under(_BYTES, parts["serialized_message"]))


def claimed_key(head: bytes, size: int) -> SyftVerifyKey:
    """The key that the sender of a body of ``size`` bytes claims to have, found in its first bytes.

    Raises Undecodable when it does not stand there.
    """
    with mmap.mmap(-1, max(size, len(head))) as whole:  # pages that nobody touches take no memory
        whole.write(head)
        try:
            with recursive.recursive_scheme.from_bytes(whole, traversal_limit_in_words=size // 4 + 1024) as message:
                _check_kind(message)
                for name, chunks in zip(message.fieldsName, message.fieldsData, strict=True):
                    if name == _PARTS[0]:
                        return _under(_KEY, b"".join(chunks)[:HEAD])
        except capnp.KjException as error:
            raise Undecodable("the body is no message of PySyft's") from error
    raise Undecodable("the body does not say who sent it")


def _parts(message: Any, size: int) -> dict[str, bytes]:
    _check_kind(message)
    if sorted(message.fieldsName) != list(_PARTS):
        raise Undecodable("a signed call has other parts than key, signature and message")
    parts = {name: b"".join(chunks) for name, chunks in zip(message.fieldsName, message.fieldsData, strict=True)}
    if sum(map(len, parts.values())) > size:
        raise Undecodable("the message refers to the same data again and again")
    return parts


def _check_kind(message: Any) -> None:
    if (message.canonicalName, message.version) != (_NAME, _VERSION):
        raise Undecodable("the body is no signed call")


def _under(rules: decoding.Rules, blob: bytes) -> Any:
    with decoding.under(rules):
        return decoding.decode(blob)
