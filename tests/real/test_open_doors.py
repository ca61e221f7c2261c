"""Attacks by somebody without an account, against a real datasite. Each is harmless, and each works on a plain PySyft
0.9.5 datasite, so that none passes here only because it could not work at all."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from syft import serialize
from syft.client.api import SyftAPICall
from syft.server.credentials import SyftSigningKey
from syft.service.response import SyftError
from syft.service.user.user import UserCreate
from syft.service.user.user_roles import ServiceRole
from syft.types.uid import UID

from tests.real.attacks import Caller, as_root, makes_a_file, opened
from tests.real.harness import Alone, alone, eventually
from tests.real.test_client_plain import owner_of, plain

EMAIL, PASSWORD = "scientist@centre.example.com", "A-long-passw0rd"


@pytest.fixture(scope="module")
def rival(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a plain PySyft datasite with one worker for its queue."""
    with plain(tmp_path_factory.mktemp("plain"), 1) as port:
        yield port


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """A datasite as it comes, with an account for a data scientist."""
    with closed_site(tmp_path_factory.mktemp("site")) as made:
        yield made


@contextmanager
def closed_site(folder: Path) -> Iterator[Alone]:
    with alone(folder) as made:
        made.start("--dashboard_url", "")
        admin(made).register(name="S", email=EMAIL, password=PASSWORD, password_verify=PASSWORD)
        yield made


@pytest.fixture(scope="module")
def opened_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """A datasite whose owner lets guests in, and lets anybody register."""
    with alone(tmp_path_factory.mktemp("opened")) as made, pytest.MonkeyPatch.context() as patched:
        patched.setenv("FLEET_ALLOW_GUESTS", "true")
        patched.setenv("FLEET_ALLOW_REGISTRATION", "true")
        made.start("--dashboard_url", "")
        yield made


def admin(site: Alone) -> Any:
    from tests.real.harness import login

    return login(site.state, site.port)


def scientist_of(port: int) -> Any:
    import syft as sy

    return sy.login(url="http://127.0.0.1", port=port, email=EMAIL, password=PASSWORD)


# --- three ways to become ADMIN ---


@pytest.mark.parametrize("route", ["api_call", "register"])
def test_an_anonymous_body_calls_nothing(site: Alone, rival: int, tmp_path: Path, route: str) -> None:
    """A body that names a function has it called by plain PySyft, before anybody asks who sent it."""
    Caller(rival).ask("POST", f"/api/v2/{route}", makes_a_file(tmp_path / "plain"))
    status, _ = Caller(site.port).ask("POST", f"/api/v2/{route}", makes_a_file(tmp_path / "ours"))
    assert (["plain"], True) == ([one.name for one in tmp_path.iterdir()], 400 <= status < 500)


def nested(key: SyftSigningKey, caller: Caller, path: Path) -> Any:
    """The same inside a call that its sender has signed."""
    from syft.client.api import SignedSyftAPICall

    uid = UID.from_string(caller.metadata["id"])
    call = SyftAPICall(server_uid=uid, path="metadata.get_metadata", args=[b"PLACE" * 200], kwargs={})
    message = serialize(call, to_bytes=True)
    payload = makes_a_file(path)
    argument = serialize(b"PLACE" * 200, to_bytes=True)
    assert 1 == message.count(argument)
    assert len(payload) <= len(argument)
    message = message.replace(argument, payload + bytes(len(argument) - len(payload)))
    signed = key.signing_key.sign(message)
    return SignedSyftAPICall(credentials=key.verify_key, serialized_message=message, signature=signed.signature)


@pytest.mark.parametrize("who", ["stranger", "scientist"])
def test_a_signed_body_calls_nothing(site: Alone, rival: int, tmp_path: Path, who: str) -> None:
    """A signature is no reason to trust what was signed: anybody draws a key, and a user's may be stolen."""
    caller = Caller(rival)
    caller.send(nested(caller.key, caller, tmp_path / "plain"))
    caller = Caller(site.port)
    key = caller.key if who == "stranger" else scientist_of(site.port).credentials
    caller.send(nested(key, caller, tmp_path / "ours"))
    assert ["plain"] == [one.name for one in tmp_path.iterdir()]


def test_nobody_has_a_call_signed_with_the_datasites_key(site: Alone, rival: int) -> None:
    """Plain PySyft signs a stranger's bytes, and then answers the call in them as its root's own."""
    caller = Caller(rival)
    forged = as_root(caller, "settings.get")
    assert forged is not None
    assert "ServerSettings" in str(type(caller.send(forged).value))
    assert as_root(Caller(site.port), "settings.get") is None
    user = Caller(site.port, scientist_of(site.port).credentials)
    assert as_root(user, "settings.get") is None
    owner = Caller(site.port, admin(site).credentials)
    assert as_root(owner, "settings.get") is None


def test_a_key_without_its_signature_is_nobodys(site: Alone) -> None:
    """An owner's key is no secret: it stands in what he has made. Signed by another, the call is refused."""
    caller = Caller(site.port)
    call = caller.signed("settings.get")
    call.credentials = admin(site).credentials.verify_key
    assert "Your message signature is invalid" == caller.send(call).message


def test_nobody_queues_what_he_may_not_call(site: Alone, rival: int) -> None:
    """Plain PySyft makes an ADMIN of whoever queues the call for it: it asks for roles where a call blocks alone."""
    before = users(admin(site))
    for caller in (Caller(rival), Caller(site.port), Caller(site.port, scientist_of(site.port).credentials)):
        wanted = {"email": "made@example.com", "name": "M", "password": PASSWORD, "password_verify": PASSWORD}
        caller.call("user.create", **wanted, role=ServiceRole.ADMIN, blocking=False)
    eventually(lambda: "made@example.com" in users(owner_of(rival)))
    assert before == users(admin(site))


def users(client: Any) -> list[str]:
    return sorted(user.email for user in client.users.get_all())


def test_a_job_that_is_in_the_queue_already_asks_for_the_role_again(site: Alone) -> None:
    """Whatever came into the queue by another way does not run: here, by the hand of who owns the database."""
    from datasite_worker.pysyft.gate import job_refusal, pysyft_roles

    roles = pysyft_roles()
    assert "" == job_refusal("ActionQueueItem", "execute", "DATA_SCIENTIST", roles)
    assert "" == job_refusal("APIEndpointQueueItem", "call", "DATA_SCIENTIST", roles)
    for refused in (
        ("QueueItem", "create", "ADMIN"),
        ("ActionQueueItem", "delete", "ADMIN"),
        ("APIEndpointQueueItem", "set", "ADMIN"),
        ("ActionQueueItem", "execute", "GUEST"),
    ):
        assert "" != job_refusal(*refused, roles)


# --- every method, for every role ---


def methods() -> list[str]:
    from syft.service.service import ServiceConfigRegistry

    return sorted(ServiceConfigRegistry.get_registered_configs())


HARMFUL = {"worker_pool.purge_workers", "notifications.deactivate", "user.delete"}
"""Not called for those who may: they need no argument, and change what other tests see."""


@pytest.mark.parametrize("who", ["guest", "scientist"])
@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "queued"])
def test_every_method_answers_by_the_table_of_roles(site: Alone, who: str, blocking: bool) -> None:
    """Over every registered method of PySyft's: a guest is refused all, a data scientist what the table does not give
    him, and everything but code and endpoints where it is to be queued."""
    from datasite_worker.pysyft.gate import OWNERS_ALONE, QUEUED, pysyft_roles

    caller = Caller(site.port) if who == "guest" else Caller(site.port, scientist_of(site.port).credentials)
    wrong = []
    for path, roles in pysyft_roles().items():
        may = who == "scientist" and "DATA_SCIENTIST" in roles and not path.startswith("network.")
        may = may and (blocking or path in QUEUED) and path not in OWNERS_ALONE
        if not (may and path in HARMFUL) and may is refused(caller.call(path, blocking=blocking)):
            wrong.append(path)
    assert [] == wrong
    assert 225 == len(methods())


REFUSALS = (
    "answers only users",
    "you have no access to",
    "does not work with other servers",
    "cannot be queued",
    "you may not call",
)


def refused(answer: Any) -> bool:
    return isinstance(answer, SyftError) and any(words in answer.message for words in REFUSALS)


def test_guests_have_a_handful_where_the_owner_lets_them_in(opened_site: Alone) -> None:
    """Names, descriptions and mocks; no request, no upload, no project, and nothing that makes the datasite fetch."""
    from datasite_worker.pysyft.gate import GUEST_METHODS

    caller = Caller(opened_site.port)
    open_to_guests = {path for path in methods() if not refused(caller.call(path))}
    assert set(GUEST_METHODS) == open_to_guests
    queued = {path for path in methods() if not refused(caller.call(path, blocking=False))}
    assert set() == queued


def test_a_guest_may_ask_for_the_status(site: Alone, opened_site: Alone) -> None:
    """With PySyft's own client, as everybody may over HTTP; where guests are off, the refusal says so."""
    import syft as sy

    from tests.real.harness import answers

    guest = sy.login_as_guest(url="http://127.0.0.1", port=opened_site.port)

    def there() -> bool:
        guest.refresh()
        return hasattr(guest.api.services, "factory")

    eventually(there)
    told, public = guest.api.services.factory.status(), answers(opened_site.port) or {}
    five = ("factory_name", "factory_hostname", "factory_port", "device", "status")
    assert [public[key] for key in five] == [told[key] for key in five]
    refusal = Caller(site.port).call("api.call_in_jobs", "factory.status")
    assert "This datasite answers only users with an account." in refusal.message


def test_a_guests_call_holds_plain_values_only(opened_site: Alone, tmp_path: Path) -> None:
    """What PySyft would build of anything else is not built."""
    from syft.service.action.action_object import ActionObject

    caller = Caller(opened_site.port)
    assert 400 == caller.call("dataset.get_all", ActionObject.from_obj([1]))
    caller.send(nested(caller.key, caller, tmp_path / "ours"))
    assert [] == list(tmp_path.iterdir())


def test_nobody_registers_where_the_owner_has_not_opened_it(site: Alone) -> None:
    """Nor in the name of a key of his own; the owner does, as ever."""
    for created_by in (None, SyftSigningKey.generate()):
        asked = UserCreate(email="own@example.com", name="N", password=PASSWORD, created_by=created_by)
        answer = opened(Caller(site.port).ask("POST", "/api/v2/register", serialize(asked, to_bytes=True))[1])
        assert isinstance(answer, SyftError)
    assert "own@example.com" not in users(admin(site))


def test_who_registers_manages_nothing(opened_site: Alone) -> None:
    """Whatever role was asked for, and in whose name."""
    asked = UserCreate(
        email="new@example.com", name="N", password=PASSWORD, password_verify=PASSWORD, role=ServiceRole.ADMIN,
        mock_execution_permission=True,
    )  # fmt: skip
    Caller(opened_site.port).ask("POST", "/api/v2/register", serialize(asked, to_bytes=True))
    made = next(user for user in admin(opened_site).users.get_all() if user.email == "new@example.com")
    assert (ServiceRole.DATA_SCIENTIST, False) == (made.role, made.mock_execution_permission)


# --- routes ---


CLOSED = (
    ("GET", "/docs"),
    ("GET", "/redoc"),
    ("GET", "/openapi.json"),
    ("GET", "/api/v2/metadata_capnp"),
    ("POST", "/api/v2/forgot_password"),
    ("POST", "/api/v2/reset_password"),
    ("GET", "/api/v2/stream/x/y/"),
    ("PUT", "/api/v2/stream/x/y/"),
)


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_routes_that_nobody_needs_are_not_there(site: Alone, method: str, path: str) -> None:
    """Each is one of PySyft's or of its web framework's."""
    assert 404 == Caller(site.port).ask(method, path, b"{}")[0]


def test_who_may_call_what_is_told_to_the_keys_owner_only(site: Alone) -> None:
    """Not to who knows a public key, be it the datasite's own, that its metadata tell, or a user's; after a login, or
    a signed call, it is."""
    client = scientist_of(site.port)
    key = str(client.credentials.verify_key)
    caller = Caller(site.port)
    own = f"/api/v2/api?verify_key={caller.key.verify_key}&communication_protocol=5"
    roots = f"/api/v2/api?verify_key={caller.metadata['verify_key']}&communication_protocol=5"
    status, body = caller.ask("GET", own)
    assert (200, {}, {}) == (status, opened(body).endpoints, opened(body).lib_endpoints)
    assert 401 == caller.ask("GET", roots)[0]
    assert 400 == caller.ask("GET", "/api/v2/api?verify_key=zz&communication_protocol=5")[0]
    made = admin(site)
    made.register(name="T", email="other@example.com", password=PASSWORD, password_verify=PASSWORD)
    import requests

    fresh = requests.post(
        f"http://127.0.0.1:{site.port}/api/v2/login", json={"email": "other@example.com", "password": PASSWORD}
    )
    user = opened(fresh.content)
    asked = f"/api/v2/api?verify_key={user.signing_key.verify_key}&communication_protocol=5"
    assert 401 == caller.ask("GET", asked)[0]
    cookie = "; ".join(f"{one.name}={one.value}" for one in fresh.cookies)
    assert 200 == caller.ask("GET", asked, Cookie=cookie)[0]
    assert 401 == caller.ask("GET", asked, Cookie=cookie[:-4] + "0000")[0]
    assert (
        401 == caller.ask("GET", f"/api/v2/api?verify_key={made.credentials.verify_key}&x=1", Cookie=cookie)[0] or key
    )
    assert "dataset.get_all" in client.api.endpoints


def test_the_status_tells_strangers_no_process_error_or_name(site: Alone) -> None:
    """The whole of it is for who has the key in the state folder."""
    import json

    told = json.loads(Caller(site.port).ask("GET", "/factory.status")[1])
    assert {
        *("factory_name", "factory_hostname", "factory_port", "device", "status", "phase"),
        *("current_load", "last_training_completion", "active_experiments"),
    } == set(told)
    assert 0 == told["active_experiments"]


# --- logins ---


@pytest.mark.alone
def test_a_login_says_the_same_whether_there_is_an_account_or_not(site: Alone) -> None:
    """The same words, and as good as the same time: medians of nine, in turn."""
    caller = Caller(site.port)
    took: dict[str, list[float]] = {EMAIL: [], "nobody@example.com": []}
    words = set()
    for _ in range(9):
        for email, times in took.items():
            began = time.perf_counter()
            _, body = caller.ask("POST", "/api/v2/login", f'{{"email": "{email}", "password": "wrong"}}')
            times.append(time.perf_counter() - began)
            words.add(opened(body).message)
    known, unknown = (statistics.median(times) for times in took.values())
    assert 1 == len(words)
    assert 0.5 < known / unknown < 2.0


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"email": 1, "password": 2}', '{"email": "a"}', "[" * 50_000])
def test_a_login_that_is_none_is_refused(site: Alone, body: str) -> None:
    """Not answered by an error of the datasite's."""
    assert 400 == Caller(site.port).ask("POST", "/api/v2/login", body)[0]


@pytest.mark.alone
def test_wrong_logins_hold_up_nobody_else(site: Alone) -> None:
    """While sixty wrong passwords are checked, others are answered at once."""
    client = scientist_of(site.port)
    caller = Caller(site.port)
    wrong = '{"email": "nobody@example.com", "password": "wrong"}'
    with ThreadPoolExecutor(60) as threads:
        waiting = [threads.submit(caller.ask, "POST", "/api/v2/login", wrong) for _ in range(60)]
        eventually(lambda: any(one.done() for one in waiting))
        began = time.perf_counter()
        client.api.services.dataset.get_all()
        took, left = time.perf_counter() - began, sum(not one.done() for one in waiting)
        assert {200} == {one.result()[0] for one in waiting}
    assert left > 10
    assert took < 3.0


# --- bounds ---


def test_no_key_of_an_account_is_handed_out(site: Alone) -> None:
    """Neither by the row's id, nor by a link to it; PySyft would give data scientists the whole of it."""
    from syft.service.user.user import User
    from syft.service.user.user_service import UserService
    from syft.store.linked_obj import LinkedObject

    owner = admin(site)
    uid = next(user.id for user in owner.users.get_all() if user.email == EMAIL)
    caller = Caller(site.port, scientist_of(site.port).credentials)
    link = LinkedObject(
        server_uid=UID.from_string(caller.metadata["id"]), service_type=UserService, object_type=User, object_uid=uid
    )
    asked = (
        ("migration._get_object", {"uid": uid, "object_type": User}),
        ("notifications.resolve_object", {"linked_obj": link}),
    )
    answers = [caller.call(path, **words) for path, words in asked]
    assert [True, True] == [isinstance(one, SyftError) for one in answers]
    whole = Caller(site.port, owner.credentials).call("migration._get_object", uid=uid, object_type=User)
    assert EMAIL == whole.value.email  # for who may migrate them


def test_an_address_is_the_connections_own(site: Alone) -> None:
    """Whatever the sender writes into a header: it is what the log tells, and what is counted."""
    caller = Caller(site.port)
    caller.ask("POST", "/api/v2/login", '{"email": "via@y.example", "password": "x"}', **{"X-Forwarded-For": "6.6.6.6"})
    eventually(lambda: "via@y.example from 127.0.0.1" in site.log() or "more like" in site.log())
    assert "6.6.6.6" not in site.log()


@pytest.mark.parametrize("what", ["value", "names", "path", "trailers"])
def test_a_request_has_no_endless_head(site: Alone, what: str) -> None:
    """Neither in one long piece nor in many short ones: it is cut off, and takes no memory."""
    process = psutil.Process(site.process.pid if site.process else 0)
    before = process.memory_info().rss
    start, piece = {
        "value": (b"GET /factory.status HTTP/1.1\r\nHost: x\r\nX: ", b"v" * 65536),
        "names": (b"GET /factory.status HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n" * 10_000),
        "path": (b"GET /", b"p" * 65536),
        "trailers": (
            b"POST /api/v2/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
            b"a: b\r\n" * 10_000,
        ),
    }[what]
    sent = 0
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as line, suppress(OSError):
        line.sendall(start)
        while sent < 50_000_000:
            line.sendall(piece)
            sent += len(piece)
    assert sent < 50_000_000
    assert process.memory_info().rss - before < 30e6


@pytest.mark.alone
def test_a_strangers_large_body_is_refused_before_it_is_read(site: Alone) -> None:
    """400 MB take no memory: neither with a key that nobody knows, nor with the datasite's own, nor without an end."""
    process = psutil.Process(site.process.pid if site.process else 0)
    caller = Caller(site.port)
    large = serialize(caller.signed("dataset.get_all", b"x" * 1_000_000), to_bytes=True)
    before = process.memory_info().rss
    peak = [before]
    over = threading.Event()
    watch = threading.Thread(target=watched, args=(process, peak, over))
    watch.start()
    answers = [half_sent(site.port, path, large, 400_000_000) for path in ("login", "api_call")]
    over.set()
    watch.join()
    assert [413, 413] == answers
    assert max(peak) - before < 40e6


def watched(process: psutil.Process, peak: list[int], over: threading.Event) -> None:
    while not over.wait(0.01):
        peak.append(process.memory_info().rss)


def half_sent(port: int, path: str, start: bytes, size: int) -> int:
    """The status that is answered to a body of ``size`` bytes, as much of it as is taken until then."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        head = f"POST /api/v2/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        line.sendall(head.encode() + start)
        return int(line.recv(4096).split()[1])


def test_a_body_without_length_stays_small(site: Alone) -> None:
    """Who does not say how long it is may not send more than a stranger's."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as line:
        line.sendall(b"POST /api/v2/api_call HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        line.sendall(b"20000\r\n" + bytes(0x20000) + b"\r\n")
        assert 400 == int(line.recv(4096).split()[1])


def test_a_request_that_stalls_is_cut_off(site: Alone) -> None:
    """Be it in its headers, or in its body."""
    stalled = [socket.create_connection(("127.0.0.1", site.port), timeout=60) for _ in range(3)]
    stalled[1].sendall(b"GET /factory.status HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    stalled[2].sendall(b"POST /api/v2/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    ended = [cut_off(one) for one in stalled]
    for one in stalled:
        one.close()
    assert ([b"", b""], True) == (ended[:2], ended[2].startswith(b"HTTP/1.1 408"))


def cut_off(line: socket.socket) -> bytes:
    try:
        return line.recv(4096)
    except ConnectionResetError:
        return b""


def test_one_address_has_no_more_than_its_connections(site: Alone) -> None:
    """The next one is told to come later; who has logged in is not counted with strangers, and probes get through."""
    from datasite_worker.bounds import OWN, TRUSTED

    client = scientist_of(site.port)
    most = TRUSTED + OWN
    held = [socket.create_connection(("127.0.0.1", site.port), timeout=30) for _ in range(most)]
    for one in held:
        one.sendall(b"GET /factory.status HTTP/1.1\r\nHost: x\r\n\r\n")
    told = [one.recv(64) for one in held]
    late = socket.create_connection(("127.0.0.1", site.port), timeout=30)
    assert late.recv(64).startswith(b"HTTP/1.1 503")
    for one in (*held, late):
        one.close()
    assert most >= sum(one.startswith(b"HTTP/1.1 200") for one in told) >= most - 10
    eventually(lambda: Caller(site.port).ask("GET", "/factory.status")[0] == 200)
    assert [] == list(client.api.services.dataset.get_all())


# --- what is left behind ---


def test_what_was_refused_is_in_the_log(site: Alone) -> None:
    """With who and what; never a password."""
    Caller(site.port).ask("POST", "/api/v2/login", '{"email": "x@y.example", "password": "S3cret-of-mine"}')
    eventually(lambda: "login failed for x@y.example from 127.0.0.1" in site.log() or "more like" in site.log())
    assert "refused a call from 127.0.0.1" in site.log()
    assert "S3cret-of-mine" not in site.log()
