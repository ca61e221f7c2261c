"""Who has which GPU, from one supervisor to the next, through a reload, and when what is asked for cannot be had."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from fleet_common.contract import LaunchOrder
from supervisor import daemon
from supervisor.cards import Card
from supervisor.effects import assigner as rooms
from supervisor.effects.assigner import Assigner, read_placement
from supervisor.effects.board import Board
from supervisor.effects.control import ControlServer
from supervisor.effects.gpus import PATIENCE, Gpus, Inventory
from supervisor.effects.run_files import RunFile, RunFiles, boot_id
from supervisor.effects.service import ServiceThread
from supervisor.faces.cli import app
from supervisor.messages import ReloadAsked
from supervisor.policy import launching
from supervisor.policy.fleet import gpu_found
from supervisor.policy.placement import ImpossibleGpus, Placement, UnseenGpus
from supervisor.policy.reconcile import fingerprint
from supervisor.record import WorkerRecord, WorkerState
from supervisor.snapshot import SupervisorFacts, take
from supervisor.spec import DatasiteSpec, FleetConfig, GpuRequest
from tests.unit.fakes import FakeMachine, fleet, play

GIB = 1024**3
ZERO, ONE = (Card(f"GPU-{n}", n, "H100", 80 * GIB, 80 * GIB) for n in (0, 1))
CARDS = (ZERO, ONE)
FILE = "gpus.json"
ALPHA = DatasiteSpec("alpha", 8080)
BETA = DatasiteSpec("beta", 8081, gpu=GpuRequest("some", exclusive=True))
NAMED = DatasiteSpec("gamma", 8082, gpu=GpuRequest("some", ("7",), 1))
HUNG = Inventory(trouble="the GPU driver did not answer within 10 s")


def assigner(folder: Path, *cards: Card, trouble: str = "") -> Assigner:
    return Assigner(folder / FILE, Gpus(lambda: Inventory(cards, trouble)))


def test_an_assignment_outlives_its_supervisor(tmp_path: Path) -> None:
    """It is kept with its reason, and the next supervisor gives everybody the same."""
    first = assigner(tmp_path, *CARDS)
    first.start(fleet(ALPHA, BETA), {})
    assert [("GPU-1",), ("GPU-0",), ()] == [first.of(name) for name in ("alpha", "beta", "gamma")]
    kept = {"alpha": {"gpus": ["GPU-1"], "asked": "auto", "why": "auto: least loaded", "unseen": False}}
    alone = "1 GPU, exclusive"
    kept |= {"beta": {"gpus": ["GPU-0"], "asked": alone, "why": f"{alone}: least loaded", "unseen": False}}
    assert kept == json.loads((tmp_path / FILE).read_text())["lines"]
    second = assigner(tmp_path, *CARDS)
    second.start(fleet(BETA, DatasiteSpec("aardvark", 1), ALPHA), {})
    assert [("GPU-1",), ("GPU-0",), ("GPU-1",)] == [second.of(name) for name in ("alpha", "beta", "aardvark")]


def test_a_survivor_keeps_the_gpus_of_its_launch(tmp_path: Path) -> None:
    """What its process sees counts for more than the file; so nobody is restarted for nothing."""
    made = assigner(tmp_path, *CARDS)
    made.use(Placement({"alpha": ("GPU-1",)}))
    made.start(fleet(ALPHA, BETA), {"alpha": ("GPU-0",)})
    assert (("GPU-0",), ("GPU-1",), False) == (made.of("alpha"), made.of("beta"), made.sees_others("alpha", ("GPU-0",)))


def test_a_survivor_moves_when_another_line_could_not_start_else(tmp_path: Path) -> None:
    """Then it is to be restarted."""
    made = assigner(tmp_path, ZERO)
    made.start(fleet(ALPHA, BETA), {"alpha": ("GPU-0",)})
    assert ((), ("GPU-0",), True) == (made.of("alpha"), made.of("beta"), made.sees_others("alpha", ("GPU-0",)))


def test_a_survivor_of_an_older_version_sees_all_there_are(tmp_path: Path) -> None:
    """It is restarted where there are GPUs, and left alone where there are none."""
    for cards, expected in ((CARDS, True), ((), False)):
        made = assigner(tmp_path, *cards)
        made.start(fleet(ALPHA), {"alpha": None})
        assert expected == made.sees_others("alpha", None)


def test_the_impossible_changes_nothing(tmp_path: Path) -> None:
    """The line and the cause are named."""
    made = assigner(tmp_path, *CARDS)
    made.start(fleet(ALPHA), {})
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(ImpossibleGpus) as refused:
        assigner(tmp_path, *CARDS).start(fleet(ALPHA, NAMED), {})
    assert {"gamma": "no GPU 7; known: 0 (GPU-0), 1 (GPU-1)"} == refused.value.problems
    assert before == (tmp_path / FILE).read_bytes()


def test_a_driver_that_is_slow_after_a_reboot_takes_no_gpu_from_anybody(tmp_path: Path) -> None:
    """Nobody runs, nothing can be seen: everybody has what it had before, and the next supervisor knows it too."""
    assigner(tmp_path, *CARDS).start(fleet(ALPHA, BETA), {})
    for _ in range(2):
        made = assigner(tmp_path, trouble=HUNG.trouble)
        made.start(fleet(ALPHA, BETA), {})
        assert [("GPU-1",), ("GPU-0",)] == [made.of("alpha"), made.of("beta")]


def test_a_hung_driver_keeps_no_successor_from_supervising(tmp_path: Path) -> None:
    """Although a line that asks for a GPU was just then in back-off: it has its own again."""
    assigner(tmp_path, *CARDS).start(fleet(ALPHA, BETA), {})
    made = assigner(tmp_path, trouble=HUNG.trouble)
    made.start(fleet(ALPHA, BETA), {"alpha": ("GPU-1",)})
    assert [("GPU-1",), ("GPU-0",)] == [made.of("alpha"), made.of("beta")]


def test_what_was_kept_for_another_request_is_no_answer_to_this_one(tmp_path: Path) -> None:
    """GPU 0 is not what a line gets that asks for 7 since, while nobody can say which that is."""
    assigner(tmp_path, *CARDS).start(fleet(BETA), {})
    with pytest.raises(UnseenGpus) as refused:
        assigner(tmp_path, trouble=HUNG.trouble).start(fleet(replace(BETA, gpu=NAMED.gpu)), {})
    assert ("beta",) == refused.value.names


class SlowGpus(Gpus):
    """A driver that answers whom waits for so long."""

    def __init__(self, needs: float) -> None:
        super().__init__()
        self.needs, self.waited = needs, list[float]()

    def look(self, patience: float = PATIENCE) -> Inventory:
        self.waited.append(patience)
        slow = Inventory(trouble=f"the GPU driver did not answer within {patience:g} s")
        return Inventory(CARDS) if sum(self.waited) >= self.needs else slow


def test_a_start_waits_longer_for_who_cannot_do_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Eight GPUs without persistence mode take longer than the usual patience; the log tells for whom it waits."""
    made = Assigner(tmp_path / FILE, gpus := SlowGpus(15.0))
    with caplog.at_level("WARNING", "fleet"):
        made.start(fleet(ALPHA, BETA), {"alpha": ("GPU-1",)})
    assert ([("GPU-1",), ("GPU-0",)], [10.0, 60.0]) == ([made.of("alpha"), made.of("beta")], gpus.waited)
    assert ["the GPU driver did not answer within 10 s; waiting up to 60 s more for beta"] == caplog.messages


def test_a_start_does_not_wait_for_who_has_a_gpu_already(tmp_path: Path) -> None:
    """Its lines are supervised at once."""
    assigner(tmp_path, *CARDS).start(fleet(ALPHA, BETA), {})
    Assigner(tmp_path / FILE, gpus := SlowGpus(15.0)).start(fleet(ALPHA, BETA), {})
    assert [10.0] == gpus.waited


def test_a_start_waits_for_auto_lines_while_nobody_runs(tmp_path: Path) -> None:
    """They would stay on the CPU; lines that run already are not left alone for it."""
    for survivors, expected in (({}, [10.0, 60.0]), ({"late": ()}, [10.0])):
        made = Assigner(tmp_path / "nothing-kept" / FILE, gpus := SlowGpus(15.0))
        made.start(fleet(ALPHA, DatasiteSpec("late", 1)), survivors)
        assert expected == gpus.waited


def test_who_was_on_the_cpu_for_a_hung_driver_gets_a_gpu_when_it_answers(tmp_path: Path) -> None:
    """Running it is not moved: it has it from its next start on. The next supervisor knows that too, be it that the
    driver answers under this one or under that."""
    first = assigner(tmp_path, trouble=HUNG.trouble)
    first.start(fleet(ALPHA), {})
    assert ("alpha",) == first.waiting
    made = first.placed(fleet(ALPHA), CARDS, ["alpha"])
    assert ({"alpha": ("GPU-0",)}, ()) == (made.assignments, made.moved)
    for use in (False, True):
        if use:
            first.use(made)
        heir = assigner(tmp_path, *CARDS)
        heir.start(fleet(ALPHA), {"alpha": ()})
        assert (("GPU-0",), (), False) == (heir.of("alpha"), heir.waiting, heir.sees_others("alpha", ()))


def test_a_line_on_the_cpu_for_another_reason_waits_for_nothing(tmp_path: Path) -> None:
    """It is adopted there, and stays there."""
    made = assigner(tmp_path, *CARDS)
    made.start(fleet(ALPHA), {"alpha": ()})
    assert ((), ()) == (made.of("alpha"), made.waiting)


def test_a_reload_under_a_hung_driver_lets_its_newcomers_wait(tmp_path: Path) -> None:
    """As a start does; one that asks for a GPU is told why it cannot have one."""
    made = assigner(tmp_path, trouble=HUNG.trouble)
    made.start(fleet(ALPHA), {})
    placed = made.placed(fleet(ALPHA, DatasiteSpec("late", 1), BETA), (), ["alpha"])
    assert (("alpha", "late"), {"beta": HUNG.trouble}) == (placed.unseen, placed.problems)


def test_an_heir_tells_who_has_a_gpu_from_its_next_start_on(tmp_path: Path) -> None:
    """Whoever was adopted on the CPU and has one by now."""
    made = assigner(tmp_path, *CARDS)
    made.use(Placement({"alpha": ("GPU-1",)}, asked={"alpha": "auto"}))
    made.start(fleet(ALPHA), {"alpha": ()})
    run = RunFile("alpha", 2, os.getpid(), 5, boot_id(), fingerprint(ALPHA), 8080, ())
    said = list(daemon._first_messages(fleet(ALPHA), [run], {}, made))
    assert [gpu_found("alpha", ("GPU-1",))] == said[1:]


def test_a_driver_that_never_answers_is_named_and_not_taken_for_none(tmp_path: Path) -> None:
    """Nothing is changed, so that the next start may do better."""
    with pytest.raises(UnseenGpus, match="the GPU driver did not answer within 60 s") as refused:
        Assigner(tmp_path / FILE, SlowGpus(900.0)).start(fleet(ALPHA, BETA), {"alpha": ()})
    assert (("beta",), []) == (refused.value.names, list(tmp_path.iterdir()))


class LateGpus(Gpus):
    """No driver is loaded until there were so many looks."""

    def __init__(self, needs: int, *cards: Card) -> None:
        super().__init__()
        self.needs, self.cards, self.looks = needs, cards, 0

    def look(self, patience: float = PATIENCE) -> Inventory:
        self.looks += 1
        return Inventory(self.cards) if self.looks > self.needs else Inventory(absent=True)


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between looks, which take no time here."""
    pauses: list[float] = []
    monkeypatch.setattr(rooms, "_pause", pauses.append)
    return pauses


def test_a_driver_that_is_not_loaded_yet_at_boot_is_waited_for(tmp_path: Path, paused: list[float]) -> None:
    """By a host that had GPUs at its last start: everybody gets what it had, and nobody comes up on the CPU."""
    assigner(tmp_path, *CARDS).start(fleet(ALPHA, BETA), {})
    made = Assigner(tmp_path / FILE, LateGpus(4, *CARDS))
    made.start(fleet(ALPHA, BETA), {})
    assert [("GPU-1",), ("GPU-0",), 4] == [made.of("alpha"), made.of("beta"), len(paused)]


def test_a_driver_that_is_never_loaded_is_not_taken_for_no_gpu(tmp_path: Path, paused: list[float]) -> None:
    """Who asks for a GPU is not started without: exit code 1, and the next start may do better. ``auto`` starts on the
    CPU, and waits for the driver; the start after that does not wait again."""
    assigner(tmp_path, *CARDS).start(fleet(ALPHA, BETA), {})
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(UnseenGpus, match=r"no GPU driver is loaded .*gpus\.json") as refused:
        Assigner(tmp_path / FILE, LateGpus(999)).start(fleet(ALPHA, BETA), {})
    assert (("beta",), before) == (refused.value.names, (tmp_path / FILE).read_bytes())
    made = Assigner(tmp_path / FILE, LateGpus(999))
    made.start(fleet(ALPHA), {})
    assert ((), ("alpha",), "") == (made.of("alpha"), made.waiting, told(made, ALPHA))
    paused.clear()
    heir = Assigner(tmp_path / FILE, gpus := LateGpus(1, *CARDS))
    heir.start(fleet(ALPHA), {})
    assert ([], ("alpha",)) == (paused, heir.waiting)
    gpus.looks = 0
    assert "no GPU driver is loaded" in heir.look_at({}).trouble
    assert CARDS == heir.look_at({}).cards


def test_a_host_that_never_had_a_gpu_waits_for_none(tmp_path: Path, paused: list[float]) -> None:
    """A driver that is not there is none; and one that goes while the fleet runs is a loss, as before."""
    made = Assigner(tmp_path / FILE, LateGpus(999))
    made.start(fleet(ALPHA), {})
    assert ((), [], None) == (made.waiting, paused, told(made, ALPHA))
    with pytest.raises(ImpossibleGpus):
        Assigner(tmp_path / FILE, LateGpus(999)).start(fleet(BETA), {})
    answers = [Inventory(absent=True), Inventory(CARDS)]
    made = Assigner(tmp_path / FILE, Gpus(answers.pop))
    made.start(fleet(ALPHA), {})
    assert Inventory(absent=True) == made.look(fleet(ALPHA))


def test_who_runs_on_a_gpu_keeps_it_while_no_driver_is_loaded(tmp_path: Path, paused: list[float]) -> None:
    """It was launched with it."""
    assigner(tmp_path, *CARDS).start(fleet(ALPHA, BETA), {})
    made = Assigner(tmp_path / FILE, LateGpus(999))
    made.start(fleet(ALPHA, BETA), {"beta": ("GPU-0",)})
    assert (("GPU-0",), ("alpha",), []) == (made.of("beta"), made.waiting, paused)


def told(made: Assigner, spec: DatasiteSpec) -> str | None:
    """What a worker that is launched now is told to see; None: its environment is left alone."""
    order = launching.launch_order(fleet(spec), spec, 1, 2, made.shown(spec.name))
    assert isinstance(order, LaunchOrder)
    return order.compute.cuda_visible_devices


def test_a_hung_driver_costs_auto_lines_their_gpu_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They start on the CPU, and the log says why. Left alone, all of them would compute on the first GPU as soon as the
    driver answers."""
    made = assigner(tmp_path, trouble=HUNG.trouble)
    with caplog.at_level("WARNING", "fleet"):
        made.start(fleet(ALPHA), {})
    assert "" == told(made, ALPHA)
    said = "on the CPU until then: alpha; the other datasites keep their GPUs"
    assert ((), False, f"{HUNG.trouble}; {said}") == (made.of("alpha"), made.in_use, caplog.messages[-1])


def test_a_driver_that_answers_again_shows_nobody_what_is_not_his(tmp_path: Path) -> None:
    """The lines stay on the CPU until they are placed. Where it turns out that there are no NVIDIA GPUs, a line sees what
    there is."""
    for found, expected in ((CARDS, ""), ((), None)):
        answers = [Inventory(found), HUNG, HUNG]
        made = Assigner(tmp_path / FILE, Gpus(answers.pop))
        made.start(fleet(ALPHA), {})
        made.look(fleet(ALPHA))
        assert expected == told(made, ALPHA)


def test_where_there_is_no_gpu_a_line_sees_what_there_is(tmp_path: Path) -> None:
    """A ROCm host, say; where there are GPUs it sees its own."""
    for cards, expected in (((), None), (CARDS, "GPU-0")):
        made = assigner(tmp_path, *cards)
        made.start(fleet(ALPHA), {})
        assert expected == told(made, ALPHA)


def test_a_hung_driver_takes_no_gpu_from_who_runs_on_one(tmp_path: Path) -> None:
    """Nor one that was upgraded under the running lines: they are adopted as they are, `auto` or not, and no line that
    asked for a GPU keeps the next supervisor from starting."""
    made = assigner(tmp_path, trouble=HUNG.trouble)
    survivors = {"alpha": ("GPU-0",), "beta": ("GPU-1",)}
    made.start(fleet(ALPHA, BETA, DatasiteSpec("late", 1)), survivors)
    assert [("GPU-0",), ("GPU-1",), ()] == [made.of(name) for name in ("alpha", "beta", "late")]
    assert [False, False] == [made.sees_others(name, uuids) for name, uuids in survivors.items()]
    assert (True, survivors | {"late": ()}) == (made.in_use, read_placement(tmp_path / FILE).assignments)


def test_where_nobody_wants_a_gpu_nobody_looks(tmp_path: Path) -> None:
    """A driver that hangs is no affair of a fleet that says none."""
    looked: list[int] = []
    made = Assigner(tmp_path / FILE, Gpus(lambda: looked.append(1) or HUNG))  # type: ignore[func-returns-value]
    made.start(fleet(replace(ALPHA, gpu=GpuRequest("none"))), {})
    assert ((), []) == (made.of("alpha"), looked)


def test_a_full_disk_costs_the_memory_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The fleet runs with what was decided."""
    (tmp_path / "gpus.json.part").mkdir()
    made = assigner(tmp_path, *CARDS)
    made.start(fleet(ALPHA), {})
    assert (("GPU-0",), True) == (made.of("alpha"), "cannot write the GPU assignment" in caplog.text)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"lines": []}', '{"lines": {"a": 3}}', '{"lines": {"a": {}}}', "\x00"]
)
def test_a_torn_file_is_no_assignment(tmp_path: Path, text: str) -> None:
    """Everybody is placed anew."""
    (tmp_path / FILE).write_text(text)
    assert Placement() == read_placement(tmp_path / FILE)


def test_a_run_file_tells_the_gpus_of_the_launch(tmp_path: Path) -> None:
    """And None for a process that an older version launched."""
    files = RunFiles(tmp_path)
    identity = (2, 77, 5, boot_id(), "f", 8080)
    written = [RunFile("a", *identity, ("GPU-0", "GPU-1")), RunFile("b", *identity, ()), RunFile("c", *identity)]
    for run in written:
        files.write(run)
    assert written == files.read_all()


# --- before anything starts ---


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fleet.yaml whose line asks for GPU 7, on a host with two."""
    monkeypatch.setattr(rooms, "Gpus", lambda: Gpus(lambda: Inventory(CARDS)))
    monkeypatch.setattr(daemon, "_run", lambda *a: pytest.fail("it was started"))
    monkeypatch.setattr(daemon, "become_subreaper", lambda: None)
    monkeypatch.setattr(daemon, "keep_secrets", lambda: None)
    log = daemon.log
    handlers, propagate, level = list(log.handlers), log.propagate, log.level
    (tmp_path / "fleet.yaml").write_text(
        "version: 1\ndashboard: embedded\ndatasites:\n  - {name: gamma, port: 8082, gpu: 7}\n"
    )
    yield tmp_path / "fleet.yaml"
    for handler in set(log.handlers) - set(handlers):
        handler.close()
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)


def test_up_refuses_what_this_host_does_not_have(plant: Path) -> None:
    """Exit code 2, with line and cause; nothing is started, no assignment is kept, and the lock is free again."""
    for _ in range(2):
        result = CliRunner().invoke(app, ["up", str(plant), "--quiet"], catch_exceptions=False)
        assert 2 == result.exit_code
        assert "  gamma: gpu: no GPU 7; known: 0 (GPU-0), 1 (GPU-1)" in result.output.splitlines()
        assert "nothing was started" in result.output
    assert [] == list((plant.parent / ".fleet").glob("gpus*"))


def test_up_comes_again_for_a_driver_that_does_not_answer(plant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, after which a service manager starts it again; nobody is told that there is no GPU."""
    monkeypatch.setattr(rooms, "Gpus", lambda: Gpus(lambda: HUNG))
    result = CliRunner().invoke(app, ["up", str(plant), "--quiet"], catch_exceptions=False)
    told = "the GPU driver did not answer within 10 s, and gamma needs a GPU; nothing was started or stopped"
    assert (1, True, False) == (result.exit_code, told in result.output, "there is no GPU" in result.output)
    assert "nvidia-smi" in result.output


# --- reload ---


def reloaded(*specs: DatasiteSpec, cards: tuple[Card, ...] = CARDS, **had: tuple[str, ...]) -> Any:
    """A reload on a host with ``cards``, of a fleet whose lines ``had`` these GPUs."""

    def ask(world: FakeMachine) -> list[Any]:
        world.placement = Placement(had or world.placement.assignments)
        return [ReloadAsked(fleet(*specs), cards)]

    return ask


def test_a_reload_that_cannot_be_had_is_refused_whole() -> None:
    """Nobody is started, stopped or moved; the event names line and cause."""
    world = play(fleet(ALPHA), [reloaded(replace(ALPHA, verbose=True), NAMED, alpha=("GPU-1",))])
    assert ([("launch", "alpha", 1)], {"alpha": ("GPU-1",)}) == (world.done, world.placement.assignments)
    why = "reload refused: gamma: gpu: no GPU 7; known: 0 (GPU-0), 1 (GPU-1)"
    assert why == world.events[-1].text


def test_a_reload_places_the_newcomers_and_moves_nobody() -> None:
    """The exclusive newcomer goes where nobody is."""
    world = play(fleet(ALPHA), [reloaded(ALPHA, BETA, alpha=("GPU-0",))])
    assert {"alpha": ("GPU-0",), "beta": ("GPU-1",)} == world.placement.assignments
    assert [("launch", "alpha", 1), ("launch", "beta", 1)] == world.done


def test_a_line_whose_gpu_is_gone_restarts_elsewhere() -> None:
    """With the reason `gpu`, and it alone."""
    world = play(fleet(ALPHA, BETA), [reloaded(ALPHA, BETA, cards=(ONE,), alpha=(), beta=("GPU-0",))])
    assert {"alpha": (), "beta": ("GPU-1",)} == world.placement.assignments
    assert [("terminate", "beta"), ("launch", "beta", 2)] == world.done[2:]
    assert "restarted by a reload: gpu changed" == world.pinned["beta"].asked


@pytest.fixture
def control(tmp_path: Path) -> Iterator[tuple[httpx.Client, list[Any], list[FleetConfig]]]:
    """A control API on a host with two GPUs, of a fleet in which beta has the first; the list holds the next file."""
    config, posted, following = fleet(BETA), list[Any](), list[FleetConfig]()
    board, service, mine = Board(config), ServiceThread(), assigner(tmp_path, *CARDS)
    mine.use(Placement({"beta": ("GPU-0",)}))
    about = SupervisorFacts(1, "0", 0.0, False, 0)
    picture = lambda pinned: take(config, pinned.records, {}, about, 1.0, "now")  # noqa: E731 - what a server is given
    load = lambda: ReloadAsked(following[0], CARDS[len(following) - 1 :])  # noqa: E731 - the same
    place = lambda asked, running: mine.placed(asked.config, asked.cards, running)  # noqa: E731 - the same
    server = ControlServer(board, picture, posted.append, load, place)
    board.pin(config, {"beta": WorkerRecord("beta", state=WorkerState.READY)}, stopping=False)
    server.open(tmp_path / "control.sock", service)
    transport = httpx.HTTPTransport(uds=str(tmp_path / "control.sock"))
    with httpx.Client(transport=transport, base_url="http://fleet", timeout=20.0) as client:
        yield client, posted, following
    board.close()
    server.close()
    service.close()


def test_the_control_api_refuses_it_with_the_reason(control: tuple[httpx.Client, list[Any], list[FleetConfig]]) -> None:
    """As it does a broken file, with and without --dry-run; the engine hears nothing of it."""
    client, posted, following = control
    following.append(fleet(BETA, NAMED))
    for dry_run in (0, 1):
        answer = client.post(f"/v1/reload?dry_run={dry_run}")
        assert (422, []) == (answer.status_code, posted)
        assert answer.json()["error"].startswith("gamma: gpu: no GPU 7;")


def test_a_plan_shows_who_has_to_move(control: tuple[httpx.Client, list[Any], list[FleetConfig]]) -> None:
    """Under `restart`, with the reason `gpu`."""
    client, posted, following = control
    following += [fleet(BETA), fleet(BETA)]  # and the first GPU is gone
    plan = client.post("/v1/reload").json()
    assert ({"beta": ["gpu"]}, [], 1) == (plan["restart"], plan["unchanged"], len(posted))
