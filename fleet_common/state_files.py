"""Reads and writes the state folder's files of JSON: each by one schema, which is a type (``untrusted``).

Nothing that a disk, an editor or a stranger has made of such a file reaches the rest of the program. What does not fit
is ``Unfit``; its owner sets it aside as ``NAME.damaged``, says so, and goes on as if it were not there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any, TypeVar, cast

from fleet_common import folders
from fleet_common.untrusted import Unfit, decoded

T = TypeVar("T")

logger = logging.getLogger(__name__)

LARGEST = 16 * 1024 * 1024
"""Bytes of a state file. The largest fleets write some hundred kilobytes."""


def read(path: Path, form: type[T]) -> T | Unfit | None:
    """What is in the file; None: there is none. Never raises."""
    try:
        with open(folders.open_file(path, os.O_RDONLY), "rb") as file:
            return cast("T | Unfit", decoded(file.read(LARGEST + 1), form, LARGEST))
    except FileNotFoundError:
        return None
    except folders.Unsafe as error:
        return Unfit(error.reason)
    except OSError as error:
        return Unfit(f"it cannot be read: {error.strerror}")


def taken(path: Path, form: type[T], then: str) -> T | None:
    """The same for the owner of the file. One that does not fit is set aside, and what was there before it is taken, if
    that was kept. ``then``: what follows, for the log."""
    found = read(path, form)
    if not isinstance(found, Unfit):
        return found
    put_aside(path, found, then)
    older = read(previous(path), form)
    return None if isinstance(older, Unfit) else older


def put_aside(path: Path, unfit: Unfit, then: str) -> None:
    """Log what is wrong with the file, and rename it to ``NAME.damaged``, in place of an earlier one."""
    logger.error("%s cannot be used: %s; %s; it is kept as %s", path, unfit.why, then, damaged(path).name)
    try:
        path.replace(damaged(path))
    except OSError as error:
        logger.error("%s cannot be renamed: %s", path, error.strerror)


def damaged(path: Path) -> Path:
    """Where a file that does not fit is kept."""
    return path.with_name(f"{path.name}.damaged")


def previous(path: Path) -> Path:
    """Where ``succeed`` keeps what was in the file before."""
    return path.with_name(f"{path.name}.previous")


def write(path: Path, values: Any, *, lasting: bool = True) -> None:
    """Replace the file. Raises OSError."""
    folders.write_text(path, json.dumps(values, indent=1), lasting=lasting)


def succeed(path: Path, values: Any) -> None:
    """Replace the file, and keep what was in it, unless that was no JSON or there is no room for it. Raises
    OSError."""
    before = read(path, dict[str, Any])
    if before is not None and not isinstance(before, Unfit):
        with contextlib.suppress(OSError):
            write(previous(path), before)
    write(path, values)
