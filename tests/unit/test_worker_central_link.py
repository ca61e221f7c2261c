"""What the link to the centre does with each answer: driven call by call, no thread, no network."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from datasite_worker.centre import central_link
from datasite_worker.centre.central_link import CentralLink, Profile, in_words, retry_delay, shown

SITE = Profile(
    "alpha", "host", 8080, "cpu", "http://central:5000", "http://central:8888", 30.0, {"security_level": "high"}
)


class Driven:
    """A link whose central answers from ``codes`` (a code, or an exception), with a clock that is turned by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.codes: dict[str, int | Exception] = {"/register_factory": 200, "/heartbeat": 200}
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.shown: dict[str, Any] = {}
        self.well = True
        monkeypatch.setattr(central_link, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(central_link, "chance", lambda: 0.5)
        monkeypatch.setattr(requests.Session, "post", self._post)
        activity = {"active_experiments": ["train"], "last_training_completion": None}
        self.link = CentralLink(SITE, self.shown.update, lambda: self.well, lambda: activity)

    def _post(self, url: str, json: dict[str, Any], **_how: Any) -> requests.Response:
        path = url[url.rindex("/") :]
        self.said.append((path, json))
        code = self.codes[path]
        if isinstance(code, Exception):
            raise code
        answer = requests.Response()
        answer.status_code, answer.raw = code, io.BytesIO()
        return answer

    def run(self, seconds: float) -> list[str]:
        """What is sent in that time, in steps of a second."""
        before = len(self.said)
        for _ in range(round(seconds)):
            self.link._round(self.now)
            self.now += 1
        return [path for path, _ in self.said[before:]]


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Driven:
    return Driven(monkeypatch)


def test_it_registers_once_and_beats_every_interval(driven: Driven) -> None:
    """Registration first; then one beat each 30 s, which carries what trains."""
    assert ["/register_factory", "/heartbeat", "/heartbeat", "/heartbeat"] == driven.run(90)
    assert (True, "registered", "") == tuple(
        driven.shown[key] for key in ("registered", "registration", "heartbeat_error")
    )
    assert (["train"], "operational") == tuple(driven.said[-1][1][key] for key in ("active_experiments", "status"))


def test_a_datasite_that_does_not_answer_beats_degraded(driven: Driven) -> None:
    """The centre is never told "operational" of a site that does not answer its own HTTP."""
    driven.well = False
    driven.run(1)
    assert "degraded" == driven.said[-1][1]["status"]


def test_a_failed_beat_says_nothing_of_the_registration(driven: Driven) -> None:
    """Beats have a port of their own; while they fail the line stays registered, and nothing is registered anew."""
    driven.run(1)
    driven.codes["/heartbeat"] = 500
    assert "/register_factory" not in driven.run(300)
    assert (True, "registered") == (driven.shown["registered"], driven.shown["registration"])
    assert "http://central:8888/heartbeat answered 500" == driven.shown["heartbeat_error"]


def test_failed_beats_back_off_to_the_interval(driven: Driven) -> None:
    """Tried again after 1, 2, 4, 8, 16, then each 30 s."""
    driven.codes["/heartbeat"] = requests.ConnectionError()
    driven.run(1)
    assert 5 == driven.run(34).count("/heartbeat")
    assert 10 == driven.run(300).count("/heartbeat")


def test_a_central_that_answers_again_is_told_who_is_there(driven: Driven) -> None:
    """It may have been replaced meanwhile."""
    driven.run(1)
    driven.codes["/heartbeat"] = requests.ConnectionError()
    driven.run(60)
    driven.codes["/heartbeat"] = 200
    assert 1 == driven.run(60).count("/register_factory")


def test_a_central_that_forgot_us_is_told_again(driven: Driven) -> None:
    """404 to a beat; but a central that knows no beats at all is not registered with at each of them."""
    driven.run(1)
    driven.codes["/heartbeat"] = 404
    assert 1 == driven.run(59).count("/register_factory")
    assert 5 >= driven.run(300).count("/register_factory")
    assert driven.shown["registered"] is True


def test_a_heartbeat_only_central_is_left_alone(driven: Driven) -> None:
    """404 to registration is an answer: words say so, failed beats change nothing of it, and it is rarely asked again."""
    driven.codes["/register_factory"] = 404
    driven.run(1)
    words = "heartbeat-only: the dashboard offers no registration (404)"
    assert (False, words) == (driven.shown["registered"], driven.shown["registration"])
    for code in (404, requests.ConnectionError(), 200):
        driven.codes["/heartbeat"] = code
        assert "/register_factory" not in driven.run(100)
    assert (False, words) == (driven.shown["registered"], driven.shown["registration"])
    assert 1 == driven.run(600).count("/register_factory")


def test_registration_backs_off(driven: Driven) -> None:
    """About 1, 2, 4 … 60 s apart; the words say why."""
    driven.codes["/register_factory"] = 503
    assert 7 <= driven.run(120).count("/register_factory") <= 8
    assert "not registered: http://central:5000/register_factory answered 503" == driven.shown["registration"]
    assert driven.shown["registered"] is None


def test_new_settings_hold_from_the_next_round(driven: Driven) -> None:
    """A shorter interval at once, and new capabilities are registered; the same ones are not."""
    driven.run(5)
    driven.link.apply(2.0, SITE.capabilities)
    assert "/register_factory" not in driven.run(10)
    assert 5 == driven.run(10).count("/heartbeat")
    driven.link.apply(2.0, {"security_level": "other"})
    driven.run(1)
    assert {"security_level": "other"} == [body for path, body in driven.said if path == "/register_factory"][-1][
        "capabilities"
    ]


@pytest.mark.parametrize(("failures", "delay"), [(1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (5000, 60.0)])
def test_the_delay_doubles_up_to_a_minute(failures: int, delay: float) -> None:
    """And spreads by a quarter to each side."""
    assert delay == retry_delay(failures, 0.5)
    assert (delay * 0.75, delay * 1.25) == (retry_delay(failures, 0.0), retry_delay(failures, 1.0))


def test_a_password_in_a_url_is_never_shown() -> None:
    """Neither in the log nor in the status; what is no URL does not raise."""
    assert "https://central:5000/x" == shown("https://user:secret@central:5000/x")
    assert "http://[::1" in shown("http://[::1")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (requests.ConnectTimeout(), "no connection within 3 s"),
        (requests.ReadTimeout(), "no answer within 5 s"),
        (
            requests.exceptions.SSLError("self-signed certificate"),
            "its certificate is not accepted (self-signed certificate)",
        ),
        (requests.ConnectionError(), "cannot be reached (ConnectionError)"),
        (ValueError("no host"), "ValueError: no host"),
    ],
)
def test_every_failure_has_words(error: Exception, words: str) -> None:
    """An operator reads them in ``fleet status``."""
    assert words == in_words(error)


def test_nothing_that_a_url_may_hold_ends_the_thread() -> None:
    """Broken URLs fail when they are used, in words."""
    for url in ("", "nonsense", "http://[::1", "http://a..b:1", "ftp://x"):
        told: dict[str, Any] = {}
        site = Profile("alpha", "host", 1, "cpu", url, url, 30.0, {})
        link = CentralLink(site, told.update, lambda: True, dict)
        assert link.register() is False
        assert link.beat() is False
        assert told["registered"] is None
        assert told["heartbeat_error"]
