"""A host with NVIDIA GPUs, as far as NVML can tell: nvidia-ml-py loads the shared object that is made here from nvml.c.

Nothing of it computes; what a test writes is what the driver says, from the next look on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

GIB = 1024**3
_SOURCE = Path(__file__).with_name("nvml.c")


@dataclass(frozen=True, slots=True)
class Gpu:
    """``signs``: see nvml.c; ``parts``: its MIG instances, by number."""

    uuid: str
    bus: str = "0000DEAD:65:00.0"  # of no host whose kernel log may be read
    signs: str = "-"
    name: str = "NVIDIA H100 80GB HBM3"
    gib: int = 80
    parts: dict[int, str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        yield f"{self.uuid} {self.gib * GIB} {(self.gib - 1) * GIB} {self.bus} {self.signs} {self.name}"
        for number, uuid in self.parts.items():
            yield f"{number}: {uuid} {40 * GIB} {39 * GIB} {self.name} MIG 3g.40gb"


class Driver:
    """The driver's library in ``folder``, for the processes that are started while ``installed``."""

    def __init__(self, folder: Path, *gpus: Gpu) -> None:
        self.folder = folder
        self._cards = folder / "cards"
        self.has(*gpus)
        if shutil.which("cc") is None:
            pytest.skip("there is no C compiler to make the driver's library with")
        library = folder / "libnvidia-ml.so.1"
        compiler = ["cc", "-shared", "-fPIC", "-Wall", "-Werror", f'-DCARDS="{self._cards}"', "-o", str(library)]
        subprocess.run([*compiler, str(_SOURCE)], check=True)

    def has(self, *gpus: Gpu) -> None:
        """These are the GPUs from now on. In one step: a look never sees half of it."""
        part = self._cards.with_name("cards.part")
        part.write_text("".join(f"{line}\n" for gpu in gpus for line in gpu.lines()))
        part.replace(self._cards)
        rows = enumerate(gpus)
        table = "".join(f"{index}, {gpu.uuid}, {gpu.name}, {gpu.gib * 1024}\n" for index, gpu in rows)
        parts = "".join(f"  MIG 3g.40gb Device 0: (UUID: {uuid})\n" for gpu in gpus for uuid in gpu.parts.values())
        smi = self.folder / "nvidia-smi"
        smi.write_text(f'#!/bin/sh\n[ "$1" = -L ] && cat <<END || cat <<TABLE\n{parts}END\n{table}TABLE\n')
        smi.chmod(0o755)

    def computes(self, pid: int, uuid: str, memory: int) -> None:
        """A process has memory there, for as long as it lives."""
        folder = self._cards.with_name("cards.d") / uuid
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(pid)).write_text(str(memory))

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """No look comes back meanwhile."""
        mark = self._cards.with_name("cards.hangs")
        mark.touch()
        try:
            yield
        finally:
            mark.unlink()

    @contextmanager
    def installed(self, *, cuda: bool = False) -> Iterator[None]:
        """With nvidia-smi. ``cuda``: with a stand-in for CUDA in torch as well."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LD_LIBRARY_PATH", str(self.folder), prepend=os.pathsep)
            patch.setenv("PATH", str(self.folder), prepend=os.pathsep)
            if cuda:
                patch.setenv("PYTHONPATH", str(_SOURCE.with_name("cuda")), prepend=os.pathsep)
                patch.setenv("CUDA_STAND_IN_CARDS", str(self._cards))
            yield
