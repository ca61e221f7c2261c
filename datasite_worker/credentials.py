"""A datasite's identity and its admin's login: drawn on first start, kept for ever, readable by their owner alone.

A datasite that drew a new identity would lose all its data, so a broken file is refused, never replaced.
"""

from __future__ import annotations

import json
import os
import secrets
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from datasite_worker.process import ConfigurationFailure

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """PySyft's uid and signing key (hexadecimal), and a root login that nobody is told."""

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
    return _kept(folder / "identity.json", lambda values: Identity(**values), _draw_identity)


def admin_login(folder: Path, email: str, name: str, password: str | None) -> AdminLogin:
    """The admin's login as it was on first start; a ``password`` given now is used only if none was kept.

    Raises ConfigurationFailure when the file is broken.
    """
    drawn = AdminLogin(email, name, password or secrets.token_urlsafe(18), generated=password is None)
    return _kept(folder / f"{_ADMIN}.json", lambda values: AdminLogin(**values), lambda: drawn)


_ADMIN = "admin"


def _draw_identity() -> Identity:
    return Identity(
        uid=uuid.uuid4().hex,
        signing_key=secrets.token_hex(32),
        root_email=f"root-{secrets.token_hex(8)}@fleet.example.com",
        root_password=secrets.token_urlsafe(32),
    )


def _kept(path: Path, read: Callable[[dict[str, Any]], T], draw: Callable[[], T]) -> T:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    try:
        return read(json.loads(path.read_text()))
    except FileNotFoundError:
        drawn = draw()
        _write(path, json.dumps(asdict(drawn), indent=2))  # type: ignore[call-overload]
        return drawn
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationFailure(
            f"{path} cannot be used ({error}); restore it from a backup, or use reset: true (loses all data)"
        ) from error


def _write(path: Path, text: str) -> None:
    """Atomic and durable: after a power cut there is the whole file, or none."""
    part = path.with_suffix(".part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
