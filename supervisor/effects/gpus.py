"""Reads the GPUs of this host from NVML: UUID, memory, MIG instances, health, who computes there. Reads only.

It never loads torch and never initialises CUDA. A host without NVIDIA's driver has no cards, which is no error. NVML
runs in its own thread: a driver that hangs costs that thread, and nobody waits for it beyond a limit.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from supervisor.cards import Card, Process

PATIENCE = 10.0
"""Seconds to wait for the driver; without persistence mode it takes one or two for every card."""
LONG_PATIENCE = 60.0
"""More seconds for a start that cannot do without a GPU."""
_KMSG = Path("/dev/kmsg")
_RECORD = 8192
_MOST_RECORDS = 20_000
_XID = re.compile(rb"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)")


@dataclass(frozen=True, slots=True)
class Inventory:
    """``trouble``: why there may be more GPUs than are visible; empty on a host without GPUs. ``absent``: no driver is
    loaded, which is so on a host without GPUs, and for a while at boot on others."""

    cards: tuple[Card, ...] = ()
    trouble: str = ""
    absent: bool = False


class Gpus:
    """Looks on request. While a look hangs, later ones wait for it, so that there is never a second one."""

    def __init__(self, read: Callable[[], Inventory] | None = None) -> None:
        self._read = read or read_nvml
        self._lock = threading.Lock()
        self._under_way: Future[Inventory] | None = None

    def look(self, patience: float = PATIENCE) -> Inventory:
        with self._lock:
            if self._under_way is None or self._under_way.done():
                self._under_way = _in_thread(self._read)
            reading = self._under_way
        try:
            return reading.result(patience)
        except TimeoutError:
            return Inventory(trouble=f"the GPU driver did not answer within {patience:g} s")


def _in_thread(read: Callable[[], Inventory]) -> Future[Inventory]:
    """Not an executor: Python joins those at exit, and a hung driver would block that."""
    future: Future[Inventory] = Future()

    def run() -> None:
        try:
            future.set_result(read())
        except Exception as error:  # noqa: BLE001 - whatever a driver's library throws: there are no cards to be used then
            future.set_result(Inventory(trouble=f"the GPUs cannot be read: {type(error).__name__}: {error}"))

    threading.Thread(target=run, name="gpus", daemon=True).start()
    return future


def read_nvml(kmsg: Path = _KMSG) -> Inventory:
    """One look by NVML, however long it takes."""
    try:
        import pynvml
    except ImportError:
        return Inventory()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        absent = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        return Inventory(absent=True) if error.value in absent else Inventory(trouble=f"NVML cannot be used: {error}")
    try:
        cards = list(_cards(pynvml))
        return Inventory(tuple(_with_xids(cards, kmsg)) if cards else ())
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


# --- one card ---


def _cards(nvml: ModuleType) -> Iterator[Card]:
    """In PCI order, as CUDA counts them with CUDA_DEVICE_ORDER=PCI_BUS_ID; a GPU before its instances."""
    for index in range(nvml.nvmlDeviceGetCount()):
        card = Card(f"unknown-{index}", index, "unknown", 0)
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            card = _card(nvml, handle, index)
            card = replace(card, bus=_bus(nvml, handle), split=_is_split(nvml, handle), **_health(nvml, handle))
            parts = list(_instances(nvml, handle, card)) if card.split else []
        except nvml.NVMLError as error:  # lost, from the start or since
            card, parts = replace(card, trouble=str(error)), []
        yield from (card, *parts)


def _card(nvml: ModuleType, handle: Any, index: int) -> Card:
    memory = _or(nvml, None, nvml.nvmlDeviceGetMemoryInfo, handle)
    return Card(
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(memory.total) if memory else 0,
        free_bytes=int(memory.free) if memory else 0,
        processes=_processes(nvml, handle),
    )


def _instances(nvml: ModuleType, handle: Any, gpu: Card) -> Iterator[Card]:
    for number in range(_or(nvml, 0, nvml.nvmlDeviceGetMaxMigDeviceCount, handle)):
        part = _or(nvml, None, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if part is not None:  # the numbers have gaps
            with contextlib.suppress(nvml.NVMLError):  # destroyed since
                yield replace(_card(nvml, part, gpu.index), parent=gpu.uuid, trouble=gpu.trouble, notes=gpu.notes)


def _is_split(nvml: ModuleType, handle: Any) -> bool:
    current, _pending = _or(nvml, (0, 0), nvml.nvmlDeviceGetMigMode, handle)
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _processes(nvml: ModuleType, handle: Any) -> tuple[Process, ...]:
    found = _or(nvml, [], nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    return tuple(Process(int(one.pid), one.usedGpuMemory) for one in found)


def _bus(nvml: ModuleType, handle: Any) -> str:
    info = _or(nvml, None, nvml.nvmlDeviceGetPciInfo, handle)
    return _text(info.busId) if info else ""


def _health(nvml: ModuleType, handle: Any) -> dict[str, Any]:
    """Each of these values can point to a fault; a GPU without the feature answers "not supported"."""
    notes, trouble = [], ""
    uncorrected = (nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
    if errors := _or(nvml, 0, nvml.nvmlDeviceGetTotalEccErrors, handle, *uncorrected):
        notes.append(f"uncorrected ECC errors since the driver was loaded: {errors}")
    _, _, pending, failed = _or(nvml, (0, 0, 0, 0), nvml.nvmlDeviceGetRemappedRows, handle)
    if pending or _or(nvml, 0, nvml.nvmlDeviceGetRetiredPagesPendingStatus, handle):
        notes.append("reset the GPU to take its bad memory out of use")
    if failed:
        trouble = "bad memory that could not be replaced (row remapping failed)"
    return {"notes": tuple(notes), "trouble": trouble}


def _or(nvml: ModuleType, otherwise: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or ``otherwise`` if this GPU or driver has none. The error of a lost GPU goes to the caller."""
    try:
        return ask(*arguments)
    except nvml.NVMLError as error:
        if error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED):
            raise
        return otherwise


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


# --- what the kernel's log holds against a card ---


def _with_xids(cards: list[Card], kmsg: Path) -> Iterator[Card]:
    """NVML tells only new XIDs; earlier ones are in the kernel's log, if this user may read it."""
    xids = _xids(kmsg)
    for card in cards:
        found = sorted({xid for place, xid in xids if card.bus and _same_place(place, card.bus)})
        note = f"XID {', '.join(map(str, found))} in the kernel's log"
        yield replace(card, notes=(*card.notes, note)) if found else card


def _xids(kmsg: Path) -> list[tuple[str, int]]:
    try:
        log = os.open(kmsg, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        text = b"".join(_records(log))
    finally:
        os.close(log)
    return [(place.decode(), int(xid)) for place, xid in _XID.findall(text)]


def _records(log: int) -> Iterator[bytes]:
    for _ in range(_MOST_RECORDS):
        try:
            record = os.read(log, _RECORD)
        except BrokenPipeError:
            continue  # some were overwritten before we came; the next read goes on behind them
        except OSError:
            return  # nothing more
        if not record:
            return
        yield record


def _same_place(one: str, other: str) -> bool:
    """The log has ``0000:65:00``, NVML ``00000000:65:00.0``."""
    return _place(one) == _place(other)


def _place(bus: str) -> tuple[int, ...]:
    return tuple(int(part, 16) for part in bus.partition(".")[0].split(":"))
