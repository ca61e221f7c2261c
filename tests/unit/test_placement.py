"""Which line gets which GPU: tables of what operators ask for, and what holds for every host and every fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.cards import Card
from supervisor.policy import placement
from supervisor.policy.placement import ImpossibleGpus, in_words, place, requests_of, sees_others, wants_any
from supervisor.spec import DatasiteSpec, FleetConfig, GpuRequest

GIB = 1024**3
AUTO, NONE, ONE = GpuRequest(), GpuRequest("none"), GpuRequest("some")
ALONE = GpuRequest("some", exclusive=True)


def card(index: int, gib: int = 80, **more: object) -> Card:
    return replace(Card(f"GPU-{index:08d}", index, "H100", gib * GIB, gib * GIB), **more)  # type: ignore[arg-type]


def named(*devices: str, **more: object) -> GpuRequest:
    return replace(GpuRequest("some", devices, len(devices)), **more)  # type: ignore[arg-type]


def some(count: int = 1, gib: int = 0, exclusive: bool = False) -> GpuRequest:
    return GpuRequest("some", (), count, gib * GIB, exclusive)


def gpu(*indexes: int) -> tuple[str, ...]:
    return tuple(f"GPU-{index:08d}" for index in indexes)


TWO, FOUR = [card(0), card(1)], [card(0), card(1), card(2), card(3)]
SPLIT = card(1, split=True)
PARTS = [Card(f"MIG-{n}", 1, "H100 MIG 3g.40gb", 40 * GIB, 40 * GIB, parent=SPLIT.uuid) for n in (0, 1)]
MIXED = [card(0), SPLIT, *PARTS]

PLACED = {
    "nothing to place": ({}, TWO, {}),
    "no GPU, no noise": ({"a": AUTO, "b": NONE}, [], {"a": (), "b": ()}),
    "none is the CPU": ({"a": NONE}, TWO, {"a": ()}),
    "auto spreads": ({"a": AUTO, "b": AUTO, "c": AUTO}, TWO, {"a": gpu(0), "b": gpu(1), "c": gpu(0)}),
    "an index": ({"a": named("1")}, TWO, {"a": gpu(1)}),
    "a UUID": ({"a": named("GPU-00000001")}, TWO, {"a": gpu(1)}),
    "the beginning of a UUID, in any case": ({"a": named("gpu-00000001")}, TWO, {"a": gpu(1)}),
    "several, in the order asked": ({"a": named("1", "0")}, TWO, {"a": gpu(1, 0)}),
    "exclusive first, whatever the order": ({"a": AUTO, "b": ALONE}, TWO, {"a": gpu(1), "b": gpu(0)}),
    "auto yields the last GPU": ({"a": AUTO, "b": ALONE}, [card(0)], {"a": (), "b": gpu(0)}),
    "memory before order": ({"a": some(gib=10), "b": some(gib=60)}, TWO, {"a": gpu(1), "b": gpu(0)}),
    "memory is added up": (
        {"a": some(gib=50), "b": some(gib=40), "c": some(gib=30)},
        TWO,
        {"a": gpu(0), "b": gpu(1), "c": gpu(1)},
    ),
    "count": ({"a": some(2), "b": some(2)}, FOUR, {"a": gpu(0, 1), "b": gpu(2, 3)}),
    "auto keeps away from who asked": ({"a": AUTO, "b": named("0")}, TWO, {"a": gpu(1), "b": gpu(0)}),
    "the GPU that is large enough": ({"a": some(gib=60)}, [card(0, 40), card(1, 80)], {"a": gpu(1)}),
    "who is choosy is not shut out": (
        {"a": ALONE, "b": named("0", exclusive=True)},
        TWO,
        {"a": gpu(1), "b": gpu(0)},
    ),
    "all that a GPU has": ({"a": some(gib=80), "b": some(gib=80)}, TWO, {"a": gpu(0), "b": gpu(1)}),
    "not where others compute": ({"a": ONE}, [card(0, free_bytes=10 * GIB), card(1)], {"a": gpu(1)}),
    "not on a bad GPU": ({"a": AUTO, "b": ONE}, [card(0, trouble="lost"), card(1)], {"a": gpu(1), "b": gpu(1)}),
    "auto without a good GPU": ({"a": AUTO}, [card(0, trouble="lost")], {"a": ()}),
    "instances are GPUs": ({"a": ONE, "b": ONE, "c": ONE}, MIXED, {"a": gpu(0), "b": ("MIG-0",), "c": ("MIG-1",)}),
    "an instance by name": ({"a": named("MIG-1")}, MIXED, {"a": ("MIG-1",)}),
}


@pytest.mark.parametrize(("requests", "cards", "expected"), PLACED.values(), ids=PLACED.keys())
def test_what_is_asked_for_is_placed(
    requests: Mapping[str, GpuRequest], cards: list[Card], expected: dict[str, tuple[str, ...]]
) -> None:
    """Exclusive first, then by memory, on the least loaded; each way to ask is honoured."""
    made = place(requests, cards, {})
    assert (expected, {}) == (made.assignments, made.problems)


IMPOSSIBLE = {
    "no GPU at all": ({"a": ONE}, [], {"a": "there is no GPU on this host"}),
    "no such index": (
        {"a": named("7")},
        TWO,
        {"a": "no GPU 7; known: 0 (GPU-00000000), 1 (GPU-00000001)"},
    ),
    "no such UUID": (
        {"a": named("GPU-f")},
        [card(0)],
        {"a": "no GPU GPU-f; known: 0 (GPU-00000000)"},
    ),
    "an ambiguous beginning": (
        {"a": named("GPU-0000")},
        TWO,
        {"a": "GPU-0000 matches 2 GPUs: GPU-00000000, GPU-00000001"},
    ),
    "one GPU by two names": ({"a": named("0", "GPU-00000000")}, TWO, {"a": "0, GPU-00000000 name the same GPU twice"}),
    "more memory than any has": (
        {"a": some(gib=100)},
        [card(0, 40), card(1, 80)],
        {"a": "needs 100.0 GiB of memory; GPU 0 has 40.0 GiB, GPU 1 has 80.0 GiB"},
    ),
    "more memory than the named one has": (
        {"a": named("0", memory_bytes=60 * GIB)},
        [card(0, 40), card(1, 80)],
        {"a": "needs 60.0 GiB of memory; GPU 0 has 40.0 GiB"},
    ),
    "more GPUs than there are": ({"a": some(3)}, TWO, {"a": "needs 3 GPUs; this host has 2 usable GPUs"}),
    "more than are well": (
        {"a": some(2)},
        [card(0), card(1, trouble="GPU is lost")],
        {"a": "needs 2 GPUs; this host has 1 usable GPU (GPU 1: GPU is lost)"},
    ),
    "the named one is bad": (
        {"a": named("1")},
        [card(0), card(1, trouble="GPU is lost")],
        {"a": "GPU 1 cannot be used: GPU is lost"},
    ),
    "more exclusive ones than exist": (
        {"a": ALONE, "b": ALONE, "c": ALONE},
        TWO,
        {"c": "no room for 1 exclusive GPU: GPU 0 is held exclusively by a; GPU 1 is held exclusively by b"},
    ),
    "two exclusive claims on one": (
        {"a": named("0", exclusive=True), "b": named("0", exclusive=True)},
        TWO,
        {"b": "no room for 1 exclusive GPU: GPU 0 is held exclusively by a"},
    ),
    "sharing what is exclusive": (
        {"a": named("0"), "b": named("0", exclusive=True)},
        TWO,
        {"a": "no room for 1 GPU: GPU 0 is held exclusively by b"},
    ),
    "more memory together than there is": (
        {"a": some(gib=60), "b": some(gib=50)},
        [card(0)],
        {"b": "no room for 1 GPU with 50.0 GiB: GPU 0 is held by a, 60.0 GiB of 80.0 GiB reserved"},
    ),
    "several of which one is taken": (
        {"a": ALONE, "b": some(2, 8)},
        TWO,
        {"b": "no room for 2 GPUs with 8.0 GiB: GPU 0 is held exclusively by a; GPU 1 is free"},
    ),
    "a GPU in MIG mode": (
        {"a": named("1")},
        MIXED,
        {"a": "GPU 1 is in MIG mode: name one of its instances: MIG-0, MIG-1"},
    ),
    "a GPU in MIG mode without instances": (
        {"a": named("1")},
        [SPLIT],
        {"a": "GPU 1 is in MIG mode: name one of its instances: it has none"},
    ),
    "several instances": (
        {"a": named("MIG-0", "MIG-1")},
        MIXED,
        {"a": "CUDA shows only one MIG instance to a process: name one"},
    ),
    "several of which instances would have to be some": (
        {"a": some(2)},
        MIXED,
        {"a": "needs 2 GPUs; this host has 1 whole GPU"},
    ),
}


@pytest.mark.parametrize(("requests", "cards", "problems"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_what_cannot_be_had_is_named(
    requests: Mapping[str, GpuRequest], cards: list[Card], problems: dict[str, str]
) -> None:
    """With line and cause; nobody else is blamed, and who is impossible gets nothing."""
    made = place(requests, cards, {})
    assert problems == made.problems
    assert dict.fromkeys(problems, ()) == {name: made.assignments[name] for name in problems}
    assert problems == {name: made.reasons[name] for name in problems}


KEPT = {
    "shared ones stay": ({"a": AUTO, "b": ONE}, {"a": gpu(1), "b": gpu(1)}, (), {"a": gpu(1), "b": gpu(1)}),
    "and so after a restart of a fleet that stood differently": (
        {"a": ALONE, "b": ALONE},
        {"a": gpu(1), "b": gpu(0)},
        (),
        {"a": gpu(1), "b": gpu(0)},
    ),
    "who had one before who comes, exclusive or not": (
        {"a": ONE, "b": ALONE},
        {"a": gpu(0)},
        (),
        {"a": gpu(0), "b": gpu(1)},
    ),
    "at rest an auto line yields": (
        {"a": AUTO, "b": named("0", exclusive=True)},
        {"a": gpu(0)},
        (),
        {"a": gpu(1), "b": gpu(0)},
    ),
    "at rest a line yields to one that has no other": (
        {"a": ONE, "b": named("0", exclusive=True)},
        {"a": gpu(0)},
        (),
        {"a": gpu(1), "b": gpu(0)},
    ),
    "at rest an auto line on the CPU gets a GPU": ({"a": AUTO}, {"a": ()}, (), {"a": gpu(0)}),
    "running it stays on the CPU": ({"a": AUTO}, {"a": ()}, ("a",), {"a": ()}),
    "a newcomer goes elsewhere": ({"a": AUTO, "b": ALONE}, {"a": gpu(0)}, ("a",), {"a": gpu(0), "b": gpu(1)}),
    "also when nobody runs": ({"a": AUTO, "b": ALONE}, {"a": gpu(0)}, (), {"a": gpu(0), "b": gpu(1)}),
    "one whose GPU is gone moves": (
        {"a": ONE, "b": ONE},
        {"a": gpu(9), "b": gpu(0)},
        ("a", "b"),
        {"a": gpu(1), "b": gpu(0)},
    ),
    "an auto line whose GPU is gone moves": ({"a": AUTO}, {"a": gpu(9)}, ("a",), {"a": gpu(0)}),
    "one that asks for another moves": ({"a": named("1")}, {"a": gpu(0)}, ("a",), {"a": gpu(1)}),
    "one that asks for them in another order": ({"a": named("1", "0")}, {"a": gpu(0, 1)}, ("a",), {"a": gpu(1, 0)}),
    "one that asks for more moves": ({"a": some(2)}, {"a": gpu(1)}, ("a",), {"a": gpu(0, 1)}),
    "one that asks for none any more": ({"a": NONE}, {"a": gpu(1)}, ("a",), {"a": ()}),
    "one that asks for any keeps what it was given by name": ({"a": ONE}, {"a": gpu(1)}, ("a",), {"a": gpu(1)}),
    "one that wants its GPU alone now moves": (
        {"a": ALONE, "b": ONE},
        {"a": gpu(0), "b": gpu(0)},
        ("a", "b"),
        {"a": gpu(0), "b": gpu(1)},
    ),
    "one that wants its GPU alone now keeps it, and an auto line goes": (
        {"a": AUTO, "b": ALONE},
        {"a": gpu(0), "b": gpu(0)},
        ("a", "b"),
        {"a": gpu(1), "b": gpu(0)},
    ),
    "an auto newcomer does not take the place of one that comes back": (
        {"new": AUTO, "old": AUTO},
        {"old": gpu(0)},
        (),
        {"new": gpu(1), "old": gpu(0)},
    ),
    "one that came back counts once": (
        {"old": AUTO, "x": AUTO, "y": AUTO},
        {"old": gpu(0)},
        (),
        {"old": gpu(0), "x": gpu(1), "y": gpu(0)},
    ),
    "who asks for memory goes where least of it is claimed": (
        {"a": some(gib=40), "b": some(gib=1), "c": some(gib=1), "new": some(gib=2)},
        {"a": gpu(0), "b": gpu(1), "c": gpu(1)},
        ("a", "b", "c"),
        {"a": gpu(0), "b": gpu(1), "c": gpu(1), "new": gpu(1)},
    ),
    "who asks for none goes where fewest lines are": (
        {"a": some(gib=40), "b": some(gib=1), "c": some(gib=1), "new": ONE},
        {"a": gpu(0), "b": gpu(1), "c": gpu(1)},
        ("a", "b", "c"),
        {"a": gpu(0), "b": gpu(1), "c": gpu(1), "new": gpu(0)},
    ),
    "who left is forgotten": ({"a": ONE}, {"a": gpu(1), "gone": gpu(0)}, ("a", "gone"), {"a": gpu(1)}),
    "an auto line had several": ({"a": AUTO}, {"a": gpu(0, 1)}, (), {"a": gpu(0)}),
    "an auto line had several, and runs": ({"a": AUTO}, {"a": gpu(0, 1)}, ("a",), {"a": gpu(0)}),
}


@pytest.mark.parametrize(("requests", "previous", "running", "expected"), KEPT.values(), ids=KEPT.keys())
def test_who_had_a_gpu_keeps_it(
    requests: Mapping[str, GpuRequest],
    previous: Mapping[str, tuple[str, ...]],
    running: tuple[str, ...],
    expected: dict[str, tuple[str, ...]],
) -> None:
    """Running it always does while that suits it; at rest as long as that prevents nothing."""
    made = place(requests, TWO, previous, running)
    assert (expected, {}) == (made.assignments, made.problems)


def test_a_running_line_is_not_moved_for_another() -> None:
    """The newcomer is refused, and told why, although it would have room after a move."""
    made = place({"a": AUTO, "b": ALONE}, [card(0)], {"a": gpu(0)}, ["a"])
    why = "no room for 1 exclusive GPU: GPU 0 is held by a; a running datasite keeps its GPUs"
    assert ({"a": gpu(0), "b": ()}, {"b": why}) == (made.assignments, made.problems)


def test_why_a_line_has_what_it_has() -> None:
    """In the words of what was asked."""
    requests = {"a": AUTO, "b": NONE, "c": named("1"), "d": some(2, 8), "e": AUTO}
    made = place(requests, TWO, {"e": gpu(0)})
    told = {"a": "auto: least loaded", "b": "gpu: none", "c": "1: as named", "d": "2 GPUs, 8.0 GiB: least loaded"}
    assert {**told, "e": "auto: as before"} == made.reasons
    assert {"a": "auto: no GPU is available"} == place({"a": AUTO}, [], {}).reasons


WORDS = [
    (AUTO, "auto"),
    (NONE, "none"),
    (ALONE, "1 GPU, exclusive"),
    (named("0", "1"), "0 1"),
    (some(2, 8), "2 GPUs, 8.0 GiB"),
]


@pytest.mark.parametrize(("asked", "expected"), WORDS)
def test_a_request_in_words(asked: GpuRequest, expected: str) -> None:
    """Short enough for a table."""
    assert expected == in_words(asked)


def test_who_is_moved() -> None:
    """Who runs and gets other GPUs; nobody who is at rest, and nobody who stays on the CPU."""
    requests = {"a": named("1"), "b": ONE, "c": named("1"), "d": AUTO, "new": AUTO}
    had = {"a": gpu(0), "b": gpu(0), "c": gpu(0), "d": ()}
    assert ("a",) == place(requests, TWO, had, ["a", "b", "d"]).moved


def test_what_cannot_be_seen_is_not_gone() -> None:
    """Who runs on a GPU stays there while the driver does not answer; not who wants none any more, has left, or had
    none. Who asks for one anew is still told that there is none."""
    requests = {"a": AUTO, "b": ONE, "c": NONE, "d": AUTO, "new": ONE}
    held = {"a": gpu(0), "b": gpu(1), "c": gpu(2), "d": (), "gone": gpu(3)}
    made = placement.keeping(place(requests, [], held, held), requests, held, "no answer")
    assert {"a": gpu(0), "b": gpu(1), "c": (), "d": (), "new": ()} == made.assignments
    assert ({"new": "no answer"}, ("c",), ("d",)) == (made.problems, made.moved, made.unseen)
    unseen = "as before; the GPUs are not visible"
    whys = {"a": f"auto: {unseen}", "b": f"1 GPU: {unseen}", "c": "gpu: none", "d": "auto: the GPUs are not visible"}
    assert {**whys, "new": "no answer"} == made.reasons


SEES = [
    (None, (), [], False),
    (None, (), TWO, True),
    ((), (), TWO, False),
    ((), gpu(0), TWO, False),
    (gpu(0), gpu(1), TWO, True),
    (gpu(0), gpu(0), TWO, False),
]


@pytest.mark.parametrize(("had", "has", "cards", "expected"), SEES)
def test_which_survivor_sees_other_gpus(
    had: tuple[str, ...] | None, has: tuple[str, ...], cards: list[Card], expected: bool
) -> None:
    """One that an older version launched, without any assignment, sees all: that matters where there are any. One on the
    CPU is not interrupted for a GPU."""
    assert expected == sees_others(had, has, cards)


def test_the_fault_names_every_line() -> None:
    """One line of text for each."""
    fault = ImpossibleGpus({"a": "no GPU 7", "b": "no room"})
    assert ("a: gpu: no GPU 7\nb: gpu: no room", {"a": "no GPU 7", "b": "no room"}) == (
        str(fault),
        fault.problems,
    )


@pytest.mark.parametrize(
    ("names", "words"), [(["a"], "no answer, and a needs a GPU"), (["a", "b"], "no answer, and a, b need a GPU")]
)
def test_the_fault_of_gpus_that_cannot_be_seen(names: list[str], words: str) -> None:
    """It says why, and for whom that matters."""
    fault = placement.UnseenGpus("no answer", names)
    assert (words, tuple(names)) == (str(fault), fault.names)


def test_a_placement_is_remembered_for_the_same_request_only() -> None:
    """Whether the GPUs would do for another one cannot be told while they are not seen."""
    kept = place({"a": ONE, "b": ONE, "left": ONE}, [card(0), card(1), card(2)], {})
    assert {"a": kept.assignments["a"]} == placement.remembered(kept, {"a": ONE, "b": ALONE, "new": ONE})


def test_a_fleet_asks_for_what_its_lines_ask_for() -> None:
    """Where all say none, nobody has to look for GPUs."""
    lines = (DatasiteSpec("a", 1, gpu=NONE), DatasiteSpec("b", 2, gpu=ALONE))
    fleet = FleetConfig("f", Path("/f"), Path("/s"), Path("/l"), lines)
    assert {"a": NONE, "b": ALONE} == requests_of(fleet)
    assert (True, False) == (wants_any(fleet), wants_any(replace(fleet, datasites=lines[:1])))


def test_a_crowded_host_is_answered_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search gives up after so many steps, and the last ones are told that there is no room."""
    monkeypatch.setattr(placement, "_MOST_TRIES", 50)
    cards = [card(index) for index in range(8)]
    made = place({f"l{n:02d}": some(gib=50) for n in range(9)}, cards, {})
    assert (["l08"], 8) == (list(made.problems), sum(map(bool, made.assignments.values())))


def test_a_large_fleet_is_placed_at_once() -> None:
    """Five hundred lines on eight GPUs; the search is no recursion."""
    cards = [card(index) for index in range(8)]
    made = place({f"l{n:03d}": some(gib=1) for n in range(500)}, cards, {})
    assert {} == made.problems
    counts = [sum(uuids == gpu(index) for uuids in made.assignments.values()) for index in range(8)]
    assert [63, 63, 63, 63, 62, 62, 62, 62] == counts


# --- what holds always ---

NAMES = "abcde"
CARDS = st.lists(st.tuples(st.sampled_from([8, 16]), st.booleans(), st.integers(0, 16)), max_size=3).map(
    lambda all_: [
        card(n, gib, trouble="lost" if bad else "", free_bytes=min(free, gib) * GIB)
        for n, (gib, bad, free) in enumerate(all_)
    ]
)
ASKED = st.one_of(
    st.sampled_from([AUTO, NONE]),
    st.builds(some, st.integers(1, 2), st.sampled_from([0, 4, 8, 12]), st.booleans()),
    st.builds(
        lambda devices, exclusive: named(*devices, exclusive=exclusive),
        st.lists(st.sampled_from("012"), min_size=1, max_size=2, unique=True),
        st.booleans(),
    ),
)
FLEETS = st.dictionaries(st.sampled_from(NAMES), ASKED, max_size=5)
SOMETIME = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.sampled_from([*gpu(0, 1, 2, 9)]), max_size=2, unique=True).map(tuple)
)
RUNNING = st.sets(st.sampled_from(NAMES))


def suits(asked: GpuRequest, uuids: tuple[str, ...], cards: Mapping[str, Card]) -> bool:
    """Whether one line alone may have these."""
    if not all(
        uuid in cards and not cards[uuid].trouble and cards[uuid].memory_bytes >= asked.memory_bytes for uuid in uuids
    ):
        return False
    if asked.mode == "some":
        wanted = {f"GPU-{int(device):08d}" for device in asked.devices}
        return len(uuids) == (len(asked.devices) or asked.count) and (not wanted or wanted == set(uuids))
    return len(uuids) <= (asked.mode == "auto")


def agree(requests: Mapping[str, GpuRequest], made: Mapping[str, tuple[str, ...]], cards: Mapping[str, Card]) -> bool:
    """Whether all together may: nobody beside an exclusive one, and no more memory claimed than there is."""
    for uuid, one in cards.items():
        here = [requests[name] for name, uuids in made.items() if uuid in uuids]
        if len(here) > 1 and any(asked.exclusive for asked in here):
            return False
        if sum(asked.memory_bytes for asked in here) > one.memory_bytes:
            return False
    return True


@given(FLEETS, CARDS, SOMETIME, RUNNING)
def test_a_placement_keeps_every_promise(
    requests: dict[str, GpuRequest], cards: list[Card], previous: dict[str, tuple[str, ...]], running: set[str]
) -> None:
    """Whatever was before: each line has what it asked for, or none and a problem; all together fit."""
    made, by_uuid = place(requests, cards, previous, running), {one.uuid: one for one in cards}
    assert list(requests) == list(made.assignments) == list(made.reasons)
    assert set() == {name for name in made.problems if requests[name].mode != "some" or made.assignments[name]}
    assert {} == {
        name: uuids
        for name, uuids in made.assignments.items()
        if name not in made.problems
        if not suits(requests[name], uuids, by_uuid)
    }
    assert agree(requests, made.assignments, by_uuid)


@given(FLEETS, CARDS, SOMETIME, RUNNING)
def test_placing_again_moves_nobody(
    requests: dict[str, GpuRequest], cards: list[Card], previous: dict[str, tuple[str, ...]], running: set[str]
) -> None:
    """A restart of the supervisor, with or without the lines, leaves every line where it is."""
    first = place(requests, cards, previous, running)
    if first.problems:
        return
    assert first.assignments == place(requests, cards, first.assignments, requests).assignments
    on_cards = {name for name, uuids in first.assignments.items() if uuids}
    again = place(requests, cards, first.assignments)
    assert {name: first.assignments[name] for name in on_cards} == {name: again.assignments[name] for name in on_cards}


@given(FLEETS, ASKED, CARDS, st.randoms(use_true_random=False))
def test_adding_and_removing_lines_moves_nobody(
    requests: dict[str, GpuRequest], another: GpuRequest, cards: list[Card], chance: object
) -> None:
    """A reload of a running fleet: the lines that stay keep their GPUs, whatever comes, goes, or is impossible."""
    before = place(requests, cards, {})
    if before.problems:
        return
    fewer = {name: asked for name, asked in requests.items() if chance.random() < 0.7}  # type: ignore[attr-defined]
    after = place({"new": another, **fewer}, cards, before.assignments, requests)
    assert {name: before.assignments[name] for name in fewer} == {name: after.assignments[name] for name in fewer}
    assert set(after.problems) <= {"new"}


@settings(deadline=None)
@given(FLEETS, CARDS, SOMETIME)
def test_what_can_be_had_is_had(
    requests: dict[str, GpuRequest], cards: list[Card], previous: dict[str, tuple[str, ...]]
) -> None:
    """Nothing is called impossible that trying everything finds a way for."""
    by_uuid = {one.uuid: one for one in cards}
    asking = [name for name, asked in requests.items() if asked.mode == "some"]
    ways = [
        [some_ for n in (1, 2) for some_ in combinations(by_uuid, n) if suits(requests[name], some_, by_uuid)]
        for name in asking
    ]
    possible = any(agree(requests, dict(zip(asking, way, strict=True)), by_uuid) for way in product(*ways))
    assert possible == (not place(requests, cards, previous).problems)


@given(FLEETS, CARDS, SOMETIME, RUNNING)
def test_the_order_of_the_cards_decides_nothing(
    requests: dict[str, GpuRequest], cards: list[Card], previous: dict[str, tuple[str, ...]], running: set[str]
) -> None:
    """The driver may list them in any order; whom they go to is the same."""
    made = place(requests, cards, previous, running)
    assert made.assignments == place(requests, cards[::-1], previous, running).assignments


@given(st.integers(1, 12), st.integers(1, 4))
def test_auto_lines_are_spread_evenly(lines: int, count: int) -> None:
    """No GPU has two lines more than another."""
    made = place(dict.fromkeys((f"l{n}" for n in range(lines)), AUTO), [card(n) for n in range(count)], {})
    counts = [sum(uuids == gpu(n) for uuids in made.assignments.values()) for n in range(count)]
    assert (lines, True) == (sum(counts), max(counts) - min(counts) <= 1)
