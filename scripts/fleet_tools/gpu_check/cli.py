"""What ``fleet doctor gpu`` does: is there anything to check, the checks in order, the table. Its options are parsed in
``supervisor.faces.commands.doctor``.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from fleet_tools.console import clear, end_in_order, progress
from fleet_tools.gpu_check import compare, host
from fleet_tools.gpu_check.checks import CHECKS, Check, Scene, Skipped
from fleet_tools.gpu_check.plant import plant
from fleet_tools.gpu_check.verdict import (
    Exit,
    Finding,
    Setting,
    State,
    Unmeasured,
    document,
    exit_code,
    in_words,
    judged,
    table,
)
from fleet_tools.room import room
from fleet_tools.waiting import Trouble
from supervisor.cards import Card

_LATE = "out of time"


class NoGpu(Exception):
    """There is nothing to check here; the text says why, and what to do."""


class OutOfTime(BaseException):
    """The whole run has taken too long. Not an Exception: PySyft catches those."""


def listing() -> str:
    """What each check promises."""
    return "\n".join(f"{name:12} {check.promise}" for name, check in CHECKS.items())


def run(limit: int, *, as_json: bool) -> Exit:
    """The whole check, for at most ``limit`` seconds; what was found goes to standard output."""
    end_in_order()
    try:
        return _checked(limit, as_json=as_json)
    except NoGpu as why:
        _print([], None, str(why), Exit.NO_GPU, as_json=as_json)
        return Exit.NO_GPU
    except KeyboardInterrupt:
        print("interrupted; all started processes have ended", file=sys.stderr)
        return Exit.INTERRUPTED


def _checked(limit: int, *, as_json: bool) -> Exit:
    cards = usable_cards(host.cards)
    _progress("torch", "which GPUs it sees")
    try:
        seen = host.torch_sees([card.uuid for card in cards if card.usable])
    except (Unmeasured, subprocess.TimeoutExpired) as error:
        raise NoGpu(f"torch does not work here: {error}") from error
    usable_torch(seen)
    remains: list[str] = []
    with room("gpu-check", remains) as folder:
        findings = _all(cards, seen, folder, limit)
    findings += [Finding("left behind", "nothing is left behind", State.BROKEN, what) for what in remains]
    code, setting = exit_code(findings), _setting(cards, seen)
    _print(findings, setting, in_words(findings), code, as_json=as_json)
    return code


# --- whether there is anything to check ---


def usable_cards(look: Callable[[], tuple[Card, ...]]) -> tuple[Card, ...]:
    """Raises NoGpu."""
    try:
        cards = look()
    except Unmeasured as error:
        raise NoGpu(
            f"{error}. After an upgrade of the driver the old kernel module may still be loaded: reboot, and try again."
        ) from error
    if not cards:
        raise NoGpu(
            "There is no NVIDIA GPU here: NVML finds no driver, or a driver without a GPU. Install NVIDIA's driver, "
            "so that nvidia-smi lists the GPU. A container needs the GPU and the driver's utility libraries."
        )
    if not any(card.usable for card in cards):
        troubles = "; ".join(f"{card.label}: {card.trouble or 'in MIG mode, without instances'}" for card in cards)
        raise NoGpu(f"No GPU here can be used: {troubles}.")
    return cards


def usable_torch(seen: host.Torch) -> None:
    """Raises NoGpu."""
    if not seen.cuda:
        plain = seen.version.partition("+")[0]
        raise NoGpu(
            f"The installed torch ({seen.version}) is built without CUDA, so it cannot use the GPU. Install the build "
            f"with CUDA, on Linux the wheel without +cpu: `.venv/bin/pip install 'torch==={plain}'`; nvidia-smi shows "
            "the newest CUDA version that the driver supports."
        )
    if not any(seen.devices.values()):
        why = next(filter(None, seen.errors.values()), "it sees no GPU")
        raise NoGpu(
            f"torch {seen.version} (CUDA {seen.cuda}) cannot use the GPU: {why.rstrip('.')}. The driver may be older "
            "than that CUDA (see nvidia-smi), or this user may not open /dev/nvidia*."
        )


# --- the checks ---


def _all(cards: tuple[Card, ...], seen: host.Torch, folder: Path, limit: int) -> list[Finding]:
    wishes = compare.wishes(cards)
    findings: list[Finding] = []
    with (
        contextlib.redirect_stdout(io.StringIO()),  # PySyft's client talks; standard output is for the answer
        plant(folder / "fleet", {name: wish.asked for name, wish in wishes.items()}) as made,
        contextlib.suppress(OutOfTime),  # between two checks; within one the check reports it
        _alarm(limit) as over,
    ):
        scene = Scene(cards, seen, wishes, folder, made)
        for name, check in CHECKS.items():
            _progress(name, check.promise)
            findings.append(_one(name, check, scene, findings, over))
    clear()
    missing = list(CHECKS.items())[len(findings) :]
    return [*findings, *(_undone(name, check, _LATE) for name, check in missing)]


def _undone(name: str, check: Check, why: str) -> Finding:
    return Finding(name, check.promise, State.UNCHECKED, why)


def _one(name: str, check: Check, scene: Scene, before: list[Finding], over: Callable[[], bool]) -> Finding:
    undone = partial(_undone, name, check)

    if over():
        return undone(_LATE)
    if check.needs_fleet and any(one.check == "placement" and one.state is State.UNCHECKED for one in before):
        return undone("the fleet did not come up")
    try:
        return judged(name, check.promise, *check.look(scene))
    except Skipped as why:
        return Finding(name, check.promise, State.SKIPPED, str(why))
    except OutOfTime:
        return undone(_LATE)
    except Exception as error:  # noqa: BLE001 - PySyft, torch and the driver throw what they like; the others go on
        return undone(f"{'' if isinstance(error, Trouble) else type(error).__name__ + ': '}{error}")


@contextlib.contextmanager
def _alarm(limit: int) -> Iterator[Callable[[], bool]]:
    """Raises OutOfTime in whatever is under way when the time is up, be it a call that waits for a GPU for ever."""
    end = time.monotonic() + limit

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTime

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(limit)
    try:
        yield lambda: time.monotonic() >= end
    finally:
        signal.alarm(0)


# --- what it prints ---


def _setting(cards: tuple[Card, ...], seen: host.Torch) -> Setting:
    gpus = tuple(f"{card.label}: {card.name}, {card.memory_bytes // compare.MIB} MiB" for card in cards)
    return Setting(gpus, seen.version, version("datasite-fleet"), datetime.now(UTC).strftime("%Y-%m-%d"))


def _print(findings: list[Finding], setting: Setting | None, verdict: str, code: Exit, *, as_json: bool) -> None:
    clear()
    if as_json:
        print(json.dumps(document(findings, setting, verdict, code), indent=2))
        return
    if setting is not None:
        print(setting.in_words(), table(findings), sep="\n\n", end="\n\n")
    print(verdict)


def _progress(name: str, what: str) -> None:
    progress(f"gpu-check {name}: {what}")
