"""The pure parts of ``fleet doctor gpu``: comparing, what is asked for, the verdict, the command line. No fleet starts."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from fleet_tools.gpu_check import checks, cli, compare, host, questions, verdict
from fleet_tools.gpu_check.plant import Plant
from supervisor.cards import Card, Process
from supervisor.config import load
from supervisor.faces.cli import app
from supervisor.faces.commands import doctor
from supervisor.policy.placement import place, requests_of

ROOT = Path(__file__).parents[2]


GIB, MIB = 1024**3, 1024**2
ZERO, ONE = (Card(f"GPU-{n}aaa-b", n, "NVIDIA H100", 80 * GIB, 79 * GIB) for n in (0, 1))
SPLIT = replace(ONE, split=True)
PART = Card("MIG-00000009", 1, "NVIDIA H100 MIG 3g.40gb", 40 * GIB, 39 * GIB, parent=ONE.uuid)
SMI = "0, GPU-0aaa-b, NVIDIA H100, 81920\n1, GPU-1aaa-b, NVIDIA H100, 81920\n"


def device(card: Card, share: float = 0.99) -> dict[str, Any]:
    return {"uuid": card.uuid.removeprefix("GPU-"), "name": card.name, "memory": int(card.memory_bytes * share)}


# --- what there is ---

SMI_SAYS = [
    (SMI, set()),
    (SMI.replace("1, GPU-1", "2, GPU-1"), {"GPU-1aaa-b: index 1, nvidia-smi says 2"}),
    (SMI.replace("H100, 81920\n1", "A100, 40960\n1"), {"GPU-0aaa-b: name NVIDIA H100, nvidia-smi says NVIDIA A100", "GPU-0aaa-b: 81920 MiB, nvidia-smi says 40960 MiB"}),
    (SMI.splitlines()[0], {"nvidia-smi does not list GPU-1aaa-b"}),
    (SMI + "2, GPU-x, NVIDIA H100, 81920", {"only nvidia-smi lists GPU-x"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "faults"), SMI_SAYS)
def test_against_nvidia_smi(text: str, faults: set[str]) -> None:
    """Index, name and memory of every GPU; an instance is no row of that table."""
    assert faults == set(compare.against_smi([ZERO, ONE, PART], compare.of_smi(text)))


def test_no_table_is_a_fault_of_its_own() -> None:
    """nvidia-smi that says something else is not taken for a host without GPUs."""
    with pytest.raises(ValueError):  # noqa: PT011 - any: its caller tells the text
        compare.of_smi("NVIDIA-SMI has failed")
    assert set() == compare.instances_of_smi("GPU 0: NVIDIA H100 (UUID: GPU-0aaa-b)")
    assert {"MIG-00000009"} == compare.instances_of_smi("  MIG 3g.40gb     Device  0: (UUID: MIG-00000009)")


TORCH_SAYS = [
    (ZERO, [device(ZERO)], []),
    (PART, [device(PART)], []),
    (PART, [device(PART) | {"uuid": "1aaa-b"}], []),  # CUDA may tell the UUID of its GPU
    (ZERO, [], ["GPU 0: torch sees 0 GPUs instead of only this one"]),
    (ZERO, [device(ZERO), device(ONE)], ["GPU 0: torch sees 2 GPUs instead of only this one"]),
    (ZERO, [device(ONE)], ["GPU 0: torch reports the UUID 1aaa-b"]),
    (ZERO, [device(ZERO, 0.5)], ["GPU 0: torch reports 40960 MiB, NVML 81920 MiB"]),
]


@pytest.mark.parametrize(("card", "seen", "faults"), TORCH_SAYS)
def test_against_torch(card: Card, seen: list[dict[str, Any]], faults: list[str]) -> None:
    """One GPU, that one, and nearly all of its memory."""
    assert faults == compare.against_torch(card, seen)


def test_the_order_of_cuda() -> None:
    """Index 0 has to be the same GPU for both; where CUDA leaves one out, nothing can be said."""
    assert [] == compare.against_order([ZERO, ONE], [device(ZERO), device(ONE)])
    assert ["in PCI order torch lists 1aaa-b, 0aaa-b; NVML lists 0aaa-b, 1aaa-b"] == compare.against_order(
        [ZERO, ONE], [device(ONE), device(ZERO)]
    )
    assert [] == compare.against_order([ZERO, SPLIT, PART], [device(PART)])


# --- what is asked for ---

HOSTS = [
    ([ZERO], {"alpha": (ZERO.uuid,), "beta": (ZERO.uuid,)}),
    ([ZERO, ONE], {"alpha": (ZERO.uuid,), "beta": (ONE.uuid,)}),
    ([ZERO, SPLIT, PART], {"alpha": ("MIG-00000009",), "beta": (ZERO.uuid,)}),
    ([SPLIT, PART], {"alpha": ("MIG-00000009",), "beta": ("MIG-00000009",)}),
    ([replace(ZERO, memory_bytes=2 * GIB)], {"alpha": (ZERO.uuid,), "beta": (ZERO.uuid,)}),
]


@pytest.mark.parametrize(("cards", "expected"), HOSTS)
def test_the_two_lines_fit_on_every_host(
    tmp_path: Path, cards: list[Card], expected: dict[str, tuple[str, ...]]
) -> None:
    """On one GPU together, on two apart, and on a MIG instance where there is one; as fleet itself reads and places it."""
    lines = [f"  - {{name: {name}, port: {n}, gpu: {wish.asked}}}" for n, (name, wish) in enumerate(compare.wishes(cards).items(), 8080)]  # fmt: skip
    (tmp_path / "fleet.yaml").write_text("\n".join(["version: 1", "dashboard: embedded", "datasites:", *lines]))
    config = load(tmp_path / "fleet.yaml", {})
    assert (expected, {}) == ((made := place(requests_of(config), cards, {})).assignments, made.problems)
    assert {min(2 * GIB, min(card.memory_bytes for card in cards if card.usable) // 4)} == {
        spec.gpu.memory_bytes for spec in config.datasites
    }


def test_one_more_than_there_are() -> None:
    """What is in MIG mode or in trouble does not count."""
    assert [2, 3, 3] == [compare.too_many(cards) for cards in ([ZERO], [ZERO, ONE], [ZERO, SPLIT, PART])]


PARAMETERS = [([1.0, -2.0], [1.0, -2.0], 0.0), ([1.0, -2.0], [1.0, -2.2], 0.2 / 2.2), ([], [], float("inf")), ([1.0], [1.0, 1.0], float("inf"))]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "expected"), PARAMETERS)
def test_how_far_parameters_are_apart(one: list[float], other: list[float], expected: float) -> None:
    """By the greatest of them; lists that are not alike are as far as can be."""
    assert pytest.approx(expected) == compare.farthest(one, other)


def test_the_training_is_the_same_every_time() -> None:
    """Else its parameters on a GPU could not be compared with those on the CPU; and it learns."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a model this small is slower with more
    try:
        first, second = (
            json.loads(questions.train("cpu"))  # type: ignore[no-untyped-call]  # PySyft ships its source
            for _ in range(2)
        )
    finally:
        torch.set_num_threads(threads)
    assert (first, True, 577) == (second, first["loss"] < 5.0, len(first["parameters"]))


# --- the verdict ---

OK, BROKEN, UNCHECKED, SKIPPED = (
    verdict.Finding("parent", "p", state, "seen\n twice") for state in (verdict.State.OK, verdict.State.BROKEN, verdict.State.UNCHECKED, verdict.State.SKIPPED)
)  # fmt: skip
VERDICTS = [
    ([OK, SKIPPED], 0, "1 of 2 promises hold, 1 skipped"),
    ([OK, BROKEN, OK], 1, "2 of 3 promises hold, 1 NOT OK"),
    ([OK, UNCHECKED], 1, "1 of 2 promises hold, 1 not checked"),
]


@pytest.mark.parametrize(("findings", "code", "words"), VERDICTS)
def test_a_verdict(findings: list[Any], code: int, words: str) -> None:
    """What could not be checked does not hold; what a host has not prevents nothing."""
    assert (code, words) == (verdict.exit_code(findings), verdict.in_words(findings))


def test_what_speaks_against_a_promise_is_what_is_told() -> None:
    """And only then it is broken."""
    well = verdict.judged("c", "p", "all well", [])
    assert (verdict.State.OK, "all well") == (well.state, well.seen)
    broken = verdict.judged("c", "p", "all well", ["no", "never"])
    assert (verdict.State.BROKEN, "no; never") == (broken.state, broken.seen)


def test_the_table_and_the_document() -> None:
    """A line for each check, lined up; the same for programs."""
    assert [
        "check           what was seen",
        "parent  ok      seen twice",
        "parent  NOT OK  seen twice",
    ] == verdict.table([OK, BROKEN]).splitlines()
    setting = verdict.Setting(("GPU 0: H100",), "2.2", "0.1.0", "2026-01-02")
    assert {
        "verdict": "v",
        "exit": 1,
        "gpus": ["GPU 0: H100"],
        "torch": "2.2",
        "fleet": "0.1.0",
        "date": "2026-01-02",
        "checks": [{"check": "parent", "promise": "p", "state": "NOT OK", "seen": "seen\n twice"}],
    } == verdict.document([BROKEN], setting, "v", verdict.Exit.BROKEN)
    assert {"verdict": "no GPU", "exit": 3, "gpus": [], "checks": []} == verdict.document([], None, "no GPU", verdict.Exit.NO_GPU)  # fmt: skip


# --- whether there is anything to check ---


def unread() -> tuple[Card, ...]:
    raise verdict.Unmeasured("NVML cannot be used: Driver/library version mismatch")


NOTHING = [
    (lambda: (), "There is no NVIDIA GPU here"),
    (unread, "Driver/library version mismatch. After an upgrade"),
    (lambda: (replace(ZERO, trouble="GPU is lost"), SPLIT), "GPU 0: GPU is lost; GPU 1: in MIG mode, without instances"),
]  # fmt: skip


@pytest.mark.parametrize(("look", "said"), NOTHING)
def test_a_host_with_nothing_to_check(look: Any, said: str) -> None:
    """One sentence of why, and what to do."""
    with pytest.raises(cli.NoGpu, match=said):
        cli.usable_cards(look)


NO_CUDA = [
    (host.Torch("2.13.0+cpu", None, {"": []}, {"": "not compiled"}), r"built without CUDA.*'torch===2\.13\.0'"),
    (host.Torch("2.13.0+cu130", "13.0", {"": []}, {"": "driver too old."}), r"CUDA 13\.0\) cannot use the GPU: driver too old\. The"),
    (host.Torch("2.13.0+cu130", "13.0", {}, {}), "cannot use the GPU: it sees no GPU"),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "said"), NO_CUDA)
def test_a_torch_with_nothing_to_check(seen: Any, said: str) -> None:
    """Which torch to install, or what CUDA says."""
    with pytest.raises(cli.NoGpu, match=said):
        cli.usable_torch(seen)


# --- the checks, one by one ---


SEES_NOTHING = host.Torch("2.13.0", None, {}, {})
NOWHERE: Any = None
"""The scene of a check that looks at nothing of it."""


def a_check(look: Any, *, needs_fleet: bool = True) -> Any:
    return checks.Check("p", look, needs_fleet)


def raises(error: BaseException) -> Any:
    def look(_scene: Any) -> Any:
        raise error

    return look


LOOKS = [
    (lambda _: ("well", []), ("ok", "well")),
    (lambda _: ("well", ["bad"]), ("NOT OK", "bad")),
    (raises(checks.Skipped("none here")), ("skipped", "none here")),
    (raises(verdict.Unmeasured("not within 3 s")), ("not checked", "not within 3 s")),
    (raises(ValueError("what PySyft throws")), ("not checked", "ValueError: what PySyft throws")),
    (raises(cli.OutOfTime()), ("not checked", "out of time")),
]


@pytest.mark.parametrize(("look", "expected"), LOOKS)
def test_a_check_that_fails_stops_no_other(look: Any, expected: tuple[str, str]) -> None:
    """Whatever it throws is told beside its name."""
    found = cli._one("c", a_check(look), NOWHERE, [], lambda: False)
    assert expected == (str(found.state), found.seen)


def test_what_needs_a_fleet_is_not_tried_without_one() -> None:
    """Nor anything when the time is up."""
    down = verdict.Finding("placement", "p", verdict.State.UNCHECKED, "fleet up ended with 1")
    told = [
        cli._one("c", a_check(raises(AssertionError())), NOWHERE, before, partial(bool, over)).seen
        for before, over in (([down], False), ([], True))
    ]
    assert ["the fleet did not come up", "out of time"] == told
    assert "ok" == cli._one("c", a_check(lambda _: ("", []), needs_fleet=False), NOWHERE, [down], lambda: False).state


def test_time_that_is_up_between_two_checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was found is told, and what is missing is named; there is no traceback."""
    well = a_check(lambda _: ("well", []))
    monkeypatch.setattr(cli, "CHECKS", {"first": well, "second": well, "third": well})
    monkeypatch.setattr(cli, "plant", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(cli, "_alarm", lambda _: contextlib.nullcontext(lambda: False))
    monkeypatch.setattr(cli, "_progress", lambda name, _: raises(cli.OutOfTime())(name) if name == "second" else None)
    found = cli._all((ZERO,), SEES_NOTHING, tmp_path, 60)
    told = [("first", "ok", "well"), *((name, "not checked", "out of time") for name in ("second", "third"))]
    assert told == [(one.check, str(one.state), one.seen) for one in found]


class FakePlant:
    """A line alpha on GPU 0 whose processes answer as they are told."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def gpus(self, _name: str) -> list[str]:
        return [ZERO.uuid]

    def pids(self) -> dict[str, int]:
        return {"alpha": os.getpid()}

    def site(self, _name: str) -> FakePlant:
        return self

    def keeps(self, count: int) -> None:
        """The line takes so much memory."""

    def answering_pid(self, _name: str) -> int:
        return os.getpid() + 1

    def ask(self, question: Any, **given: Any) -> Any:
        return self.keeps(**given) if question is questions.keep_memory else self.answers["line"]

    def ask_job(self, question: Any, **_: Any) -> Any:
        return self.answers["job"]


def scene(monkeypatch: pytest.MonkeyPatch, *cards: Card, **answers: Any) -> Any:
    monkeypatch.setattr(host, "cards", lambda: cards)
    return checks.Scene(cards, SEES_NOTHING, compare.wishes([ZERO]), Path(), cast("Plant", FakePlant(**answers)))


HELD = {"within": "given", "beyond": "OutOfMemoryError"}
LOOSE = {"within": "given", "beyond": "given"}
TIGHT = {"within": "OutOfMemoryError", "beyond": "OutOfMemoryError"}


@pytest.mark.parametrize(
    ("job", "line", "faults"),
    [(HELD, HELD, []), (LOOSE, HELD, [f"a job: {LOOSE}"]), (HELD, TIGHT, [f"the datasite itself: {TIGHT}"])],
)
def test_memory_beyond_the_claim(monkeypatch: pytest.MonkeyPatch, job: Any, line: Any, faults: list[str]) -> None:
    """Half of the claim has to be given, and more than it refused, to both."""
    assert faults == checks.memory(scene(monkeypatch, ZERO, job=job, line=line))[1]


def test_a_full_gpu_is_no_limit_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too little is free, a refusal would say nothing."""
    with pytest.raises(verdict.Unmeasured, match="only 1024 MiB are free"):
        checks.memory(scene(monkeypatch, replace(ZERO, free_bytes=GIB), job=HELD, line=HELD))


def test_a_parent_that_touched_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the driver's files that it has open, or by what NVML says of it."""
    above = os.getppid()
    assert [] == checks.parent(scene(monkeypatch, ZERO))[1]
    there = replace(ZERO, processes=(Process(above, GIB),))
    monkeypatch.setattr(host, "open_devices", lambda pid: ["/dev/nvidiactl"] if pid == above else [])
    faults = ["it has /dev/nvidiactl open", f"it computes on {ZERO.uuid}"]
    assert faults == checks.parent(scene(monkeypatch, there))[1]


@pytest.mark.parametrize(
    ("frees", "faults"),
    [(True, []), (False, ["after 0.05 s its old process is still on the GPU, or its memory is still in use"])],
)
def test_a_killed_line_that_leaves_its_memory_behind(
    monkeypatch: pytest.MonkeyPatch, frees: bool, faults: list[str]
) -> None:
    """Also where NVML tells of no process, as in a container: by the memory that it is known to have taken."""
    here = scene(monkeypatch, ZERO, line=SAW, job=SAW)
    free, took = [ZERO.free_bytes], here.claim // 2
    monkeypatch.setattr(host, "cards", lambda: (replace(ZERO, free_bytes=free[-1]),))
    monkeypatch.setattr(here.plant, "keeps", lambda count: free.append(free[0] - count))
    monkeypatch.setattr(os, "kill", lambda pid, number: free.append(free[0] if frees else free[0] - took))
    monkeypatch.setattr(checks, "_SOON", 0.05)
    assert faults == checks.line_killed(here)[1]


def test_memory_that_was_not_seen_to_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it says nothing that it is free afterwards."""
    here = scene(monkeypatch, ZERO, line=SAW, job=SAW)
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    assert ["the memory that it used did not show on the GPU"] == checks.line_killed(here)[1]


SAW = {
    "read": {"CUDA_VISIBLE_DEVICES": ZERO.uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    "uuids": ["0aaa-b"],
    "clean": True,
}
SAW_WRONG = [
    ({}, []),
    ({"clean": False}, ["CUDA was initialised before its first use"]),
    ({"uuids": ["0aaa-b", "1aaa-b"]}, ["GPU 0: torch sees 2 GPUs instead of only this one"]),
    ({"uuids": ["1aaa-b"]}, ["GPU 0: torch reports the UUID 1aaa-b"]),
    ({"read": {}}, ["reads {}"]),
]


@pytest.mark.parametrize(("changed", "faults"), SAW_WRONG)
def test_what_a_process_should_not_see(changed: dict[str, Any], faults: list[str]) -> None:
    """Another GPU, more GPUs, another environment, or a CUDA that was in use before it was born."""
    assert faults == checks._seen_wrong(ZERO, SAW | changed)


def fleet(*words: str) -> Any:
    return CliRunner().invoke(app, ["doctor", "gpu", *words])


def test_the_command_line() -> None:
    """--list names every check; a limit that is no number of seconds is wrong usage."""
    listed = fleet("--list")
    assert 0 == listed.exit_code
    assert list(checks.CHECKS) == [line.split()[0] for line in listed.output.splitlines()]
    assert [2, 2] == [fleet("--limit", limit).exit_code for limit in ("soon", "0")]


@pytest.mark.parametrize("code", verdict.Exit)
def test_the_exit_code_is_the_verdict(monkeypatch: pytest.MonkeyPatch, code: verdict.Exit) -> None:
    """What was found decides it, and options reach the check."""
    given: list[Any] = []

    def run(limit: int, *, as_json: bool) -> verdict.Exit:
        given.append((limit, as_json))
        return code

    monkeypatch.setattr(cli, "run", run)
    assert [int(code)] * 2 == [fleet().exit_code, fleet("--json", "--limit", "60").exit_code]
    assert [(540, False), (60, True)] == given


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are named, with what to do; there is no traceback."""
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name in ("torch", "syft") else object())
    ended = CliRunner(mix_stderr=False).invoke(app, ["doctor", "gpu"])
    assert (1, "") == (ended.exit_code, ended.stdout)
    assert "not installed: torch, syft\n  next step: install fleet with all" in ended.stderr
