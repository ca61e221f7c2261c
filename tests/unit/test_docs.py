"""The documents: every link leads somewhere, every page is listed, and what is generated is current."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.effects.recorder import read_lines
from tests import states

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HISTORIES = sorted((ROOT / "tests" / "histories").glob("*.jsonl"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((*DOCS.rglob("*.md"), *ROOT.glob("examples/*/*.md")))]
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_PATH = re.compile(r"`((?:supervisor|datasite_worker|central|fleet_common|scripts|tests|docs|examples)/[\w./-]*)[^`]*`")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def links(text: str) -> list[str]:
    """The relative links of a page; code is passed over."""
    prose = re.sub(r"`[^`\n]+`", "", _FENCE.sub("", text))
    return [link for link in _LINK.findall(prose) if not re.match(r"[a-z]+:", link)]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower())
        slug = words.replace(" ", "-")
        number = next(n for n in range(1, 100) if f"{slug}-{n}" not in found)
        found.add(f"{slug}-{number}" if slug in found else slug)
    return found


def _broken(page: Path) -> Iterator[str]:
    for link in links(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file of this repository, and to a heading in it where the link names one."""
    assert [] == list(_broken(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_exists(page: Path) -> None:
    """A path in code style that begins with one of our folders leads to a file or folder. Who renames one is told here."""
    named = set(_PATH.findall(page.read_text(encoding="utf-8")))
    assert set() == {path for path in named if not (ROOT / path).exists()}


def test_links_and_anchors_are_those_of_markdown() -> None:
    """Links in code are none; a heading's anchor has no punctuation, and a number where it stands twice."""
    assert ["a.md#b"] == links("[x](a.md#b) `[y](c.md)` [z](https://example.org)\n```\n[w](d.md)\n```\n")
    assert {"a-b", "a-b-1", "c_d"} == anchors("# A, b\n## a `b`\n### c_d\n```\n# not this\n```\n")


def test_every_page_is_in_the_index() -> None:
    """A reader finds each page by docs/index.md, and each decision by the list of decisions."""
    assert _pages_in(DOCS) == _linked_from(DOCS / "index.md") & _pages_in(DOCS)
    assert _pages_in(DOCS / "decisions") == _linked_from(DOCS / "decisions" / "README.md") & _pages_in(
        DOCS / "decisions"
    )


def _pages_in(folder: Path) -> set[Path]:
    return set(folder.glob("*.md")) - {DOCS / "index.md", DOCS / "decisions" / "README.md"}


def _linked_from(page: Path) -> set[Path]:
    return {(page.parent / link.partition("#")[0]).resolve() for link in links(page.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def edges() -> states.Edges:
    return states.edges()


def test_the_diagram_of_states_is_current(edges: states.Edges) -> None:
    """docs/states.md shows what ``step`` does today. To write it anew: `.venv/bin/python -m tests.states`."""
    assert states.page(edges) == states.PAGE.read_text(encoding="utf-8")


def test_the_diagram_has_what_real_fleets_did(edges: states.Edges) -> None:
    """No recorded history has a change of state that the diagram lacks."""
    drawn = {(*change, kind.__name__) for change, kinds in edges.items() for kind in kinds}
    recorded = {change for path in HISTORIES for change in _changes(path)}
    assert recorded
    assert set() == recorded - drawn


def _changes(history: Path) -> Iterator[tuple[str, str, str]]:
    """State before, state after, and the fact, where the two differ."""
    states_now: dict[str, str] = {}
    for line in read_lines(history):
        if "fact" not in line:
            states_now = {} if "rules" in line else states_now  # another supervisor begins with every worker down
            continue
        before = states_now.get(line["name"], "down")
        if before != line["s"]:
            yield before, line["s"], line["fact"]
        states_now[line["name"]] = line["s"]
