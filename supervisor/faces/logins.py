"""The ADMIN's login, as a datasite stores it in its state folder. It is read only for this command and goes nowhere
else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleet_common import state_files
from fleet_common.layout import StateFolder
from fleet_common.untrusted import Unfit, decoded
from supervisor.faces.faults import Exit, Fault
from supervisor.faces.formatting import clean


@dataclass(frozen=True, slots=True)
class Credentials:
    """``generated``: the datasite chose the password; fleet.yaml did not set it."""

    datasite: str
    email: str
    name: str
    password: str
    generated: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self, config: Path) -> str:
        origin = "generated at the first start" if self.generated else f"set by {config} at the first start"
        return (
            f"datasite  {clean(self.datasite)}\n"
            f"email     {clean(self.email)}\n"
            f"password  {clean(self.password)}\n"
            f"The password is shown as stored, {origin}; it may have been changed in PySyft since."
        )


@dataclass(frozen=True, slots=True)
class _Stored:
    email: str
    password: str
    name: str = ""
    generated: bool = False


def read(state_dir: Path, datasite: str) -> Credentials:
    """The stored login. Raises Fault when there is none yet, or it cannot be read."""
    path = StateFolder(state_dir).worker(datasite).admin
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise Fault(f"{clean(datasite)} has no login yet: it was never started", next_step="fleet up") from error
    except PermissionError as error:
        raise Fault(f"only the user of the fleet can read {path}", next_step="run this command as that user") from error
    except OSError as error:
        raise Fault(f"{path} cannot be read: {error.strerror}", Exit.NOT_DONE) from error
    stored = decoded(raw, _Stored, state_files.LARGEST)
    if isinstance(stored, Unfit):
        raise Fault(f"{path} cannot be used: {stored.why}", Exit.NOT_DONE)
    return Credentials(datasite, stored.email, stored.name, stored.password, stored.generated)
