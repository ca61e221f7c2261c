"""The GPUs of this machine as NVML, nvidia-smi and torch report them, and the processes on them. Reads only; decides
nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from fleet_tools.gpu_check import compare
from fleet_tools.gpu_check.verdict import Unmeasured
from supervisor.cards import Card
from supervisor.effects.gpus import Gpus

_PROBE = "fleet_tools.gpu_check.probe"
_PATIENCE = 30.0
_IMPORTS = 180.0


@dataclass(frozen=True, slots=True)
class Torch:
    """``devices``: what it sees where it may see all (""), and by UUID where it may see that one; ``errors`` so too."""

    version: str
    cuda: str | None
    devices: dict[str, list[dict[str, Any]]]
    errors: dict[str, str]


def cards() -> tuple[Card, ...]:
    """As fleet sees them. Raises Unmeasured where they cannot be read."""
    seen = Gpus().look(_PATIENCE)
    if seen.trouble:
        raise Unmeasured(seen.trouble)
    return seen.cards


def torch_sees(uuids: list[str]) -> Torch:
    """In a process of its own: this one never touches CUDA. Raises Unmeasured."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", _PROBE, *uuids], capture_output=True, text=True, timeout=_IMPORTS, check=False
    )
    if done.returncode or not done.stdout.strip():
        raise Unmeasured(f"torch cannot be loaded: {done.stderr.strip()[-300:]}")
    reply = json.loads(done.stdout.splitlines()[-1])
    devices = {uuid: seen["devices"] for uuid, seen in reply["seen"].items()}
    return Torch(reply["torch"], reply["cuda"], devices, {uuid: seen["error"] for uuid, seen in reply["seen"].items()})


def smi(*words: str) -> str | None:
    """What nvidia-smi answers; None where there is none. Raises Unmeasured when it fails."""
    found = shutil.which("nvidia-smi")
    if found is None:
        return None
    done = subprocess.run([found, *words], capture_output=True, text=True, timeout=_PATIENCE, check=False)
    if done.returncode:
        raise Unmeasured(f"nvidia-smi ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}")
    return done.stdout


def smi_gpus() -> list[compare.SmiGpu] | None:
    """Raises Unmeasured."""
    answer = smi(f"--query-gpu={compare.SMI_FIELDS}", "--format=csv,noheader,nounits")
    try:
        return None if answer is None else compare.of_smi(answer)
    except ValueError as error:
        raise Unmeasured(f"nvidia-smi's table cannot be read: {error}") from error


# --- who holds them ---


def computing(now: tuple[Card, ...]) -> dict[int, str]:
    """By pid the GPU that it computes on, as NVML tells. In a container it may tell of nobody."""
    return {process.pid: card.uuid for card in now for process in card.processes}


def card_of(uuid: str) -> Card:
    """As it is now. Raises Unmeasured when it is gone."""
    found = [card for card in cards() if card.uuid == uuid]
    if not found:
        raise Unmeasured(f"{uuid} is gone")
    return found[0]


def open_devices(pid: int) -> list[str]:
    """The files of the driver that a process has open: none unless it initialised CUDA, whatever a container hides."""
    try:
        opened = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}  # noqa: PTH115, PTH208 - links, not files
    except OSError as error:
        raise Unmeasured(f"cannot list the open files of process {pid}: {error.strerror}") from error
    return sorted(path for path in opened if path.startswith("/dev/nvidia"))
