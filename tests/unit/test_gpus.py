"""What is read of the host's GPUs: by the real nvidia-ml-py, from a driver made of values, from none, and from a hung one."""

from __future__ import annotations

import builtins
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pynvml
import pytest

from supervisor.cards import Card, Process
from supervisor.effects.gpus import Gpus, Inventory, read_nvml
from tests.unit.fake_nvml import GIB, FakeDriver, FakeGpu

H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    """A kernel's log that may not be read."""
    return tmp_path / "absent"


def read(monkeypatch: pytest.MonkeyPatch, kmsg: Path, *gpus: FakeGpu, **more: Any) -> Inventory:
    driver = FakeDriver(list(gpus), **more).install(monkeypatch)
    seen = read_nvml(kmsg)
    assert 0 == driver.open  # each look lets go of the driver again
    return seen


def test_a_card_and_who_computes_there(monkeypatch: pytest.MonkeyPatch, nothing: Path) -> None:
    """UUID, index, name, memory, PCI address; a process of which the driver tells no memory is one all the same."""
    seen = read(monkeypatch, nothing, FakeGpu("GPU-a", processes=[(77, 3 * GIB), (78, None)]), FakeGpu("GPU-b"))
    bus = "0000DEAD:65:00.0"
    first = Card("GPU-a", 0, H100, 80 * GIB, 79 * GIB, bus, processes=(Process(77, 3 * GIB), Process(78)))
    assert Inventory((first, Card("GPU-b", 1, H100, 80 * GIB, 79 * GIB, bus))) == seen


def test_a_split_gpu_and_its_instances(monkeypatch: pytest.MonkeyPatch, nothing: Path) -> None:
    """A GPU in MIG mode cannot be used as a whole; its instances can, and their numbers may have gaps."""
    parts = {n: FakeGpu(f"MIG-{n}", "NVIDIA H100 MIG 3g.40gb", 40 * GIB, 39 * GIB) for n in (0, 3)}
    parts[5] = FakeGpu("MIG-5", refuses={"nvmlDeviceGetUUID": pynvml.NVML_ERROR_NOT_FOUND})
    seen = read(monkeypatch, nothing, FakeGpu("GPU-a", mig=True, parts=parts), FakeGpu("GPU-b"))
    told = [(card.uuid, card.index, card.parent, card.usable, card.memory_bytes // GIB) for card in seen.cards]
    assert [
        ("GPU-a", 0, "", False, 80),
        ("MIG-0", 0, "GPU-a", True, 40),
        ("MIG-3", 0, "GPU-a", True, 40),
        ("GPU-b", 1, "", True, 80),
    ] == told


SICK = [
    ({"ecc": 3}, "", ("uncorrected ECC errors since the driver was loaded: 3",)),
    ({"remapped": (0, 1, 1, 0)}, "", ("reset the GPU to take its bad memory out of use",)),
    ({"retiring": 1}, "", ("reset the GPU to take its bad memory out of use",)),
    ({"remapped": (0, 1, 0, 1)}, "bad memory that could not be replaced (row remapping failed)", ()),
    ({"remapped": (4, 0, 0, 0)}, "", ()),
]


@pytest.mark.parametrize(("sign", "trouble", "notes"), SICK)
def test_signs_of_sickness(
    monkeypatch: pytest.MonkeyPatch, nothing: Path, sign: dict[str, Any], trouble: str, notes: tuple[str, ...]
) -> None:
    """What has to be looked at is noted; a GPU whose memory is beyond repair is not used, nor are its instances."""
    part = FakeGpu("MIG-0")
    seen = read(monkeypatch, nothing, FakeGpu("GPU-a", mig=True, parts={0: part}, **sign))
    assert [(trouble, notes)] * 2 == [(card.trouble, card.notes) for card in seen.cards]


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED])
def test_a_lost_gpu_is_shown_and_not_used(monkeypatch: pytest.MonkeyPatch, nothing: Path, code: int) -> None:
    """Lost from the start or in the middle of the look; the others are read all the same."""
    words = str(pynvml.NVMLError(code))
    half = FakeGpu("GPU-b", refuses={"nvmlDeviceGetTotalEccErrors": code})
    seen = read(monkeypatch, nothing, FakeGpu("GPU-a"), half, FakeGpu("GPU-c"), lost={0: code})
    assert [("unknown-0", words), ("GPU-b", words), ("GPU-c", "")] == [(c.uuid, c.trouble) for c in seen.cards]


def test_a_card_that_knows_less_is_read_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch, nothing: Path) -> None:
    """A workstation's card has neither ECC nor MIG, an old driver not every function."""
    gaps = ["TotalEccErrors", "MigMode", "RemappedRows", "PciInfo", "ComputeRunningProcesses", "MemoryInfo"]
    gaps += ["RetiredPagesPendingStatus"]
    codes = [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND] * 4
    refuses = {f"nvmlDeviceGet{gap}": code for gap, code in zip(gaps, codes, strict=False)}
    seen = read(monkeypatch, nothing, FakeGpu("GPU-a", "NVIDIA RTX A2000", refuses=refuses))
    assert Inventory((Card("GPU-a", 0, "NVIDIA RTX A2000", 0),)) == seen


def test_xids_of_the_kernels_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each once, at the card whose PCI address they name; a card without an address gets none."""
    log = tmp_path / "kmsg"
    log.write_text(
        "3,1,1,-;NVRM: Xid (PCI:0000:65:00): 79, pid=1, GPU has fallen off the bus.\n"
        "3,2,1,-;NVRM: Xid (PCI:0000:65:00): 31, Ch 00000003\n3,3,1,-;NVRM: Xid (PCI:0000:65:00): 79, again\n"
        "3,4,1,-;NVRM: Xid (PCI:0001:65:00): 48, elsewhere\n3,5,1,-;something else\n"
    )
    unplaced = FakeGpu("GPU-c", refuses={"nvmlDeviceGetPciInfo": pynvml.NVML_ERROR_NOT_SUPPORTED})
    seen = read(
        monkeypatch, log, FakeGpu("GPU-a", bus="00000000:65:00.0"), FakeGpu("GPU-b", bus="00000000:CA:00.0"), unplaced
    )
    assert [("XID 31, 79 in the kernel's log",), (), ()] == [card.notes for card in seen.cards]


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_a_host_without_a_driver_has_no_cards(monkeypatch: pytest.MonkeyPatch, nothing: Path, code: int) -> None:
    """And that is no trouble."""
    assert Inventory(absent=True) == read(monkeypatch, nothing, failure=code)


def test_a_driver_without_cards(monkeypatch: pytest.MonkeyPatch, nothing: Path) -> None:
    """A virtual machine whose card was taken away."""
    assert Inventory() == read(monkeypatch, nothing)


def test_a_driver_that_cannot_be_used_is_trouble(monkeypatch: pytest.MonkeyPatch, nothing: Path) -> None:
    """Upgraded under a running kernel, say: there may be cards, so it is told."""
    seen = read(monkeypatch, nothing, FakeGpu("GPU-a"), failure=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    assert ((), True) == (seen.cards, seen.trouble.startswith("NVML cannot be used: RM has detected"))


def test_without_the_library_there_are_no_cards(monkeypatch: pytest.MonkeyPatch, nothing: Path) -> None:
    """nvidia-ml-py may have been left out of an installation."""
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name == "pynvml":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    assert Inventory() == read_nvml(nothing)


def test_a_hung_driver_is_waited_for_so_long_and_by_one_thread() -> None:
    """Every look ends in time and says why; when the driver comes back, so does the truth."""
    come_back, looks = threading.Event(), []

    def read() -> Inventory:
        looks.append(1)
        come_back.wait(20)
        return Inventory((Card("GPU-a", 0, "x", 1),))

    gpus = Gpus(read)
    hung = Inventory(trouble="the GPU driver did not answer within 0.02 s")
    assert [hung, hung, [1]] == [gpus.look(0.02), gpus.look(0.02), looks]
    come_back.set()
    assert [Card("GPU-a", 0, "x", 1)] == list(gpus.look(20).cards)
    assert {len(looks)} <= {1, 2}
    gpus.look(20)
    assert len(looks) >= 2  # a look that has ended is not told again for ever


def test_whatever_the_driver_throws_is_trouble_not_a_crash() -> None:
    """A bug in a driver's library takes no fleet down."""

    def read() -> Inventory:
        raise OSError("broken library")

    assert Inventory(trouble="the GPUs cannot be read: OSError: broken library") == Gpus(read).look(20)


@pytest.mark.process
def test_the_inventory_loads_neither_torch_nor_cuda() -> None:
    """Looking at the GPUs of this host, whatever there is, maps no CUDA library into the process."""
    look = (
        "import sys; from pathlib import Path; from supervisor.effects.gpus import Gpus; Gpus().look()\n"
        "mapped = Path('/proc/self/maps').read_text()\n"
        "print('torch' in sys.modules, 'libcuda.so' in mapped, 'libcudart' in mapped)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert "False False False" == done.stdout.strip()
