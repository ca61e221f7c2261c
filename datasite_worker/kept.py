"""Whether a datasite still has what it had: its identity and its database. A datasite that lost either looks like a new
one, would start empty, and nobody would notice the loss.

So a datasite leaves a marker in its folder when it first came up. Folders of earlier releases have none; there the
login that was shown to the operator says the same. Repairs nothing, and removes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

from datasite_worker import troubles
from fleet_common import databases, folders
from fleet_common.failures import ConfigurationFailure
from fleet_common.layout import WorkerFolder
from fleet_common.moments import now_iso

CHECK_SECONDS = 0.05
"""For the look through the database at each start: enough for some 20 MB, and nobody waits for it."""
_WAYS_OUT = "mount the disk that holds it, or restore it from a backup; to begin with an empty datasite instead, use "


def mark(folder: WorkerFolder, uid: str) -> None:
    """The datasite has come up here. Raises OSError."""
    if not folder.marker.exists():
        folders.write_text(folder.marker, json.dumps({"version": 1, "uid": uid, "made_at": now_iso()}))


def lived(folder: WorkerFolder) -> bool:
    """Whether a datasite has come up in this folder before."""
    return folder.marker.exists() or folder.admin.exists()


def check(folder: WorkerFolder, *, existed: bool) -> None:
    """Raises ConfigurationFailure when a datasite that existed has no identity. ``existed``: the supervisor knows that
    it did, whatever is in the folder."""
    if folder.identity.exists():
        return
    if folder.pysyft_databases() or lived(folder):
        raise _missing(f"its {folder.identity}")
    if existed:
        raise _missing(f"its state in {folder.root}", "missing or empty")


def check_database(folder: WorkerFolder, uid: str, *, existed: bool) -> None:
    """Raises ConfigurationFailure when the database of ``uid`` is damaged, or was there and is not any more."""
    path, before = folder.pysyft_database(uid), existed or lived(folder)
    _check_marker(folder, uid)
    if not path.exists():
        if before or folder.pysyft_databases():
            raise _missing(f"its database {path}")
        return
    if how := databases.damage(path, CHECK_SECONDS):
        raise troubles.damaged(path, how)
    if before and databases.is_empty(path):
        raise _missing(f"its database {path}", "empty")


def _check_marker(folder: WorkerFolder, uid: str) -> None:
    marked = _marked(folder.marker)
    if marked and marked != uid:
        raise ConfigurationFailure(
            f"{folder.identity} is the identity of another datasite: {folder.marker} names {marked}, not {uid}; "
            f"restore the right one from a backup, or use reset: true (loses all data)"
        )


def _marked(path: Path) -> str:
    """The uid in the marker; empty where there is none that can be read."""
    try:
        return str(json.loads(folders.read_text(path))["uid"])
    except folders.Unsafe as error:
        raise ConfigurationFailure(str(error)) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _missing(what: str, how: str = "missing") -> ConfigurationFailure:
    return ConfigurationFailure(f"{what} is {how}, and this datasite has existed before; {_WAYS_OUT}reset: true")
