"""Checks the promises of docs/gpus.md on this machine, one after the other, with one fleet.

A check returns what it saw and what breaks the promise. Raises Unmeasured if it cannot tell, and Skipped if the promise
does not apply to this host.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fleet_tools.gpu_check import compare, host, questions
from fleet_tools.gpu_check.compare import MIB, Wish
from fleet_tools.gpu_check.plant import Plant, plant
from fleet_tools.gpu_check.verdict import Unmeasured
from fleet_tools.processes import alive, inhabitants
from fleet_tools.waiting import Trouble, until
from supervisor.cards import Card

Seen = tuple[str, list[str]]
"""What was seen, and what speaks against the promise."""
_SOON = 10.0
"""Seconds within which the memory of a dead process is free."""
_LATE = 60.0
_SLACK = 64 * MIB
_CLOSE = 1e-3


class Skipped(Exception):
    """There is no such thing here."""


@dataclass(slots=True)
class Scene:
    """The GPUs as they were at first, what torch sees of them, and a fleet of two datasites, alpha and beta."""

    cards: tuple[Card, ...]
    torch: host.Torch
    wishes: dict[str, Wish]
    folder: Path
    plant: Plant
    ours: set[int] = field(default_factory=set)  # every process of the fleet that was seen on a GPU

    @property
    def usable(self) -> list[Card]:
        return [card for card in self.cards if card.usable]

    @property
    def claim(self) -> int:
        return self.wishes["alpha"].claim

    def note(self) -> None:
        """Record the fleet's processes that are on a GPU now."""
        below = set(inhabitants([self.folder], named=True)) | set(self.plant.pids().values())
        self.ours |= host.computing(host.cards()).keys() & below


# --- before there is a fleet ---


def inventory(scene: Scene) -> Seen:
    reported = host.smi_gpus()
    if reported is None:
        raise Skipped("nvidia-smi is not on the PATH, so there is nothing to compare with")
    whole = [card for card in scene.cards if not card.parent]
    return f"{len(whole)} GPUs have the same index, UUID, name and memory", compare.against_smi(scene.cards, reported)


def mig(scene: Scene) -> Seen:
    parts = [card for card in scene.cards if card.parent]
    if not any(card.split for card in scene.cards):
        raise Skipped("no GPU here is in MIG mode")
    reported = host.smi("-L")
    faults = ["a GPU in MIG mode counts as usable" for card in scene.cards if card.split and card.usable]
    if reported is not None and (theirs := compare.instances_of_smi(reported)) != {part.uuid for part in parts}:
        faults.append(f"nvidia-smi lists the instances {', '.join(sorted(theirs)) or 'none'}")
    return f"{len(parts)} instances; alpha asks for {parts[0].uuid if parts else 'none'}", faults


def torch_sees(scene: Scene) -> Seen:
    """By each UUID alone, and all in PCI order."""
    faults = [f"{uuid}: {why}" for uuid, why in scene.torch.errors.items() if why]
    for card in scene.usable:
        faults += compare.against_torch(card, scene.torch.devices.get(card.uuid, []))
    faults += compare.against_order(scene.cards, scene.torch.devices.get("", []))
    return f"torch {scene.torch.version} sees each of {len(scene.usable)} by its UUID, in NVML's order", faults


def impossible(scene: Scene) -> Seen:
    count = compare.too_many(scene.cards)
    with plant(scene.folder / "impossible", {f"line_{n}": "{exclusive: true}" for n in range(count)}) as crowd:
        done = crowd.run("up", "--detach", "--timeout", "60")
        output = done.stdout + done.stderr
        faults = [] if done.returncode == 2 else [f"fleet up ended with {done.returncode} instead of 2"]
        faults += [] if "no room for 1 exclusive GPU" in output else [f"no datasite was named: {output.strip()[-200:]}"]
        faults += ["something was started"] if crowd.started() else []
    return (
        f"{count} datasites that each want one of {count - 1} GPUs alone: refused with exit code 2, nothing started",
        faults,
    )


# --- a fleet ---


def placement(scene: Scene) -> Seen:
    """Brings the fleet up."""
    scene.plant.up()
    holders = scene.plant.holders()
    usable = {card.uuid for card in scene.usable}
    faults = [f"{name} has {gpus}" for name in scene.wishes if len(gpus := holders[name]["gpus"]) != 1]
    faults += [f"{name} has {uuid}" for name in scene.wishes for uuid in holders[name]["gpus"] if uuid not in usable]
    faults += [f"fleet gpus gives no reason for {name}" for name in scene.wishes if not holders[name]["why"]]
    if len(usable) > 1 and holders["alpha"]["gpus"] == holders["beta"]["gpus"]:
        faults.append("both datasites have the same GPU, although each wants one alone")
    return "; ".join(f"{name} {holders[name]['gpus']} ({holders[name]['why']})" for name in scene.wishes), faults


def sees(scene: Scene) -> Seen:
    faults, saw = [], []
    for name in scene.wishes:
        (uuid,) = scene.plant.gpus(name)
        card, site = host.card_of(uuid), scene.plant.site(name)
        for who, reply in (("datasite", site.ask(questions.look_around)), ("job", site.ask_job(questions.look_around))):
            faults += [f"{name}'s {who}: {fault}" for fault in _seen_wrong(card, reply)]
        device = scene.plant.line(name)["device"]
        faults += [] if device == "cuda:0" else [f"the device of {name} is {device}"]
        saw.append(f"{name} and its job see only {uuid}, device {device}")
    return "; ".join(saw), faults


def _seen_wrong(card: Card, reply: dict[str, object]) -> list[str]:
    wanted = {"CUDA_VISIBLE_DEVICES": card.uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    faults = [] if reply["read"] == wanted else [f"reads {reply['read']}"]
    uuids = reply["uuids"]
    devices = [{"uuid": uuid, "memory": card.memory_bytes} for uuid in uuids] if isinstance(uuids, list) else []
    faults += compare.against_torch(card, devices)
    return faults if reply["clean"] else [*faults, "CUDA was initialised before its first use"]


def training(scene: Scene) -> Seen:
    import json

    reference = json.loads(questions.train("cpu"))  # type: ignore[no-untyped-call]
    site, faults, saw = scene.plant.site("alpha"), [], []
    for who, ask in (("a job", site.ask_job), ("the datasite itself", site.ask)):
        reply = ask(questions.train, device="cuda:0")
        apart = compare.farthest(reply["parameters"], reference["parameters"])
        faults += [] if apart <= _CLOSE else [f"{who}: parameters differ by {apart:.2g} from the CPU's"]
        faults += [] if reply["taken"] > 0 else [f"{who} used no GPU memory"]
        saw.append(
            f"{who}: loss {reply['loss']:.4f}, parameters within {apart:.1g} of the CPU's, {reply['taken']} bytes used"
        )
    scene.note()
    return "; ".join(saw), faults


def parent(scene: Scene) -> Seen:
    """After its children have computed: the process that they were forked from."""
    above = psutil.Process(scene.plant.pids()["alpha"]).ppid()
    faults = [f"it has {', '.join(opened)} open"] if (opened := host.open_devices(above)) else []
    holds = host.computing(host.cards()).get(above)
    faults += [f"it computes on {holds}"] if holds else []
    return f"process {above} has no file of the driver open and uses no GPU, although a job trained on one", faults


def memory(scene: Scene) -> Seen:
    site, within, beyond = scene.plant.site("alpha"), scene.claim // 2, scene.claim + 256 * MIB
    free = host.card_of(scene.plant.gpus("alpha")[0]).free_bytes
    if free < beyond + 512 * MIB:
        raise Unmeasured(f"only {free // MIB} MiB are free, too little to tell a limit from a full GPU")
    wanted = {"within": "given", "beyond": "OutOfMemoryError"}
    answers = {"a job": site.ask_job(questions.take_memory, within=within, beyond=beyond)}
    answers["the datasite itself"] = site.ask(questions.take_memory, within=within, beyond=beyond)
    faults = [f"{who}: {answer}" for who, answer in answers.items() if answer != wanted]
    return (
        f"of {scene.claim // MIB} MiB, {within // MIB} can be used and {beyond // MIB} cannot (datasite and job)",
        faults,
    )


def job_killed(scene: Scene) -> Seen:
    (uuid,), serving = scene.plant.gpus("alpha"), scene.plant.answering_pid("alpha")
    before = host.card_of(uuid).free_bytes
    place = scene.folder / "held"
    job = scene.plant.site("alpha").queue(questions.hold_memory, count=scene.claim // 2, place=str(place))
    until(place.exists, _LATE, "the job that takes memory")
    pid, held = int(place.read_text()), host.card_of(uuid)
    faults = [] if before - held.free_bytes >= scene.claim // 2 else ["its memory did not show on the GPU"]
    os.kill(pid, signal.SIGKILL)
    took = _freed(uuid, pid, before)
    faults += [] if took is not None else [f"its memory was not free after {_SOON:g} s"]
    message = str(job.wait(timeout=_LATE).message)
    faults += [] if "SIGKILL" in message else [f"the job says: {message}"]
    faults += (
        [] if scene.plant.answering_pid("alpha") == serving else ["the datasite no longer serves from the same process"]
    )
    faults += [] if scene.plant.site("alpha").ask_job(questions.look_around)["clean"] else ["the next job fails"]
    return f"{(before - held.free_bytes) // MIB} MiB were free again after {took or 0:.1f} s; job: {message}", faults


def line_killed(scene: Scene) -> Seen:
    (uuid,), old, site = scene.plant.gpus("alpha"), scene.plant.pids()["alpha"], scene.plant.site("alpha")
    before = host.card_of(uuid).free_bytes
    site.ask(questions.keep_memory, count=scene.claim // 2)
    seen = before - host.card_of(uuid).free_bytes + _SLACK >= scene.claim // 2
    os.kill(old, signal.SIGKILL)
    start = time.monotonic()
    until(lambda: scene.plant.answering_pid("alpha") not in (None, old), _LATE, "the datasite's return", 0.01)
    back = time.monotonic() - start
    gone = _freed(uuid, old, before)
    faults = [] if seen else ["the memory that it used did not show on the GPU"]
    faults += [] if scene.plant.gpus("alpha") == [uuid] else [f"it has {scene.plant.gpus('alpha')} now"]
    for who, answer in (("datasite", site.ask(questions.look_around)), ("job", site.ask_job(questions.look_around))):
        faults += [f"its {who} {fault}" for fault in _seen_wrong(host.card_of(uuid), answer)]
    faults += (
        []
        if gone is not None
        else [f"after {_SOON:g} s its old process is still on the GPU, or its memory is still in use"]
    )
    freed = f"{scene.claim // 2 // MIB} MiB of the old process are free"
    return f"it answers again after {back:.2f} s, on {uuid}; {freed}", faults


def adoption(scene: Scene) -> Seen:
    pids, held = scene.plant.pids(), scene.plant.holders()
    before = {name: (pids[name], held[name]["gpus"]) for name in scene.wishes}
    supervisor = scene.plant.look().supervisor_pid
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not alive(supervisor), _SOON, "the end of the supervisor")
    scene.plant.up()
    pids, held = scene.plant.pids(), scene.plant.holders()
    after = {name: (pids[name], held[name]["gpus"]) for name in scene.wishes}
    faults = [
        f"{name} was {before[name]} and now is {after[name]}" for name in scene.wishes if before[name] != after[name]
    ]
    return (
        f"the next supervisor (pid {scene.plant.look().supervisor_pid}) has the same processes on the same GPUs",
        faults,
    )


def stop(scene: Scene) -> Seen:
    scene.note()
    scene.ours |= set(scene.plant.pids().values())
    done = scene.plant.run("down")
    faults = [] if done.returncode == 0 else [f"fleet down ended with {done.returncode}"]
    left: dict[int, str] = {}

    def nothing() -> bool:
        left.clear()
        left.update({pid: uuid for pid, uuid in host.computing(host.cards()).items() if pid in scene.ours})
        return not left and not any(map(alive, scene.ours))

    try:
        until(nothing, _SOON, "the end of our processes")
    except Trouble:
        faults += [f"still on GPUs: {left}; still running: {[pid for pid in scene.ours if alive(pid)]}"]
    return f"none of the fleet's {len(scene.ours)} processes still runs or is on a GPU", faults


def _freed(uuid: str, pid: int, free: int) -> float | None:
    """After how many seconds a dead process was off that GPU, and so much of it free as before; None: not soon."""
    start = time.monotonic()

    def off() -> bool:
        card = host.card_of(uuid)
        return pid not in {one.pid for one in card.processes} and card.free_bytes + _SLACK >= free

    try:
        until(off, _SOON, "free memory")
    except Trouble:
        return None
    return time.monotonic() - start


@dataclass(frozen=True, slots=True)
class Check:
    """``needs_fleet``: it cannot be made when the fleet did not come up."""

    promise: str
    look: Callable[[Scene], Seen]
    needs_fleet: bool = True


CHECKS = {
    "inventory": Check("NVML and nvidia-smi name the same GPUs", inventory, needs_fleet=False),
    "mig": Check("each MIG instance counts as a GPU of its own", mig, needs_fleet=False),
    "torch": Check("torch sees each GPU by its UUID, in PCI order", torch_sees, needs_fleet=False),
    "impossible": Check("an impossible request is refused before anything starts", impossible, needs_fleet=False),
    "placement": Check("each datasite has what it asked for, and `fleet gpus` says why", placement, needs_fleet=False),
    "sees": Check("a datasite and its jobs see only their own GPU", sees),
    "training": Check("a model trained on the GPU has the same parameters as on the CPU", training),
    "parent": Check("the forkserver never initialised CUDA", parent),
    "memory": Check("a process cannot use more GPU memory than its datasite claimed", memory),
    "job-killed": Check("a killed job's GPU memory is free again, and its datasite serves", job_killed),
    "line-killed": Check("a killed datasite comes back on its GPU", line_killed),
    "adoption": Check("the next supervisor leaves every datasite where it is", adoption),
    "stop": Check("after `down` no process of the fleet is on a GPU", stop),
}
