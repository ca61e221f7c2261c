"""The outer message of a call: who sent it, the signature, and the signed bytes, which stay bytes until both are
checked. Builds nothing else of PySyft's, and decides nothing.

A signature only proves that the sender has the key, and anybody can make a key. So the key must also be a user's
before the signed bytes are decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nacl.exceptions import BadSignatureError
from syft.client.api import SignedSyftAPICall, SyftAPICall
from syft.server.credentials import SyftVerifyKey
from syft.service.user.user_roles import ServiceRole

from datasite_worker.pysyft import decoding, frames
from datasite_worker.pysyft.frames import Undecodable

_NAME, _VERSION = "SignedSyftAPICall", 1
_PARTS = ("credentials", "serialized_message", "signature")
_KEY = decoding.only(frozenset({"SyftVerifyKey", "nacl_verify_key"}))
_BYTES = decoding.only(frozenset({"bytes"}))
_SIGNATURE = 64
"""Bytes of an Ed25519 signature (RFC 8032)."""
HEAD = 64 * 1024
"""The first bytes of a body, which hold the sender's key: PySyft writes it first."""


class CheckedCall(SignedSyftAPICall):  # type: ignore[misc]  # PySyft has no types
    """A call whose signature was found good, already decoded, and the role of its sender. Never read from a message:
    PySyft does not know it as a type of its own."""

    __canonical_name__ = _NAME
    __version__ = _VERSION

    role: ServiceRole

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
        """Whether ``key`` signed exactly these bytes."""
        try:
            self.key.verify_key.verify(self.message, self.signature)
        except BadSignatureError:
            return False
        return True

    def opened(self, rules: decoding.TypeRules, role: ServiceRole) -> CheckedCall:
        """PySyft's signed call, for its server to answer, from a sender with that ``role``. Only after ``is_signed``.

        Raises Undecodable, or what a type's constructor raises.
        """
        with decoding.under(rules):
            call = decoding.decode(self.message)
        if type(call) is not SyftAPICall:
            raise Undecodable("the signed message is not a call")
        made = CheckedCall(credentials=self.key, signature=self.signature, serialized_message=b"", role=role)
        made.cached_deseralized_message = call
        return made


def read(body: bytes) -> Envelope:
    """The envelope in ``body``. Raises Undecodable."""
    found = _checked(frames.read_object(body))
    if sorted(found) != list(_PARTS):
        raise Undecodable("a signed call must consist of key, signature and message")
    signature = _under(_BYTES, found["signature"])
    if len(signature) != _SIGNATURE:
        raise Undecodable("the signature has the wrong length")
    return Envelope(_under(_KEY, found["credentials"]), signature, _under(_BYTES, found["serialized_message"]))


def claimed_key(head: bytes, size: int) -> SyftVerifyKey:
    """The key that the sender of a body of ``size`` bytes claims to have, found in its first bytes.

    Raises Undecodable when it does not stand there.
    """
    return _under(_KEY, frames.read_field(head, size, (_NAME, _VERSION), _PARTS[0]))


def _checked(found: frames.Object) -> dict[str, bytes]:
    if (found.name, found.version) != (_NAME, _VERSION):
        raise Undecodable("the body is not a signed call")
    return dict(found.fields)


def _under(rules: decoding.TypeRules, blob: bytes) -> Any:
    try:
        with decoding.under(rules):
            return decoding.decode(blob)
    except Undecodable:
        raise
    except Exception as error:
        raise Undecodable("the key is not valid") from error
