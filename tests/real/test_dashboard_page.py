"""The wall page in a real Chromium: what stands on it, in which order, and what a hostile factory can do to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from playwright.sync_api import Browser, Page, Response, sync_playwright

from central.dashboard.store import Factory
from tests.real.dashboards import Dashboard, a_dashboard, a_factory
from tests.real.harness import eventually

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")

SOON = 2000
"""Milliseconds within which a change is to be seen."""
CEILING = 30_000
HOSTILE = [
    "<img src=x onerror=window.owned=1>",
    "<script>window.owned=1</script>",
    '"><svg onload=window.owned=1>',
    "javascript:window.owned=1",
    "a" * 128,
    "__proto__",
    "constructor",
    "toString",
    "</li></ul><h1>owned",
    "עברית و عربي",
    "{{7*7}}${7*7}",
    "Z̷̧̛͎a̸l̵g̶o̷" * 8,
]


class Wall:
    """A page that is open. ``asked`` is every address that it went to, ``complaints`` what its console said."""

    def __init__(self, page: Page, board: Dashboard) -> None:
        self.page = page
        self.board = board
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, query: str = "") -> None:
        answer = cast("Response", self.page.goto(f"{self.board.url}/{query}"))
        assert 200 == answer.status
        self.page.wait_for_selector("#connection.live", timeout=CEILING)

    def names(self) -> list[str]:
        """Those on the page, from top to bottom."""
        told: list[str] = self.page.eval_on_selector_all(".card h3", "all => all.map(one => one.textContent)")
        return told

    def titles(self) -> list[str]:
        told: list[str] = self.page.eval_on_selector_all("h2 span", "all => all.map(one => one.textContent)")
        return told

    def counts(self) -> dict[str, int]:
        texts: list[str] = self.page.eval_on_selector_all(
            "#counts button", "all => all.map(one => one.dataset.state + ' ' + one.querySelector('b').textContent)"
        )
        return {state: int(number) for state, number in (text.split() for text in texts)}

    def card(self, name: str) -> dict[str, str]:
        """The texts on a factory's card, by their class."""
        node = self.page.locator(f".card[data-name='{name}']")
        parts = ("status", "beat", "cpu", "memory", "experiments", "device", "trained", "place")
        return {part: node.locator(f"span.{part}, small.{part}, dd.{part}").inner_text() for part in parts}

    def see(self, condition: str, timeout: float = CEILING) -> None:
        """Asked again and again: a condition that waits in the page would need what its policy forbids, eval."""
        eventually(lambda: self.page.evaluate(condition), timeout / 1000)

    def background(self) -> str:
        return str(self.page.evaluate("getComputedStyle(document.body).backgroundColor"))


Open = Callable[..., AbstractContextManager[Wall]]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        words = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=words)
        yield browser
        browser.close()


@pytest.fixture
def wall(chromium: Browser, tmp_path: Path) -> Open:
    """Opens the page of a dashboard with these factories; in the end nothing was complained of or loaded from
    elsewhere."""

    @contextmanager
    def opened(factories: Iterable[Factory] = (), words: tuple[str, ...] = (), **look: Any) -> Iterator[Wall]:
        context = chromium.new_context(**{"viewport": {"width": 1920, "height": 1080}, **look})
        with a_dashboard(tmp_path, *words, seeded=factories) as board:
            made = Wall(context.new_page(), board)
            made.open()
            yield made
            context.close()
        assert [] == made.complaints
        assert [] == [url for url in made.asked if not url.startswith(board.url)]

    return opened


def test_with_no_factory_it_says_so_until_one_comes(wall: Open) -> None:
    """The first one appears without reloading, within two seconds."""
    with wall() as page:
        assert "No factory has registered yet" in page.page.inner_text("#empty")
        assert {"offline": 0, "late": 0, "running": 0} == page.counts()
        page.board.register("detroit_line_alpha", region="Michigan", device="cuda:0")
        page.see("document.querySelectorAll('.card').length === 1", SOON)
        assert (["Michigan"], ["detroit_line_alpha"]) == (page.titles(), page.names())
        assert page.page.locator("#empty").is_hidden()
        card = page.card("detroit_line_alpha")
        assert ("running", "no heartbeat yet", "cuda:0", "CPU \u2013") == tuple(
            card[part] for part in ("status", "beat", "device", "cpu")
        )


def test_one_factory_shows_all_that_is_known_of_it(wall: Open) -> None:
    """State, device, load and its hour, last beat, experiments, last training, place."""
    known = a_factory(
        "alpha",
        silent=3.0,
        device="cuda:1",
        region="Michigan",
        location="Hall 3",
        active_experiments=["fit_bearing", "fit_gear"],
        last_training_completion="2020-01-01T00:00:00+00:00",
    )
    with wall([known]) as page:
        card = page.card("alpha")
        assert card.pop("beat").endswith("s ago")
        assert card.pop("trained").endswith("d ago")
        assert {
            "status": "running",
            "cpu": "CPU 40 %",
            "memory": "memory 55 %",
            "experiments": "2: fit_bearing, fit_gear",
            "device": "cuda:1",
            "place": "Hall 3 · plant:8080",
        } == card
        drawn = page.page.get_attribute(".card .spark .line", "d") or ""
        assert 55 <= drawn.count("L") <= 60


def test_a_beat_is_seen_within_two_seconds(wall: Open) -> None:
    """Without reloading: load, experiments and device as the beat told them."""
    with wall([a_factory("alpha"), a_factory("beta"), a_factory("gamma")]) as page:
        page.page.evaluate("window.kept = document.querySelector(\".card[data-name='beta']\")")
        page.board.beat("beta", cpu=91.0, active_experiments=["fit_now"], device="cuda:9")
        page.see("window.kept.querySelector('.cpu').textContent === 'CPU 91 %'", SOON)
        card = page.card("beta")
        assert ("1: fit_now", "cuda:9") == (card["experiments"], card["device"])
        assert page.page.evaluate("window.kept.isConnected")


def test_what_is_wrong_stands_first(wall: Open) -> None:
    """Offline, then late, then degraded, whatever their region; then the regions in their order, those without last."""
    factories = [
        a_factory("a_well", region="Ohio"),
        a_factory("b_late", silent=60.0, region="Ohio"),
        a_factory("c_gone", silent=4000.0, region="Michigan", reported_status="stopping"),
        a_factory("d_sick", region="Michigan", reported_status="degraded"),
        a_factory("e_well", region="Michigan"),
        a_factory("f_well"),
        a_factory("a_gone", silent=90_000_000.0),
    ]
    with wall(factories) as page:
        assert ["a_gone", "c_gone", "b_late", "d_sick", "e_well", "a_well", "f_well"] == page.names()
        assert ["Needs attention", "Michigan", "Ohio", "No region"] == page.titles()
        assert {"offline": 2, "late": 1, "running": 4} == page.counts()
        said = {name: page.card(name)["status"] for name in ("c_gone", "b_late", "d_sick")}
        assert {"c_gone": "offline", "b_late": "late", "d_sick": "degraded"} == said
        assert "last reported: stopping" == page.page.inner_text("[data-name=c_gone] .said")
        assert "no heartbeat for 67 min" == page.card("c_gone")["beat"]
        assert "2 offline · 1 late · Factories" == page.page.title()
        sizes = [
            float(page.page.evaluate(f"parseFloat(getComputedStyle(document.querySelector('{part}')).fontSize)"))
            for part in (".attention .card", "#counts b")
        ]
        assert min(sizes) >= 22.0  # a capital of a centimetre on a 55-inch screen: readable from three metres


def test_one_that_falls_silent_moves_up_and_back_by_itself(wall: Open) -> None:
    """Late, offline and running again, each seen within two seconds of coming about."""
    with wall([a_factory("b", region="Ohio")], ("--late-after", "2", "--offline-after", "4")) as page:
        page.board.register("a", region="Ohio")
        page.board.beat("b")
        page.see("document.querySelectorAll('.region .card').length === 2", SOON)
        for state, seconds in (("late", 2), ("offline", 2)):
            page.see(f"document.querySelectorAll('.attention .card.{state}').length === 2", seconds * 1000 + SOON)
        page.board.beat("a")
        page.see("document.querySelectorAll('.region .card.running').length === 1", SOON)
        assert ["b", "a"] == page.names()


def test_filter_and_states_choose(wall: Open) -> None:
    """Words in any field, all of them; a state by its count; both kept in the address."""
    factories = [
        a_factory("press_1", region="Ohio", device="cuda:0"),
        a_factory("press_2", region="Michigan", silent=4000.0),
        a_factory("oven_1", region="Ohio", active_experiments=["bake"]),
    ]
    with wall(factories) as page:
        seen = []
        for text in ("PRESS", "ohio press", "bake", "cuda", "nothing such"):
            page.page.fill("#filter", text)
            seen.append(page.names())
        assert [["press_2", "press_1"], ["press_1"], ["oven_1"], ["press_1"], []] == seen
        assert page.page.locator("#none").is_visible()
        page.page.click("#clear")
        page.page.click("[data-state=offline]")
        assert ["press_2"] == page.names()
        page.page.fill("#filter", "press")
        page.open(page.page.evaluate("location.search"))
        page.see("document.querySelectorAll('.card').length === 1")
        assert (["press_2"], "press") == (page.names(), page.page.input_value("#filter"))


def test_hostile_names_are_only_text(wall: Open) -> None:
    """Each stands there as it is, nothing of it runs, and the page keeps its width."""
    factories = [
        a_factory(name, region=HOSTILE[number % 3], hostname=name, device=name[:64], active_experiments=[name])
        for number, name in enumerate(HOSTILE)
    ]
    with wall(factories) as page:
        assert sorted(HOSTILE) == sorted(page.names())
        told = {"device": HOSTILE[1], "region": HOSTILE[1], "location": HOSTILE[2]}
        assert 200 == page.board.register("live <b>bold", **told)[0]
        assert 200 == page.board.beat("__proto__", status="<i>ill</i>")[0]
        page.see("document.querySelector('.attention .status')?.textContent === '<i>ill</i>'")
        page.see(f"document.querySelectorAll('.card').length === {len(HOSTILE) + 1}")
        assert page.page.evaluate("window.owned") is None
        assert 0 == page.page.locator("main :is(img, script, b, i, iframe, a)").count()
        assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def _strange() -> Iterator[dict[str, Any]]:
    """Factories of which one field each is no such value; the rest are as the dashboard tells them."""
    honest = {
        "factory_name": "honest",
        "status": "running",
        "reported_status": "operational",
        "hostname": "plant",
        "port": 8080,
        "device": "cpu",
        "region": "Ohio",
        "location": "",
        "last_seen": "2026-01-01T00:00:00.000+00:00",
        "last_heartbeat": "2026-01-01T00:00:00.000+00:00",
        "load": {"cpu_usage": 40.0, "memory_usage": 50.0},
        "recent_load": {"until": 60, "step_s": 60, "cpu": [1, None, 3]},
        "active_experiments": ["fit"],
        "last_training_completion": None,
    }
    yield honest
    values: list[Any] = [
        None,
        True,
        -1,
        1e308,
        10**40,
        "",
        "x" * 5000,
        "\ud800",
        [],
        [[]],
        [None, 1],
        {},
        {"a": {"b": 1}},
    ]
    inner = [*values, [1e308], ["x" * 400] * 80]
    for field in honest:
        for number, value in enumerate(values):
            if field != "factory_name":
                yield honest | {"factory_name": f"{field}_{number}", field: value}
    for number, value in enumerate(inner):
        yield honest | {"factory_name": f"load_{number}_x", "load": {"cpu_usage": value, "memory_usage": value}}
        yield honest | {"factory_name": f"recent_{number}_x", "recent_load": {"until": value, "cpu": value}}
        yield honest | {"factory_name": f"recent_{number}_y", "recent_load": {"until": 60, "cpu": [value, 5]}}


def test_no_value_breaks_the_page(wall: Open) -> None:
    """Whatever the dashboard told, in any field: every factory with a name has its card, and the page lives on."""
    told = list(_strange())
    nameless: list[Any] = [None, 5, "x", [], {}, {"factory_name": 5}, {"factory_name": None}]
    body = json.dumps({"now": "2026-01-01T00:00:05.000+00:00", "factories": [*nameless, *told]})
    broken = ["{", "null", "[]", '"x"', '{"now":5}', '{"now":"2026-01-01T00:00:05Z","factories":5}']
    frames = [f"event: {kind}\ndata: {data}\n\n" for data in broken for kind in ("snapshot", "change", "ping")]
    frames = [*frames, f"event: snapshot\ndata: {body}\n\n", f"event: change\ndata: {body}\n\n", *frames]
    with wall([a_factory("alpha")]) as page:
        answer = {"status": 200, "content_type": "text/event-stream", "body": "".join(frames)}
        page.page.route("**/events", lambda route: route.fulfill(**answer))
        page.page.goto(page.board.url)
        page.see(f"document.querySelectorAll('.card').length === {len(told)}")
        page.page.fill("#filter", "honest")
        page.page.click("[data-state=running]")
        assert ["honest"] == page.names()
        assert "CPU 40 %" == page.card("honest")["cpu"]
        page.page.fill("#filter", "")
        page.page.click("[data-state=running]")
        assert len(told) == len(page.names())
        texts = page.page.eval_on_selector_all("main .card *", "all => all.map(one => one.textContent)")
        assert "CPU \u2013" in texts
        assert [] == [text for text in texts for word in ("NaN", "undefined", "[object") if word in text]
        assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_five_hundred_factories(wall: Open) -> None:
    """All there, grouped, what is wrong first; a beat is still seen within two seconds."""
    regions = ("Michigan", "Ohio", "Jiangsu", "Kansai", "Bayern")
    factories = [
        a_factory(f"line_{number:03}", region=regions[number % 5], silent=5000.0 if number == 333 else 3.0)
        for number in range(500)
    ]
    with wall(factories) as page:
        assert {"offline": 1, "late": 0, "running": 499} == page.counts()
        assert ["Needs attention", *sorted(regions)] == page.titles()
        names = page.names()
        assert (500, "line_333", "line_004") == (len(names), *names[:2])
        page.board.beat("line_250", cpu=88.0)
        page.see("document.querySelector(\"[data-name='line_250'] .cpu\").textContent === 'CPU 88 %'", SOON)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(wall: Open, scheme: Any) -> None:
    """As the system asks; or as the operator chooses, which is remembered."""
    colours = {"light": "rgb(238, 240, 243)", "dark": "rgb(13, 17, 22)"}
    other = "dark" if scheme == "light" else "light"
    with wall([a_factory("alpha")], color_scheme=scheme) as page:
        assert colours[scheme] == page.background()
        for _ in range({"light": 1, "dark": 2}[other]):
            page.page.click("#theme")
        assert colours[other] == page.background()
        page.open()
        assert colours[other] == page.background()


def test_on_a_phone(wall: Open) -> None:
    """One column, nothing to scroll sideways, the counts and what is wrong without scrolling."""
    factories = [a_factory("alpha", region="Ohio"), a_factory("press_with_a_long_name_of_its_own", silent=4000.0)]
    with wall(factories, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as page:
        assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        boxes = [page.page.locator(".card").nth(number).bounding_box() for number in range(2)]
        assert boxes[0] is not None
        assert boxes[1] is not None
        assert boxes[0]["x"] == boxes[1]["x"]
        assert boxes[0]["y"] + boxes[0]["height"] < 844
        assert page.page.locator("#counts").is_visible()


def test_a_dashboard_that_goes_away_is_told_and_come_back_to(wall: Open) -> None:
    """A killed one: a banner at once, and live again by itself when it is back, with what changed meanwhile."""
    with wall([a_factory("alpha")]) as page:
        page.board.end(signal.SIGKILL)
        page.see("!document.querySelector('#lost').hidden")
        assert "This page shows old data." in page.page.inner_text("#lost")
        page.board.start()
        page.board.register("beta")
        page.see("document.querySelectorAll('.card').length === 2")
        assert page.page.locator("#lost").is_hidden()
        assert "Live" == page.page.inner_text("#connection")
        page.complaints[:] = [said for said in page.complaints if "ERR_" not in said]  # the browser's own, of the kill
