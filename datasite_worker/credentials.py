"""A datasite's identity and its admin's login: drawn at the first start, kept for ever, readable only by the owner.

A datasite with a new identity would lose all its data, so a broken file is an error and is never replaced.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from fleet_common import folders, state_files
from fleet_common.failures import ConfigurationFailure, may_pass
from fleet_common.layout import WorkerFolder
from fleet_common.untrusted import Unfit, decoded

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """PySyft's uid and signing key (hexadecimal), and a root login that is never shown."""

    uid: str
    signing_key: str = field(repr=False)
    root_email: str
    root_password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AdminLogin:
    """``generated``: the password was drawn here, and ``fleet credentials`` shows it."""

    email: str
    name: str
    password: str = field(repr=False)
    generated: bool = False


def identity(folder: Path) -> Identity:
    """The datasite's identity, drawn if there is none. Raises ConfigurationFailure when its file is broken."""
    return _kept(WorkerFolder(folder).identity, Identity, draw_identity)


def admin_login(folder: Path, email: str, name: str, password: str | None) -> AdminLogin:
    """The login of the admin with that e-mail, as first created. ``password`` is used only at that first time.

    Raises ConfigurationFailure when its file is broken.
    """
    shown = _shown(folder)
    if shown is not None and shown.email == email:
        return shown
    drawn = AdminLogin(email, name, password or secrets.token_urlsafe(18), generated=password is None)
    return _kept(_file_of(folder, email), AdminLogin, lambda: drawn)


def show(folder: Path, login: AdminLogin) -> None:
    """Write this login to ``admin.json``. The previous one is kept beside it, because its user still exists."""
    shown = _shown(folder)
    if shown == login:
        return
    if shown is not None:
        _write(_file_of(folder, shown.email), _text(shown))
    _write(WorkerFolder(folder).admin, _text(login))


def _shown(folder: Path) -> AdminLogin | None:
    if not (WorkerFolder(folder).admin).exists():
        return None

    def lost() -> AdminLogin:
        raise FileNotFoundError(WorkerFolder(folder).admin)

    return _kept(WorkerFolder(folder).admin, AdminLogin, lost)


def _file_of(folder: Path, email: str) -> Path:
    return WorkerFolder(folder).admins / f"{hashlib.sha256(email.encode()).hexdigest()[:16]}.json"


def draw_identity() -> Identity:
    return Identity(
        uid=uuid.uuid4().hex,
        signing_key=secrets.token_hex(32),
        root_email=f"root-{secrets.token_hex(8)}@fleet.example.com",
        root_password=secrets.token_urlsafe(32),
    )


def _kept(path: Path, form: type[T], draw: Callable[[], T]) -> T:
    folders.make(path.parent)
    try:
        kept = decoded(folders.read(path), form, state_files.LARGEST)
    except FileNotFoundError:
        drawn = draw()
        _write(path, _text(drawn))
        return drawn
    except folders.Unsafe as error:
        raise ConfigurationFailure(str(error)) from error
    except OSError as error:
        if may_pass(error):
            raise
        raise _unusable(path, str(error)) from error
    if isinstance(kept, Unfit):
        raise _unusable(path, kept.why)
    return cast("T", kept)


def _unusable(path: Path, why: str) -> ConfigurationFailure:
    return ConfigurationFailure(
        f"{path} cannot be used ({why}); restore it from a backup, or use reset: true (loses all data)"
    )


def _text(kept: Any) -> str:
    return json.dumps(asdict(kept), indent=2)


def _write(path: Path, text: str) -> None:
    """After a power cut there is the whole file, or none."""
    folders.make(path.parent)
    folders.write_text(path, text)
