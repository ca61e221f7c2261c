"""A GPU that vanishes or turns bad: it is told once, and the lines that had it go where they can."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.cards import Card
from supervisor.effects.assigner import Assigner
from supervisor.effects.gpu_watch import GpuWatch, whats_lost
from supervisor.effects.gpus import Gpus, Inventory
from supervisor.facts import OperatorAsked
from supervisor.messages import CardsLost, DownAsked
from supervisor.policy.placement import Placement
from supervisor.record import OperatorRequest, WorkerState
from supervisor.spec import DatasiteSpec, GpuRequest
from tests.unit.fakes import FakeMachine, fleet, play

GIB = 1024**3
ZERO, ONE = (Card(f"GPU-{n}", n, "H100", 80 * GIB, 80 * GIB) for n in (0, 1))
ALPHA = DatasiteSpec("alpha", 8080)
BETA = DatasiteSpec("beta", 8081, gpu=GpuRequest("some"))
HAD: dict[str, tuple[str, ...]] = {"alpha": ("GPU-0",), "beta": ("GPU-1",)}


def test_what_counts_as_lost() -> None:
    """Gone, in trouble, or split into instances; not what is well, and not what nobody has."""
    cards = [ZERO, replace(ONE, trouble="GPU is lost"), replace(ZERO, uuid="GPU-2", split=True)]
    told = {"GPU-1": "GPU-1: GPU is lost", "GPU-2": "GPU-2: it is in MIG mode now", "GPU-9": "GPU-9: it is missing"}
    assert told == whats_lost(["GPU-0", "GPU-1", "GPU-2", "GPU-9"], cards)


class Host:
    """A watch over a host whose cards a test changes; it looks when told to."""

    def __init__(self, folder: Path) -> None:
        self.seen = Inventory((ZERO, ONE))
        self.looks, self.told = 0, list[CardsLost]()
        self.assigner = Assigner(folder / "gpus.json", Gpus(self.read))
        self.assigner.use(Placement(HAD))
        self.watch = GpuWatch(self.assigner, self.told.append, 3600.0)

    def read(self) -> Inventory:
        self.looks += 1
        return self.seen


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.watch.close()


def test_each_loss_is_told_once(host: Host) -> None:
    """With the lines it hits and the cards that are left; one that came back may be lost again."""
    gone = CardsLost({"beta": "GPU-1: it is missing"}, HAD, (ZERO,))
    for cards, expected in (((ZERO, ONE), 0), ((ZERO,), 1), ((ZERO,), 1), ((ZERO, ONE), 1), ((ZERO,), 2)):
        host.seen = Inventory(cards)
        host.watch.look()
        assert [gone] * expected == host.told


def test_a_driver_that_hangs_has_lost_nothing(host: Host) -> None:
    """Moving every line for it would be worse than the hang."""
    host.seen = Inventory(trouble="the GPU driver did not answer within 10 s")
    host.watch.look()
    assert [] == host.told


def test_where_no_line_has_a_gpu_nobody_looks(host: Host) -> None:
    """A fleet on the CPU does not wake a driver."""
    host.assigner.use(Placement({"alpha": ()}))
    host.watch.look()
    assert ([], 0) == (host.told, host.looks)


def test_a_driver_that_answers_again_is_told_of_who_waits_for_it(host: Host) -> None:
    """It is asked although no line has a GPU, and told until they are placed."""
    host.assigner.use(Placement({"alpha": ()}, unseen=("alpha",)))
    for trouble, cards, expected in (("hung", (), 0), ("", (ZERO,), 1), ("", (ZERO,), 2)):
        host.seen = Inventory(cards, trouble)
        host.watch.look()
        assert [CardsLost({}, {"alpha": ()}, (ZERO,), ("alpha",))] * expected == host.told
    host.assigner.use(Placement({"alpha": ("GPU-0",)}))
    host.watch.look()
    assert 2 == len(host.told)


def test_a_loss_is_not_told_anew_for_who_waits(host: Host) -> None:
    """Nor the other way round: who waits is told of with a loss."""
    host.seen = Inventory((ZERO,))
    lost = {"beta": "GPU-1: it is missing"}
    host.watch.look()
    host.assigner.use(Placement(HAD, unseen=("late",)))
    host.watch.look()
    assert [(lost, ()), ({}, ("late",))] == [(told.lost, told.waiting) for told in host.told]


def test_it_looks_by_itself(tmp_path: Path) -> None:
    """Again and again, until it is closed."""
    told = threading.Event()
    assigner = Assigner(tmp_path / "gpus.json", Gpus(lambda: Inventory((ZERO,))))
    assigner.use(Placement(HAD))
    watch = GpuWatch(assigner, lambda lost: told.set(), 0.01)
    assert told.wait(20)
    watch.close()
    assert not watch._thread.is_alive()


# --- what the engine makes of it ---


def lose(*cards: Card, **lost: str) -> Any:
    def tell(world: FakeMachine) -> list[Any]:
        world.config, world.placement = fleet(ALPHA, BETA), Placement(HAD)
        return [CardsLost(lost, HAD, cards)]

    return tell


def test_a_line_moves_to_a_gpu_that_is_left() -> None:
    """It restarts there, counted as no crash; the others are left alone."""
    world = play(fleet(ALPHA, BETA), [lose(ZERO, beta="GPU-1: it is missing")])
    assert {"alpha": ("GPU-0",), "beta": ("GPU-0",)} == world.placement.assignments
    assert [("terminate", "beta"), ("launch", "beta", 2)] == world.done[2:]
    told = [event for event in world.events if event.event == "gpu_lost"]
    text = "its GPU is no longer usable (GPU-1: it is missing); it now uses GPU-0"
    assert [("beta", text, True)] == [(event.name, event.text, event.warning) for event in told]
    beta = world.pinned["beta"]
    assert ("restarted after the loss of a GPU: gpu", 0) == (beta.asked, beta.restarts)


def test_auto_falls_to_the_cpu_and_who_asked_for_a_gpu_stays_as_it_is() -> None:
    """Nobody who asked for a GPU computes on the CPU unawares; the event says that there is no other."""
    world = play(fleet(ALPHA, BETA), [lose(alpha="GPU-0: it is missing", beta="GPU-1: it is missing")])
    assert {"alpha": (), "beta": ("GPU-1",)} == world.placement.assignments
    assert [("terminate", "alpha"), ("launch", "alpha", 2)] == world.done[2:]
    ends = [event.text.rpartition("; ")[2] for event in world.events if event.event == "gpu_lost"]
    assert ["it now uses the CPU", "there is no GPU on this host"] == ends


def test_who_waited_for_the_driver_is_told_of_its_gpu_and_goes_on() -> None:
    """It is not restarted; its next start is on the GPU."""

    def answer(world: FakeMachine) -> list[Any]:
        world.placement = Placement({"alpha": (), "beta": ("GPU-1",)}, unseen=("alpha",))
        return [CardsLost({}, world.placement.assignments, (ZERO, ONE), ("alpha",))]

    world = play(fleet(ALPHA, BETA), [answer])
    assert HAD == world.placement.assignments
    assert [("launch", "alpha", 1), ("launch", "beta", 1)] == world.done
    text = "the GPUs are visible again: it gets GPU-0 at its next start, and uses the CPU until then"
    found = [(event.name, event.text, event.warning) for event in world.events if event.event == "gpu_found"]
    assert [("alpha", text, True)] == found


def test_a_line_that_is_down_is_not_started_for_it() -> None:
    """It has another GPU when the operator starts it."""
    down = lambda _: [OperatorAsked("beta", OperatorRequest.STOP)]  # noqa: E731 - a step of a script
    world = play(fleet(ALPHA, BETA), [down, lose(ZERO, beta="GPU-1: it is missing")])
    assert (("GPU-0",), WorkerState.DOWN) == (world.placement.assignments["beta"], world.pinned["beta"].state)


def test_a_fleet_that_goes_down_moves_nobody() -> None:
    """There is nothing left to do for it."""

    def stop(world: FakeMachine) -> list[Any]:
        world.stubborn |= {"alpha"}
        return [DownAsked(), CardsLost({"beta": "GPU-1: it is missing"}, HAD, (ZERO,))]

    world = play(fleet(ALPHA, BETA), [stop])
    assert ([], {}) == ([event for event in world.events if event.event == "gpu_lost"], world.placement.assignments)
