"""What somebody without an account sends, as harmless as it can be: made of PySyft's own client classes, by hand."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syft import serialize
from syft.client.api import SignedSyftAPICall, SyftAPICall
from syft.server.credentials import SyftSigningKey, SyftVerifyKey
from syft.types.uid import UID


@dataclass
class Caller:
    """Calls the datasite on ``port`` with a key of its own, and no account."""

    port: int
    key: SyftSigningKey = field(default_factory=SyftSigningKey.generate)

    def __post_init__(self) -> None:
        self.metadata: dict[str, Any] = json.loads(self.ask("GET", "/api/v2/metadata")[1])

    def ask(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> tuple[int, bytes]:
        """Status and body, on a connection of its own."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            line.request(method, path, body, headers)
            answer = line.getresponse()
            return answer.status, answer.read()
        finally:
            line.close()

    def signed(self, path: str, *args: Any, blocking: bool = True, **kwargs: Any) -> SignedSyftAPICall:
        uid = UID.from_string(self.metadata["id"])
        return SyftAPICall(server_uid=uid, path=path, args=list(args), kwargs=kwargs, blocking=blocking).sign(self.key)

    def send(self, call: SignedSyftAPICall) -> Any:
        """What is answered: PySyft's value or error; the HTTP status where that is not 200."""
        status, body = self.ask("POST", "/api/v2/api_call", serialize(call, to_bytes=True))
        return opened(body) if status == 200 else status

    def call(self, path: str, *args: Any, blocking: bool = True, **kwargs: Any) -> Any:
        return self.send(self.signed(path, *args, blocking=blocking, **kwargs))


def opened(body: bytes) -> Any:
    from syft import deserialize

    answer = deserialize(body, from_bytes=True)
    return answer.message.data if isinstance(answer, SignedSyftAPICall) else answer


def as_root(caller: Caller, path: str) -> SignedSyftAPICall | None:
    """A call signed with the datasite's own key, by the method that signs what it is given; None where it signs none."""
    root = SyftVerifyKey.from_string(caller.metadata["verify_key"])
    uid = UID.from_string(caller.metadata["id"])
    message = serialize(SyftAPICall(server_uid=uid, path=path, args=[], kwargs={}), to_bytes=True)
    answer = caller.call("network.ping", challenge=message)
    signature = getattr(getattr(answer, "value", None), "signature", None) or getattr(answer, "value", None)
    signature = getattr(signature, "syft_action_data", signature)
    if not isinstance(signature, bytes):
        return None
    return SignedSyftAPICall(credentials=root, serialized_message=message, signature=signature[:64])


def naming(function: str, **arguments: Any) -> bytes:
    """A message in which the alias of a type names ``function``; whoever looks it up and calls it does what it does."""
    from syft.serde.recursive import chunk_bytes, recursive_scheme

    message = recursive_scheme.new_message()
    message.canonicalName, message.version = "_GenericAlias", 1
    told = {"path": function, **arguments}
    chunk_bytes(told, lambda one: serialize(one, to_bytes=True), "nonrecursiveBlob", message)
    return bytes(message.to_bytes())


def makes_a_file(path: Path) -> bytes:
    """What makes an empty file where types are looked up by name."""
    return naming("io.open", file=str(path), mode="w")
